"""What each character gained, with the error of its own images."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from agreement import key_of
from rules import AXES, ROWS

from tastemaker.storage.pool import Pool


def characters(root: Path, names: list[str]) -> str:
    """Gains of every main row by character, in thousandths, with standard errors.

    An image is held against the personalised model's of the same prompt and seed; the mean over a
    prompt's images is one draw, and the seeds' gains are averaged.

    Args:
        root: Folder of all runs.
        names: Of the folders inside, character and seed: `frog-s0`.

    Returns:
        A table: fidelity and prompt by the scorers that chose; under "all" the errors are those of
        these characters, and not of how characters differ.
    """
    kinds = sorted({name.rpartition("-")[0] for name in names})
    heads = [f"{kind}: {axis}" for kind in (*kinds, "all") for axis in ("IS", "TS")]
    lines = [f"| row | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in ROWS.items():
        if row.images < 16 or row.steps > 1:
            continue
        gains = []
        for kind in kinds:
            folders = [root / f"{kind}-s{seed}" for seed in range(row.seeds)]
            gains.append([_gain(folders, key_of(name), axis) for axis in AXES[:2]])
        gains.append([_mean(each) for each in zip(*gains, strict=True)])
        cells = [
            f"{1000 * mean:+.1f} ± {1000 * error:.1f}" for each in gains for mean, error in each
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _gain(folders: list[Path], row: str, axis: str) -> tuple[float, float]:
    """Mean over seeds and standard error over prompts."""
    found = [_paired(folder / "judged", row, axis) for folder in folders]
    return _mean(
        [
            (statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains)))
            for gains in found
        ]
    )


def _mean(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of means with independent errors."""
    means, errors = zip(*parts, strict=True)
    return statistics.fmean(means), math.hypot(*errors) / len(errors)


def _paired(folder: Path, row: str, axis: str) -> list[float]:
    """A prompt's mean difference to the personalised model's images, one number a prompt."""
    ours, theirs = (_scores(folder / name, axis) for name in (row, "base"))
    gains: dict[str, list[float]] = {}
    for (prompt, seed), score in ours.items():
        gains.setdefault(prompt, []).append(score - theirs[prompt, seed])
    return [statistics.fmean(each) for each in gains.values()]


def _scores(folder: Path, axis: str) -> dict[tuple[str, int], float]:
    pool = Pool(folder)
    table = pool.scores()
    ids, values = (table[name].to_pylist() for name in ("candidate_id", axis))
    scored = dict(zip(ids, values, strict=True))
    rows = pool.candidates(("candidate_id", "prompt", "seed")).to_pylist()
    return {(row["prompt"], row["seed"]): scored[row["candidate_id"]] for row in rows}
