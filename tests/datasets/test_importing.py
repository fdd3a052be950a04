"""Compared images keep people's verdicts, photographs their captions; both come in whole.

What cannot be used is left out, and the pool says what and why.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from folders import described, digests, put
from launching import launch
from pictures import SRGB, encoded, icc_profile, noise
from tastemaker.cli.command_line import main
from tastemaker.config.datasets import ImagesConfig, ImportConfig, PairConfig
from tastemaker.config.loading import load, section
from tastemaker.config.sections import ScoreConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets import conversion
from tastemaker.datasets.importing import import_comparisons, import_images
from tastemaker.evaluation.score import score
from tastemaker.pairing.pair import pair
from tastemaker.recipes.run import run
from tastemaker.storage.files import config_key, read_json, read_json_lines
from tastemaker.storage.images import decode, encode_png
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.photographs import CONVERTED, upright
from tastemaker.storage.pool import Pool

COLOURS = ("red", "green", "blue", "white", "black", "orange")


def picture(colour: str, size: tuple[int, int] = (24, 16), kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format=kind)
    return buffer.getvalue()


def row(number: int, label: float, **changes: Any) -> dict[str, Any]:
    return {
        "caption": f"prompt {number % 2}",
        "jpg_0": picture(COLOURS[number % 6]),
        "jpg_1": picture(COLOURS[(number + 1) % 6]),
        "label_0": label,
        "label_1": 1 - label,
        "has_label": True,
        "model_0": "a",
        "model_1": "b",
        **changes,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def config(path: Path, **options: Any) -> ImportConfig:
    return ImportConfig(comparisons={"path": str(path)}, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Seven comparisons in two files: two decided each way, a tie, one unlabelled, two broken."""
    write(tmp_path / "data" / "0.parquet", [row(0, 1.0), row(1, 0.0), row(2, 0.5)])
    broken = [row(4, 1.0, jpg_1=b"no picture"), row(5, 1.0, caption="  ")]
    rest = [row(3, 1.0, has_label=False), *broken, row(6, 1.0), row(7, 0.0)]
    write(tmp_path / "data" / "1.parquet", rest)
    return tmp_path / "data"


def test_verdicts_become_pairs(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = import_comparisons(config(source, shard_size=4), tmp_path / "pool")
    told = capsys.readouterr().out
    assert "imported 6 comparisons, left out 2" in told
    assert "left out: 1.parquet, row 1: image 1: no readable image" in told
    assert "1.parquet, row 2: the prompt is empty" in told
    table = Pool(pool).scores()
    assert table.num_rows == 12
    assert table["human"].to_pylist() == [1, 0, 0, 1, 0.5, 0.5, 0.5, 0.5, 1, 0, 0, 1]
    pairs = pair(PairConfig(rule={"scorer": "human"}), pool, tmp_path / "pairs")
    rows = PairSet(pairs).table().to_pylist()
    # Ties and rows without a verdict are dropped; equal captions stay apart.
    assert [each["prompt"] for each in rows] == ["prompt 0", "prompt 1", "prompt 0", "prompt 1"]
    assert [each["chosen_id"][-1] for each in rows] == ["0", "1", "0", "1"]
    assert all(each["chosen_id"][:-2] == each["rejected_id"][:-2] for each in rows)


def test_any_scorer_relabels(source: Path, tmp_path: Path, tiny_clip: Path) -> None:
    pool = import_comparisons(config(source, limit=4), tmp_path / "pool")
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    score(ScoreConfig(scorers=(scorer,)), pool)
    pairs = pair(PairConfig(rule={"scorer": "tiny"}), pool, tmp_path / "pairs")
    table = Pool(pool).scores().to_pydict()
    tiny = dict(zip(table["candidate_id"], table["tiny"], strict=True))
    rows = PairSet(pairs).table().to_pylist()
    assert len(rows) == 4  # also the tie and the row without a verdict
    assert all(tiny[each["chosen_id"]] > tiny[each["rejected_id"]] for each in rows)


def test_size_crops_and_scales_without_loss(source: Path, tmp_path: Path) -> None:
    whole = import_comparisons(config(source, limit=1), tmp_path / "whole")
    small = import_comparisons(config(source, limit=1, resolution=8), tmp_path / "small")
    kept = Pool(whole).candidates().to_pylist()[0]["image"]["bytes"]
    assert kept == picture("red")
    scaled = Pool(small).candidates().to_pylist()[0]["image"]["bytes"]
    assert decode(scaled, "scaled").size == (8, 8)
    assert scaled[:4] == b"\x89PNG"


def test_interrupted_import_goes_on_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    whole = import_comparisons(config(source, shard_size=4), tmp_path / "whole")
    again = import_comparisons(config(source, shard_size=4), tmp_path / "again")
    for name in ("done.json", "candidates-00001.parquet", "scores/human/done.json"):
        (again / name).unlink()
    (again / "scores" / "human" / "scores-00002.parquet").unlink()
    import_comparisons(config(source, shard_size=4), again)
    assert digests(again) == digests(whole)


def test_a_changed_source_is_another_import(source: Path, tmp_path: Path) -> None:
    import_comparisons(config(source), tmp_path / "pool")
    write(source / "2.parquet", [row(8, 1.0)])
    with pytest.raises(TastemakerError, match="another configuration"):
        import_comparisons(config(source), tmp_path / "pool")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere", "nowhere does not exist"),
        (lambda folder: (folder / "empty").mkdir() or folder / "empty", "no .parquet file"),
        (lambda folder: write(folder / "x.parquet", [{"caption": "a"}]), "no column 'jpg_0'"),
        (lambda folder: write(folder / "x.parquet", [row(0, 0.3)]), "label_0 is 0.3"),
        (lambda folder: write(folder / "x.parquet", [row(0, 1.0, jpg_0=b"")]), "no usable"),
    ],
    ids=["missing", "empty folder", "columns", "label", "nothing usable"],
)
def test_bad_sources_are_named(make: Any, message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(TastemakerError, match=message):
        import_comparisons(config(path), tmp_path / "pool")


def test_torn_parquet_is_named(source: Path, tmp_path: Path) -> None:
    file = source / "1.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TastemakerError, match=r"1\.parquet is not a whole parquet file"):
        import_comparisons(config(source), tmp_path / "pool")


def test_recipe_dde_runs_from_comparisons(source: Path, run_file: Path) -> None:
    data = (
        "data.comparisons.path=" + str(source),
        "data.resolution=16",
        "generate=null",
        "score=null",
    )
    options = ("recipe=dde", "pair.rule.scorer=human", "train.credit.name=dde")
    folder = run(load(str(run_file), (*data, *options)))
    assert "Credit of denoising steps" in folder.report_html.read_text(encoding="utf-8")
    assert PairSet(folder.pairs).table().num_rows == 4
    assert len(Pool(folder.candidates).scorers()) == 1


def test_a_run_has_one_source_of_candidates(source: Path, run_file: Path) -> None:
    with pytest.raises(TastemakerError, match="give one of the two"):
        load(str(run_file), ("data.comparisons.path=" + str(source),))
    with pytest.raises(TastemakerError, match="'score' is required"):
        load(str(run_file), ("score=null",))


def photograph(number: int = 0, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Noise of its own for every number: no two are equal, and every corner is another."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def folder_of(folder: Path, **images: Image.Image | bytes) -> Path:
    """Images as PNG, each with a twin that says its name."""
    for name, image in images.items():
        put(folder / f"{name}.png", image if isinstance(image, bytes) else encode_png(image))
        put(folder / f"{name}.txt", f" the {name}\n")
    return folder


def taken(path: Path, output: Path, *words: str) -> list[dict[str, Any]]:
    """Import images as the command line does, and return the pool's rows."""
    pool = import_images(section(ImagesConfig, None, (f"images={path}", *words)), output)
    return Pool(pool).candidates().to_pylist()


def pictures(rows: list[dict[str, Any]]) -> list[Image.Image]:
    return [decode(each["image"]["bytes"], each["candidate_id"]) for each in rows]


def left_out(pool: Path) -> dict[str, str]:
    lines = read_json_lines(pool / "left_out.jsonl")
    done = read_json(pool / "done.json")
    assert done["left_out"] + sum(done["passed_over"].values()) == len(lines)
    return {each["where"]: each["reason"] for each in lines}


def test_photographs_become_real_candidates(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", b=photograph(1), a=photograph(2))
    rows = taken(tmp_path / "in", tmp_path / "pool", "resolution=16")
    assert [each["prompt"] for each in rows] == ["the a", "the b"]
    assert [each["source_id"] for each in rows] == ["a.png", "b.png"]
    assert [each["prompt_id"] for each in rows] == [config_key("the a"), config_key("the b")]
    assert [each["seed"] for each in rows] == [0, 1]
    constant = [(each["source"], each["timestep"], each["model"]) for each in rows]
    assert constant == [("real", None, "")] * 2
    assert [image.size for image in pictures(rows)] == [(16, 16)] * 2
    assert read_json(tmp_path / "pool" / "done.json")["images"] == 2
    assert left_out(tmp_path / "pool") == {}
    folder_of(tmp_path / "in", aa=photograph(3))
    more = taken(tmp_path / "in", tmp_path / "more", "resolution=16")
    by_id = {each["candidate_id"]: each["source_id"] for each in more}
    assert {each["candidate_id"]: each["source_id"] for each in rows}.items() <= by_id.items()


def test_an_image_of_the_right_size_is_kept_as_it_is(tmp_path: Path) -> None:
    image = photograph(size=(16, 16))
    rows = taken(folder_of(tmp_path / "in", a=image), tmp_path / "pool", "resolution=16")
    assert pictures(rows)[0].tobytes() == image.tobytes()


def test_exif_turns_and_the_box_cuts_the_upright_image(tmp_path: Path) -> None:
    image = photograph(size=(32, 24))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a viewer shows it rotated by 90 degrees, clockwise
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    shown = image.transpose(Image.Transpose.ROTATE_270)
    assert shown.size == (24, 32)
    put(tmp_path / "in" / "a.png", buffer.getvalue())
    described(tmp_path / "in", [{"file_name": "a.png", "text": "a", "box": [8, 16, 24, 32]}])
    rows = taken(tmp_path / "in", tmp_path / "pool", "resolution=16")
    assert pictures(rows)[0].tobytes() == shown.crop((8, 16, 24, 32)).tobytes()


def test_a_box_outside_the_image_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", encode_png(photograph(size=(32, 24))))
    boxes = [[0, 0, 8, 8], [24, 16, 33, 24], [-1, 0, 8, 8], [8, 8, 8, 16], [24, 16, 32, 24]]
    rows = [{"file_name": "a.png", "text": "a", "box": box} for box in boxes]
    kept = taken(described(tmp_path / "in", rows), tmp_path / "pool", "resolution=8")
    assert [each["source_id"][-14:] for each in kept] == ["x [0, 0, 8, 8]", "24, 16, 32, 24]"[-14:]]
    assert len({each["candidate_id"] for each in kept}) == 2
    reasons = left_out(tmp_path / "pool")
    assert len(reasons) == 3
    assert all(
        "empty or not inside the upright image of 32 x 24" in why for why in reasons.values()
    )


def test_every_kind_of_pixel_becomes_rgb() -> None:
    def first(image: Image.Image) -> tuple[int, ...]:
        shown, _ = upright(image)
        assert shown.mode == "RGB"
        return tuple(np.asarray(shown)[0, 0].tolist())

    size = (4, 4)
    assert first(Image.new("L", size, 100)) == (100, 100, 100)
    assert first(Image.new("1", size, 1)) == (255, 255, 255)
    assert first(Image.new("CMYK", size, (0, 255, 255, 0))) == (255, 0, 0)
    assert first(Image.new("RGBA", size, (0, 0, 0, 0))) == (255, 255, 255)
    assert first(Image.new("RGBA", size, (0, 0, 200, 255))) == (0, 0, 200)
    assert first(Image.new("LA", size, (0, 51))) == (204, 204, 204)
    palette = Image.new("P", size, 1)
    palette.putpalette([9, 9, 9, 7, 8, 9])
    assert first(palette) == (7, 8, 9)
    palette.info["transparency"] = 1
    assert first(palette) == (255, 255, 255)
    deep = Image.fromarray(np.full(size, 257 * 130, np.uint16))
    assert deep.mode == "I;16"
    assert first(deep) == (130, 130, 130)
    with pytest.raises(ValueError, match="floating-point"):
        upright(Image.new("F", size, 0.5))


def test_buckets_take_the_nearest_aspect_ratio(tmp_path: Path) -> None:
    folder_of(
        tmp_path / "in",
        a=photograph(0, (60, 60)),
        b=photograph(1, (90, 60)),
        c=photograph(2, (60, 90)),
        # Log ratios: between 1 and 2 the border is the square root of 2.
        d=photograph(3, (141, 100)),
        e=photograph(4, (142, 100)),
    )
    buckets = "buckets=[[32, 32], [48, 24], [24, 48]]"
    rows = taken(tmp_path / "in", tmp_path / "pool", buckets)
    sizes = [image.size for image in pictures(rows)]
    assert sizes == [(32, 32), (48, 24), (24, 48), (32, 32), (48, 24)]


def test_nothing_is_enlarged_unless_asked(tmp_path: Path) -> None:
    folder_of(
        tmp_path / "in",
        large=photograph(0, (24, 16)),
        low=photograph(1, (24, 15)),
        narrow=photograph(2, (9, 40)),
    )
    rows = taken(tmp_path / "in", tmp_path / "pool", "resolution=16")
    assert [each["prompt"] for each in rows] == ["the large"]
    reasons = left_out(tmp_path / "pool")
    assert "24 x 15 pixels are too few for 16 x 16 (minimum 16)" in reasons["low.png"]
    assert "set min_crop_side" in reasons["narrow.png"]
    assert len(taken(tmp_path / "in", tmp_path / "ten", "resolution=16", "min_crop_side=10")) == 2
    assert len(taken(tmp_path / "in", tmp_path / "nine", "resolution=16", "min_crop_side=9")) == 3
    # The crop of 24 x 15 to 2:1 is 24 x 12: its shorter side counts.
    words = ("buckets=[[32, 16]]", "min_crop_side=12")
    assert len(taken(tmp_path / "in", tmp_path / "wide", *words)) == 2
    with pytest.raises(TastemakerError, match="24 x 16 pixels are too few for 32 x 16"):
        taken(tmp_path / "in", tmp_path / "wider", "buckets=[[32, 16]]", "min_crop_side=13")
    with pytest.raises(TastemakerError, match="gave no usable image.*3 left out, the first large"):
        taken(tmp_path / "in", tmp_path / "none", "resolution=64")


def test_broken_and_repeated_images_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode_png(photograph(0))
    buffer = io.BytesIO()
    photograph(0).save(buffer, format="TIFF")
    folder_of(
        tmp_path / "in",
        a=whole,
        b=whole[:200],
        c=b"no picture",
        d=b"",
        e=buffer.getvalue(),  # other bytes, the same pixels
        f=encode_png(photograph(1)),
        g=encode_png(photograph(5, (100, 100))),
        h=encode_png(photograph(1)),
    )
    put(tmp_path / "in" / "f.txt", "  \n")
    put(tmp_path / "in" / "i.png", encode_png(photograph(2)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    rows = taken(tmp_path / "in", tmp_path / "pool", "resolution=16", "shard_size=3")
    assert [each["prompt"] for each in rows] == ["the a", "the h"]
    told = capsys.readouterr().out
    assert "imported 2 images, left out 7" in told
    reasons = left_out(tmp_path / "pool")
    assert list(reasons) == [f"{name}.png" for name in "bcdefgi"]
    assert "no readable image" in reasons["b.png"]
    assert reasons["c.png"].startswith("no readable image (of no format that is read: AVIF")
    assert "no readable image" in reasons["d.png"]
    assert reasons["e.png"] == "the same picture as a.png"
    assert reasons["f.png"] == "the caption is empty"
    assert "decompression bomb" in reasons["g.png"]
    assert "write it in i.txt" in reasons["i.png"]
    for where, why in reasons.items():
        assert f"left out: {where}: {why}" in told


def test_no_caption_at_all_is_one_error_with_the_remedy(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / "in" / f"{name}.png", encode_png(photograph()))
    with pytest.raises(
        TastemakerError, match=r"2 left out, the first a\.png: .*write it in a\.txt"
    ):
        taken(tmp_path / "in", tmp_path / "pool", "resolution=16")
    assert not (tmp_path / "pool" / "done.json").exists()


def test_a_caption_that_no_file_holds_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", encode_png(photograph(0)))
    put(tmp_path / "in" / "b.png", encode_png(photograph(1)))
    lines = [
        r'{"file_name": "a.png", "text": "half \ud83d"}',
        '{"file_name": "b.png", "text": "b"}',
    ]
    put(tmp_path / "in" / "metadata.jsonl", "\n".join(lines))
    assert len(taken(tmp_path / "in", tmp_path / "pool", "resolution=16")) == 1
    (reason,) = left_out(tmp_path / "pool").values()
    assert reason.startswith("the caption is not valid Unicode: half a character at position 5")


def test_limit_counts_what_can_be_used(tmp_path: Path) -> None:
    images: dict[str, Image.Image | bytes] = {f"i{n}": photograph(n) for n in range(6)}
    folder_of(tmp_path / "in", **images | {"i1": b"broken"})
    for shard_size in (2, 100):
        rows = taken(
            tmp_path / "in",
            tmp_path / str(shard_size),
            "resolution=16",
            "limit=3",
            f"shard_size={shard_size}",
        )
        assert [each["source_id"] for each in rows] == ["i0.png", "i2.png", "i3.png"]
        assert list(left_out(tmp_path / str(shard_size))) == ["i1.png"]
    words = "fewer real images than asked: 5 can be used, limit=6.*lower limit"
    with pytest.raises(TastemakerError, match=words):
        taken(tmp_path / "in", tmp_path / "more", "resolution=16", "limit=6")
    assert not (tmp_path / "more" / "done.json").exists()


def test_killed_import_of_images_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the first shard the second is a repetition and the third broken, of the next shard the
    # first repeats one of the shard before.
    images = {f"i{n}": photograph(0 if n in (1, 5) else n) for n in range(8)}
    folder_of(tmp_path / "in", **images)
    put(tmp_path / "in" / "i2.png", b"broken")
    words = ("resolution=16", "shard_size=3", "limit=4")
    taken(tmp_path / "in", tmp_path / "whole", *words)
    assert list(left_out(tmp_path / "whole")) == ["i1.png", "i2.png", "i5.png"]
    assert len(Pool(tmp_path / "whole").shards()) == 2

    class Killed(BaseException):
        """A kill, as far as a process can feel one."""

    read: list[int] = []
    kill = 0
    read_photograph = conversion.read_photograph

    def counted(data: bytes, max_pixels: int) -> Image.Image:
        read.append(len(data))
        if len(read) == kill:
            raise Killed
        return read_photograph(data, max_pixels)

    monkeypatch.setattr(conversion, "read_photograph", counted)
    for image in (2, 6):
        kill = image
        read.clear()
        with pytest.raises(Killed):
            taken(tmp_path / "in", tmp_path / "again", *words)
    assert [path.name for path in Pool(tmp_path / "again").shards()] == ["candidates-00000.parquet"]
    kill = 0
    read.clear()
    taken(tmp_path / "in", tmp_path / "again", *words)
    assert len(read) == 2  # what is behind the first shard was not read again
    assert digests(tmp_path / "again") == digests(tmp_path / "whole")
    taken(tmp_path / "in", tmp_path / "again", *words)
    assert len(read) == 2  # finished: nothing is read


def test_changed_images_are_another_import(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", a=photograph(0))
    taken(tmp_path / "in", tmp_path / "pool", "resolution=16")
    folder_of(tmp_path / "in", b=photograph(1))
    with pytest.raises(TastemakerError, match="another configuration .*inputs"):
        taken(tmp_path / "in", tmp_path / "pool", "resolution=16")


def test_the_command_line_imports_both(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "in", a=photograph(0))
    assert main(["import", str(tmp_path / "real"), f"images={folder}", "resolution=16"]) == 0
    assert Pool(tmp_path / "real").candidates()["source"].to_pylist() == ["real"]
    assert main(["import", str(tmp_path / "compared"), f"comparisons.path={source}"]) == 0
    assert Pool(tmp_path / "compared").scorers() == ["human"]
    file = tmp_path / "images.yaml"
    file.write_text(json.dumps({"images": str(folder), "resolution": 16}), encoding="utf-8")
    assert main(["import", str(tmp_path / "real"), "--config", str(file)]) == 0
    capsys.readouterr()
    for words in ([], [f"images={folder}", f"comparisons.path={source}"], ["resolution=16"]):
        assert main(["import", str(tmp_path / "refused"), *words]) == 2
        assert "give one of them" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    told = capsys.readouterr().out
    assert "comparisons=(required)" in told
    assert "images=(required)" in told


def test_a_pool_of_photographs_opens_with_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder_of(tmp_path / "in", a=photograph(0), b=b"broken", c=photograph(2), d=b"broken")
    taken(tmp_path / "in", tmp_path / "pool", "resolution=16", "shard_size=1")
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "pool" / "*.parquet"),
        cache_dir=str(tmp_path / "cache"),
        split="train",
    )
    assert rows["prompt"][:] == ["the a", "the c"]
    assert rows[0]["image"].size == (16, 16)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_two_processes_one_imports(source: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "in", a=photograph(0), b=b"broken")
    for output, words in (
        ("real", [f"images={tmp_path / 'in'}", "resolution=16"]),
        ("compared", [f"comparisons.path={source}"]),
    ):
        ended = launch(main, ["import", str(tmp_path / output), *words], folder=tmp_path)
        assert ended.code == 0, ended.err[-3000:]
        assert ended.out.count("imported") == 1
        assert (tmp_path / output / "done.json").is_file()


def test_whatever_lies_in_the_folder_is_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = encoded(noise(0), icc_profile=icc_profile(1.0, SRGB))
    folder_of(tmp_path / "in", a=picture, b=encode_png(photograph(1)))
    for name in ("notes.md", ".DS_Store", "c.txt", ".git/config", "sub/d.psd"):
        put(tmp_path / "in" / name, "x")
    assert len(taken(tmp_path / "in", tmp_path / "pool", "resolution=16")) == 2
    assert left_out(tmp_path / "pool") == {
        ".DS_Store": "hidden",
        ".git": "hidden",
        "c.txt": "a caption without an image",
        "notes.md": "of another kind",
        "sub/d.psd": "of another kind",
    }
    told = capsys.readouterr().out
    assert "imported 2 images, left out 0; 2 passed over: hidden; 1 passed over: a caption" in told
    assert "1 pictures: with colours converted to sRGB" in told
    done = read_json(tmp_path / "pool" / "done.json")
    assert done["passed_over"]["of another kind"] == 2
    assert done["changed"] == {CONVERTED: 1}
    assert main(["import", "x", f"images={tmp_path / 'in'}", "resolution=16", "--check"]) == 0
    assert "2 passed over: hidden" in capsys.readouterr().out
