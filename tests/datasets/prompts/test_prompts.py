"""Prompt files of every kind give the same list; what is wrong in one is named by its row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.config.choices import Choice
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.storage.trained_prompts import (
    prompts_trained_on,
    shared_prompts,
    write_trained_prompts,
)

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
        ("a.jsonl", b'{"prompt": "x"}\nnot json\n', "line 2: it is not JSON"),
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


# Indices of ILSVRC 2012 that the whole list hangs on: a line too many or too few moves them.
IMAGENET = {
    0: "tench",
    1: "goldfish",
    134: "crane bird",
    207: "golden retriever",
    281: "tabby cat",
    285: "Egyptian cat",
    340: "zebra",
    404: "airliner",
    517: "construction crane",
    609: "jeep",
    638: "tights",
    639: "one-piece bathing suit",
    701: "parachute",
    817: "sports car",
    870: "tricycle",
    954: "banana",
    963: "pizza",
    999: "toilet paper",
}


def test_imagenet_classes_are_a_thousand_in_class_order() -> None:
    prompts = load_prompts(Choice(name="imagenet_classes"))  # repetitions would be dropped here
    assert len(prompts) == 1000
    assert len({prompt.lower() for prompt in prompts}) == 1000
    assert {i: prompts[i] for i in IMAGENET} == {i: f"A photo of {c}" for i, c in IMAGENET.items()}


def test_imagenet_classes_are_plain_names() -> None:
    for prompt in load_prompts(Choice(name="imagenet_classes")):
        name = prompt.removeprefix("A photo of ")
        assert re.fullmatch(r"[A-Za-z]+([-' ]+[A-Za-z']+)*", name), name  # no ids, no synonyms
        assert len(name) <= 32, name
        assert not name.lower().startswith(("a ", "an ", "the ")), name


def test_names_that_would_be_one_are_told_apart() -> None:
    prompts = load_prompts(Choice(name="imagenet_classes"))
    names = [prompt.removeprefix("A photo of ") for prompt in prompts]
    assert "crane" not in names
    assert (names[264], names[474]) == ("Cardigan corgi", "cardigan sweater")
    assert (names[657], names[744]) == ("missile", "projectile")
    assert (names[836], names[837]) == ("sunglass lens", "sunglasses")
    assert (names[987], names[998]) == ("corn", "ear of corn")


def test_fewer_imagenet_classes() -> None:
    assert load_prompts(Choice(name="imagenet_classes", number=2)) == [
        "A photo of tench",
        "A photo of goldfish",
    ]
    with pytest.raises(TastemakerError, match="less than or equal to 1000"):
        load_prompts(Choice(name="imagenet_classes", number=1001))


def test_what_becomes_of_every_line_is_counted_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n# b\n\n a \nc\n  \na\n", encoding="utf-8")
    assert load(path) == ["a", "# b", "c"]
    assert capsys.readouterr().out == (
        f"{path}: 3 of 7 taken; 2 repeat an earlier prompt; 2 are blank;"
        " 1 begin with # and are prompts like others\n"
    )
    path.write_text("d\ne\n", encoding="utf-8")
    load(path)
    assert not capsys.readouterr().out


def test_half_a_character_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x"}\n{"prompt": "cut \\ud83d end"}\n', encoding="utf-8")
    with pytest.raises(TastemakerError, match=r"a\.jsonl, line 2: the prompt is not valid Unicode"):
        load(path)


def test_prompts_are_compared_without_case_spaces_and_full_stop() -> None:
    trained = ["A  photo of\ta Cat.", "a dog", "ﬁsh"]
    judged = ["a photo of a cat", "a dog!", "fish", "a catfish"]
    assert shared_prompts(judged, trained) == ["a photo of a cat", "fish"]
    assert shared_prompts(judged, []) == []


def test_a_model_knows_the_prompts_of_all_its_trainings(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_trained_prompts(first, ["a cat", "a dog"], ["nano"])
    write_trained_prompts(second, ["A pig."], [str(first)])
    judged = ["a cat", "a pig", "a hen"]
    assert prompts_trained_on(judged, [first]) == ["a cat"]
    assert prompts_trained_on(judged, [tmp_path / "unknown", second]) == ["a cat", "a pig"]
    assert prompts_trained_on(["a hen"], [second]) == []
    assert prompts_trained_on(judged, [tmp_path / "unknown"]) is None
    assert "cat" not in (second / "trained_prompts.json").read_text()
