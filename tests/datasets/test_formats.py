"""Every format of compared images goes out and comes back: prompts, pixels, verdicts, ties and all.

What a format cannot hold is named by row, and nothing that is read leads out of its folder.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tastemaker.cli.command_line import main
from tastemaker.config.datasets import DataExportConfig, ImportConfig, PairConfig
from tastemaker.config.loading import section
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import COMPARISONS, LAYOUTS
from tastemaker.datasets.comparisons import BOTH_BAD, Comparison, read_labels, win_shares
from tastemaker.datasets.exporting import export_comparisons
from tastemaker.datasets.formats import webdataset
from tastemaker.datasets.importing import import_comparisons
from tastemaker.datasets.items import LeftOut, Refused
from tastemaker.pairing.pair import pair
from tastemaker.storage.images import encode_png
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool

TWO = ("label_studio", "pick_a_pic", "webdataset", "folder", "twins", "rankings")
"""Formats of two images a comparison, in and out."""


def png(colour: int, size: tuple[int, int] = (3, 2)) -> bytes:
    return encode_png(Image.new("RGB", size, (colour % 256, colour // 256 % 256, 7)))


def jpeg(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (colour % 256, 90, 7)).save(buffer, format="JPEG")
    return buffer.getvalue()


prompts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
).filter(str.strip)


@st.composite
def compared(draw: st.DrawFn, most: int = 2) -> Comparison:
    """Distinct images, verdicts with ties of every kind, models or none."""
    number = draw(st.integers(2, most))
    colours = draw(st.lists(st.integers(0, 65535), min_size=number, max_size=number, unique=True))
    scores = draw(st.lists(st.integers(0, 3).map(float), min_size=number, max_size=number))
    shares = win_shares(scores)
    tied = len(set(shares)) == 1
    state = draw(st.sampled_from(("judged", "bad", "unjudged"))) if tied else "judged"
    return Comparison(
        "",
        draw(prompts),
        tuple(png(colour) for colour in colours),
        shares,
        tuple(draw(st.sampled_from(("", "a", "b"))) for _ in range(number)),
        judged=state != "unjudged",
        bad=state == "bad",
    )


def order_free(comparison: Comparison) -> Any:
    """What a comparison says, whichever image comes first."""
    sides = zip(comparison.images, comparison.verdicts, strict=True)
    return comparison.prompt.strip(), sorted(sides), comparison.judged, comparison.bad


def read(layout: str, folder: Path, **options: Any) -> list[Comparison]:
    found = list(COMPARISONS.bind(layout, {"path": str(folder), **options})().items)
    assert all(isinstance(each, Comparison) for each in found), found
    return [each for each in found if isinstance(each, Comparison)]


def write(layout: str, comparisons: list[Comparison], folder: Path, **options: Any) -> Path:
    LAYOUTS.bind(layout, options)(iter(comparisons), folder)
    return folder


@pytest.mark.parametrize("layout", TWO)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.lists(compared(), min_size=1, max_size=5))
@example(data=[Comparison("", "x", (png(1), png(2)), (0.5, 0.5), ("", ""), bad=True)])
@example(data=[Comparison("", "x", (png(1), png(2)), (0.0, 1.0), ("", "b"))] * 3)
def test_what_goes_out_comes_back(layout: str, data: list[Comparison]) -> None:
    small = {"pick_a_pic": {"rows": 2}, "webdataset": {"samples": 2}}.get(layout, {})
    with tempfile.TemporaryDirectory() as place:
        found = read(layout, write(layout, data, Path(place), **small))
    assert [order_free(each) for each in found] == [order_free(each) for each in data]
    if layout != "twins":  # which has no place for them
        models = [dict(zip(each.images, each.models, strict=True)) for each in found]
        assert models == [dict(zip(each.images, each.models, strict=True)) for each in data]
    assert len({each.where for each in found}) == len(found)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.lists(compared(most=5), min_size=1, max_size=4))
def test_rankings_of_many_images_come_back(data: list[Comparison]) -> None:
    with tempfile.TemporaryDirectory() as place:
        found = read("rankings", write("rankings", data, Path(place)))
    assert [each.verdicts for each in found] == [each.verdicts for each in data]
    assert [each.images for each in found] == [each.images for each in data]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported: won by the first, by the second, a tie, one without a verdict; one a JPEG."""
    folder = tmp_path_factory.mktemp("formats")
    data = [
        Comparison("", "a cat", (png(1), png(2)), (1.0, 0.0), ("m", "n")),
        Comparison("", "a dog, größer", (jpeg(3), png(4)), (0.0, 1.0), ("", "")),
        Comparison("", "a tie", (png(5), png(6)), (0.5, 0.5), ("", "")),
        Comparison("", "unseen", (png(7), png(8)), (0.5, 0.5), ("", ""), judged=False),
    ]
    source = write("pick_a_pic", data, folder / "source")
    return import_comparisons(
        ImportConfig(comparisons={"path": str(source)}, shard_size=4), folder / "pool"
    )


def pixels(folder: Path) -> list[Any]:
    """Of a pool: each group's prompt, bytes and verdicts."""
    rows = Pool(folder).candidates(("prompt_id", "prompt", "image", "model")).to_pylist()
    human = Pool(folder).scores()["human"].to_pylist()
    groups: dict[str, Any] = {}
    for row, verdict in zip(rows, human, strict=True):
        group = groups.setdefault(row["prompt_id"], [row["prompt"]])
        group.append((row["image"]["bytes"], verdict))
    return [[prompt, sorted(images)] for prompt, *images in groups.values()]


def pairs_of(pool: Path, output: Path) -> list[Any]:
    """The pairs by people's verdicts: prompt, chosen and rejected bytes."""
    table = PairSet(pair(PairConfig(rule={"scorer": "human"}), pool, output)).table().to_pylist()
    candidates = Pool(pool).candidates(("candidate_id", "image")).to_pylist()
    data = {row["candidate_id"]: row["image"]["bytes"] for row in candidates}
    return [(row["prompt"], data[row["chosen_id"]], data[row["rejected_id"]]) for row in table]


@pytest.mark.parametrize("layout", TWO)
def test_a_pool_and_its_pairs_come_back_through_every_format(
    layout: str, pool: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(pool), str(out), f"layout={layout}"]) == 0
    # The format is told by what is in the folder.
    assert main(["import", str(tmp_path / "back"), f"comparisons={out}"]) == 0
    assert pixels(tmp_path / "back") == pixels(pool)
    ours = pairs_of(pool, tmp_path / "ours")
    assert pairs_of(tmp_path / "back", tmp_path / "theirs") == ours
    assert main(["export", str(tmp_path / "ours"), str(tmp_path / "out2"), f"layout={layout}"]) == 0
    config = section(ImportConfig, None, (f"comparisons={tmp_path / 'out2'}",))
    again = import_comparisons(config, tmp_path / "again")
    assert pairs_of(again, tmp_path / "pairs") == ours


@pytest.mark.parametrize("layout", TWO)
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(data=st.lists(compared().filter(lambda each: not each.bad), min_size=1, max_size=4))
@example(data=[Comparison("", "x", (png(1), png(2)), (0.5, 0.5), ("", ""), judged=False)])
def test_what_an_import_took_goes_out_as_it_came(layout: str, data: list[Comparison]) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = write(layout, data, Path(place) / "in")
        config = section(ImportConfig, None, (f"comparisons={source}", "ties=labelled"))
        pool = import_comparisons(config, Path(place) / "pool")
        out = export_comparisons(DataExportConfig(layout=layout), pool, Path(place) / "out")
        found = read(layout, out)
    assert [order_free(each) for each in found] == [order_free(each) for each in data]


def test_an_export_appears_whole_and_is_made_once(pool: Path, tmp_path: Path) -> None:
    config = DataExportConfig(layout="folder")
    out = export_comparisons(config, pool, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    export_comparisons(config, pool, out)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    with pytest.raises(TastemakerError, match="holds something else; choose another"):
        export_comparisons(DataExportConfig(layout="twins"), pool, out)
    next(out.rglob("*.png")).unlink()
    with pytest.raises(TastemakerError, match="files are missing, or others"):
        export_comparisons(config, pool, out)
    with pytest.raises(TastemakerError, match="unknown export format 'kohya'"):
        section(DataExportConfig, None, ("layout=kohya",))
    with pytest.raises(TastemakerError, match="no scores by 'clip'"):
        export_comparisons(DataExportConfig(scorer="clip"), pool, tmp_path / "no")


def test_images_with_captions_go_out_and_come_back(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(pool), str(out), "layout=captions"]) == 0
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [
        "a cat",
        "a dog, größer",
        *["a tie"] * 2,
        *["unseen"] * 2,
    ]
    assert (
        main(["import", str(tmp_path / "real"), f"images={out}", "resolution=8", "min_crop_side=1"])
        == 0
    )
    real = Pool(tmp_path / "real").candidates(("prompt", "source")).to_pylist()
    assert [row["prompt"] for row in real] == [row["text"] for row in rows]
    # A pool of photographs has no verdicts, and needs none for this format alone.
    again = tmp_path / "again"
    assert main(["export", str(tmp_path / "real"), str(again), "layout=captions"]) == 0
    assert len((again / "metadata.jsonl").read_text().splitlines()) == 6
    assert main(["export", str(tmp_path / "real"), str(tmp_path / "no")]) == 2


def test_more_than_two_images_need_a_format_for_them(tmp_path: Path, capsys: Any) -> None:
    data = [Comparison("", "x", (png(1), png(2), png(3)), (0.5, 1.0, 0.0), ("",) * 3)]
    source = write("rankings", data, tmp_path / "in")
    assert main(["import", str(tmp_path / "pool"), f"comparisons={source}"]) == 0
    assert main(["export", str(tmp_path / "pool"), str(tmp_path / "out")]) == 2
    assert "prompt 'x' has 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["export", str(tmp_path / "pool"), str(tmp_path / "out"), "layout=rankings"]) == 0
    images = sorted(zip(data[0].images, data[0].verdicts, strict=True))
    assert pixels(tmp_path / "pool") == [["x", images]]


def test_hpdv2_as_published(tmp_path: Path) -> None:
    """Its test set ranks several images, its training set says which of two was preferred."""
    for number in range(3):
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "test" / f"{number}.jpg").write_bytes(jpeg(number))
    ranked = {
        "prompt": "a cat",
        "image_path": ["0.jpg", "1.jpg", "2.jpg"],
        "rank": [3, 1, 2],
        "raw_annotations": [{"rank": [1, 2, 3], "user_hash": "x"}],
    }
    preferred = {
        "human_preference": [0, 1],
        "prompt": "a dog",
        "file_path": ["0.jpg", "2.jpg"],
        "user_hash": "y",
    }
    (tmp_path / "test.json").write_text(json.dumps([ranked, preferred], indent=1))
    lines = "".join(f"{json.dumps(each)}\n" for each in (ranked, preferred))
    (tmp_path / "test.jsonl").write_text(lines)
    for name in ("test.json", "test.jsonl"):
        found = read("rankings", tmp_path / name, images=str(tmp_path / "test"))
        assert [each.verdicts for each in found] == [(0.0, 1.0, 0.5), (0.0, 1.0)]
        assert found[0].images == tuple(jpeg(number) for number in range(3))


def test_a_long_list_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.datasets.formats.json_items.CHUNK", 7)
    from tastemaker.datasets.formats.json_items import json_items

    items: list[Any] = [{"a": [1, {"b": "]}"}]}, 12, "x,", [], {"ü": 1.5}, 34567]
    for text in (json.dumps(items), json.dumps(items, indent=2) + "\n", "[]", " [ ] "):
        (tmp_path / "a.json").write_text(text)
        found = [item for _, item in json_items(tmp_path / "a.json")]
        assert found == json.loads(text)
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, items)))
    assert [item for _, item in json_items(tmp_path / "a.json")] == items
    for text in ('[{"a": 1}', '[{"a": 1}, {"b"', '[{"a": 1}, x]', '{"a": 1}\n{"b'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(TastemakerError, match="is not JSON from item 1 on"):
            list(json_items(tmp_path / "a.json"))


def tar(file: Path, **members: bytes | str) -> Path:
    """Members by name; two underscores stand for a dot, so that names are keywords."""
    with tarfile.open(file, "w:gz" if file.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def test_variants_of_webdataset(tmp_path: Path) -> None:
    images = {"a__jpg_0__jpg": png(1), "a__jpg_1__jpg": png(2)}
    same = ({"a__label_0__txt": "1"}, {"a__label_1__cls": b"0\n"}, {"a__json": '{"label_0": 1.0}'})
    for label in same:
        for prompt in ("txt", "caption__txt", "original_prompt__txt", "prompt__txt"):
            file = tar(tmp_path / "x.tar", **images, **label, **{f"a__{prompt}": "a cat"})
            (found,) = read("webdataset", file)
            assert (found.prompt, found.verdicts) == ("a cat", (1.0, 0.0))
    both = {"b__chosen__png": png(3), "b__rejected__png": png(4), "b__json": '{"caption": "x"}'}
    zipped = tar(tmp_path / "y.tar.gz", a__cls="3", a__readme="text", **both)
    skipped, found = COMPARISONS.bind("webdataset", {"path": str(zipped)})().items
    assert isinstance(skipped, LeftOut)  # a sample of another kind is named
    (tmp_path / "x.tar").unlink()
    assert isinstance(found, Comparison)
    assert found.images == (png(3), png(4))


def test_any_data_set_by_its_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    columns = {
        "text": ["a cat", "a dog", "two", "bad", "odd"],
        "left": [{"bytes": png(n), "path": None} for n in range(5)],
        "right": [{"bytes": png(n + 9), "path": None} for n in range(5)],
        "winner": ["model_a", "model_b", "tie", "tie (bothbad)", "?"],
    }
    data = datasets.Dataset.from_dict(columns)
    data = data.cast_column("left", datasets.Image()).cast_column("right", datasets.Image())
    data.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    data.to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    options = {"prompt": "text", "first": "left", "second": "right", "label": "winner"}
    labels = {"model_a": 1, "model_b": 0, "tie": 0.5, "tie (bothbad)": "both_bad"}
    for place in ("saved", "parquet"):
        source = {"path": str(tmp_path / place), **options, "labels": labels}
        *found, odd = COMPARISONS.bind("datasets", source)().items
        assert [each.verdicts[0] for each in found] == [1.0, 0.0, 0.5, 0.5]
        assert [each.bad for each in found] == [False, False, False, True]
        assert [each.images for each in found] == [(png(n), png(n + 9)) for n in range(4)]
        assert isinstance(odd, Refused)
        assert "winner is '?', of which `labels` says nothing" in odd.reason
    wrong = {"path": str(tmp_path / "saved"), **options, "first": "jpg_0"}
    with pytest.raises(TastemakerError, match="has no column 'jpg_0'; it has"):
        COMPARISONS.bind("datasets", wrong)()
    numbers = {"path": str(tmp_path / "saved"), **options, "label": "vote"}
    data.add_column("vote", [1, -1, 0, 1, -1]).save_to_disk(numbers["path"] + "-2")
    numbers |= {"path": numbers["path"] + "-2", "labels": {1: 1, -1: 0, 0: 0.5}}
    found = list(COMPARISONS.bind("datasets", numbers)().items)
    assert [each.verdicts[0] for each in found] == [1.0, 0.0, 0.5, 1.0, 0.0]
    with pytest.raises(TastemakerError, match="data set 'no/such' cannot be loaded"):
        COMPARISONS.bind("datasets", {**numbers, "path": "no/such"})()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TastemakerError, match=r"pip install 'tastemaker\[datasets\]'"):
        COMPARISONS.bind("datasets", source)()


def test_datasets_reads_what_export_writes(pool: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    out = export_comparisons(DataExportConfig(), pool, tmp_path / "out")
    columns = {"prompt": "caption", "first": "jpg_0", "second": "jpg_1", "label": "label_0"}
    found = read("datasets", out, **columns)
    assert [(each.prompt, each.images, each.verdicts) for each in found] == [
        (each.prompt, each.images, each.verdicts) for each in read("pick_a_pic", out)
    ]


@given(st.sampled_from((0, 0.5, 1, None, "tie", BOTH_BAD)), st.sampled_from((0, 0.5, 1, None)))
def test_labels_of_both_images_agree_or_are_refused(first: Any, second: Any) -> None:
    if second is not None and (first == BOTH_BAD):
        with pytest.raises(TastemakerError, match="contradict"):
            read_labels({"label_0": first, "label_1": second})
        return
    mine = 0.5 if first == "tie" else first
    if None not in (first, second) and mine + second not in (0, 1):
        with pytest.raises(TastemakerError, match="contradict"):
            read_labels({"label_0": first, "label_1": second})
        return
    label = read_labels({"label_0": first, "label_1": second})
    if mine == second == 0:
        assert label == BOTH_BAD
    elif mine is not None:
        assert label == mine
    else:
        assert label == (None if second is None else 1 - second)


# Bad input: one line each, by row, and what stands beside it is not lost.


def rows_of(*broken: dict[str, Any]) -> list[dict[str, Any]]:
    good = {"caption": "x", "jpg_0": png(1), "jpg_1": png(2), "label_0": 1.0}
    return [good, *({**good, **each} for each in broken), good]


def parquet(folder: Path) -> Path:
    broken = ({"label_0": 0.7}, {"jpg_1": b"none"}, {"caption_0": "a", "caption_1": "b"})
    rows = [{"caption_0": None, "caption_1": None, **each} for each in rows_of(*broken)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    torn = (folder / "a.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(torn[: len(torn) - 30])
    pq.write_table(pa.table({"caption": ["x"], "jpg_0": [png(1)]}), folder / "c.parquet")
    return folder


def tars(folder: Path) -> Path:
    good = {"jpg_0__jpg": png(1), "jpg_1__jpg": png(2), "label_0__txt": "1", "txt": "x"}
    samples = (
        good,
        {**good, "label_0__txt": "0.7"},
        {**good, "jpg_1__jpg": b"none"},
        {**good, "caption_0__txt": "a", "caption_1__txt": "b"},
        {key: value for key, value in good.items() if key != "jpg_1__jpg"},
        good,
    )
    names = {f"{n}__{key}": value for n, each in enumerate(samples) for key, value in each.items()}
    file = tar(folder / "a.tar", **names, **{f"../7__{key}": value for key, value in good.items()})
    with tarfile.open(file, "a") as archive:
        archive.addfile(tarfile.TarInfo("._8.jpg_0.jpg"))  # what one system adds to any tar
        link = tarfile.TarInfo("8.jpg_0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    data = tar(folder / "b.tar", **{f"0__{key}": value for key, value in good.items()}).read_bytes()
    (folder / "b.tar").write_bytes(data[:1200])  # in the second member
    ends = data.rindex(b"x") // 512 * 512 + 512
    (folder / "c.tar").write_bytes(data[:ends])  # behind the last
    (folder / "d.tar").write_bytes(b"no tar at all" * 100)
    (folder / "e.tar.gz").write_bytes(tar(folder / "f.tar.gz", a__txt="x").read_bytes()[:-20])
    (folder / "f.tar.gz").unlink()
    two = tar(folder / "g.tar", **{f"{n}__{k}": v for n in range(2) for k, v in good.items()})
    damaged = bytearray(two.read_bytes())
    second = damaged.index(b"1.jpg_0.jpg")
    damaged[second : second + 9] = b"\xff" * 9
    (folder / "g.tar").write_bytes(damaged)
    (folder / "._a.tar").write_bytes(b"what one system adds to any folder")
    return folder


def described(folder: Path) -> Path:
    for number in range(2):
        (folder / f"{number}.png").write_bytes(png(number))
    (folder / "none.png").write_bytes(b"none")
    (folder.parent / "secret.png").write_bytes(png(9))
    good = {"prompt": "x", "chosen": "0.png", "rejected": "1.png"}
    broken = (
        {**good, "label": 0.7},
        {**good, "rejected": "none.png"},
        {**good, "chosen_prompt": "a", "rejected_prompt": "b"},
        {"prompt": "x", "chosen": "0.png"},
        {**good, "rejected": "../secret.png"},
        {**good, "rejected": str(folder.parent / "secret.png")},
        {**good, "rejected": "gone.png"},
    )
    lines = [json.dumps(each) for each in (good, *broken, good)]
    text = "\n".join([*lines, "{torn", "[1]"]) + "\n"
    (folder / "metadata.jsonl").write_bytes(text.encode() + b'{"prompt": "\xff"}\n')
    return folder


def twin_folders(folder: Path) -> Path:
    for stem, label, caption in (
        ("a", None, "x"),
        ("b", "0.7", "x"),
        ("c", None, None),
        ("d", None, "x"),
        ("e", "0.5", "x"),
    ):
        for side, colour in (("chosen", 1), ("rejected", 2)):
            (folder / side).mkdir(exist_ok=True, parents=True)
            (folder / side / f"{stem}.png").write_bytes(png(colour))
            if caption:
                (folder / side / f"{stem}.txt").write_text(caption)
        if label:
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{stem}.txt").write_text(label)
    (folder / "rejected" / "d.png").unlink()
    (folder / "rejected" / "a.txt").write_text("another")
    return folder


def ranked(folder: Path) -> Path:
    for number in range(2):
        (folder / f"{number}.png").write_bytes(png(number))
    good = {"prompt": "x", "image_path": ["0.png", "1.png"], "rank": [1, 2]}
    broken: list[Any] = [
        {**good, "rank": [1]},
        {**good, "rank": ["first", "second"]},
        {**good, "image_path": ["0.png"]},
        {**good, "image_path": ["0.png", "../1.png"]},
        {"prompt": "x", "image_path": ["0.png", "1.png"]},
        "text",
    ]
    text = json.dumps([good, *broken, good])
    (folder / "rankings.json").write_text(text[:-1] + ', {"prompt"')
    return folder


BAD: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "pick_a_pic": (
        parquet,
        2,
        (
            "a.parquet, row 1: label_0 is 0.7; it must be 0, 0.5 or 1",
            "a.parquet, row 2: image 1: no readable image",
            "a.parquet, row 3: the images are of two prompts ('a', 'b')",
            "b.parquet is not a whole parquet file",
            "c.parquet has no column 'jpg_1'",
        ),
    ),
    "webdataset": (
        tars,
        2,
        (
            "a.tar, row 1 (1): label_0 is '0.7'",
            "a.tar, row 2 (2): image 1: no readable image",
            "a.tar, row 3 (3): the images are of two prompts",
            "a.tar, row 4 (4): it has no image jpg_1.jpg",
            "a.tar, row 6 (../7): member '../7.txt' leads out of the archive",
            "a.tar, row 7 (8): member '8.jpg_0.jpg' is a link",
            "b.tar: is not a whole tar archive",
            "c.tar: is not a whole tar archive: it is cut off",
            "d.tar: is not a whole tar archive",
            "e.tar.gz: is not a whole tar archive",
            "g.tar: is not a whole tar archive: it is damaged at byte",
        ),
    ),
    "folder": (
        described,
        2,
        (
            "metadata.jsonl, line 2: label is 0.7",
            "metadata.jsonl, line 3: image 1: no readable image",
            "metadata.jsonl, line 4: the images are of two prompts",
            "metadata.jsonl, line 5: it has no 'rejected'",
            "metadata.jsonl, line 6: path '../secret.png' leads out of the folder",
            "secret.png' leads out of the folder",
            "/in/gone.png does not exist",
            "metadata.jsonl, line 10: it is not JSON",
            "metadata.jsonl, line 11: the line is list",
            "metadata.jsonl, line 12: it is not",
        ),
    ),
    "twins": (
        twin_folders,
        1,
        (
            "a: the images are of two prompts ('x', 'another')",
            "b: labels/b.txt is '0.7'",
            "c: no caption; write it in captions/c.txt",
            "d: no image of this name in rejected/",
        ),
    ),
    "rankings": (
        ranked,
        2,
        (
            "rankings.json, row 1: rank has 1 values for 2 images",
            "rankings.json, row 2: rank is ['first', 'second']; it must hold numbers",
            "rankings.json, row 3: it has 1 images",
            "rankings.json, row 4: path '../1.png' leads out of the folder",
            "rankings.json, row 5: it has no rank",
            "rankings.json, row 6: it is str, not an object",
            "rankings.json is not JSON from item 8 on",
        ),
    ),
}


@pytest.mark.parametrize("layout", BAD)
def test_a_check_lists_every_problem_by_row_and_writes_nothing(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, good, problems = BAD[layout]
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    assert main(["import", str(tmp_path / "pool"), f"comparisons={source}", "--check"]) == 1
    told = capsys.readouterr().out
    for problem in problems:
        assert problem in told
    assert f": {len(problems)} problems" in told, told
    assert f"checked {len(problems) + good} comparisons" in told, told
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_check_lists_an_import_leaves_out(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "in").mkdir()
    lines = (described(tmp_path / "in") / "metadata.jsonl").read_bytes().split(b"\n")
    lines[1] = b""  # the label that is none, at which an import ends
    (tmp_path / "in" / "metadata.jsonl").write_bytes(b"\n".join(lines))
    words = ["import", str(tmp_path / "pool"), f"comparisons={tmp_path / 'in'}"]
    assert main([*words, "--check"]) == 1
    *told, last = capsys.readouterr().out.splitlines()
    assert last == "checked 11 comparisons: 9 problems"
    assert main(words) == 0
    left = map(json.loads, (tmp_path / "pool" / "left_out.jsonl").read_text().splitlines())
    assert [f"{each['where']}: {each['reason']}" for each in left] == told
    assert Pool(tmp_path / "pool").candidates().num_rows == 2 * 2


def test_a_check_of_a_good_source_ends_well(pool: Path, tmp_path: Path, capsys: Any) -> None:
    out = export_comparisons(DataExportConfig(), pool, tmp_path / "out")
    words = ["import", str(tmp_path / "pool"), f"comparisons={out}", "--check"]
    assert main([*words, "resolution=8"]) == 0
    assert "checked 4 comparisons: 0 problems" in capsys.readouterr().out
    assert main(words) == 1
    told = capsys.readouterr().out
    assert "row 1: images of several sizes (3 x 2, 8 x 8); set resolution or buckets" in told


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (parquet, r"row 1: label_0 is 0\.7; it must be"),
        (tars, r"a\.tar, row 1 \(1\): label_0 is '0\.7'"),
        (described, r"line 2: label is 0\.7"),
        (twin_folders, r"b: labels/b\.txt is '0\.7'"),
        (ranked, r"row 2: rank is \['first', 'second'\]"),
    ],
)
def test_an_import_ends_at_a_label_that_is_none(make: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    config = section(ImportConfig, None, (f"comparisons={make(tmp_path / 'in')}",))
    with pytest.raises(TastemakerError, match=message):
        import_comparisons(config, tmp_path / "pool")


def test_an_import_ends_at_a_torn_file(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", a__chosen__png=png(1), a__rejected__png=png(2), a__txt="x")
    whole = tar(tmp_path / "b.tar", b__chosen__png=png(3), b__rejected__png=png(4), b__txt="y")
    (tmp_path / "b.tar").write_bytes(whole.read_bytes()[:700])
    config = section(ImportConfig, None, (f"comparisons={tmp_path}", "shard_size=2"))
    with pytest.raises(TastemakerError, match=r"b\.tar: is not a whole tar archive"):
        import_comparisons(config, tmp_path / "pool")
    assert len(Pool(tmp_path / "pool").shards()) == 1  # what was read before is there
    assert not (tmp_path / "pool" / "done.json").exists()


def test_missing_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = {
        "pick_a_pic": "no .parquet file",
        "webdataset": "holds no .tar",
        "folder": "metadata.jsonl does not exist",
        "twins": "chosen does not exist",
        "rankings": "rankings.json does not exist",
    }
    for layout, message in words.items():
        with pytest.raises(TastemakerError, match=message):
            COMPARISONS.bind(layout, {"path": str(tmp_path / "empty")})()
    with pytest.raises(TastemakerError, match="is not a format of compared images.*webdataset"):
        COMPARISONS.bind("pick_a_pic", {"path": "webdatset"})()


def test_members_of_a_tar_are_not_kept(tmp_path: Path) -> None:
    """`tarfile` keeps a note of every member: of a million rows these would fill gigabytes."""
    members = {f"{n}__{key}": "x" for n in range(50) for key in ("txt", "json")}
    file = tar(tmp_path / "a.tar", **members)
    held: list[int] = []
    opened = tarfile.open

    def watched(*arguments: Any, **options: Any) -> tarfile.TarFile:
        archive = opened(*arguments, **options)
        following = archive.next

        def counted() -> tarfile.TarInfo | None:
            held.append(len(archive.members))
            return following()

        archive.next = counted  # type: ignore[method-assign]
        return archive

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webdataset.tarfile, "open", watched)
        samples: Iterator[Any] = webdataset._samples(file)
        assert len(list(samples)) == 50
    assert max(held) <= 1
