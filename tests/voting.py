"""Pools and studies that tests vote on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from tastemaker.storage.artifact import Artifact
from tastemaker.storage.candidates import candidate_table
from tastemaker.storage.files import config_key
from tastemaker.storage.images import encode_png
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.vote_files import VoteFile
from tastemaker.storage.votes import Vote, task_id


def voted_pool(
    folder: Path,
    prompts: Mapping[str, Sequence[str]],
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> Pool:
    """A finished pool of small pictures: prompt to candidate ids, scorer to score by id."""
    ids = [(prompt, name) for prompt, names in prompts.items() for name in names]
    artifact = Artifact(folder, "generate", {"ids": ids})
    pool = Pool(folder)
    with artifact.claimed():
        rows = [_row(prompt, name, number) for number, (prompt, name) in enumerate(ids)]
        for index in range(0, len(rows), 4):
            write_table(pool.shard(index // 4), candidate_table(rows[index : index + 4]))
        artifact.finish(candidates=len(rows))
    for scorer, of in (scores or {}).items():
        column = Artifact(folder / "scores" / scorer, "score", {})
        with column.claimed():
            for shard in pool.shards():
                names = pool_ids(shard)
                values = pa.array([of[name] for name in names], pa.float32())
                table = pa.table({"candidate_id": names, scorer: values})
                write_table(pool.score_file(scorer, shard), table)
            column.finish(scorer=scorer)
    return pool


def pool_ids(shard: Path) -> list[str]:
    from tastemaker.storage.parquet import read_table

    names: list[str] = read_table(shard, ("candidate_id",))["candidate_id"].to_pylist()
    return names


def _row(prompt: str, name: str, number: int) -> dict[str, Any]:
    colour = tuple(bytes.fromhex(config_key(name))[:3])
    return {
        "candidate_id": name,
        "prompt_id": config_key(prompt),
        "prompt": prompt,
        "seed": number,
        "source": "generated",
        "source_id": "",
        "timestep": None,
        "model": "m",
        "image": {"bytes": encode_png(Image.new("RGB", (8, 8), colour)), "path": None},
    }


def vote(number: int, prompt: str, shown: Sequence[str], answer: Any, **fields: Any) -> Vote:
    """A vote on a pair, or on what `kind` says; votes are in the order of their numbers."""
    kind, question = fields.pop("kind", "pair"), fields.pop("question", "overall")
    given: dict[str, Any] = {
        "voter": "Ada",
        "models": ("",) * len(shown),
        "seconds": 2.0,
        "chosen_by": "random",
        "probability": 0.5,
        **fields,
    }
    return Vote(
        vote_id=f"{given['voter']}-{number}",
        at=f"2026-01-01T12:{number // 60 % 60:02d}:{number % 60:02d}.000+00:00",
        task_id=task_id(question, kind, shown),
        prompt=prompt,
        shown=tuple(shown),
        question=question,
        kind=kind,
        answer=answer,
        **given,
    )


def study(
    folder: Path,
    votes: Sequence[Vote],
    sources: Sequence[Any] = (),
    labels: Sequence[str] = ("",),
) -> Path:
    """A folder as `studio` writes it."""
    for each in votes:
        VoteFile(folder, each.voter).append(each)
    about = {
        "sources": [{"folder": str(each), "kind": "pool", "key": str(each)} for each in sources],
        "labels": labels,
        "gold": None,
    }
    (folder / "study.json").write_text(json.dumps(about), encoding="utf-8")
    return folder
