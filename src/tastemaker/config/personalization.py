"""The section of `personalize`: photographs of a subject, what it is called, and what trains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tastemaker.config.sections import Section
from tastemaker.config.training import (
    Cache,
    OptimisationConfig,
    SaveSteps,
    Steps,
    TextLoraConfig,
)
from tastemaker.core.errors import TastemakerError
from tastemaker.core.templates import as_template, filled, takes_an
from tastemaker.core.values import Names

TOKEN = "<[a-z0-9_-]+>"
"""A new word: in any other form, tokenizers would change it or find it inside other words."""

LEARNING_RATES = {"full": 2e-6, "svdiff": 1e-3}
"""By method, where no rate is given; the others take the section's default."""

WHOLE = tuple(LEARNING_RATES)
"""Methods that change the weights themselves: they load in fp32, and a whole pipeline is saved."""

# Defaults of these fields depend on what is trained, and how: each section states its own.


class TokenConfig(Section):
    """Textual inversion: the identifier is a new word of the text encoders."""

    vectors: int = Field(1, ge=1, le=32, description="Embeddings that the word becomes.")
    initializer: str | None = Field(
        None, pattern=r"\S", description="Known words to start from; default: the class's name."
    )
    learning_rate: float = Field(5e-4, gt=0, description="Peak learning rate of the embeddings.")


def with_class_images(data: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    """Fill in a run's `class_images` as diffusers' scripts do: 100 of "a photo of a <class>".

    Args:
        data: The run, as it was read; options that it names itself win.
        class_name: What the subject is one of.

    Returns:
        A copy, the same without `class_images`.

    Example:
        >>> with_class_images({"class_images": {"num_candidates": 9}}, "owl")["class_images"]
        {'prompts': {'name': 'texts', 'prompts': ['a photo of an owl']}, 'num_candidates': 9}
    """
    images = data.get("class_images")
    if not isinstance(images, dict):
        return dict(data)
    prompt = f"a photo of a{'n' * takes_an(class_name)} {class_name}"
    prompts = {"name": "texts", "prompts": [prompt]}
    return {**data, "class_images": {"prompts": prompts, "num_candidates": 100, **images}}


class PriorConfig(Section):
    """Prior preservation: images of the class that the model drew before it was personalised."""

    pool: Annotated[str, Names("pool")] = Field(
        description="Folder of class images, from `generate`; turns it on."
    )
    weight: float = Field(1.0, gt=0, description="Weight of their loss.")


class PersonalizeConfig(OptimisationConfig):
    """Photographs of one subject to a model that knows it."""

    photographs: Annotated[str, Names("photographs")] = Field(
        description="Folder of photographs of the subject, 3 to 6 are usual; a file; or a named"
        " subject."
    )
    min_photographs: int = Field(2, ge=1, description="Fewest photographs, copies not counted.")
    identifier: str = Field(
        "sks", pattern=r"^\S+$", description="Rare word that comes to mean the subject."
    )
    class_name: str = Field(pattern=r"\S", description="What the subject is one of, such as dog.")
    prompt: str = Field(
        "a photo of a {}",
        description="Of the photographs, with a slot for `identifier class_name`.",
    )
    resolution: int | None = Field(
        None,
        ge=8,
        multiple_of=8,
        description="Crop to a square of so many pixels; default: the model's own.",
    )
    prior: PriorConfig | None = Field(None, description="Prior preservation; off: null.")
    method: Literal["lora", "full", "svdiff", "frozen"] = Field(
        "lora",
        description="The denoiser's adapters train, or all its weights, or their singular values,"
        " or nothing of it.",
    )
    text_lora: TextLoraConfig | None = Field(
        None, description="Adapters on the text encoders, trained along; off: null."
    )
    train_text_encoder: bool = Field(
        False, description="With method=full, train all weights of the text encoders, too."
    )
    token: TokenConfig | None = Field(
        None, description="Make the identifier, written <toy>, a word of its own; off: null."
    )
    cache: Cache = "disk"
    max_steps: Steps = 500
    batch_size: int = Field(
        1,
        ge=1,
        description="Photographs, and as many class images, in one forward pass, a process.",
    )
    learning_rate: float = Field(
        1e-4,
        gt=0,
        description="Peak learning rate of AdamW; method=full: 2e-06, svdiff: 0.001.",
    )
    save_steps: SaveSteps = 100

    @property
    def subject(self) -> str:
        """The phrase that names the subject in prompts: identifier and class, "sks dog"."""
        return f"{self.identifier} {self.class_name.strip()}"

    @property
    def instance_prompt(self) -> str:
        """The prompt of the photographs."""
        return filled(self.prompt, self.subject)

    @property
    def trains_text(self) -> bool:
        """True if text encoders train: by adapters, all weights or a new word."""
        return self.train_text_encoder or self.text_lora is not None or self.token is not None

    @model_validator(mode="before")
    @classmethod
    def _rate_of_all_weights(cls, data: Any) -> Any:
        """All weights, or their singular values, have a rate of their own unless one is given."""
        if isinstance(data, dict) and (rate := LEARNING_RATES.get(str(data.get("method")))):
            return {"learning_rate": rate, **data}
        return data

    @model_validator(mode="after")
    def _subject_fits(self) -> PersonalizeConfig:
        try:
            as_template(self.prompt, "prompt")
            filled(self.prompt, self.subject)
        except TastemakerError as error:
            raise ValueError(str(error)) from None
        if self.token is not None and not re.fullmatch(TOKEN, self.identifier):
            raise ValueError(
                f"token: the identifier {self.identifier!r} becomes a word of its own; write it in"
                " small letters and angle brackets: identifier='<toy>'"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> PersonalizeConfig:
        adapts = self.text_lora is not None or self.token is not None
        if self.method == "frozen" and not adapts:
            raise ValueError("method=frozen leaves nothing to train; give text_lora or token")
        if self.method in WHOLE and adapts:
            raise ValueError(
                "text_lora and token go with method=lora or frozen; with method=full set"
                " train_text_encoder=true"
            )
        if self.method != "full" and self.train_text_encoder:
            raise ValueError("train_text_encoder goes with method=full; give text_lora instead")
        return self
