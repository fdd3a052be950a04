"""The typed sections of data: what comes in, what is kept, how it is paired, what goes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tastemaker.config.choices import CaptionedSource, Choice, Comparisons, JoinRule, Layout, Rule
from tastemaker.config.sections import Section
from tastemaker.core.values import Names

Side = Annotated[int, Field(ge=8)]
Bucket = tuple[Side, Side]

MAX_PIXELS = 89_478_485
"""Of an image: a quarter of a gigabyte once decoded, where Pillow's own warning begins too."""


HUMAN = "human"
"""Column of the verdicts: 1 for the image preferred, 0 for the other, 0.5 for both on a tie."""

TIE = "tie"
"""Column that labels ties: 1 where people found the images equal, 0 elsewhere."""


class SplitConfig(Section):
    """One part of the data, by prompt: no prompt is in two parts."""

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
    """What a prompt must be like."""

    min_words: int | None = Field(None, ge=1, description="Words that a prompt has at least.")
    max_words: int | None = Field(None, ge=1, description="Words that a prompt has at most.")
    without: Annotated[str | tuple[str, ...] | None, Names("words")] = Field(
        None, description="Words or phrases that no prompt holds: a list, or a file, one a line."
    )
    having: Annotated[str | tuple[str, ...] | None, Names("words")] = Field(
        None, description="Words or phrases of which every prompt holds one: a list, or a file."
    )


class ImageFilters(PromptFilters):
    """What prompt and images must be like, before anything is cropped."""

    min_side: int | None = Field(None, ge=1, description="Pixels of every image's shorter side.")
    max_aspect: float | None = Field(
        None, ge=1, description="Longer side of an image, as a multiple of its shorter one."
    )


class PairFilters(PromptFilters):
    """What a pair must be like, whatever rule made it."""

    min_score: Annotated[dict[str, float], Names("column")] = Field(
        {}, description="Scorer name to the least score of the chosen image."
    )
    min_gap: Annotated[dict[str, float], Names("column")] = Field(
        {}, description="Scorer name to the least lead of the chosen image over the rejected."
    )


class ImportConfig(Section):
    """Options of `import comparisons=...`: images with human preferences to a pool."""

    comparisons: Comparisons = Field(description="A file or folder, and its format.")
    resolution: int | None = Field(
        None, ge=8, description="Crop to a square and scale to so many pixels; null: as they are."
    )
    buckets: tuple[Bucket, ...] = Field(
        (),
        description="In place of resolution, [[width, height], ...]: crop the images of a"
        " comparison alike, to the aspect ratio nearest to theirs, and scale.",
    )
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
        False, description="The labels say which image was rejected, not which was preferred."
    )
    filters: ImageFilters = Field(ImageFilters(), description="What to keep.")
    split: SplitConfig | None = Field(None, description="Take one part, by prompt; null: all.")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=2 * MAX_PIXELS, description="Of an image; more is not decoded."
    )
    limit: int | None = Field(None, ge=1, description="Take the first so many comparisons.")
    shard_size: int = Field(256, ge=2, description="Images per parquet shard (the unit of resume).")

    @property
    def scorers(self) -> tuple[str, ...]:
        """Columns of the verdicts."""
        return (HUMAN, TIE) if self.ties == "labelled" else (HUMAN,)

    @model_validator(mode="after")
    def _one_shape(self) -> ImportConfig:
        if self.resolution is not None and self.buckets:
            raise ValueError(
                "give one of `resolution` (a square) and `buckets` ([[width, height], ...])"
            )
        return self


class ImagesConfig(Section):
    """Options of `import images=...`: captioned photographs to a pool of real images."""

    images: CaptionedSource = Field(
        description="A folder or a .parquet file of images with captions, or a named source."
    )
    resolution: int | None = Field(
        None, ge=8, description="Crop to a square and scale to so many pixels."
    )
    buckets: tuple[Bucket, ...] = Field(
        (),
        description="In place of resolution, [[width, height], ...]: crop each image to the nearest"
        " aspect ratio and scale.",
    )
    min_crop_side: int | None = Field(
        None,
        ge=1,
        description="Pixels that a crop's shorter side must have before it is scaled;"
        " default: as many as after, so that nothing is enlarged.",
    )
    limit: int | None = Field(
        None, ge=1, description="Take so many images; it is an error where fewer can be used."
    )
    filters: ImageFilters = Field(ImageFilters(), description="What to keep.")
    split: SplitConfig | None = Field(None, description="Take one part, by caption; null: all.")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=2 * MAX_PIXELS, description="Of an image; more is not decoded."
    )
    shard_size: int = Field(256, ge=1, description="Images per parquet shard (the unit of resume).")

    @model_validator(mode="after")
    def _one_shape(self) -> ImagesConfig:
        if (self.resolution is None) == (not self.buckets):
            raise ValueError(
                "give one of `resolution` (a square) and `buckets` ([[width, height], ...])"
            )
        return self


class PairConfig(Section):
    """Options of `pair`: scores to pairs."""

    rule: Rule = Field(description="Pair rule with its options.")
    filters: PairFilters = Field(PairFilters(), description="What to keep of the rule's pairs.")
    split: SplitConfig | None = Field(None, description="Take one part, by prompt; null: all.")


class JoinConfig(Section):
    """Options of `join`: chosen from one pool, rejected from another or from earlier pairs."""

    rule: JoinRule = Field(description="Rule that sees an item's candidates on both sides.")


class DataExportConfig(Section):
    """Pairs, or a pool with scores, to a format that others read."""

    layout: Layout = Field(Choice(name="pick_a_pic"), description="Format, with its options.")
    scorer: Annotated[str | None, Names("column")] = Field(
        None, description="Of a pool: column that gives the verdicts; default: people's, or any."
    )


class ShowConfig(Section):
    """What is in a pool or in pairs."""

    html: str | None = Field(None, description="Write a page to this file; it needs no network.")
    images: int = Field(24, ge=1, le=512, description="Images, or pairs, on the contact sheet.")
    bins: int = Field(16, ge=2, le=64, description="Bars of a histogram.")
    against: str | None = Field(
        None, description="Another pool or pairs: count the prompts and pictures in both."
    )
