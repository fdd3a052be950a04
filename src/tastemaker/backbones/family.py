"""A model family by its configuration files: its parts and the options that are understood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from tastemaker.backbones.tokens import TEXT

Configs = Mapping[str, Mapping[str, Any]]
"""Content of config.json by part of a pipeline."""


class Family(ABC):
    """Parts of one pipeline class, and what their files may say."""

    title: ClassVar[str]
    """Name in messages; the one in `SIGNS` (lora/dialects.py) if the family is there."""

    classes: ClassVar[Mapping[str, str]]
    """Class of each network by its name in the pipeline."""

    optional: ClassVar[tuple[str, ...]] = ()
    """Networks of `classes` that the pipeline samples without."""

    left_out: ClassVar[tuple[str, ...]] = ()
    """Parts of the pipeline that are not loaded."""

    part: ClassVar[str]
    """The pipeline's name of the denoiser."""

    text_parts: ClassVar[tuple[str, ...]] = (TEXT,)
    """The pipeline's names of the text encoders that a LoRA may train on."""

    vae_options: ClassVar[tuple[str, ...]] = ("scaling_factor", "shift_factor")
    """Numbers that vae/config.json must give: latents are `(z - shift) * scale`."""

    samplers: ClassVar[tuple[str, ...]]
    """Scheduler classes that sample from the family's noise process."""

    @classmethod
    @abstractmethod
    def check_options(cls, model: str, configs: Configs) -> None:
        """Refuse options of the networks that would train or sample wrongly.

        Args:
            model: For messages.
            configs: Of the networks that the model has, all of a class in `classes`.

        Raises:
            TastemakerError: The channels of denoiser and VAE differ, or an option is not
                understood.
        """

    @classmethod
    def distilled(cls, config: Mapping[str, Any]) -> str | None:
        """Return the option by which a denoiser is known to be distilled to a few steps, if any."""
        return None
