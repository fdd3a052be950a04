"""Images of several sizes in one training: every example once an epoch, a step of one size."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tastemaker.config.datasets import ImagesConfig, JoinConfig
from tastemaker.config.sections import GenerateConfig, ReconstructConfig
from tastemaker.config.training import TrainConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.importing import import_images
from tastemaker.pairing.join import join, mix
from tastemaker.sampling.generate import generate, reconstruct
from tastemaker.storage.images import size_of
from tastemaker.storage.pool import Pool
from tastemaker.training.batches import bucketed_indices, pair_index
from tastemaker.training.preference.train import train


@given(
    buckets=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    step=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_steps_are_of_one_bucket_and_see_every_pair(
    buckets: list[int], step: int, seed: int
) -> None:
    sizes = Counter(buckets)
    length = sum(-(-size // step) * step for size in sizes.values())
    if len(sizes) == 1:
        length = len(buckets)
    counts = tuple(sizes[bucket] for bucket in range(3))
    epoch = bucketed_indices(range(length), counts, step, seed)
    assert set(epoch) == {(bucket, i) for bucket, size in sizes.items() for i in range(size)}
    if len(sizes) == 1:
        assert [i for _, i in epoch] == [pair_index(i, length, seed) for i in range(length)]
        return
    for first in range(0, length, step):
        assert len({bucket for bucket, _ in epoch[first : first + step]}) == 1
    # A pair comes again only to fill its bucket's last step.
    most = {bucket: -(-(-(-size // step) * step) // size) for bucket, size in sizes.items()}
    assert all(number <= most[pair[0]] for pair, number in Counter(epoch).items())


def test_batches_of_a_step_do_not_change_the_order() -> None:
    whole = bucketed_indices(range(40), (4, 3), 4, 3)
    halves = [bucketed_indices(range(i, i + 2), (4, 3), 4, 3) for i in range(0, 40, 2)]
    assert [pair for half in halves for pair in half] == whole


@pytest.mark.parametrize("share", [1, 2])
def test_drawing_an_index_takes_as_long_from_many_pairs_as_from_few(share: int) -> None:
    """After the first of an epoch; the quickest of many, since others use the machine too."""
    times = {1_000: [], 300_000: []}
    for _ in range(300):
        for pairs, seen in times.items():
            begin = time.perf_counter()
            bucketed_indices(range(8), (pairs // share,) * share, 4, 0)
            seen.append(time.perf_counter() - begin)
    few, many = (min(seen) for seen in times.values())
    assert many < 3 * few


@pytest.fixture(scope="module")
def pools(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three prompts at each of two sizes, twice: a side each."""
    folder = tmp_path_factory.mktemp("pools")
    made = []
    for width in (32, 48):
        prompts = folder / f"{width}.txt"
        prompts.write_text("".join(f"{width} and {i}\n" for i in range(3)), encoding="utf-8")
        for side in range(2):
            sampling = {"num_inference_steps": 1, "height": 32, "width": width, "seed": side}
            options = {**sampling, "model": str(tiny_model), "prompts": str(prompts)}
            config = GenerateConfig(num_candidates=1, device="cpu", **options)
            made.append(generate(config, folder / f"{width}-{side}"))
    return made


def test_pairs_of_two_sizes_train(pools: list[Path], tiny_model: Path, tmp_path: Path) -> None:
    rule = JoinConfig(rule="best_worst")
    small = join(rule, pools[0], pools[1], tmp_path / "small")
    wide = join(rule, pools[2], pools[3], tmp_path / "wide")
    pairs = mix([small, wide], tmp_path / "pairs")
    options = {
        "max_steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "report_to": None,
        "device": "cpu",
    }
    config = TrainConfig(model=str(tiny_model), lora={"r": 2}, **options)
    rows = []
    for name, update in (
        ("whole", {}),
        ("halves", {"batch_size": 1, "gradient_accumulation_steps": 2}),
    ):
        trained = train(config.model_copy(update=update), pairs, tmp_path / name)
        lines = (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows.append([json.loads(line)["rewards/margins"] for line in lines])
    assert rows[0] == pytest.approx(rows[1], rel=1e-2, abs=1e-4)
    assert len(rows[0]) == 4


def test_sides_of_two_sizes_are_named(pools: list[Path], tiny_model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"32 and {i}\n" for i in range(3)), encoding="utf-8")
    sampling = {"num_inference_steps": 1, "height": 48, "width": 48, "num_candidates": 1}
    other = GenerateConfig(model=str(tiny_model), prompts=str(prompts), device="cpu", **sampling)
    larger = generate(other, tmp_path / "larger")
    pairs = join(JoinConfig(rule="best_worst"), pools[0], larger, tmp_path / "pairs")
    config = TrainConfig(model=str(tiny_model), max_steps=1, report_to=None, device="cpu")
    with pytest.raises(TastemakerError, match="3 pairs have images of two sizes"):
        train(config, pairs, tmp_path / "out")


def test_real_images_of_two_sizes_are_joined_by_size(tiny_model: Path, tmp_path: Path) -> None:
    """Candidates and reconstructions have the size of their real image."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number, (width, height) in enumerate([(40, 40), (60, 40), (61, 40), (41, 40)]):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    buckets = {"buckets": ((32, 32), (48, 32))}
    real = import_images(ImagesConfig(images=str(folder), **buckets), tmp_path / "real")
    drawn = {"model": str(tiny_model), "num_inference_steps": 2, "device": "cpu"}
    config = GenerateConfig(items=str(real), num_candidates=2, batch_size=3, **drawn)
    candidates = generate(config, tmp_path / "candidates")
    between = reconstruct(ReconstructConfig(timesteps=(500,), **drawn), real, tmp_path / "between")
    sizes = {}
    for pool in (real, candidates, between):
        for row in Pool(pool).candidates().to_pylist():
            sizes.setdefault(row["prompt"], set()).add(size_of(row["image"]["bytes"], ""))
    assert sizes == {f"picture {i}": {(32, 48 if i in (1, 2) else 32)} for i in range(4)}
    told = {row["prompt"]: row for row in Pool(real).candidates().to_pylist()}
    assert told["picture 1"]["original_size"] == [40, 60]
    assert told["picture 3"]["crops_coords_top_left"] == [0, 0]
    pairs = join(JoinConfig(rule="best_worst"), real, between, tmp_path / "pairs")
    options = {"max_steps": 2, "batch_size": 2, "report_to": None, "device": "cpu"}
    train(TrainConfig(model=str(tiny_model), lora={"r": 2}, **options), pairs, tmp_path / "out")
