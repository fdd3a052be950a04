"""Prompt files of every kind give the same list; what is wrong in one is named by its row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.errors import TastemakerError
from tastemaker.prompts import load_prompts
from tastemaker.sections import Choice

PROMPTS = ["a cat, sitting", "ein Hund – groß", "日本の猫"]


def write(folder: Path, ending: str, column: str = "prompt") -> Path:
    path = folder / f"prompts{ending}"
    if ending == ".txt":
        path.write_text("\n".join(["", *PROMPTS, PROMPTS[0], " "]), encoding="utf-8")
    elif ending == ".jsonl":
        rows = [json.dumps({column: prompt}) for prompt in PROMPTS]
        path.write_text("\n".join(rows) + "\n\n", encoding="utf-8")
    elif ending == ".parquet":
        pq.write_table(pa.table({column: PROMPTS}), path)
    else:
        mark = "\t" if ending == ".tsv" else ","
        rows = [f'{i}{mark}"{prompt}"' for i, prompt in enumerate(PROMPTS)]
        path.write_text("\n".join([f"id{mark}{column}", *rows]), encoding="utf-8-sig")
    return path


def load(path: Path, **options: object) -> list[str]:
    return load_prompts(Choice(name="file", path=str(path), **options))


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending)
    assert load(path) == PROMPTS
    assert load(path, number=2)[0] == PROMPTS[0]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_a_missing_column_is_named(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending, column="caption")
    assert load(path, column="caption") == PROMPTS
    with pytest.raises(TastemakerError, match=r"no (column )?'prompt'.*caption"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"prompt": "x"}\nnot json\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"prompt": 3}\n', "'prompt' is 3, not text"),
        ("a.txt", b"\xff\xfe\x00bad", "not UTF-8"),
        ("a.png", b"", "not '.png'"),
        ("a.parquet", b"PAR1", "not a whole parquet file"),
        ("a.csv", b"", "holds no prompts"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TastemakerError, match=words):
        load(tmp_path / name)
