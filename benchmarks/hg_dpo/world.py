"""What all rows of the comparison share: pools of images, pairs of every kind, how they are judged.

The pools are those of the recipe `hg_dpo`, made by its own functions from one configuration.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portraits import Portraits

from tastemaker.config.datasets import ImagesConfig, JoinConfig, PairConfig
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.loading import parse
from tastemaker.config.runs import RealRun
from tastemaker.datasets.importing import import_images
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.pairing.join import join, mix
from tastemaker.pairing.pair import pair
from tastemaker.recipes.real_images import Images
from tastemaker.scorers.clip import ClipScorer
from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir

WEIGHTS = Path(__file__).parent / "weights"
MODEL = str(WEIGHTS / "pipeline")
SCORERS = ("preference", "judge")
SAMPLING = {
    "batch_size": 60,
    "num_inference_steps": 12,
    "guidance_scale": 2.5,
    "scheduler": "DDIMScheduler",
    "device": "cpu",
}
ITEMS, CANDIDATES = 800, 8
SEARCHED = 400
LEVELS = (400, 500, 600, 700)
# Curriculum-DPO's tau: a tenth of the candidates' usual distance in score, as in its paper.
GAP = 0.3

Row = dict[str, Any]


def clip(name: str) -> dict[str, str]:
    """One of the two scorers, as a section names it."""
    return {"name": "clip", "label": name, "model": str(WEIGHTS / name)}


class World:
    """Pools and pairs, each made when it is first asked for, and the measures of a model.

    Args:
        root: Folder of all runs.
        data: Folder of the portraits.
    """

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.portraits = root, root / "portraits"
        if not self.portraits.is_dir():
            _write(Portraits(data), self.portraits)
        self.images = Images(self._config(CANDIDATES), RunDir(root / "pools"))
        self.judge = ClipScorer(model=str(WEIGHTS / "judge"))

    def _config(self, candidates: int) -> RealRun:
        """The configuration of the pools: `train` of its stage is not used here."""
        folder = str(self.portraits / "train")
        data = {
            "recipe": "hg_dpo",
            "name": "pools",
            "output": str(self.root),
            "model": MODEL,
            "real": {"images": folder, "resolution": 64, "limit": ITEMS},
            "held_out": {"images": str(self.portraits / "held_out"), "resolution": 64},
            "candidates": {**SAMPLING, "num_candidates": candidates},
            "score": {"scorers": [clip("preference")]},
            "scorer": "preference",
            "normal": {
                "chosen": "reconstruction",
                "reconstruct": {"timesteps": LEVELS},
                "rejected": "candidates",
                "train": {"model": MODEL},
            },
            "evaluate": self.judging("validation"),
        }
        return parse(RealRun, data, "benchmarks/hg_dpo")

    def judging(self, part: str) -> dict[str, Any]:
        """How images are drawn and judged: in the search ("validation") or at its end ("test")."""
        test = part == "test"
        return {
            **SAMPLING,
            "base": MODEL,
            "seed": int(test),
            "prompts": str(self.portraits / "prompts" / f"{'held_out' if test else part}.txt"),
            "num_images": 3,
            "scorers": [clip(name) for name in SCORERS] + [{"name": "sharpness"}],
            # The search never sees the judge's features, nor the held-out photographs.
            "features": [str(WEIGHTS / ("judge" if test else "preference"))],
        }

    def pairs(self, kind: str) -> Path:
        """A set of pairs.

        Args:
            kind: `easy`, `easy 2` (of two candidates), `normal`, `hard`, `naive` (real over
                generated), `normal first` and `hard second` (the curriculum without easy),
                `hard after easy`, `normal at 800` and `hard at 800` (reconstructions from that
                timestep alone), `mixed` or `gaps` (every two candidates, Curriculum-DPO's).

        Returns:
            Its folder.
        """
        place = self.root / "pairs" / kind.replace(" ", "-")
        if (place / "done.json").is_file():
            return place
        images = self.images
        if kind == "mixed":
            return mix([self.pairs(each) for each in ("easy", "normal", "hard")], place)
        if kind == "gaps":
            rule = {"name": "threshold", "scorer": "preference", "gap": GAP, "max_pairs": 8}
            return pair(PairConfig.model_validate({"rule": rule}), images.candidates(), place)
        if kind == "easy 2":
            two = Images(self._config(2), RunDir(self.root / "pools-2")).candidates()
            return _joined(two, two, place)
        if kind == "easy":
            return _joined(images.candidates(), images.candidates(), place)
        if kind == "normal at 800":
            return _joined(self._reconstructed(800), self.pairs("easy"), place, keep_if=0)
        if kind in ("normal", "normal first"):
            stage = images.config.normal
            assert stage is not None
            rejected = self.pairs("easy") if kind == "normal" else images.candidates()
            return _joined(images.between("normal", stage), rejected, place, keep_if=0)
        before = {
            "hard": "normal",
            "hard second": "normal first",
            "hard after easy": "easy",
            "hard at 800": "normal at 800",
        }
        rejected = self.pairs(before[kind]) if kind in before else images.candidates()
        return _joined(images.real(), rejected, place)

    def _reconstructed(self, timestep: int) -> Path:
        """Reconstructions from one timestep in place of the four."""
        stage = self.images.config.normal
        assert stage is not None
        assert stage.reconstruct is not None
        alone = stage.reconstruct.model_copy(update={"timesteps": (timestep,)})
        stage = stage.model_copy(update={"reconstruct": alone})
        return self.images.between(f"normal-{timestep}", stage)

    def measured(self, name: str, policy: Path, part: str, adapter: Mapping[str, Any]) -> Row:
        """Judge a model; read back where it was judged before.

        Args:
            name: Of its folder among the judged.
            policy: The model.
            part: "validation" or "test".
            adapter: Where its LoRA acts.

        Returns:
            `model` and `base`: what the report holds of each, with `quality`.
        """
        judged, file = self.root / part, self.root / part / f"{name}.json"
        section = {**self.judging(part), "adapters": {name: adapter}}
        real = self.images.held_out() if part == "test" else self.searched()
        config = EvaluateConfig.model_validate({**section, "real": str(real)})
        evaluate(config, {name: policy}, judged, file)
        models = json.loads(file.read_text(encoding="utf-8"))["models"]
        for model in (name, "base"):
            models[model]["quality"] = self.quality(Pool(judged / model))
        return {"model": models[name], "base": models["base"]}

    def searched(self) -> Path:
        """Training portraits that the search measures its distance to."""
        section = {"images": str(self.portraits / "train"), "resolution": 64, "limit": SEARCHED}
        return import_images(ImagesConfig.model_validate(section), self.root / "searched")

    def quality(self, pool: Pool) -> float:
        """The judge's mean score of the pictures under "a portrait of a man" (or woman) alone.

        What is left of preference when only the gender is asked for. CLIP-IQA's pairs of words
        mean nothing to a CLIP that has read the captions of portraits alone.
        """
        rows = pool.candidates(("candidate_id", "prompt", "image")).to_pylist()
        images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
        scores = self.judge(images, [row["prompt"].partition(",")[0] for row in rows])
        return float(scores.mean())


def distance(found: Row, of: str = "model") -> float:
    """Frechet distance of a measured row, times 1000."""
    return 1000 * float(next(iter(found[of]["frechet"].values()))["value"])


def label(setting: Mapping[str, Any]) -> str:
    """A setting in a word: `1e-03-b2000`, or `1e-03-n60` where steps are chosen."""
    rate = f"{setting['learning_rate']:.0e}"
    beta = setting.get("loss", {}).get("beta")
    return f"{rate}-n{setting['max_steps']}" if beta is None else f"{rate}-b{beta}"


def _joined(chosen: Path, rejected: Path, place: Path, keep_if: float | None = None) -> Path:
    rule = {"scorer": "preference", "keep_if": keep_if}
    return join(JoinConfig.model_validate({"rule": rule}), chosen, rejected, place)


def _write(portraits: Portraits, folder: Path) -> None:
    """The folders of pictures, and the captions of held-out ones that the search does not ask."""
    portraits.write(folder)
    searched = set(portraits.prompts("validation"))
    captions = dict.fromkeys(each.caption for each in portraits.held_out)
    lines = [caption for caption in captions if caption not in searched]
    text = "".join(f"{line}\n" for line in lines)
    (folder / "prompts" / "held_out.txt").write_text(text, encoding="utf-8")
