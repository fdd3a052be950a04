"""From a handful of photographs of a subject to a model that knows it: DreamBooth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tastemaker.errors import TastemakerError
from tastemaker.images import decode_photograph, pixel_hash
from tastemaker.photographs import photograph_files
from tastemaker.records import Stage, finished_key
from tastemaker.training_sections import PersonalizeConfig


def personalize(config: PersonalizeConfig, output: Path) -> Path:
    """Train a model on photographs of one subject, or go on from the newest checkpoint.

    The loss is the model's own denoising loss on the photographs under `config.instance_prompt`,
    and with prior preservation on images of the class under theirs. Photographs that cannot be
    read, and repetitions of a picture, are named and left out.

    Args:
        config: Model, photographs, what the subject is called, what trains, and the optimizer.
        output: Folder of the trained model: a LoRA or a learned word (`learned_embeds.safetensors`)
            with `model.json`, or a pipeline; beside it `metrics.jsonl` and `checkpoints/`.

    Returns:
        `output`, usable as `model` anywhere.

    Raises:
        TastemakerError: No photograph that can be read, no such model, an unfinished pool of class
            images or one of another size, a folder of another configuration, a loss or gradient
            that is not finite, a full disk.

    References:
        Ruiz et al. (DreamBooth), arXiv 2208.12242: loss and prior preservation.
        Gal et al. (textual inversion), arXiv 2208.01618: `token`.
    """
    photographs = _usable(config.photographs)
    inputs: dict[str, Any] = {
        "photographs": [[file.name, file.stat().st_size] for file in photographs]
    }
    if config.prior is not None:
        inputs["prior"] = finished_key(Path(config.prior.pool))

    from tastemaker.backbones import model_identity

    inputs |= model_identity(config.model)
    settings = config.model_dump(mode="json", exclude={"device"})
    stage = Stage(output, "personalize", {**settings, "inputs": inputs})
    if stage.begin().finished:
        return output

    from tastemaker.train.personal_loop import PersonalTrainer

    PersonalTrainer(config, photographs, output).run()
    stage.finish(steps=config.steps, photographs=len(photographs))
    return output


def _usable(folder: str) -> list[Path]:
    """The photographs of a folder that can be read, each picture once; says what is left out."""
    seen: dict[str, Path] = {}
    left_out: list[str] = []
    for file in photograph_files(folder):
        try:
            picture = pixel_hash(decode_photograph(file.read_bytes()))
        except (OSError, TastemakerError) as error:
            left_out.append(f"{file.name}: {error}")
            continue
        if picture in seen:
            left_out.append(f"{file.name}: the same picture as {seen[picture].name}")
            continue
        seen[picture] = file
    if not seen:
        raise TastemakerError(
            f"none of the {len(left_out)} photographs in {folder!r} can be used, the first"
            f" {left_out[0]}; mend them or add others."
        )
    for line in left_out:
        print(f"left out: {line}")
    if len(seen) == 1:
        print(
            "warning: one photograph shows one view of the subject, and the model may learn its"
            " background along; 3 to 6 from different sides, in different places, serve better."
        )
    return list(seen.values())
