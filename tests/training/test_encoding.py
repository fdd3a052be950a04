"""Encodings on disk: each image and prompt once, in batches, by all processes, by content."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from folders import digests
from launching import SERVER, launch
from pictures import noise
from tastemaker.backbones import Backbone, load_backbone
from tastemaker.cli import main
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import ENCODED
from tastemaker.storage.encoding_index import EncodingIndex
from tastemaker.storage.encodings import Encoded
from tastemaker.storage.files import DamagedError
from tastemaker.storage.images import to_pixels
from tastemaker.storage.locks import exclusive
from tastemaker.training import encoding
from tastemaker.training.encoding import encode
from tastemaker.training.preference.pairs import ImagePairs


def rows(changed: int | None = None) -> list[dict[str, Any]]:
    """Eleven pairs of two sizes and six prompts, one image in two of them; perhaps one changed."""
    made = []
    for i in range(11):
        size = (32, 48 if i % 3 == 0 else 32)
        chosen = noise(0 if i == 2 else i, *((32, 32) if i == 2 else size))
        rejected = noise(1000 if i == changed else 100 + i, *size)
        made.append({"prompt": f"prompt {i % 6}", "chosen": chosen, "rejected": rejected})
    made[1]["chosen"] = made[2]["chosen"]
    return made


@pytest.fixture(scope="module")
def backbone(tiny_model: Path) -> Backbone:
    return load_backbone(str(tiny_model), device="cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shards and batches of a few rows."""
    with monkeypatch.context() as patch:
        shrink(patch.setattr)
        yield


def shrink(put: Any = setattr) -> None:
    put(EncodingIndex, "images_per_shard", 8)
    put(EncodingIndex, "prompts_per_shard", 4)
    put(encoding, "IMAGES_AT_ONCE", 3)
    put(encoding, "PROMPTS_AT_ONCE", 2)


class Pairs(ImagePairs):
    """Pairs in memory that say when they change, as those of a folder do."""

    def identity(self) -> Any:
        return [(row["prompt"], row["rejected"].tobytes().hex()) for row in self.images]


def images(encoded: Encoded) -> list[list[torch.Tensor]]:
    """Mean and deviation of both images of each pair."""
    found = torch.from_numpy(encoded.examples["images"].astype(np.int64))
    return [[*encoded.latents.take(image[None])] for pair in found for image in pair]


def test_batches_encode_as_one_by_one(backbone: Backbone, tmp_path: Path) -> None:
    encoded = encode(ImagePairs(rows()), backbone, tmp_path, text_trains=True)
    given = [row[side] for row in rows() for side in ("chosen", "rejected")]
    for picture, (mean, std) in zip(given, images(encoded), strict=True):
        alone = backbone.vae.encode(to_pixels([picture]))
        torch.testing.assert_close((mean, std), alone, rtol=1e-6, atol=1e-6)
    found, tokens = encoded.text(encoded.prompts(torch.arange(len(encoded))))
    for i, row in enumerate(rows()):
        for name, value in backbone.encode_prompts([row["prompt"]]).items():
            torch.testing.assert_close(found[name][i : i + 1], value, rtol=1e-6, atol=1e-6)
        assert tokens is not None
        assert torch.equal(
            tokens["input_ids"][i : i + 1], backbone.tokenize([row["prompt"]])["input_ids"]
        )
    # One image stands in two pairs, and the empty prompt beside the six.
    assert len({int(each) for each in encoded.examples["images"].reshape(-1)}) == 21
    assert encoded.latents.shapes == [(4, 16, 16), (4, 16, 24)]


def test_memory_gives_what_the_disk_gives(backbone: Backbone, tmp_path: Path) -> None:
    kept, held = (encode(ImagePairs(rows()), backbone, folder) for folder in (tmp_path, None))
    for one, other in zip(images(kept), images(held), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert kept.fingerprint == held.fingerprint


def test_without_posterior_only_means_are_kept(backbone: Backbone, tmp_path: Path) -> None:
    encoded = encode(ImagePairs(rows()), backbone, tmp_path, posterior=False)
    mean, std = images(encoded)[0]
    assert std is None
    assert torch.equal(mean, images(encode(ImagePairs(rows()), backbone, None))[0][0])


@pytest.mark.parametrize("unit", ["images", "prompts"])
def test_stopped_in_a_shard_ends_as_undisturbed(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    update, done = tqdm.update, []

    def interrupts(bar: tqdm, number: int = 1) -> None:  # type: ignore[type-arg]
        update(bar, number)
        if number and bar.unit == unit:
            done.append(number)
            if len(done) == 4:
                os.kill(os.getpid(), signal.SIGINT)

    stopped, undisturbed = tmp_path / "stopped", tmp_path / "undisturbed"
    with monkeypatch.context() as patch:
        patch.setattr(tqdm, "update", interrupts)
        with pytest.raises(KeyboardInterrupt):
            encode(ImagePairs(rows()), backbone, stopped)
    assert len(list(stopped.glob(f"unfinished-{unit}-*"))) == 1
    for folder in (stopped, undisturbed):
        encode(ImagePairs(rows()), backbone, folder)
    assert digests(stopped) == digests(undisturbed)


def encoded_by_all(model: Path, folder: Path) -> None:
    shrink()
    encode(ImagePairs(rows()), load_backbone(str(model), device="cpu"), folder)


def test_two_processes_encode_what_one_does(
    backbone: Backbone, tiny_model: Path, tmp_path: Path
) -> None:
    ended = launch(encoded_by_all, tiny_model, tmp_path / "two", folder=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    encode(ImagePairs(rows()), backbone, tmp_path / "one")
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_what_changed_alone_is_encoded_anew(backbone: Backbone, tmp_path: Path) -> None:
    """In a shard of its own: all others keep their bytes."""

    def shards() -> dict[str, str]:
        return {name: each for name, each in digests(tmp_path).items() if "safetensors" in name}

    before = encode(Pairs(rows()), backbone, tmp_path)
    first = shards()
    assert encode(Pairs(rows()), backbone, tmp_path).fingerprint == before.fingerprint
    assert shards() == first
    after = encode(Pairs(rows(changed=4)), backbone, tmp_path)
    assert after.fingerprint != before.fingerprint
    second = shards()
    assert second.keys() - first.keys() == {"images-00003.safetensors"}
    assert first.items() <= second.items()
    assert len(load_file(tmp_path / "images-00003.safetensors")["mean"]) == 1
    moved = [
        not torch.equal(one[0], other[0])
        for one, other in zip(images(before), images(after), strict=True)
    ]
    assert [i for i, each in enumerate(moved) if each] == [9]
    renamed = rows(changed=4)
    renamed[3]["prompt"] = "a new one"
    encode(Pairs(renamed), backbone, tmp_path)
    assert shards().keys() - second.keys() == {"prompts-00002.safetensors"}
    assert second.items() <= shards().items()
    assert len(load_file(tmp_path / "prompts-00002.safetensors")["prompt_embeds"]) == 1


def test_damage_is_noticed(
    backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A torn shard is made again; a row that is not what was written is named when it is read."""
    encode(Pairs(rows()), backbone, tmp_path)
    whole = digests(tmp_path)
    torn = tmp_path / "images-00001.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    encoded = encode(Pairs(rows()), backbone, tmp_path)
    assert f"{torn} is damaged" in capsys.readouterr().out
    assert digests(tmp_path) == whole
    data = bytearray(torn.read_bytes())
    data[-1] ^= 1
    torn.write_bytes(data)
    with pytest.raises(DamagedError, match="images-00001"):
        images(encoded)


def test_another_training_on_the_pairs_encodes_nothing(
    pairs: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A copy: the shards of this module are small, and other tests read those of `pairs`.
    ignored = shutil.ignore_patterns(ENCODED)
    pairs = shutil.copytree(pairs.parent, tmp_path / "copied", ignore=ignored) / pairs.name
    common = ["device=cpu", "max_steps=1", "report_to=null", f"model={tiny_model}"]
    for name, options in (("first", []), ("second", ["loss=ipo", "seed=3"])):
        words = ["train", str(pairs), str(tmp_path / name), *common, "sample_posterior=false"]
        assert main([*words, *options]) == 0
        assert ("encode:" in capsys.readouterr().err) == (name == "first")


def holds(folder: Path, seconds: float) -> None:
    with exclusive(folder):
        (folder / "held").touch()
        time.sleep(seconds)


def test_a_second_training_waits_for_the_encodings_of_the_first(
    backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SERVER.Process(target=holds, args=(tmp_path, 3.0))
    other.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert len(encode(ImagePairs(rows()), backbone, tmp_path).examples) == 11
    assert "waiting for another command" in capsys.readouterr().out
    other.join()
    assert other.exitcode == 0


def test_a_full_disk_names_the_way_out(backbone: Backbone, tmp_path: Path) -> None:
    """A folder in a shard's place: the disk's errors are all one."""
    (tmp_path / "images-00000.safetensors").mkdir()
    with pytest.raises(TastemakerError, match="cannot write .*cache=none"):
        encode(ImagePairs(rows()), backbone, tmp_path)
    assert len(encode(ImagePairs(rows()), backbone, None).examples) == 11


def plan_on_full_disk(model: Path, folder: Path) -> None:
    with pytest.raises(TastemakerError, match="cannot write .*cache=none"):
        encode(ImagePairs(rows()), load_backbone(str(model), device="cpu"), folder)


def test_a_full_disk_while_one_process_plans_names_the_way_out_in_all(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "encoded"
    (folder / "plan.json").mkdir(parents=True)
    ended = launch(plan_on_full_disk, tiny_model, folder, folder=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
