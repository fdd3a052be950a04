"""DreamBooth: train a model on a few photographs of a subject."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tastemaker.config.commands import takes_options
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.subjects import captioned, photograph_files, photographs
from tastemaker.preflight import check
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.images import pixel_hash
from tastemaker.training.checks import check_training


@takes_options(PersonalizeConfig)
def personalize(config: PersonalizeConfig, output: Path) -> Path:
    """Train a model on photographs of one subject, or go on from the newest checkpoint.

    The loss is the model's own denoising loss on the photographs under `config.instance_prompt`,
    or under its own caption where `NAME.txt` lies beside `NAME.jpg`, and with prior preservation on
    images of the class under theirs. Copies of a picture are named and left out.

    Args:
        config: Model, photographs, what the subject is called, what trains, and the optimizer.
        output: Folder of the trained model: a LoRA or a learned word (`learned_embeds.safetensors`)
            with `model.json`, or a pipeline; beside it `metrics.jsonl` and `checkpoints/`.

    Returns:
        `output`, usable as `model` anywhere.

    Raises:
        TastemakerError: Fewer photographs than `min_photographs`, one that cannot be read, no such
            model, an unfinished pool of class images or one of another size, a folder of another
            configuration, a loss or gradient that is not finite, a full disk.

    References:
        Ruiz et al. (DreamBooth), arXiv 2208.12242: loss and prior preservation.
        Gal et al. (textual inversion), arXiv 2208.01618: `token`.
        Han et al. (SVDiff), arXiv 2303.11305: `method=svdiff`.
    """
    check(config)
    files = _usable(config)
    inputs: dict[str, Any] = {"photographs": {file.name: file_content(file) for file in files}}
    prompts = {file.name: captioned(file, "", config.subject) for file in files}
    if any(prompts.values()):
        inputs["captions"] = prompts
    if config.prior is not None:
        inputs["prior"] = finished_key(Path(config.prior.pool))

    from tastemaker.backbones import model_identity

    inputs["model"] = model_identity(config.model)
    settings = config.identity()
    artifact = Artifact(output, "personalize", {**settings, "inputs": inputs}, config.rising)
    with artifact.claimed(partial(check_training, config)) as unfinished:
        if unfinished:
            from tastemaker.training.personalization.trainer import PersonalTrainer

            PersonalTrainer(config, files, output).run()
            artifact.finish(steps=config.max_steps, photographs=len(files))
    return output


def _usable(config: PersonalizeConfig) -> list[Path]:
    """The photographs of a folder, each picture once; names copies, refuses too few."""
    files = photograph_files(config.photographs)
    seen: dict[str, Path] = {}
    for file, picture in zip(files, photographs(config.photographs), strict=True):
        first = seen.setdefault(pixel_hash(picture), file)
        if first is not file:
            print(f"left out: {file.name}: the same picture as {first.name}")
    if len(seen) < config.min_photographs:
        raise TastemakerError(
            f"{config.photographs!r} holds {len(seen)} photograph{'s' * (len(seen) != 1)}, fewer"
            f" than min_photographs={config.min_photographs}: of one view the background is learned"
            " along. Add some from other sides, in other places, or set min_photographs=1."
        )
    return list(seen.values())
