"""Sources of a study: which images compete, under which prompt, and that they are found again."""

import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from folders import put
from pictures import encoded, noise
from studies import pairs_of, pool_of
from tastemaker.config.studio import StudioConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.candidates import Rows
from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool
from tastemaker.studio.pictures import Pictures
from tastemaker.studio.png_prompts import a1111_prompt, comfy_prompt
from tastemaker.studio.run import make_plan
from tastemaker.studio.sources import add_gold, add_photographs, read_sources, source_key


def png(seed: int, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    return encoded(noise(seed, 8, 8), pnginfo=info)


def test_a_pool_competes_within_prompts(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool", each=4)
    items = read_sources([pool])
    assert items.labels == ("",)
    assert [(group.prompt, len(group.members)) for group in items.groups] == [
        ("a cat", 4),
        ("a dog", 4),
    ]
    rows = Rows(Pool(pool))
    for image in (7, 0, 5, 4, 3):  # across shards, back and forth
        assert items.read(image) == rows[items.ids[image]]["image"]["bytes"]
    assert items.label(3) == ""


def test_rows_in_many_groups_are_found(tmp_path: Path) -> None:
    """Row groups and batches smaller than a shard: each image is its own."""
    import pyarrow.parquet as pq

    pool = pool_of(tmp_path / "pool", ("a cat",), each=23, shard=23)
    shard = Pool(pool).shard(0)
    pq.write_table(pq.read_table(shard), shard, row_group_size=10)
    items = read_sources([pool])
    rows = Rows(Pool(pool))
    for image in (22, 0, 10, 9, 19, 20, 8):
        assert items.read(image) == rows[items.ids[image]]["image"]["bytes"]


def test_models_meet_on_equal_prompts_and_seeds(tmp_path: Path) -> None:
    one = pool_of(tmp_path / "one", each=3, model="one")
    two = pool_of(tmp_path / "two", ("a dog", "a cat"), each=2, model="two")
    # The second lists its prompts otherwise: item and prompt id go by the text.
    table = {"a cat": "p0", "a dog": "p1"}
    rename(two, table)
    items = read_sources([one, two])
    assert items.labels == ("one", "two")
    for group in items.groups:
        assert group.shape == (2, 2)  # the third draw of one model has no partner
        ids = [items.ids[member] for member in group.members]
        assert [items.label(member) for member in group.members] == ["one", "two"] * 2
        assert [each.split("-")[1] for each in ids] == ["0", "0", "1", "1"]
    assert read_sources([one, two], ["A", "B"]).labels == ("A", "B")


def rename(pool: Path, ids: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in Pool(pool).shards():
        rows = pq.read_table(shard)
        fresh = pa.array([ids[prompt] for prompt in rows["prompt"].to_pylist()])
        place = rows.column_names.index("prompt_id")
        pq.write_table(rows.set_column(place, "prompt_id", fresh), shard)


def test_models_that_cannot_meet_are_named(tmp_path: Path) -> None:
    one = pool_of(tmp_path / "one", model="one")
    other = pool_of(tmp_path / "other", ("a cat",), model="other")
    with pytest.raises(TastemakerError, match="other prompts: one lacks 'a dog'"):
        read_sources([one, other])
    with pytest.raises(TastemakerError, match="drawn by one model"):
        read_sources([one, pool_of(tmp_path / "copy", model="one")])
    with pytest.raises(TastemakerError, match="do not name 2 sources apart"):
        read_sources([one, other], ["A"])
    pairs = pairs_of(tmp_path / "pairs", one, [("0-0-one", "0-1-one")])
    with pytest.raises(TastemakerError, match="judged by themselves"):
        read_sources([one, pairs])
    with pytest.raises(TastemakerError, match="not a folder"):
        read_sources([tmp_path / "missing"])
    with pytest.raises(TastemakerError, match="no images"):
        read_sources([Path(put(tmp_path / "empty" / "a.txt", "x")).parent])


def test_pairs_are_judged_as_they_are(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool")
    pairs = pairs_of(
        tmp_path / "pairs",
        pool,
        [("0-3-m", "0-0-m"), ("0-0-m", "0-3-m"), ("0-3-m", "0-1-m")],
    )
    items = read_sources([pairs])
    sets = [[items.ids[member] for member in group.members] for group in items.groups]
    assert sets == [["0-3-m", "0-0-m"], ["0-3-m", "0-1-m"]]
    rows = Rows(Pool(pool))
    assert all(
        items.read(image) == rows[name]["image"]["bytes"] for image, name in enumerate(items.ids)
    )
    with pytest.raises(TastemakerError, match="judged by kind=pair"):
        make_plan(StudioConfig(output="x", kind="rating"), items, [pairs])
    whole = read_sources([pool])
    add_gold(whole, pairs)
    assert [whole.ids[member] for member in whole.gold[0].members] == ["0-3-m", "0-0-m"]
    with pytest.raises(TastemakerError, match="not a folder of pairs"):
        add_gold(whole, pool)


COMFY = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["11", 0], "negative": ["7", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "a cat <b>"}},
    "11": {"class_type": "ControlNetApply", "inputs": {"conditioning": ["6", 0]}},
}
FLUX = {
    "1": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["2", 0]}},
    "2": {"class_type": "BasicGuider", "inputs": {"conditioning": ["3", 0]}},
    "3": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["4", 0], "guidance": 3.5}},
    "4": {"class_type": "CLIPTextEncodeFlux", "inputs": {"t5xxl": "a dog", "clip_l": "dog"}},
}
CIRCLE = {
    "1": {"class_type": "A", "inputs": {"positive": ["2", 0]}},
    "2": {"class_type": "B", "inputs": {"conditioning": ["1", 0], "text": 3}},
}


def test_prompts_of_comfyui() -> None:
    assert comfy_prompt(json.dumps(COMFY)) == "a cat <b>"
    assert comfy_prompt(json.dumps(FLUX)) == "a dog"
    assert comfy_prompt(json.dumps(CIRCLE)) == ""
    for text in ("", "no JSON", "[" * 100_000, "[1]", '{"1": 2}', '{"1": {"inputs": []}}'):
        assert comfy_prompt(text) == ""


def test_prompts_of_a1111() -> None:
    assert a1111_prompt("a cat, Steps: up\nSteps: 20, Seed: 1") == "a cat, Steps: up"
    assert a1111_prompt("Negative prompt: dog\nSteps: 20") == ""
    assert a1111_prompt("Steps: 20") == ""
    assert a1111_prompt("a cat\r\nNegative prompt: x\r\nSteps: 20") == "a cat"


def test_a_folder_has_the_prompts_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    put(folder / "b.png", png(1, parameters="a cat\nSteps: 20"))
    put(folder / "a.png", png(2, prompt=json.dumps(COMFY)))
    put(folder / "c.png", png(3, prompt=json.dumps({**COMFY, "9": {"inputs": {"value": "a cat"}}})))
    put(folder / "inside" / "d.jpg", encoded(noise(4), "JPEG"))
    put(folder / "inside" / "d.txt", "a cat\n")
    put(folder / "inside" / "e.png", png(5))
    put(folder / "torn.png", png(6)[:20])
    put(folder / ".hidden.png", png(7))
    items = read_sources([folder])
    groups = {group.prompt: {items.ids[m] for m in group.members} for group in items.groups[:2]}
    assert groups == {"a cat <b>": {"a.png"}, "a cat": {"b.png", "c.png", "inside/d.jpg"}}
    unknown = [[items.ids[m] for m in group.members] for group in items.groups[2:]]
    assert unknown == [["torn.png"], ["inside/e.png"]]
    before = source_key(folder)
    put(folder / "f.png", png(8))
    assert source_key(folder) != before


def test_folders_of_models_meet_by_name(tmp_path: Path) -> None:
    for model in ("one", "two"):
        for name in ("0001.png", "0002.png"):
            put(tmp_path / model / name, png(1))
    items = read_sources([tmp_path / "one", tmp_path / "two"])
    sets = [[items.ids[member] for member in group.members] for group in items.groups]
    assert sets == [["one/0001.png", "two/0001.png"], ["one/0002.png", "two/0002.png"]]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool", each=2)
    items = read_sources([pool])
    assert make_plan(StudioConfig(output="x"), items, [pool]).units.total == 2
    with pytest.raises(TastemakerError, match="no prompt .* has 3 images to compare"):
        make_plan(StudioConfig(output="x", kind="best_worst"), items, [pool])
    assert make_plan(StudioConfig(output="x", kind="rating"), items, [pool]).units.total == 4


def test_pictures_tell_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    put(folder / "a.jpg", encoded(noise(1, 8, 12), "JPEG", exif=exif))
    put(folder / "b.png", png(2, parameters="secret recipe"))
    put(folder / "c.png", b"no picture")
    items = read_sources([folder])
    (photograph,) = add_photographs(items, folder / "b.png")
    pictures = Pictures(items, b"s" * 32)
    names = [pictures.name(image) for image in range(4)]
    assert len(set(names)) == 4
    assert [pictures.image(name) for name in names] == [0, 1, 2, 3]
    assert pictures.image("0" * 16) is None
    for wrong in ("", "../a", names[0].upper() + "0", names[0][:15], "g" * 16, "٣" * 16):
        assert pictures.image(wrong) is None
    assert Pictures(items, b"t" * 32).image(names[0]) is None
    assert pictures.size(0) == (8, 12)
    assert decode(pictures.png(0), "a").size == (8, 12)
    assert b"secret" not in pictures.png(1) == pictures.png(photograph)
    assert decode(pictures.png(1), "b").tobytes() == noise(2, 8, 8).tobytes()
    with pytest.raises(TastemakerError, match="c.png cannot be shown"):
        pictures.png(2)
