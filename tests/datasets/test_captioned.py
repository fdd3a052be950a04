"""Captioned images of every format come with their captions and boxes, and what is wrong, why."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from folders import described, put
from tastemaker.config.datasets import ImagesConfig
from tastemaker.config.loading import section
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import CAPTIONED
from tastemaker.datasets.captioned import Captioned
from tastemaker.datasets.items import LeftOut, Refused, Source
from tastemaker.nano.captions import CONCEPTS, STYLES, Scene, split_of
from tastemaker.storage.photographs import read_photograph


def picture(colour: str = "red", size: tuple[int, int] = (24, 16), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


def parquet(path: Path, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def source(name: str, path: Path, **options: Any) -> Source[Captioned]:
    return CAPTIONED.bind(name, {"path": str(path), **options})()


def captions(images: Source[Captioned]) -> list[tuple[str, str]]:
    found = list(images.items)
    assert all(isinstance(each, Captioned) for each in found), found
    return [(each.where, each.caption) for each in found if isinstance(each, Captioned)]


def reasons(images: Source[Captioned]) -> dict[str, str]:
    return {each.where: each.reason for each in images.items if isinstance(each, LeftOut)}


def test_folder_with_twins_is_read_in_order_of_paths(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a.b.png", ".hidden/c.png", "._b.png"):
        put(tmp_path / name, picture())
        put((tmp_path / name).with_suffix(".txt"), f"\ufeffthe {name}\n")
    put(tmp_path / "notes.md", "no image")
    images = source("folder", tmp_path)
    names = ["a.b.png", "z.JPG", "b.png", "a.b.txt", "z.txt", "b.txt"]
    assert [file.name for file in images.files] == names
    assert captions(images) == [
        ("a.b.png", "the a.b.png\n"),
        ("a/z.JPG", "the a/z.JPG\n"),
        ("b.png", "the b.png\n"),
    ]


def test_folder_with_metadata_keeps_its_order(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", picture())
    put(tmp_path / "b.png", picture())
    put(tmp_path / "unnamed.png", picture())
    rows = [
        {"file_name": "in/a.png", "caption": "a line\u2028separator"},
        {"file_name": "b.png", "prompt": "b", "box": [0, 1.2, 7.8, 8]},
        {"file_name": "b.png", "text": "b again", "caption": "not this", "box": None},
    ]
    images = source("folder", described(tmp_path, rows))
    assert [file.name for file in images.files] == ["metadata.jsonl", "a.png", "b.png", "b.png"]
    first, second, third = images.items
    assert isinstance(first, Captioned)
    assert (first.where, first.caption, first.box) == ("in/a.png", "a line\u2028separator", None)
    assert first.encoded() == picture()
    assert second == Captioned("b.png, box [0, 1.2, 7.8, 8]", tmp_path / "b.png", "b", (0, 1, 8, 8))
    assert third == Captioned("b.png", tmp_path / "b.png", "b again")


def test_another_key_of_the_caption(tmp_path: Path) -> None:
    put(tmp_path / "a.png", picture())
    rows = [{"file_name": "a.png", "text": "not this", "alt": "this"}]
    described(tmp_path, rows)
    assert captions(source("folder", tmp_path, caption="alt")) == [("a.png", "this")]
    file = parquet(tmp_path / "x.parquet", image=[picture()], text=["not this"], alt=["this"])
    assert captions(source("parquet", file, caption="alt")) == [("x.parquet, row 0", "this")]


def test_what_a_folder_lacks_is_told_with_the_remedy(tmp_path: Path) -> None:
    put(tmp_path / "twins" / "a.png", picture())
    put(tmp_path / "twins" / "b.png", picture())
    put(tmp_path / "twins" / "b.txt", b"\xff\xfe\x00caf\xe9")
    told = reasons(source("folder", tmp_path / "twins"))
    assert "write it in a.txt" in told["a.png"]
    assert "b.txt is not UTF-8 text but UTF-16" in told["b.png"]
    rows = [
        {"file_name": "a.png", "label": 3},
        {"file_name": "b.png", "text": ["one", "two"]},
        {"file_name": "c.png", "text": "c", "box": [1, 2, 3]},
        {"file_name": "d.png", "text": "d", "box": ["left", 2, 3, 4]},
    ]
    told = reasons(source("folder", described(tmp_path, rows)))
    assert "no caption (text or caption or prompt); it has ['file_name', 'label']" in told["a.png"]
    assert "images.caption" in told["a.png"]
    assert "is ['one', 'two'], not text" in told["b.png"]
    assert "is not [left, top, right, bottom]" in told["c.png, box [1, 2, 3]"]
    assert "is not [left, top" in told["d.png, box ['left', 2, 3, 4]"]


def test_a_file_that_is_gone_is_told_when_it_is_read(tmp_path: Path) -> None:
    images = source("folder", described(tmp_path, [{"file_name": "gone.png", "text": "x"}]))
    assert [file.name for file in images.files] == ["metadata.jsonl"]
    gone = next(images.items)
    assert isinstance(gone, Captioned)
    with pytest.raises(TastemakerError, match=r"gone\.png does not exist"):
        gone.encoded()


@pytest.mark.parametrize("name", ["../a.png", "in/../../a.png", "/etc/a.png"])
def test_a_file_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    described(tmp_path, [{"file_name": "a.png", "text": "a"}, {"file_name": name, "text": "b"}])
    with pytest.raises(TastemakerError, match=r"metadata\.jsonl, line 2: .* leads out of the fold"):
        list(source("folder", tmp_path).files)
    first, second = source("folder", tmp_path).items
    assert isinstance(first, Captioned)
    assert isinstance(second, Refused)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_name_that_is_no_unicode_is_printable(tmp_path: Path) -> None:
    try:
        put(tmp_path / os.fsdecode(b"caf\xe9.png"), picture())
    except OSError:
        pytest.skip("the file system takes no such name")
    assert list(reasons(source("folder", tmp_path))) == ["caf\\udce9.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"file_name": "a.png"', "line 1: it is not JSON"),
        ('\n["a.png", "a"]', "line 2: it has no 'file_name'"),
        ('{"text": "a"}', "line 1: it has no 'file_name'"),
        ("\n", "names no image"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_bad_metadata_is_named(tmp_path: Path, content: bytes | str, message: str) -> None:
    put(tmp_path / "metadata.jsonl", content)
    with pytest.raises(TastemakerError, match=rf"metadata\.jsonl.*{message}"):
        list(source("folder", tmp_path).files)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match=r"nowhere' is not a folder.*nano_scenes, parquet"):
        source("folder", tmp_path / "nowhere")
    put(tmp_path / "a.txt", "no image")
    with pytest.raises(TastemakerError, match="holds no image"):
        source("folder", tmp_path)
    parquet(tmp_path / "x.parquet", image=[picture()], text=["a"])
    with pytest.raises(TastemakerError, match="set images.name=parquet"):
        source("folder", tmp_path)
    put(tmp_path / "a.png", picture())
    with pytest.raises(TastemakerError, match="caption=alt is a key of metadata.jsonl"):
        source("folder", tmp_path, caption="alt")


def test_parquet_of_bytes_and_of_structs(tmp_path: Path) -> None:
    inside = {"bytes": picture("blue"), "path": None}
    parquet(tmp_path / "0.parquet", image=[picture(), None], text=["a", "b"])
    parquet(tmp_path / "1.parquet", image=[inside], caption=["c"], box=[[0, 0, 8, 8]])
    images = source("parquet", tmp_path)
    assert [file.name for file in images.files] == ["0.parquet", "1.parquet"]
    assert list(images.items) == [
        Captioned("0.parquet, row 0", picture(), "a"),
        LeftOut("0.parquet, row 1", "the image is empty"),
        Captioned("1.parquet, row 0", picture("blue"), "c", (0, 0, 8, 8)),
    ]


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "x.parquet", image=[picture()], alt=["a"])
    with pytest.raises(TastemakerError, match=r"no column caption \(text or caption or prompt\)"):
        source("parquet", file)
    with pytest.raises(TastemakerError, match="no column caption .words.; it has .*alt"):
        source("parquet", file, caption="words")
    with pytest.raises(TastemakerError, match="no column 'image'"):
        source("parquet", parquet(tmp_path / "y.parquet", text=["a"]))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TastemakerError, match=r"x\.parquet is not a whole parquet file"):
        source("parquet", file)
    with pytest.raises(TastemakerError, match="nowhere does not exist"):
        source("parquet", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["images=photos"], {"name": "folder", "path": "photos", "caption": None}),
        (["images=a/b.parquet"], {"name": "parquet", "path": "a/b.parquet", "caption": None}),
        (["images=photos", "images.caption=alt"], {"path": "photos", "caption": "alt"}),
        (["images.path=photos"], {"name": "folder", "path": "photos"}),
        (["images.path=a.PARQUET"], {"name": "parquet", "path": "a.PARQUET"}),
        (["images.name=parquet", "images.path=shards"], {"name": "parquet", "path": "shards"}),
        (["images={name: nano_scenes, number: 9}"], {"name": "nano_scenes", "number": 9}),
    ],
)
def test_a_source_is_named_or_a_path(words: list[str], expected: dict[str, Any]) -> None:
    choice = section(ImagesConfig, None, (*words, "resolution=8")).images.model_dump()
    assert expected.items() <= choice.items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("images={name: parqet, path: x}", "resolution=8"), "Did you mean parquet"),
        (("images={path: x, captoin: y}", "resolution=8"), "Did you mean caption"),
        (("images={caption: y}", "resolution=8"), "'path' is required"),
        (("images=x",), "give one of `resolution`"),
        (("images=x", "resolution=8", "buckets=[[8, 16]]"), "give one of `resolution`"),
        (("images=x", "buckets=[[8, 4]]"), "buckets.0.1"),
        (("images=3", "resolution=8"), "images"),
    ],
)
def test_wrong_sections_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(TastemakerError, match=message):
        section(ImagesConfig, None, words)


@pytest.fixture
def art(tmp_path: Path) -> Path:
    """A folder of art as a build leaves it: a disc in a colour of its own for every concept."""
    for style in STYLES:
        (tmp_path / "art" / style).mkdir(parents=True)
        for number, concept in enumerate(CONCEPTS):
            sprite = Image.new("RGBA", (32, 32))
            colour = (5 * number, 200 - 5 * number, 40 if style == "flat" else 220)
            ImageDraw.Draw(sprite).ellipse((4, 4, 28, 28), fill=colour)
            sprite.save(tmp_path / "art" / style / f"{concept}.png")
    return tmp_path


def test_nano_scenes_are_of_their_split(art: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tastemaker.nano import drawn

    seen: list[Scene] = []
    render = drawn.render
    monkeypatch.setattr(
        drawn, "render", lambda scene, *rest: (seen.append(scene), render(scene, *rest))[1]
    )
    options = {"split": "test", "seed": 3, "work": str(art)}
    scenes = list(CAPTIONED.bind("nano_scenes", {"number": 12, **options})().items)
    assert {split_of(scene) for scene in seen} == {"test"}
    assert {scene.style for scene in seen} <= set(STYLES)
    assert scenes[0].where == "test scene 0, seed 3"
    assert len({scene.where for scene in scenes}) == 12
    assert all(read_photograph(scene.encoded()).image.size == (64, 64) for scene in scenes)
    assert list(CAPTIONED.bind("nano_scenes", {"number": 5, **options})().items) == scenes[:5]


def test_art_that_cannot_be_had_is_named_with_both_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(TastemakerError, match=r"tastemaker\[nano\]") as caught:
        list(CAPTIONED.bind("nano_scenes", {})().items)
    assert "npm" in str(caught.value)
    assert str(tmp_path / "cache" / "tastemaker" / "nano" / "art") in str(caught.value)
