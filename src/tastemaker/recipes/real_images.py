"""Pools of a run on real photographs, each made when it is first asked for, and a stage's pairs."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from tastemaker.config.datasets import JoinConfig
from tastemaker.config.runs import RealRun, StageConfig
from tastemaker.config.sections import GenerateConfig
from tastemaker.datasets.importing import import_images
from tastemaker.evaluation.score import score
from tastemaker.pairing.join import join
from tastemaker.reporting.pool.shared import shared_pictures
from tastemaker.sampling.blend import blend
from tastemaker.sampling.generate import generate, reconstruct
from tastemaker.storage.run_dir import RunDir


class Images:
    """The pools of a run: real images, candidates for them, and what lies in between.

    Args:
        config: The run.
        run: Its folder.
    """

    def __init__(self, config: RealRun, run: RunDir) -> None:
        self.config = config
        self.run = run

    def real(self) -> Path:
        """Real images with captions, scored."""
        return score(self.config.score, import_images(self.config.real, self.run.real))

    def held_out(self) -> Path | None:
        """Real images to measure a distance to, where the run names some.

        Those that are trained on are warned of: they are nearer than others.
        """
        if self.config.held_out is None:
            return None
        held_out = import_images(self.config.held_out, self.run.held_out)
        twice = shared_pictures(held_out, import_images(self.config.real, self.run.real))
        if twice:
            name, there = next(iter(twice.items()))
            tqdm.write(
                f"warning: {len(twice)} of the held-out photographs are trained on (the first is"
                f" {name}, there {there}), so that a distance to them says little of new ones; name"
                " others in held_out.images."
            )
        return held_out

    def candidates(self) -> Path:
        """The base model's candidates for every real image, scored."""
        options = self.config.candidates.model_dump()
        config = GenerateConfig.model_validate({**options, "items": str(self.real())})
        return score(self.config.score, generate(config, self.run.candidates))

    def between(self, name: str, stage: StageConfig) -> Path:
        """A stage's reconstructions or blends, scored."""
        place = self.run.source(name)
        if stage.chosen == "blend":
            assert stage.blend is not None
            made = blend(stage.blend, self.real(), self.candidates(), place)
        else:
            assert stage.reconstruct is not None
            made = reconstruct(stage.reconstruct, self.real(), place)
        return score(self.config.score, made)


def stage_pairs(images: Images, name: str, stage: StageConfig) -> Path:
    """Pair what a stage chooses with what it rejects, image by image.

    Args:
        images: The run's pools.
        name: The stage.
        stage: What wins over what.

    Returns:
        Folder of the pairs.

    Raises:
        TastemakerError: No pair is left.
    """
    if stage.chosen == "candidates":
        chosen = images.candidates()
    elif stage.chosen == "real":
        chosen = images.real()
    else:
        chosen = images.between(name, stage)
    if stage.rejected == "candidates":
        rejected = images.candidates()
    else:
        rejected = images.run.stage_pairs(stage.rejected)
    rule = {"scorer": images.config.scorer, "keep_if": stage.keep_if}
    return join(
        JoinConfig.model_validate({"rule": rule}), chosen, rejected, images.run.stage_pairs(name)
    )
