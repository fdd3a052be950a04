"""Warnings of trainings that are known to go wrong, written by the main process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import is_main_process

if TYPE_CHECKING:
    from tastemaker.backbones import Backbone

Sides = tuple[int, int]
"""Height and width in pixels."""

ALIKE = 1.25
"""Sizes are alike up to this ratio of their areas: SDXL's own buckets differ by less."""


def warn(warning: str | None) -> None:
    """Write a warning, if there is one, above a progress bar."""
    if warning and is_main_process():
        tqdm.write(f"warning: {warning}")


def size_warning(trained: Sequence[Sides], drawn: Sides, drawer: str) -> str | None:
    """Compare the sizes that a model is trained on with the size that it draws.

    Args:
        trained: Sizes of the training's images, or of their buckets.
        drawn: Size of the images drawn.
        drawer: Who draws that size, for the sentence.

    Returns:
        A sentence with the remedy, where the mean area of `trained` is more than `ALIKE` times
        that of `drawn`, or less than its inverse; else None.

    Example:
        >>> size_warning([(512, 768), (768, 512)], (640, 640), "evaluate")
        >>> print(size_warning([(256, 256)], (512, 512), "evaluate"))  # doctest: +ELLIPSIS
        training images of 256 x 256 pixels, while evaluate draws 512 x 512: ...
    """
    area = sum(height * width for height, width in trained) / len(trained)
    if 1 / ALIKE <= area / (drawn[0] * drawn[1]) <= ALIKE:
        return None
    sizes = ", ".join("{} x {}".format(*each) for each in trained)
    return (
        f"training images of {sizes} pixels, while {drawer} draws {drawn[0]} x {drawn[1]}: a model"
        " is best at the sizes that it was trained on. Give both the same (height and width where"
        " images are drawn, resolution or buckets where they are imported)."
    )


def warn_of_sizes(backbone: Backbone, shapes: Sequence[Sequence[int]]) -> None:
    """Warn where a training's images are unlike the model's own size, at which it draws by default.

    Args:
        backbone: The model.
        shapes: Of the latents of each bucket, [channels, h, w].
    """
    try:
        own = backbone.sides
    except TastemakerError:  # without a size of its own
        return
    factor = backbone.pipeline.vae_scale_factor
    trained = [(height * factor, width * factor) for _, height, width in shapes]
    warn(size_warning(trained, own, f"{backbone.name} by default"))
