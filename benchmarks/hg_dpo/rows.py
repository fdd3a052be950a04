"""The rows of the comparison: what each trains on, from where, and which settings it may choose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from world import MODEL, SAMPLING, clip

Options = Mapping[str, Any]

STAGE = 60
"""Optimizer steps of one stage; rows of one training take as many as all three stages."""

COMMON: Options = {
    "model": MODEL,
    "batch_size": 16,
    "lr_scheduler": "cosine",
    "warmup_steps": 5,
    "lora": {"r": 8},
    "report_to": None,
    "save_steps": 60,
    "device": "cpu",
}
REWARD: Options = {
    "model": MODEL,
    "scorer": clip("preference"),
    "num_inference_steps": SAMPLING["num_inference_steps"],
    "guidance_scale": SAMPLING["guidance_scale"],
    "reward_scale": 1.0,
    "keep": 4,
    "lora": {"r": 8},
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "save_steps": 60,
    "device": "cpu",
}
STATISTICS: Options = {"weight": 1e6}


def dpo(rate: float, beta: float) -> dict[str, Any]:
    """A setting of a preference loss."""
    return {"learning_rate": rate, "loss": {"name": "dpo", "beta": beta}}


# Each stage and each row of a single training chooses among the same six: the curriculum's three
# stages of 60 steps cost its search what one training of 180 steps costs the others'.
SIX = tuple(dpo(rate, beta) for rate in (3e-4, 1e-3) for beta in (250, 1000, 4000))
FAST = SIX[3:]


@dataclass(frozen=True)
class Trained:
    """A row.

    Attributes:
        pairs: Kind of pairs, see `World.pairs`; None trains by the scorer's gradient.
        options: What it has beside `COMMON` (`REWARD` without pairs).
        settings: What the search chooses from.
        like: A row whose chosen setting it takes, in place of a search of its own.
        start: A row whose model it goes on from.
        text: Its text encoder's LoRA is added to that row's model.
        adapter: Where its LoRA acts while images are drawn.
        shown: Whether it stands in the table; else it is another row's beginning.
    """

    pairs: str | None
    options: Options = field(default_factory=dict)
    settings: tuple[Options, ...] = ()
    like: str | None = None
    start: str | None = None
    text: str | None = None
    adapter: Options = field(default_factory=dict)
    shown: bool = True


ROWS: dict[str, Trained] = {
    "naive": Trained("naive", {"max_steps": 3 * STAGE}, SIX),
    "easy": Trained("easy", {"max_steps": STAGE, "statistics": STATISTICS}, SIX),
    "easy, N = 2": Trained("easy 2", {"max_steps": STAGE, "statistics": STATISTICS}, like="easy"),
    "easy without statistics": Trained("easy", {"max_steps": STAGE}, like="easy"),
    "normal": Trained("normal", {"max_steps": STAGE}, SIX, start="easy"),
    "hard": Trained("hard", {"max_steps": STAGE}, SIX, start="normal"),
    # What might mend the hard stage, whose pairs are told apart too easily.
    "hard, chosen penalty": Trained(
        "hard", {"max_steps": STAGE, "guards": {"chosen_penalty": 10.0}}, FAST, start="normal"
    ),
    "hard over best candidates": Trained(
        "hard after easy", {"max_steps": STAGE}, FAST, start="normal"
    ),
    "hard over worst candidates": Trained("naive", {"max_steps": STAGE}, FAST, start="normal"),
    "normal at 800": Trained("normal at 800", {"max_steps": STAGE}, like="normal", start="easy"),
    "hard at 800": Trained("hard at 800", {"max_steps": STAGE}, like="hard", start="normal at 800"),
    "easy, 30 steps": Trained(
        "easy", {"max_steps": 30, "statistics": STATISTICS}, like="easy", shown=False
    ),
    "normal, 30 steps": Trained(
        "normal", {"max_steps": 30}, like="normal", start="easy, 30 steps", shown=False
    ),
    "30, 30, 120 steps, hard over best": Trained(
        "hard after easy", {"max_steps": 120}, FAST, start="normal, 30 steps"
    ),
    "hard + text encoder": Trained(
        "easy",
        {"max_steps": STAGE, "method": "frozen", "text_lora": {"r": 64}},
        SIX,
        text="hard",
        adapter={"text_range": (900, 1000)},
    ),
    "all mixed": Trained("mixed", {"max_steps": 3 * STAGE}, SIX),
    "normal first": Trained("normal first", {"max_steps": STAGE}, like="normal", shown=False),
    "without easy": Trained("hard second", {"max_steps": STAGE}, like="hard", start="normal first"),
    "without normal": Trained("hard after easy", {"max_steps": STAGE}, like="hard", start="easy"),
    "SFT": Trained(
        "naive",
        {"loss": "sft"},
        tuple(
            {"learning_rate": rate, "max_steps": steps}
            for rate in (1e-4, 3e-4, 1e-3)
            for steps in (STAGE, 3 * STAGE)
        ),
    ),
    "Curriculum-DPO": Trained(
        "gaps",
        {"max_steps": 3 * STAGE, "curriculum": {"chunks": 6, "steps_per_chunk": STAGE // 2}},
        SIX,
    ),
    "AlignProp": Trained(
        None,
        settings=tuple(
            {"learning_rate": rate, "max_steps": steps}
            for rate in (3e-4, 1e-3)
            for steps in (8, 16, 32)
        ),
    ),
}
MAIN = ("naive", "easy", "normal", "hard", "hard over best candidates", "all mixed")
"""Rows of three seeds; the others have one."""
