"""SD1.5 at 512 and SDXL at 1024 pixels on a GPU: pairs and images per second, memory.

    python benchmarks/speed/gpu.py --output results --minutes 8

Random weights, bf16, made on the device. Training rows are those of `tastemaker profile`: the step
beside the floor and the plain step; drawing takes 20 steps. The most telling rows come first;
each is written to gpu.json and gpu.md as soon as it is measured, one that fails or lacks
memory costs itself alone, and what would not end within the minutes is left out and named.
`--tiny` goes through the same rows with a small model, on any machine.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from models import FAMILIES

from tastemaker.backbones.loading import wrap_pipeline
from tastemaker.config.sections import SamplingConfig
from tastemaker.config.training import TrainConfig
from tastemaker.core.hardware import environment
from tastemaker.profiling.drawing import profile_drawing
from tastemaker.profiling.rows import drawing_table, guarded, training_table
from tastemaker.profiling.training import profile_training
from tastemaker.storage.files import write_json

HERE = Path(__file__).parent
ROUNDS, STEPS = 5, 20
CACHED = {"reference_draws": 1}
FULL = {"method": "full", "reference": "frozen_copy", "gradient_checkpointing": True}


@dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        family: Of `FAMILIES`.
        batch: Pairs per step, or images drawn together.
        seconds: It takes about so many at most, the model's making included.
        options: Of the training; None: of drawing.
        compiled: With `torch_compile`.
    """

    family: str
    batch: int
    seconds: int
    options: dict[str, Any] | None = field(default_factory=dict)
    compiled: bool = False

    @property
    def name(self) -> str:
        """The row's name in tables."""
        more = {**(self.options or {}), **({"torch_compile": True} if self.compiled else {})}
        words = [f"{key}={str(value).lower()}" for key, value in more.items()]
        return ", ".join([self.family, f"batch {self.batch}", *words])


ROWS = (
    Row("sd15", 8, 40),
    Row("sdxl", 2, 60),
    Row("sd15", 16, 40, None),
    Row("sdxl", 4, 60, None),
    Row("sd15", 8, 40, CACHED),
    Row("sdxl", 2, 60, CACHED),
    Row("sd15", 8, 60, FULL),
    Row("sdxl", 2, 60, {"gradient_checkpointing": True}),
    Row("sd15", 16, 90, None, compiled=True),
    Row("sdxl", 4, 90, None, compiled=True),
    Row("sd15", 8, 90, compiled=True),
    Row("sdxl", 2, 90, compiled=True),
    Row("sdxl", 1, 90, FULL),
)


def training(row: Row, dtype: str, device: str) -> dict[str, Any]:
    """Measure the training of a row."""
    options = row.options or {}
    # All weights are kept in fp32.
    weights = "fp32" if options.get("method") == "full" else dtype
    pipeline = FAMILIES[row.family](device, weights)
    config = TrainConfig(
        model="random weights",
        loss={"name": "dpo", "beta": 2000},
        batch_size=row.batch,
        dtype=dtype,
        device=device,
        torch_compile=row.compiled,
        report_to=None,
        **{"lora": {"r": 16}, **options},
    )
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    with tempfile.TemporaryDirectory() as folder:
        return profile_training(
            pipeline, config, Path(folder), size=(side, side), rounds=ROUNDS, parts=True
        )


def drawing(row: Row, dtype: str, device: str) -> dict[str, Any]:
    """Measure the drawing of a row."""
    backbone = wrap_pipeline(FAMILIES[row.family](device, dtype))
    config = SamplingConfig(
        batch_size=row.batch,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        torch_compile=row.compiled,
    )
    return profile_drawing(backbone, config, ROUNDS, steps=STEPS)


def measured(rows: tuple[Row, ...], minutes: float, tiny: bool) -> Iterator[dict[str, Any]]:
    """Measure rows as long as there is time.

    Args:
        rows: In order.
        minutes: For all.
        tiny: With a small model, on the CPU.

    Yields:
        What `guarded` returns, with `kind`, "training" or "drawing".
    """
    end = time.monotonic() + 60 * minutes
    device, dtype = ("cpu", "fp32") if tiny else ("cuda", "bf16")
    for row in rows:
        kind = "drawing" if row.options is None else "training"
        work: Callable[..., dict[str, Any]] = drawing if kind == "drawing" else training
        began = time.monotonic()
        if end - began < row.seconds:
            yield {"kind": kind, "options": row.name, "error": "left out: no time was left"}
            continue
        torch.manual_seed(0)
        found = guarded(row.name, lambda row=row, work=work: work(row, dtype, device))
        yield {"kind": kind, **found, "row_seconds": time.monotonic() - began}


def as_text(results: dict[str, Any]) -> str:
    """Write all rows as Markdown."""
    machine, rows = results["environment"], results["rows"]
    drawn = [row for row in rows if row["kind"] == "drawing"]
    trained = [row for row in rows if row["kind"] == "training"]
    about = f"{machine['gpu']}, torch {machine['torch']}, {results['dtype']}, random weights."
    tables = [training_table(trained), drawing_table(drawn)]
    return "\n\n".join([about, "LoRA of rank 16 unless `method=full`.", *tables]) + "\n"


def main() -> None:
    """Measure row by row, and write after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=HERE, help="folder of gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all rows")
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    options = parser.parse_args()
    rows = ROWS
    if options.tiny:
        rows = tuple(Row("tiny", 1, 0, each.options, each.compiled) for each in ROWS)
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "environment": environment(),
        "dtype": "fp32" if options.tiny else "bf16",
        "rows": [],
    }
    for row in measured(rows, options.minutes, options.tiny):
        results["rows"].append(row)
        write_json(options.output / "gpu.json", results)
        (options.output / "gpu.md").write_text(as_text(results), encoding="utf-8")
        print(row["options"], row.get("error", "measured"), flush=True)
    print(as_text(results), end="")


if __name__ == "__main__":
    main()
