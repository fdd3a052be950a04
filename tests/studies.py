"""Pools, pairs and folders that people judge in tests; made without torch."""

import json
from collections.abc import Iterable
from pathlib import Path

from pictures import encoded, noise
from tastemaker.storage.candidates import write_candidates
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool


def finished(folder: Path, key: str) -> None:
    """Mark a folder as a command's result."""
    about = {"command": "generate", "key": key, "files": {}}
    (folder / "done.json").write_text(json.dumps(about), encoding="utf-8")


def pool_of(
    folder: Path,
    prompts: Iterable[str] = ("a cat", "a dog"),
    each: int = 4,
    model: str = "m",
    image: bytes | None = None,
    shard: int = 5,
) -> Path:
    """A pool: `each` images per prompt, of seeds that all models share."""
    rows = [
        {
            "candidate_id": f"{number}-{draw}-{model}",
            "prompt_id": f"p{number}",
            "prompt": prompt,
            "seed": draw,
            "source": "generated",
            "source_id": "",
            "timestep": None,
            "model": model,
            "image": {
                "bytes": image or encoded(noise(100 * number + draw, 8 + number, 8 + draw)),
                "path": None,
            },
        }
        for number, prompt in enumerate(prompts)
        for draw in range(each)
    ]
    folder.mkdir(parents=True)
    for start in range(0, len(rows), shard):
        write_candidates(Pool(folder).shard(start // shard), rows[start : start + shard])
    finished(folder, f"{model} {len(rows)}")
    return folder


def pairs_of(folder: Path, pool: Path, pairs: Iterable[tuple[str, str]]) -> Path:
    """Pairs of a pool's candidates, chosen first."""
    rows = [
        {
            "pair_id": f"{chosen}|{rejected}",
            "prompt_id": chosen.split("-")[0],
            "prompt": "a cat",
            "chosen_id": chosen,
            "rejected_id": rejected,
            "rule": "best_worst",
            "margin": 1.0,
        }
        for chosen, rejected in pairs
    ]
    PairSet(folder).write(rows, [Pool(pool)])
    finished(folder, "pairs")
    return folder
