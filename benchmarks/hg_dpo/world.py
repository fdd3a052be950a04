"""What all rows of the comparison share: pools of images, and pairs of every kind."""

from pathlib import Path

from portraits import Portrait, Portraits, write_folder
from rows import Size

from tastemaker.config.datasets import ImagesConfig, JoinConfig
from tastemaker.config.sections import GenerateConfig, ReconstructConfig, ScoreConfig
from tastemaker.datasets.importing import import_images
from tastemaker.evaluation.score import score
from tastemaker.pairing.join import join, mix
from tastemaker.sampling.generate import generate, reconstruct
from tastemaker.storage.files import write_text
from tastemaker.storage.locks import exclusive

WEIGHTS = Path(__file__).parent / "weights"
MODEL = str(WEIGHTS / "pipeline")
SAMPLING = {
    "batch_size": 60,
    "num_inference_steps": 12,
    "scheduler": "DDIMScheduler",
    "device": "cpu",
}
LEVELS = (400, 500, 600, 700)
DRAWS = 2
"""Images per validation prompt."""


class World:
    """Pools and pairs, each made when it is first asked for.

    Args:
        root: Folder of the runs.
        data: Folder of the portraits.
        size: How many of each.
    """

    def __init__(self, root: Path, data: Path, size: Size) -> None:
        self.root, self.size, self.portraits = root, size, Portraits(data)
        validation = self.portraits.prompts("validation")
        unseen = [each for each in self.portraits.held_out if each.caption not in set(validation)]
        self.test = unseen[: size.portraits]
        self.validation = root / "validation.txt"
        write_text(self.validation, "".join(f"{line}\n" for line in validation[: size.prompts]))

    def others(self) -> list[Portrait | None]:
        """For each held-out portrait a training one of its caption, none twice, where there is one.

        Of the half of the training portraits that the judge has not seen.
        """
        left = self.portraits.part("preference")
        found: list[Portrait | None] = []
        for portrait in self.test:
            same = (place for place, each in enumerate(left) if each.caption == portrait.caption)
            place = next(same, None)
            found.append(None if place is None else left.pop(place))
        return found

    def real(self) -> Path:
        """The photographs that rows train on."""
        with exclusive(self.root / "real", beside=True, waits=True):
            return self._scored(self._imported(self.portraits.teaching(), "real", self.size.items))

    def held_out(self) -> Path:
        """The photographs that models are measured against."""
        with exclusive(self.root / "held_out", beside=True, waits=True):
            return self._imported(self.test, "held_out", len(self.test))

    def candidates(self, scale: float, number: int | None = None) -> Path:
        """The base's images for the training photographs, drawn at a guidance scale."""
        number = number or self.size.candidates
        options = {"items": str(self.real()), "num_candidates": number}
        config = GenerateConfig(model=MODEL, guidance_scale=scale, **SAMPLING, **options)
        place = self.root / "candidates" / f"{scale}-{number}"
        with exclusive(place, beside=True, waits=True):
            return self._scored(generate(config, place))

    def drawn(self, model: Path, part: str, scale: float, adapter: dict, place: Path) -> Path:
        """A model's images: of validation prompts, or one for each held-out photograph's caption.

        The captions of the latter so have their natural frequencies.
        """
        what = (
            {"prompts": str(self.validation), "num_candidates": DRAWS}
            if part == "validation"
            else {"items": str(self.held_out()), "num_candidates": 1, "seed": 1}
        )
        config = GenerateConfig(
            model=str(model),
            guidance_scale=scale,
            adapter=adapter,
            keep_latents=False,
            **SAMPLING,
            **what,
        )
        return generate(config, place)

    def pairs(self, kind: str, scale: float) -> Path:
        """A set of pairs.

        Args:
            kind: `easy` (best over worst candidate), `easy 2` (of two), `normal` (reconstructions
                over easy's chosen), `hard` (photographs over normal's chosen), `best` (over
                easy's), `naive` (over worst candidates), `normal first` and `hard second` (the
                curriculum without easy) or `mixed` (easy, normal and hard).
            scale: Guidance of candidates and reconstructions.

        Returns:
            Its folder.
        """
        place = self.root / "pairs" / f"{kind.replace(' ', '-')}-{scale}"
        if not (place / "done.json").is_file():
            with exclusive(place, beside=True, waits=True):
                self._paired(kind, scale, place)
        return place

    def _paired(self, kind: str, scale: float, place: Path) -> Path:
        if kind == "mixed":
            return mix([self.pairs(each, scale) for each in ("easy", "normal", "hard")], place)
        if kind in ("easy", "easy 2"):
            chosen = self.candidates(scale, 2 if kind == "easy 2" else None)
        elif kind.startswith("normal"):
            chosen = self._reconstructions(scale)
        else:
            chosen = self.real()
        before = {
            "normal": "easy",
            "hard": "normal",
            "hard second": "normal first",
            "best": "easy",
        }
        rejected = chosen if kind.startswith("easy") else self.candidates(scale)
        if kind in before:
            rejected = self.pairs(before[kind], scale)
        keep_if = 0 if kind.startswith("normal") else None
        rule = {"scorer": "preference", "keep_if": keep_if}
        return join(JoinConfig.model_validate({"rule": rule}), chosen, rejected, place)

    def _reconstructions(self, scale: float) -> Path:
        config = ReconstructConfig(model=MODEL, timesteps=LEVELS, guidance_scale=scale, **SAMPLING)
        place = self.root / "reconstructions" / f"{scale}"
        with exclusive(place, beside=True, waits=True):
            return self._scored(reconstruct(config, self.real(), place))

    def _imported(self, part: list[Portrait], name: str, number: int) -> Path:
        source = self.root / "portraits" / name
        if not (source / "metadata.jsonl").is_file():
            write_folder(part, source)
        section = {"images": str(source), "resolution": 64, "limit": number}
        return import_images(ImagesConfig.model_validate(section), self.root / name)

    def _scored(self, pool: Path) -> Path:
        scorer = {"name": "clip", "label": "preference", "model": str(WEIGHTS / "preference")}
        return score(ScoreConfig.model_validate({"scorers": [scorer], "device": "cpu"}), pool)
