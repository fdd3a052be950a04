"""What others wrote is read within limits; whatever is wrong with it is one error that names it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tastemaker.core import reading
from tastemaker.core.delimited import delimited_rows
from tastemaker.core.errors import TastemakerError
from tastemaker.core.yaml_reading import parse_yaml, read_yaml
from tastemaker.datasets.formats.json_items import json_items
from tastemaker.storage.files import read_json

DEEP = reading.MOST_DEPTH + 1
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "m0: &m0 {k: v, j: v}\n" + "".join(
    f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested more than"),
        ("[" * DEEP + "]" * DEEP, "nested more than"),
        ("&a [*a]", "nested more than"),
        (BOMB, "more than 100000 values"),
        (MERGES, "merges"),
        (f"a: {'9' * 5000}", "digits"),
        (f"a: {'9' * 21}", "digits"),
        ("steps: 1\nsteps: 2", "'steps' is given twice, again in line 2"),
        (r'a: "\ud83d"', "half a character"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: !!timestamp x", "not readable as YAML"),
        ("a: !!int ''", "not readable as YAML"),
        ("{a: b}: c", "unhashable key"),
        ("a: [1", "line 1, column 6"),
    ],
    ids=lambda value: value[:20],
)
def test_yaml_beyond_its_limits(text: str, words: str) -> None:
    with pytest.raises(TastemakerError, match=words) as caught:
        parse_yaml(text, "run.yaml")
    assert str(caught.value).startswith("run.yaml ")
    assert "\n" not in str(caught.value)


def test_yaml_within_them() -> None:
    deep: Any = parse_yaml("[" * (DEEP - 1) + "]" * (DEEP - 1), "run.yaml")
    for _ in range(DEEP - 2):
        (deep,) = deep
    assert deep == []
    # A date that is none, and one that is: names like any other.
    assert parse_yaml("[2026-99-99, 2026-11-27]", "") == ["2026-99-99", "2026-11-27"]
    texts = ["010", "1:30", "1:30.5", "1_000", "0b1", "0o7", "08.5", "1e4", ".", "+"]
    assert parse_yaml(f"[{', '.join(texts)}]", "") == texts
    numbers = {"0": 0, "-12": -12, "+3": 3, "0x1F": 31, "1.0e-4": 1e-4, "2.": 2.0, ".5": 0.5}
    assert parse_yaml(f"[{', '.join(numbers)}]", "") == list(numbers.values())
    for value in (*texts, *numbers, *numbers.values(), 1e22, "yes", "null"):
        assert parse_yaml(yaml.safe_dump([value]), "") == [value]
    merged = parse_yaml("a: &a {k: 1, j: 2}\nb: {<<: *a, k: 3}", "")
    assert merged["b"] == {"k": 3, "j": 2}


JSON = [
    ("[" * 100_000, "nested"),
    ("[" * DEEP + "]" * DEEP, "nested"),
    ("9" * 5000, "a number of 5000 digits"),
    ('{"a": ', "not JSON"),
]


@pytest.mark.parametrize(("text", "words"), JSON, ids=lambda value: value[:20])
def test_json_beyond_its_limits(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(TastemakerError, match=rf"a\.json .*{words}"):
        read_json(file)
    file.write_text(f"[1, {text}", encoding="utf-8")
    with pytest.raises(TastemakerError, match=r"a\.json.* item 1"):
        list(json_items(file))


def test_a_bad_line_of_json_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    bad = ["[" * 100_000, "9" * 5000, "{", '"\\', "\udcff"]
    lines = ["\ufeff1", "", *bad, "2"]
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    rows = dict(reading.json_lines(file))
    assert list(rows) == [1, 3, 4, 5, 6, 7, 8]
    assert (rows[1], rows[8]) == (1, 2)
    assert all(isinstance(rows[number], TastemakerError) for number in range(3, 8))


def test_utf_16_is_called_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n', encoding="utf-16")
    for read in (reading.read_text, read_json, lambda path: list(reading.json_lines(path))):
        with pytest.raises(TastemakerError, match=r"a\.jsonl is not UTF-8 text but UTF-16"):
            read(file)
    file.write_bytes('{"a": 1}\n'.encode("utf-16-le"))  # without its mark
    with pytest.raises(TastemakerError, match="it has a NUL in line 1"):
        reading.read_text(file)


TABLES = {
    "quotes that are not closed": ("a.csv", 'id,prompt\n1,"a cat\n2,a dog\n', "line 2.*quote"),
    "text behind a quote": ("a.csv", 'prompt\n"a" cat\n', "line 2.*quote"),
    "a comma without quotes": ("a.csv", "id,prompt\n1,a cat, asleep\n", "line 2 has 3 fields"),
    "a column twice": ("a.csv", "prompt,prompt\na,b\n", "the column 'prompt' twice"),
    "a NUL": ("a.tsv", "prompt\na\0b\n", "NUL in line 2"),
    "an endless field of .tsv": ("a.tsv", f'p\n"{"x" * (reading.MOST_LINE + 1)}"\n', "field"),
    "a field without end": ("a.csv", f'prompt\n"{"x" * (reading.MOST_LINE + 1)}"\n', "field"),
}


@pytest.mark.parametrize("what", TABLES)
def test_tables_that_would_lose_rows_or_words(tmp_path: Path, what: str) -> None:
    name, content, words = TABLES[what]
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TastemakerError, match=words) as caught:
        list(delimited_rows(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


def test_tables(tmp_path: Path) -> None:
    def rows(name: str, content: str) -> list[tuple[int, dict[str, str]]]:
        (tmp_path / name).write_bytes(content.encode())
        return list(delimited_rows(tmp_path / name))

    long = "x" * 200_000  # beyond what Python's reader takes by itself
    assert rows("a.csv", f"prompt\n{long}\n") == [(2, {"prompt": long})]
    assert rows("a.csv", 'prompt\r\n"a ""b"", c"\r\n\r\nd\r\n') == [
        (2, {"prompt": 'a "b", c'}),
        (4, {"prompt": "d"}),
    ]
    assert rows("a.csv", "prompt,note\na\nb,,\n") == [
        (2, {"prompt": "a"}),
        (3, {"prompt": "b", "note": ""}),
    ]
    assert rows("a.csv", "prompt\na\u2028b\n") == [(2, {"prompt": "a\u2028b"})]
    # Half of all programs quote in .tsv, the others write quotes as they are.
    assert rows("a.tsv", '"a, b"\tkind\n"c"\t1\n') == [(2, {"a, b": "c", "kind": "1"})]
    assert rows("a.tsv", 'p\tk\n"Hello" on a sign\t1\n"broken\t2\nlast\t3\n') == [
        (2, {"p": '"Hello" on a sign', "k": "1"}),
        (3, {"p": '"broken', "k": "2"}),
        (4, {"p": "last", "k": "3"}),
    ]


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # a socket's own path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "is a folder": Path.mkdir,
    "is a FIFO": os.mkfifo,
    "is a socket": _socket,
    "Too many levels of symbolic links": lambda path: path.symlink_to(path),
    "does not exist": lambda path: None,
    "is a device": lambda path: path.symlink_to("/dev/zero"),
}

READERS: dict[str, Callable[[Path], object]] = {
    "bytes": reading.read_bytes,
    "text": reading.read_text,
    "JSON": read_json,
    "JSON lines": lambda path: list(reading.json_lines(path)),
    "JSON items": lambda path: list(json_items(path)),
    "YAML": read_yaml,
    "a table": lambda path: list(delimited_rows(path)),
    "tensors": lambda path: reading.open_tensors(path).__enter__(),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("words", NO_FILES)
def test_what_is_no_file_is_refused_and_never_waited_for(
    tmp_path: Path, words: str, reader: str
) -> None:
    path = tmp_path / "input"
    NO_FILES[words](path)
    with pytest.raises(TastemakerError, match=rf"input .*{words}"):
        READERS[reader](path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"], ids=["300 characters", "NUL"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(TastemakerError, match="cannot be read"):
        reading.read_bytes(tmp_path / name)


def test_a_file_may_have_so_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert reading.read_bytes(tmp_path / "a", most=4) == b"1234"
    with pytest.raises(TastemakerError, match="more than 3 bytes"):
        reading.read_bytes(tmp_path / "a", most=3)


@pytest.mark.parametrize("content", [b"", b"xx", b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]"])
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with (
        pytest.raises(TastemakerError, match="not a whole safetensors file"),
        reading.open_tensors(tmp_path / "a"),
    ):
        pass
