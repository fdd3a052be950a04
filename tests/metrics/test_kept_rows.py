"""What is computed of images is kept: after a stop, for a second time, by one process or two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor

from launching import launch
from pictures import noise
from tastemaker.metrics.frechet import frechet_stderr, image_features
from tastemaker.metrics.kept import Batches, Kept, pool_images
from tastemaker.metrics.networks import Network, features_identity
from tastemaker.storage.files import write_json
from tastemaker.storage.images import encode_png
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool

MEANS = Network("means", {"of": "colours"})


def made(folder: Path, *shards: int) -> Pool:
    """A finished pool of noise with these numbers of images."""
    pool, number = Pool(folder), 0
    for index, images in enumerate(shards):
        ids = list(range(number, number + images))
        number += images
        columns = {
            "candidate_id": [f"c{i}" for i in ids],
            "image": [{"bytes": encode_png(noise(i)), "path": None} for i in ids],
        }
        write_table(pool.shard(index), pa.table(columns))
    write_json(folder / "done.json", {"command": "generate", "key": folder.name})
    return pool


def means(images: Iterable[Image.Image]) -> Iterator[Tensor]:
    """Mean colours of two images at a time."""
    stream = iter(images)
    while batch := list(islice(stream, 2)):
        yield image_features(batch, lambda pixels: pixels.mean((2, 3)))


class Counted:
    """The mean colours; counts the batches, and is interrupted in one."""

    def __init__(self, stop: int = 0) -> None:
        self.batches, self.stop = 0, stop

    def load(self) -> Batches:
        return self

    def __call__(self, images: Iterable[Image.Image]) -> Iterator[Tensor]:
        for batch in means(images):
            self.batches += 1
            if self.batches == self.stop:
                raise KeyboardInterrupt
            yield batch


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize(("stop", "left"), [(2, 5), (3, 4), (4, 3), (5, 2)])
def test_a_stop_loses_the_batch_at_hand(tmp_path: Path, stop: int, left: int) -> None:
    pool = made(tmp_path / "pool", 5, 5)
    expected = torch.cat([part for shard in pool.shards() for part in means(pool_images(shard))])
    whole = Kept(tmp_path / "whole").rows(pool, MEANS, Counted().load)
    assert whole.equal(expected)
    kept = Kept(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        kept.rows(pool, MEANS, Counted(stop).load)
    rest = Counted()
    assert kept.rows(pool, MEANS, rest.load).equal(whole)
    assert rest.batches == left
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    again = Counted()
    assert kept.rows(pool, MEANS, again.load).equal(whole)
    assert not again.batches


def test_another_network_or_pool_has_rows_of_its_own(tmp_path: Path) -> None:
    pool, other = made(tmp_path / "pool", 3), made(tmp_path / "other", 3)
    kept, counted = Kept(tmp_path / "kept"), Counted()
    for network in (MEANS, Network("means", {"of": "greys"})):
        for each in (pool, other, pool):
            kept.rows(each, network, counted.load)
    assert counted.batches == 2 * 2 * 2  # networks, pools, batches of a pool


def test_a_file_replaced_under_its_name_is_another_network(tmp_path: Path) -> None:
    file = tmp_path / "network.pt"
    file.write_text("one")
    first = features_identity(str(file))
    file.write_text("other")
    second = features_identity(str(file))
    assert first.label == second.label == "torchscript:network"
    assert first.inputs != second.inputs


def test_numbers_beyond_float32_are_kept_exactly(tmp_path: Path) -> None:
    pool, exact = made(tmp_path / "pool", 1), torch.tensor([[1 / 3, 1e-300]], dtype=torch.float64)
    for _ in range(2):
        rows = Kept(tmp_path / "kept").rows(pool, MEANS, lambda: lambda images: iter([exact]))
        assert rows.equal(exact)


def test_resamples_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(12, 2, generator=generator).double() for _ in range(2))
    names = [str(row // 2) for row in range(12)]
    all_of_them: list[float] = []
    expected = frechet_stderr(a, b, names, names, resamples=6, values=all_of_them)
    kept = Kept(tmp_path)

    def stopped() -> None:
        with kept.values("resamples", seed=0) as values:
            values += all_of_them[:4]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with kept.values("resamples", seed=0) as values:
        assert values == all_of_them[:4]
        assert frechet_stderr(a, b, names, names, resamples=6, values=values) == expected
    with kept.values("resamples", seed=0) as values:
        assert values == all_of_them
    with kept.values("resamples", seed=1) as values:
        assert not values


def rows_of(pool: Path, folder: Path) -> None:
    Kept(folder).rows(Pool(pool), MEANS, lambda: means)


@pytest.mark.timeout(300)
def test_two_processes_keep_what_one_keeps(tmp_path: Path) -> None:
    pool = made(tmp_path / "pool", 2, 1, 2)
    rows_of(pool.folder, tmp_path / "one")
    ended = launch(rows_of, pool.folder, tmp_path / "two", folder=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
