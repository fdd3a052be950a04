"""The rows of the comparison, and how many images, steps, seeds and settings it takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """Numbers that decide how long the comparison takes.

    Attributes:
        items: Photographs that rows train on.
        candidates: Images per photograph, drawn by the base.
        lengths: Optimizer steps in all, the same for every row; the second is searched at.
        seeds: Training seeds of the main rows; others have the first alone.
        rates: Learning rates of the search of a preference loss.
        betas: Its betas.
        sft_rates: Learning rates of the search of SFT, as many as there are settings of the others.
        scales: Guidance scales that every row may be drawn at.
        portraits: Held-out photographs, at most.
        prompts: Validation prompts, at most.
    """

    items: int = 400
    candidates: int = 8
    lengths: tuple[int, ...] = (60, 180, 540)
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    betas: tuple[int, ...] = (500, 4000)
    sft_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3)
    scales: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    portraits: int = 300
    prompts: int = 64


SMALL = Size(12, 2, (3, 6), (0,), (1e-3,), (500,), (1e-3,), (1.0, 2.0), 24, 4)
"""Everything once, in minutes: numbers without meaning."""

COMMON: Options = {
    "batch_size": 8,
    "lr_scheduler": "constant",  # the first steps of a long training are those of a short one
    "warmup_steps": 5,
    "lora": {"r": 8},
    "report_to": None,
    "save_steps": 60,
    "device": "cpu",
}


@dataclass(frozen=True)
class Row:
    """A way of training.

    Attributes:
        stages: Kinds of pairs (`World.pairs`), each trained on for an equal share of the steps.
        options: What it has beside `COMMON`.
        like: The row whose setting it takes; None: it searches.
        text: Its text encoder's LoRA trains on easy pairs, after all stages, for one stage's steps.
    """

    stages: tuple[str, ...]
    options: Options = field(default_factory=dict)
    like: str | None = None
    text: bool = False

    @property
    def adapter(self) -> dict[str, Any]:
        """Where its LoRA acts while images are drawn."""
        return {"text_range": (900, 1000)} if self.text else {}


MAIN = {
    "naive": Row(("naive",)),
    "curriculum": Row(("easy", "normal", "hard")),
    "easy": Row(("easy",)),
    "mixed": Row(("mixed",)),
    "hard over best": Row(("easy", "normal", "best")),
    "SFT": Row(("naive",), {"loss": "sft"}),
}
SEVERAL = ("naive", "curriculum", "easy", "mixed")
"""Main rows of several training seeds."""

PARTS = {
    "easy, normal": Row(("easy", "normal"), like="curriculum"),
    "without easy": Row(("normal first", "hard second"), like="curriculum"),
    "without normal": Row(("easy", "best"), like="curriculum"),
    "easy of two": Row(("easy 2",), like="easy"),
    "easy, statistics": Row(("easy",), {"statistics": {"weight": 1e6}}, like="easy"),
    "curriculum, text encoder": Row(("easy", "normal", "hard"), like="curriculum", text=True),
}
"""Rows that single claims need, at the searched length alone."""

ROWS = MAIN | PARTS


def settings(row: Row, size: Size) -> list[tuple[float, int]]:
    """Learning rate and beta of each setting that a row may choose; beta is 0 for SFT."""
    if row.options.get("loss") == "sft":
        return [(rate, 0) for rate in size.sft_rates]
    return [(rate, beta) for rate in size.rates for beta in size.betas]
