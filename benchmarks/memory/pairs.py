"""Peak memory and time of `tastemaker train` as the pairs become many: tiny latents, nano.

    python benchmarks/memory/pairs.py --output runs/pairs --pairs 1000 30000 1000000

Each size is trained on twice: the first training makes the encodings, the second, with another
beta, reads them. The pool keeps latents, so that no image is decoded; 100 pairs share a prompt.
"""

import argparse
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tastemaker.storage.artifact import Artifact
from tastemaker.storage.candidates import candidate_table
from tastemaker.storage.files import write_json
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool

SHAPE = (4, 4, 4)
PER_SHARD = 2000
PAIRS_PER_PROMPT = 100


def write_pairs(folder: Path, number: int) -> Path:
    """Write a pool of two candidates per pair, and the pairs."""
    pool, pairs = Pool(folder / "pool"), PairSet(folder / "pairs")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, format="PNG")
    for shard, first in enumerate(range(0, 2 * number, PER_SHARD)):
        last = min(first + PER_SHARD, 2 * number)
        latents = np.random.default_rng(shard).standard_normal(
            (last - first, 4 * 4 * 4), np.float32
        )
        rows = (
            {
                "candidate_id": f"{i:08d}",
                "prompt_id": f"{i // 2 // PAIRS_PER_PROMPT:08d}",
                "prompt": prompt(i // 2),
                "model": "nano",
                "image": {"bytes": picture.getvalue()},
                "latents": latents[i - first].tobytes(),
                "latents_shape": SHAPE,
            }
            for i in range(first, last)
        )
        write_table(pool.shard(shard), candidate_table(list(rows)))
    artifact = Artifact(pairs.folder, "pair", {"pairs": number})
    with artifact.claimed() as unfinished:
        if unfinished:
            pairs.write(pair_rows(number), [pool])
            artifact.finish(pairs=number)
    return pairs.folder


def pair_rows(number: int) -> Iterator[dict[str, Any]]:
    """Candidates two by two."""
    for i in range(number):
        ids = {"chosen_id": f"{2 * i:08d}", "rejected_id": f"{2 * i + 1:08d}"}
        yield {"pair_id": str(i), "prompt_id": "", "prompt": prompt(i), "margin": 1.0, **ids}


def prompt(pair: int) -> str:
    """The prompt of a pair."""
    return f"picture number {pair // PAIRS_PER_PROMPT}"


def trained(pairs: Path, output: Path, *options: str, model: str = "nano") -> dict[str, float]:
    """Train in a process of its own; returns its seconds and its peak of resident memory."""
    words = ["train", str(pairs), str(output), f"model={model}", "report_to=null", "device=cpu"]
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "tastemaker", *words, *options])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"seconds": time.monotonic() - began, "megabytes": used.ru_maxrss / 1024}


def main() -> None:
    """Measure every size, and write `pairs.json` and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 30_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    found = []
    print("| pairs | training | seconds | peak, MB |\n|---|---|---|---|")
    for number in given.pairs:
        folder = given.output / str(number)
        pairs = write_pairs(folder, number)
        for name, beta in (("first", 5000), ("second", 1000)):
            options = (f"loss.beta={beta}", f"max_steps={given.steps}")
            row = {"pairs": number, "training": name, **trained(pairs, folder / name, *options)}
            print("| {pairs:,} | {training} | {seconds:.1f} | {megabytes:.0f} |".format(**row))
            found.append(row)
    write_json(given.output / "pairs.json", found)


if __name__ == "__main__":
    main()
