"""What an import keeps, drops and counts: ties, both-bad, filters, splits; and one crop a pair."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tastemaker.cli.command_line import main
from tastemaker.config.datasets import (
    ImagesConfig,
    ImportConfig,
    PairConfig,
    PromptFilters,
    SplitConfig,
)
from tastemaker.config.loading import section
from tastemaker.config.sections import ScoreConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.filters import prompt_reasons
from tastemaker.datasets.importer import MOST_PRINTED
from tastemaker.datasets.importing import import_comparisons, import_images
from tastemaker.datasets.splits import part_of
from tastemaker.evaluation.score import score
from tastemaker.pairing.pair import pair
from tastemaker.storage.files import read_json, read_json_lines
from tastemaker.storage.images import decode, encode_png, fit
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.photographs import read_photograph
from tastemaker.storage.pictures import Pictures
from tastemaker.storage.pool import Pool

Source = Callable[..., Path]


def noise(number: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Write rows of Pick-a-Pic: prompt, label, and if wanted sizes or other columns."""

    def write(*rows: dict[str, Any]) -> Path:
        filled = [
            {
                "caption": f"prompt {number}",
                "jpg_0": encode_png(noise(2 * number)),
                "jpg_1": encode_png(noise(2 * number + 1)),
                "label_0": 1.0,
                "label_1": None,
                "has_label": True,
                **row,
            }
            for number, row in enumerate(rows)
        ]
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(filled), tmp_path / "in" / "a.parquet")
        return tmp_path / "in"

    return write


def taken(path: Path, output: Path, *words: str) -> list[tuple[str, float]]:
    """Import as the command line does: prompt and verdict of each first image."""
    config = section(ImportConfig, None, (f"comparisons={path}", *words))
    table = Pool(import_comparisons(config, output)).scores().to_pylist()
    return [(row["prompt"], row["human"]) for row in table if row["seed"] == 0]


def dropped(pool: Path) -> dict[str, int]:
    return dict(read_json(pool / "done.json")["dropped"])


TIED = ({"label_0": 0.5}, {"has_label": False, "label_0": 0.0}, {"label_0": 0.0}, {})


def test_ties_are_kept_dropped_or_labelled(source: Source, tmp_path: Path, capsys: Any) -> None:
    path = source(*TIED)
    kept = [("prompt 0", 0.5), ("prompt 1", 0.5), ("prompt 2", 0.0), ("prompt 3", 1.0)]
    assert taken(path, tmp_path / "kept") == kept
    assert Pool(tmp_path / "kept").scorers() == ["human"]
    assert taken(path, tmp_path / "dropped", "ties=dropped") == kept[2:]
    reasons = {"ties (ties=dropped)": 1, "comparisons without a verdict (ties=dropped)": 1}
    assert dropped(tmp_path / "dropped") == reasons
    assert "; 1 dropped: ties (ties=dropped)" in capsys.readouterr().out
    assert taken(path, tmp_path / "labelled", "ties=labelled") == kept
    # A row without a verdict is no tie that people saw.
    table = Pool(tmp_path / "labelled").scores()
    assert table["tie"].to_pylist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_reversed_labels_say_which_image_lost(source: Source, tmp_path: Path) -> None:
    found = taken(source(*TIED), tmp_path / "pool", "reversed_labels=true")
    assert [verdict for _, verdict in found] == [0.5, 0.5, 1.0, 0.0]


def test_both_bad_is_dropped_or_a_tie(source: Source, tmp_path: Path) -> None:
    path = source({}, {"label_0": 0.0, "label_1": 0.0})
    assert taken(path, tmp_path / "dropped") == [("prompt 0", 1.0)]
    assert dropped(tmp_path / "dropped") == {
        "comparisons with both images bad (both_bad=dropped)": 1
    }
    kept = taken(path, tmp_path / "kept", "both_bad=kept")
    assert kept == [("prompt 0", 1.0), ("prompt 1", 0.5)]
    assert taken(path, tmp_path / "none", "both_bad=kept", "ties=dropped") == kept[:1]


def test_filters_count_what_each_drops(source: Source, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("blood\n  black  cat \n\n", encoding="utf-8")
    path = source(
        {"caption": "cat"},
        {"caption": "a cat on a mat, of wool"},
        {"caption": "a Black\tCat"},
        {"caption": "the bloodhound"},
        {"caption": "two dogs"},
        {"caption": "a small cat", "jpg_1": encode_png(noise(90, (15, 40)))},
        {"caption": "a long cat", "jpg_0": encode_png(noise(91, (49, 16)))},
        {"caption": "a good cat", "jpg_0": encode_png(noise(92, (48, 16)))},
    )
    options = (
        "filters.min_words=2",
        "filters.max_words=6",
        f"filters.without={words}",
        "filters.having=[cat, hound, bloodhound]",
        "filters.min_side=16",
        "filters.max_aspect=3",
    )
    kept = taken(path, tmp_path / "pool", *options)
    assert [prompt for prompt, _ in kept] == ["the bloodhound", "a good cat"]
    assert dropped(tmp_path / "pool") == {
        "prompts of fewer than 2 words": 1,
        "prompts of more than 6 words": 1,
        "prompts with a word of 'without'": 1,
        "prompts without any word of 'having'": 1,
        "images with a side of less than 16 pixels": 1,
        "images longer than 3 times their shorter side": 1,
    }
    assert read_json_lines(tmp_path / "pool" / "left_out.jsonl") == []
    words.write_text("cat\n", encoding="utf-8")  # another list is another import
    with pytest.raises(TastemakerError, match="another configuration .*words"):
        taken(path, tmp_path / "pool", *options)
    words.write_text("\n", encoding="utf-8")
    with pytest.raises(TastemakerError, match="the word list without=.* is empty"):
        taken(path, tmp_path / "empty", *options)


def test_words_are_whole_words() -> None:
    reasons = prompt_reasons(PromptFilters(without=("c++", "art")))
    assert reasons("a part of a heart") is None
    assert reasons("Art!") is not None
    assert reasons("in C++.") is not None


@given(
    st.lists(st.text(max_size=8), max_size=30),
    st.lists(st.floats(0.1, 1), min_size=2, max_size=4),
    st.integers(0, 9),
)
def test_every_prompt_is_in_one_part_whatever_else_there_is(
    prompts: list[str], shares: list[float], seed: int
) -> None:
    split = SplitConfig(of=tuple(shares), seed=seed)
    for prompt in prompts:
        part = part_of(prompt, split)
        assert 0 <= part < len(shares)
        assert part_of(f"  {prompt} ", split) == part


def test_parts_have_their_shares() -> None:
    split = SplitConfig(of=(0.7, 0.2, 0.1))
    counts = np.bincount([part_of(f"prompt {n}", split) for n in range(3000)])
    assert np.abs(counts / 3000 - np.array(split.of)).max() < 0.03
    other = SplitConfig(of=(0.7, 0.2, 0.1), seed=1)
    assert any(part_of(f"{n}", split) != part_of(f"{n}", other) for n in range(50))


def test_a_split_leaves_no_prompt_in_two_parts(source: Source, tmp_path: Path) -> None:
    path = source(*({"caption": f" prompt {number % 9}"} for number in range(18)))
    options = ("shard_size=4", "split.of=[0.5, 0.5]")
    parts = [taken(path, tmp_path / f"{take}", *options, f"split.take={take}") for take in range(2)]
    assert len(parts[0]) + len(parts[1]) == 18
    assert not {prompt for prompt, _ in parts[0]} & {prompt for prompt, _ in parts[1]}
    ((reason, number),) = dropped(tmp_path / "0").items()
    assert (reason, number) == ("prompts in other parts of the split", len(parts[1]))
    # Resumed, it passes over what it had dropped.
    (tmp_path / "0" / "done.json").unlink()
    last = Pool(tmp_path / "0").shards()[-1]
    whole = last.read_bytes()
    last.unlink()
    assert taken(path, tmp_path / "0", *options, "split.take=0") == parts[0]
    assert last.read_bytes() == whole
    assert dropped(tmp_path / "0") == {reason: number}
    with pytest.raises(TastemakerError, match="take=2 of 2 parts"):
        taken(path, tmp_path / "2", *options, "split.take=2")


def test_pictures_in_two_parts_are_told_by_a_check(
    source: Source, tmp_path: Path, capsys: Any
) -> None:
    split = SplitConfig(of=(0.5, 0.5))
    first, second = (
        next(f"p{n}" for n in range(99) if part_of(f"p{n}", split) == part) for part in (0, 1)
    )
    same = noise(70)
    jpg = encode_png(same)
    tiff = io.BytesIO()
    same.save(tiff, format="TIFF")  # other bytes, the same pixels
    path = source(
        {"caption": first, "jpg_0": jpg},
        {"caption": first, "jpg_1": jpg},  # in one part a picture may come again
        {"caption": second, "jpg_1": tiff.getvalue()},
        {"caption": second, "jpg_0": jpg, "jpg_1": jpg},
    )
    words = ["import", str(tmp_path / "pool"), f"comparisons={path}", "--check"]
    assert main([*words, "split.of=[0.5, 0.5]"]) == 1
    told = capsys.readouterr().out
    assert (
        "row 2: image 1 is also image 0 of a.parquet, row 0, which is in part 0 of the split;"
        " this is in part 1" in told
    )
    assert "row 3: images 0 and 1 are the same picture" in told
    assert "checked 4 comparisons: 2 problems" in told
    assert main(words) == 1  # without a split there is one
    assert "1 problems" in capsys.readouterr().out


def test_the_same_picture_twice_is_no_pair(source: Source, tmp_path: Path) -> None:
    path = source({"jpg_0": encode_png(noise(1)), "jpg_1": encode_png(noise(1))}, {})
    assert [prompt for prompt, _ in taken(path, tmp_path / "pool")] == ["prompt 1"]
    (line,) = read_json_lines(tmp_path / "pool" / "left_out.jsonl")
    assert line == {"where": "a.parquet, row 0", "reason": "images 0 and 1 are the same picture"}


def images_of(pool: Path) -> list[list[Image.Image]]:
    rows = Pool(pool).candidates(("prompt_id", "image")).to_pylist()
    found: dict[str, list[Image.Image]] = {}
    for row in rows:
        found.setdefault(row["prompt_id"], []).append(decode(row["image"]["bytes"], "it"))
    return list(found.values())


def test_images_of_a_pair_are_cropped_and_mirrored_alike(source: Source, tmp_path: Path) -> None:
    sizes = (((24, 16), (24, 16)), ((32, 16), (16, 16)), *[((16, 16), (16, 24))] * 10)
    originals = [
        [noise(100 + 2 * n, sizes[n][0]), noise(101 + 2 * n, sizes[n][1])] for n in range(12)
    ]
    path = source(*({"jpg_0": encode_png(one), "jpg_1": encode_png(two)} for one, two in originals))
    taken(path, tmp_path / "square", "resolution=8", "random_flip=true")
    mirrored = []
    for found, (one, two) in zip(images_of(tmp_path / "square"), originals, strict=True):
        plain = [fit(image, 8, 8).tobytes() for image in (one, two)]
        turned = [ImageOps.mirror(fit(image, 8, 8)).tobytes() for image in (one, two)]
        assert [image.tobytes() for image in found] in (plain, turned)
        mirrored.append([image.tobytes() for image in found] == turned)
    assert 0 < sum(mirrored) < 12
    taken(path, tmp_path / "again", "resolution=8", "random_flip=true", "shard_size=4")
    for found, same in zip(
        images_of(tmp_path / "again"), images_of(tmp_path / "square"), strict=True
    ):
        assert [image.tobytes() for image in found] == [image.tobytes() for image in same]
    taken(path, tmp_path / "buckets", "buckets=[[16, 8], [8, 8], [8, 16]]")
    shapes = [[image.size for image in found] for found in images_of(tmp_path / "buckets")]
    # Log ratios of the second are log 2 and 0: their mean lies between the square and 2:1.
    assert shapes[0] == [(16, 8)] * 2
    assert all(one == two for one, two in shapes)
    with pytest.raises(TastemakerError, match="give one of `resolution`"):
        taken(path, tmp_path / "both", "resolution=8", "buckets=[[8, 8]]")


def test_training_sees_images_as_the_pool_holds_them(
    source: Source, tmp_path: Path, tiny_model: Path
) -> None:
    """No flip and no crop of its own: equal images have equal latents, on either side."""
    from tastemaker.backbones import load_backbone
    from tastemaker.training.encoding import encode
    from tastemaker.training.preference.pairs import open_pairs

    left, right = noise(1, (32, 32)), noise(2, (32, 32))
    rows = ({"jpg_0": encode_png(a), "jpg_1": encode_png(b)} for a, b in ((left, right),) * 2)
    pool = tmp_path / "pool"
    found = taken(source(next(rows), {**next(rows), "label_0": 0.0}), pool)
    assert [verdict for _, verdict in found] == [1.0, 0.0]
    pairs = PairSet(pair(PairConfig(rule={"scorer": "human"}), pool, tmp_path / "pairs"))
    data = encode(open_pairs(pairs), load_backbone(str(tiny_model), device="cpu"), None)
    mean, _ = data.latents.take(data.images(torch.arange(2)))
    assert (mean[0] == mean[3]).all()
    assert (mean[1] == mean[2]).all()
    assert (mean[0] != mean[1]).any()


def test_what_a_viewer_would_turn_is_stored_upright(source: Source, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, clear = io.BytesIO(), io.BytesIO()
    noise(1, (24, 16)).save(turned, format="PNG", exif=exif)
    Image.new("RGBA", (16, 24), (0, 0, 0, 0)).save(clear, format="PNG")
    plain = encode_png(noise(50))
    path = source({"jpg_0": turned.getvalue(), "jpg_1": clear.getvalue()}, {"jpg_0": plain})
    taken(path, tmp_path / "pool")
    found = images_of(tmp_path / "pool")
    shown = noise(1, (24, 16)).transpose(Image.Transpose.ROTATE_270)
    assert found[0][0].tobytes() == shown.tobytes()
    assert found[0][1].getpixel((0, 0)) == (255, 255, 255)
    assert Pool(tmp_path / "pool").candidates().to_pylist()[2]["image"]["bytes"] == plain


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour: a few kilobytes that hold gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000))  # nothing reads on to find it too short
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(12_000, 12_000), (60_000, 60_000)])
def test_an_image_with_too_many_pixels_is_not_decoded(
    size: tuple[int, int], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source({"jpg_1": bomb(*size)}, {})
    loaded: list[tuple[int, int]] = []
    load = Image.Image.load

    def counted(image: Image.Image) -> Any:
        loaded.append(image.size)
        return load(image)

    monkeypatch.setattr(Image.Image, "load", counted)
    assert [prompt for prompt, _ in taken(path, tmp_path / "pool")] == ["prompt 1"]
    assert size not in loaded
    (line,) = read_json_lines(tmp_path / "pool" / "left_out.jsonl")
    assert line["where"] == "a.parquet, row 0"
    assert "image 1: no readable image" in line["reason"]
    assert "pixels" in line["reason"]


def test_the_pixel_limit_is_an_option() -> None:
    data = encode_png(noise(0, (20, 30)))
    assert read_photograph(data, 600).image.size == (20, 30)
    with pytest.raises(TastemakerError, match=r"20 x 30 pixels are more than max_pixels=599"):
        read_photograph(data, 599)


def test_many_lines_are_told_in_the_pool_alone(source: Source, tmp_path: Path, capsys: Any) -> None:
    path = source(*({"jpg_0": b"none"} for _ in range(MOST_PRINTED + 9)), {})
    taken(path, tmp_path / "pool")
    told = capsys.readouterr().out
    assert told.count("left out: a.parquet, row") == MOST_PRINTED
    assert "left out: more, see" in told
    assert f"left out {MOST_PRINTED + 9}" in told
    lines = read_json_lines(tmp_path / "pool" / "left_out.jsonl")
    assert [line["where"] for line in lines] == [f"a.parquet, row {n}" for n in range(len(lines))]
    assert len(lines) == MOST_PRINTED + 9


def test_pictures_seen_are_found_by_part() -> None:
    pictures = Pictures()
    pictures.add("aa", "row 1")
    pictures.add("aa", "row 2")
    pictures.add("bb", "row 3", part=1)
    assert pictures.where("aa") == "row 1"
    assert pictures.where("cc") is None
    assert pictures.elsewhere("aa", 0) is None
    assert pictures.elsewhere("aa", 1) == (0, "row 1")
    assert pictures.elsewhere("bb", 0) == (1, "row 3")


def test_photographs_are_checked_filtered_and_split(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, caption in enumerate(("one cat", "two dogs", "three", "four cats")):
        (folder / f"{number}.png").write_bytes(encode_png(noise(number)))
        (folder / f"{number}.txt").write_text(caption)
    (folder / "4.png").write_bytes(encode_png(noise(0)))
    (folder / "4.txt").write_text("five cats")
    (folder / "5.png").write_bytes(b"none")
    (folder / "5.txt").write_text("six cats")
    words = ["import", str(tmp_path / "pool"), f"images={folder}", "resolution=8"]
    assert main([*words, "filters.min_words=2", "--check"]) == 1
    told = capsys.readouterr().out
    assert "4.png: the same picture as image 0 of 0.png" in told
    assert "5.png: no readable image" in told
    assert "checked 6 images: 2 problems; 1 dropped: prompts of fewer than 2 words" in told
    assert not (tmp_path / "pool").exists()
    options = (f"images={folder}", "resolution=8", "filters.min_words=2", "filters.without=[dogs]")
    found = import_images(section(ImagesConfig, None, options), tmp_path / "pool")
    assert [row["prompt"] for row in Pool(found).candidates().to_pylist()] == [
        "one cat",
        "four cats",
    ]
    assert dropped(found) == {
        "prompts with a word of 'without'": 1,
        "prompts of fewer than 2 words": 1,
    }
    assert main(["import", str(tmp_path / "no"), "lora=x", "model=y", "--check"]) == 2
    assert "a LoRA is checked when it is imported" in capsys.readouterr().err


def test_pairs_are_filtered_by_scores_words_and_split(
    source: Source, tmp_path: Path, tiny_clip: Path, capsys: Any
) -> None:
    path = source(*({"caption": f"prompt {number}"} for number in range(8)))
    pool = tmp_path / "pool"
    taken(path, pool)
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    score(ScoreConfig(scorers=(scorer,)), pool)
    rule: Any = {"scorer": "human"}
    table = Pool(pool).scores().to_pylist()
    tiny = {row["candidate_id"]: row["tiny"] for row in table}
    whole = PairSet(pair(PairConfig(rule=rule), pool, tmp_path / "all")).table().to_pylist()
    gaps = sorted(tiny[row["chosen_id"]] - tiny[row["rejected_id"]] for row in whole)
    least = sorted(tiny[row["chosen_id"]] for row in whole)[2]
    filters = {"min_gap": {"tiny": gaps[3]}, "min_score": {"tiny": least}, "without": ["7"]}
    config = PairConfig(rule=rule, filters=filters)
    rows = PairSet(pair(config, pool, tmp_path / "some")).table().to_pylist()
    assert rows == [
        row
        for row in whole
        if tiny[row["chosen_id"]] >= least
        and tiny[row["chosen_id"]] - tiny[row["rejected_id"]] >= gaps[3]
        and row["prompt"] != "prompt 7"
    ]
    counts = dropped(tmp_path / "some")
    assert sum(counts.values()) == 8 - len(rows)
    assert counts["prompts with a word of 'without'"] == 1
    assert f"dropped: pairs whose chosen image has less than {least:g} by tiny" in (
        capsys.readouterr().out
    )
    parts = [
        PairSet(
            pair(
                PairConfig(rule=rule, split={"of": (0.5, 0.5), "take": take}),
                pool,
                tmp_path / f"part {take}",
            )
        )
        .table()["prompt"]
        .to_pylist()
        for take in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == sorted(row["prompt"] for row in whole)
    with pytest.raises(TastemakerError, match="no scores by 'none'"):
        pair(PairConfig(rule=rule, filters={"min_gap": {"none": 1}}), pool, tmp_path / "none")
