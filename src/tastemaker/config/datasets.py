"""Typed sections of the data commands: import, filters, pairs, export, show."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tastemaker.config.choices import CaptionedSource, Choice, Comparisons, JoinRule, Layout, Rule
from tastemaker.config.sections import Section
from tastemaker.core.values import Names

Side = Annotated[int, Field(ge=8)]
Bucket = tuple[Side, Side]

MAX_PIXELS = 89_478_485
"""Pixels of an image: a quarter of a gigabyte once decoded, Pillow's own limit for a warning."""

ONE_SHAPE = "give one of `resolution` (a square) and `buckets` ([[width, height], ...])"

HUMAN = "human"
"""Column of the verdicts: 1 for the image preferred, 0 for the other, 0.5 for both on a tie."""

TIE = "tie"
"""Column that labels ties: 1 where people found the images equal, 0 elsewhere."""


class SplitConfig(Section):
    """Split of the data by prompt: no prompt is in two parts."""

    of: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.9, 0.1), min_length=2, description="Shares of the parts."
    )
    take: int = Field(0, ge=0, description="Index of the part to take.")
    seed: int = Field(0, ge=0, description="Equal seeds give equal parts.")

    @model_validator(mode="after")
    def _has_part(self) -> SplitConfig:
        if self.take >= len(self.of):
            raise ValueError(f"take={self.take} of {len(self.of)} parts: they count from 0")
        return self


class PromptFilters(Section):
    """Conditions on a prompt."""

    min_words: int | None = Field(None, ge=1, description="Fewest words of a prompt.")
    max_words: int | None = Field(None, ge=1, description="Most words of a prompt.")
    without: Annotated[str | tuple[str, ...] | None, Names("words")] = Field(
        None,
        description="Words or phrases that no prompt may contain: a list, or a file, one per line.",
    )
    having: Annotated[str | tuple[str, ...] | None, Names("words")] = Field(
        None, description="Words or phrases of which every prompt contains one: a list, or a file."
    )


class ImageFilters(PromptFilters):
    """Conditions on prompt and images, before anything is cropped."""

    min_side: int | None = Field(
        None, ge=1, description="Fewest pixels of an image's shorter side."
    )
    max_aspect: float | None = Field(
        None, ge=1, description="Largest ratio of an image's longer to its shorter side."
    )


class PairFilters(PromptFilters):
    """Conditions on a pair, whatever rule made it."""

    min_score: Annotated[dict[str, float], Names("column")] = Field(
        {}, description="Scorer name to the least score of the chosen image."
    )
    min_gap: Annotated[dict[str, float], Names("column")] = Field(
        {}, description="Scorer name to the least lead of the chosen image over the rejected."
    )


class SourceConfig(Section):
    """Options shared by `import comparisons=...` and `import images=...`."""

    kind: ClassVar[str]

    resolution: int | None = Field(
        None, ge=8, description="Crop to a square and scale to this many pixels."
    )
    buckets: tuple[Bucket, ...] = Field(
        (),
        description="In place of resolution, [[width, height], ...]: crop to the nearest aspect"
        " ratio, the images of a comparison alike, and scale.",
    )
    filters: ImageFilters = Field(ImageFilters(), description="Items to keep.")
    split: SplitConfig | None = Field(None, description="Take one part, by prompt; null: all.")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=2 * MAX_PIXELS, description="Larger images are not decoded."
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Read the first so many comparisons; or take so many images, an error where"
        " fewer can be used.",
    )
    shard_size: int = Field(256, ge=1, description="Images per parquet shard (the unit of resume).")

    @property
    @abstractmethod
    def source(self) -> Choice:
        """The registered format with its options."""

    @property
    def scorers(self) -> tuple[str, ...]:
        """Columns of scores that the source has."""
        return ()

    @model_validator(mode="after")
    def _one_shape(self) -> SourceConfig:
        if self.resolution is not None and self.buckets:
            raise ValueError(ONE_SHAPE)
        return self


class ImportConfig(SourceConfig):
    """Options of `import comparisons=...`: images with human preferences to a pool."""

    kind: ClassVar[str] = "comparison"

    comparisons: Comparisons = Field(description="A file or folder, and its format.")
    random_flip: bool = Field(
        False, description="Mirror every other comparison, by a keyed coin, all its images alike."
    )
    ties: Literal["kept", "dropped", "labelled"] = Field(
        "kept",
        description="Kept with verdict 0.5 for both, which a scorer can still relabel; dropped; or"
        " kept and labelled as ties by a column of their own, `tie`.",
    )
    both_bad: Literal["dropped", "kept"] = Field(
        "dropped", description="Comparisons whose images were all found bad; kept: as ties."
    )
    reversed_labels: bool = Field(
        False, description="The labels name the rejected image, not the preferred one."
    )

    @property
    def source(self) -> Choice:
        """The format of compared images with its options."""
        return self.comparisons

    @property
    def scorers(self) -> tuple[str, ...]:
        """Columns of the verdicts."""
        return (HUMAN, TIE) if self.ties == "labelled" else (HUMAN,)


class ImagesConfig(SourceConfig):
    """Options of `import images=...`: captioned photographs to a pool of real images."""

    kind: ClassVar[str] = "image"

    images: CaptionedSource = Field(
        description="A folder or a .parquet file of images with captions, or a named source."
    )
    min_crop_side: int | None = Field(
        None,
        ge=1,
        description="Pixels that a crop's shorter side must have before it is scaled;"
        " default: as many as after, so that nothing is enlarged.",
    )

    @property
    def source(self) -> Choice:
        """The format of captioned images with its options."""
        return self.images

    @model_validator(mode="after")
    def _has_shape(self) -> ImagesConfig:
        if self.resolution is None and not self.buckets:
            raise ValueError(ONE_SHAPE)
        return self


class PairConfig(Section):
    """Options of `pair`: scores to pairs."""

    rule: Rule = Field(description="Pair rule with its options.")
    filters: PairFilters = Field(PairFilters(), description="Pairs to keep.")
    split: SplitConfig | None = Field(None, description="Take one part, by prompt; null: all.")


class JoinConfig(Section):
    """Options of `join`: chosen from one pool, rejected from another or from earlier pairs."""

    rule: JoinRule = Field(description="Rule that compares an item's candidates of both sides.")


class DataExportConfig(Section):
    """Options of `export`: pairs, a pool with scores, or votes, to a format of other tools."""

    layout: Layout = Field(Choice(name="pick_a_pic"), description="Format, with its options.")
    scorer: Annotated[str | None, Names("column")] = Field(
        None, description="Column of a pool that gives the verdicts; default: people's, or any."
    )
    question: str | None = Field(
        None, description="Question of a study; null: the overall one, or the only one."
    )


class ShowConfig(Section):
    """Options of `show`: the contents of a pool or of pairs."""

    html: str | None = Field(None, description="Write a self-contained page to this file.")
    images: int = Field(24, ge=1, le=512, description="Images, or pairs, on the contact sheet.")
    against: str | None = Field(
        None, description="Another pool or pairs: count prompts and pictures in common."
    )
