"""Peak memory of a LoRA and of all-weights training on pipelines of a real size, row by row.

    python benchmarks/memory/sweep.py --models models --output runs/memory \
        --rows sd15:512 sdxl:1024 --dtype bf16

Each row is the normal command in a process of its own: candidates, scores and pairs once a model
and size, then `train` by LoRA and with all weights, with and without gradient checkpointing.
Prints a table in Markdown. Pipelines that are not there yet are made (see ../speed/models.py).
"""

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
MODELS = HERE.parent / "speed" / "models.py"
SAMPLING = ("num_inference_steps=1", "batch_size=1", "prompts={name: imagenet_classes, number: 1}")
RULE = "rule={name: best_worst, scorer: sharpness}"


def measured(*words: str) -> str:
    """Run one command; return what it took, or why it ended."""
    done = subprocess.run(
        [sys.executable, str(HERE / "measure.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]


def pairs_of(model: Path, pixels: int, folder: Path, dtype: str) -> list[str]:
    """Two candidates and the pair of them; what drawing took."""
    pool, pairs = folder / "pool", folder / "pairs"
    size = (f"height={pixels}", f"width={pixels}")
    drawing = (f"model={model}", "num_candidates=2", f"dtype={dtype}", *size, *SAMPLING)
    took = measured("generate", str(pool), *drawing)
    measured("score", str(pool), "scorers=[sharpness]")
    measured("pair", str(pool), str(pairs), RULE)
    return ["draw", "", took]


def training(model: Path, folder: Path, dtype: str, method: str, saves: bool) -> list[str]:
    """Two optimizer steps of one pair."""
    reference = "frozen_copy" if method == "full" else "adapters_off"
    out = folder / f"{method}-{'checkpointing' if saves else 'plain'}"
    options = (
        f"model={model}",
        f"method={method}",
        f"reference={reference}",
        f"dtype={dtype}",
        f"gradient_checkpointing={str(saves).lower()}",
        "max_steps=2",
        "batch_size=1",
        "report_to=null",
    )
    took = measured("train", str(folder / "pairs"), str(out), *options)
    return [method, "yes" if saves else "no", took]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder of the pipelines")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--rows", nargs="+", required=True, help="family:pixels, as sd15:512")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--methods", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    options = parser.parse_args()
    print("| model | pixels | training | checkpointing | took |\n|---|---|---|---|---|", flush=True)
    for row in options.rows:
        family, _, pixels = row.partition(":")
        model = options.models / f"{family}-{options.dtype}"
        if not model.is_dir():
            words = ["--family", family, "--dtype", options.dtype, "--output", str(model)]
            subprocess.run([sys.executable, str(MODELS), *words], check=True)
        folder = options.output / f"{family}-{pixels}-{options.dtype}"
        _print(row, pairs_of(model, int(pixels), folder, options.dtype))
        for method, saves in product(options.methods, (True, False)):
            _print(row, training(model, folder, options.dtype, method, saves))


def _print(row: str, cells: list[str]) -> None:
    print(f"| {row.replace(':', ' | ')} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
