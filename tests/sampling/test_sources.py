"""Images made from real ones, and pairs across pools: what HG-DPO's stages are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from folders import digests
from tastemaker.backbones import SamplingBatch, load_backbone
from tastemaker.backbones.latents import encode_row
from tastemaker.config.datasets import ImagesConfig, JoinConfig, PairConfig
from tastemaker.config.sections import BlendConfig, GenerateConfig, ReconstructConfig, ScoreConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.importing import import_images
from tastemaker.evaluation.score import score
from tastemaker.pairing.join import best_worst, join, mix
from tastemaker.pairing.pair import pair
from tastemaker.pairing.picks import Dropped, PairRows, Pick
from tastemaker.sampling.blend import blend
from tastemaker.sampling.generate import generate, reconstruct
from tastemaker.storage.candidates import Rows, item_of, latents_of
from tastemaker.storage.groups import Group
from tastemaker.storage.images import decode, encode_png, to_pixels
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool

SAMPLING = {"num_inference_steps": 4, "guidance_scale": 3.0, "device": "cpu"}
LAST = 999


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, of which two share a caption."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for i, caption in enumerate(("a man", "a woman", "a man")):
        pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(caption, encoding="utf-8")
    return import_images(ImagesConfig(images=str(folder), resolution=32), folder / "pool")


@pytest.fixture(scope="module")
def candidates(
    tmp_path_factory: pytest.TempPathFactory, real: Path, tiny_model: Path, tiny_clip: Path
) -> Path:
    folder = tmp_path_factory.mktemp("candidates")
    config = GenerateConfig(model=str(tiny_model), items=str(real), num_candidates=3, **SAMPLING)
    return scored(generate(config, folder / "pool"), tiny_clip)


def scored(pool: Path, clip: Path) -> Path:
    return score(
        ScoreConfig(scorers=({"name": "clip", "label": "tiny", "model": str(clip)},)), pool
    )


def rows(pool: Path) -> list[dict[str, Any]]:
    return Pool(pool).candidates().to_pylist()


def kept_latents(row: dict[str, Any]) -> torch.Tensor:
    latents = latents_of(row)
    assert latents is not None
    return latents


def again(model: Path, real: Path, output: Path, *timesteps: int, **options: Any) -> Path:
    return reconstruct(
        ReconstructConfig(model=str(model), timesteps=timesteps, **{**SAMPLING, **options}),
        real,
        output,
    )


class TestItems:
    def test_equal_captions_have_candidates_of_their_own(
        self, real: Path, candidates: Path
    ) -> None:
        table = rows(candidates)
        assert len(table) == 9
        assert len({row["candidate_id"] for row in table}) == 9
        assert [item_of(row) for row in table[::3]] == [row["candidate_id"] for row in rows(real)]
        assert len({row["prompt_id"] for row in table}) == 2

    def test_prompts_or_items(self, tiny_model: Path) -> None:
        for options in ({}, {"prompts": "a.txt", "items": "pool"}):
            with pytest.raises(ValueError, match="one of `prompts` and `items`"):
                GenerateConfig(model=str(tiny_model), **options)

    def test_rows_are_found_in_any_order(self, candidates: Path) -> None:
        table = rows(candidates)
        held = Rows(Pool(candidates))
        for row in reversed(table):
            assert held[row["candidate_id"]] == row

    def test_a_pool_without_real_images_is_refused(
        self, candidates: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(TastemakerError, match="has no real image"):
            again(tiny_model, candidates, tmp_path / "out", 500)


class TestReconstruct:
    def test_at_0_it_is_the_image(self, real: Path, tiny_model: Path, tmp_path: Path) -> None:
        pool = again(tiny_model, real, tmp_path / "out", 0)
        backbone = load_backbone(str(tiny_model), device="cpu")
        for made, source in zip(rows(pool), rows(real), strict=True):
            picture = decode(source["image"]["bytes"], "test")
            mean, _ = backbone.vae.encode(to_pixels([picture]))
            assert torch.equal(kept_latents(made), mean[0].float())

    def test_at_the_last_timestep_it_is_a_sample(
        self, real: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        pool = again(tiny_model, real, tmp_path / "out", LAST)
        backbone = load_backbone(str(tiny_model), device="cpu")
        for row in rows(pool):
            drawing = SamplingBatch(
                backbone.encode_prompts([row["prompt"]]),
                backbone.encode_prompts([""]),
                [row["seed"]],
                num_inference_steps=4,
                guidance_scale=3.0,
            )
            sample = backbone.sample(drawing)
            assert torch.allclose(kept_latents(row), sample[0], atol=1e-5)

    def test_it_is_noised_as_the_schedule_says_and_denoised_from_there(
        self, real: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        """By hand, with the sampler alone: the nearest step of the grid of four is 501."""
        pool = again(tiny_model, real, tmp_path / "out", 500, guidance_scale=1.0)
        backbone = load_backbone(str(tiny_model), device="cpu")
        scheduler = backbone.pipeline.scheduler
        scheduler.set_timesteps(4)
        assert scheduler.timesteps.tolist() == [751, 501, 251, 1]
        row, source = rows(pool)[0], rows(real)[0]
        clean, _ = encode_row(backbone, source)
        noise = torch.randn((1, *clean.shape), generator=torch.Generator().manual_seed(row["seed"]))
        latents = scheduler.add_noise(clean[None], noise, torch.tensor([501]))
        prompt = backbone.encode_prompts([row["prompt"]])
        for t in scheduler.timesteps[1:]:
            with torch.no_grad():
                prediction = backbone.predict(backbone.denoiser, latents, t[None], prompt)
            latents = scheduler.step(prediction, t, latents).prev_sample
        assert torch.allclose(kept_latents(row), latents[0], atol=1e-5)

    def test_more_noise_leaves_less_of_the_image(
        self, real: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        pool = again(tiny_model, real, tmp_path / "out", 0, 251, 501, 751, guidance_scale=1.0)
        table = rows(pool)
        assert [row["timestep"] for row in table] == [0] * 3 + [251] * 3 + [501] * 3 + [751] * 3
        assert {row["source"] for row in table} == {"reconstruction"}
        latents = [kept_latents(row) for row in table]
        distances = [(latents[i] - latents[i % 3]).square().mean().item() for i in range(12)]
        means = [sum(distances[i : i + 3]) for i in range(0, 12, 3)]
        assert means == sorted(means)
        assert len({row["seed"] for row in table}) == 12, "noise is keyed by image and timestep"

    def test_batches_do_not_enter(self, real: Path, tiny_model: Path, tmp_path: Path) -> None:
        one, other = (
            rows(again(tiny_model, real, tmp_path / str(size), 251, 501, batch_size=size))
            for size in (1, 5)
        )
        for first, second in zip(one, other, strict=True):
            assert torch.allclose(kept_latents(first), kept_latents(second), atol=1e-5)

    def test_a_timestep_beyond_the_schedule(
        self, real: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="less than or equal to 999"):
            again(tiny_model, real, tmp_path / "out", 1000)


class TestBlend:
    def mixed(self, real: Path, candidates: Path, output: Path, **options: Any) -> Path:
        config = BlendConfig(**{"scorer": "tiny", "device": "cpu", **options})
        return blend(config, real, candidates, output)

    @pytest.mark.parametrize(("alpha", "which"), [(0.0, "real"), (1.0, "best")])
    def test_ends_are_the_images(
        self,
        real: Path,
        candidates: Path,
        tiny_model: Path,
        tmp_path: Path,
        alpha: float,
        which: str,
    ) -> None:
        pool = self.mixed(
            real, candidates, tmp_path / "out", model=str(tiny_model), alpha=alpha, space="pixels"
        )
        scores = Pool(candidates).scores().to_pylist()
        for made, source in zip(rows(pool), rows(real), strict=True):
            assert made["source_id"] == source["candidate_id"]
            group = [row for row in scores if row["candidate_id"] in self.of(candidates, source)]
            best = max(group, key=lambda row: row["tiny"])["candidate_id"]
            expected = source if which == "real" else Rows(Pool(candidates))[best]
            pictures = [decode(row["image"]["bytes"], "test") for row in (made, expected)]
            assert np.array_equal(*map(np.asarray, pictures))

    def of(self, candidates: Path, source: dict[str, Any]) -> set[str]:
        held = rows(candidates)
        return {row["candidate_id"] for row in held if item_of(row) == source["candidate_id"]}

    def test_a_stop_keeps_what_was_mixed(
        self,
        real: Path,
        candidates: Path,
        tiny_model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        mixed: list[Image.Image] = []

        def stops(image: Image.Image) -> bytes:
            mixed.append(image)
            if len(mixed) == 3:
                raise KeyboardInterrupt
            return encode_png(image)

        monkeypatch.setattr("tastemaker.sampling.blend.encode_png", stops)
        options = {"model": str(tiny_model), "alpha": 0.5}
        with pytest.raises(KeyboardInterrupt):
            self.mixed(real, candidates, tmp_path / "stopped", **options)
        stopped = self.mixed(real, candidates, tmp_path / "stopped", **options)
        assert len(mixed) == 4, "the third image alone is mixed again"
        undisturbed = self.mixed(real, candidates, tmp_path / "undisturbed", **options)
        assert digests(stopped) == digests(undisturbed)

    def test_latents_are_mixed(
        self, real: Path, candidates: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        half, all_real, all_best = (
            [
                latents_of(row)
                for row in rows(
                    self.mixed(
                        real, candidates, tmp_path / str(alpha), model=str(tiny_model), alpha=alpha
                    )
                )
            ]
            for alpha in (0.5, 0.0, 1.0)
        )
        for mixed, a, b in zip(half, all_real, all_best, strict=True):
            assert mixed is not None
            assert torch.allclose(mixed, 0.5 * (a + b), atol=1e-6)  # type: ignore[operator]

    def test_without_candidates(self, real: Path, tiny_model: Path, tmp_path: Path) -> None:
        (tmp_path / "p.txt").write_text("something else", encoding="utf-8")
        config = GenerateConfig(
            model=str(tiny_model), prompts=str(tmp_path / "p.txt"), num_candidates=1, **SAMPLING
        )
        other = generate(config, tmp_path / "other")
        with pytest.raises(TastemakerError, match="has a candidate in"):
            self.mixed(real, other, tmp_path / "out", model=str(tiny_model))


column = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=5)


def group(values: list[float], name: str) -> Group:
    ids = [f"{name}{i}" for i in range(len(values))]
    return Group("p", "a prompt", ids, {"a": values})


@given(column, column, st.one_of(st.none(), st.integers(-3, 3).map(float)))
def test_best_against_worst_across_groups(
    ours: list[float], theirs: list[float], keep_if: float | None
) -> None:
    (found,) = best_worst(group(ours, "c"), group(theirs, "r"), scorer="a", keep_if=keep_if)
    gain = max(ours) - min(theirs)
    if keep_if is not None and gain < keep_if:
        assert isinstance(found, Dropped)
    else:
        assert found == Pick(ours.index(max(ours)), theirs.index(min(theirs)), gain)


def test_the_keep_rule_keeps_equals() -> None:
    ours, theirs = group([1.0], "c"), group([1.0], "r")
    assert list(best_worst(ours, theirs, scorer="a", keep_if=0.0)) == [Pick(0, 0, 0.0)]
    lower = group([0.999], "c")
    (found,) = best_worst(lower, theirs, scorer="a", keep_if=0.0)
    assert isinstance(found, Dropped)


def test_ties_of_one_image_give_no_pair_and_are_counted() -> None:
    tied, apart = group([1.0, 1.0], "c"), group([1.0, 2.0], "c")
    found = PairRows(
        (
            (side, side, pick)
            for side in (tied, apart)
            for pick in best_worst(side, side, scorer="a")
        ),
        "best_worst",
    )
    assert [(row["chosen_id"], row["rejected_id"]) for row in found] == [("c1", "c0")]
    assert found.dropped == {"chosen and rejected are one image": 1}


class TestJoin:
    def config(self, **options: Any) -> JoinConfig:
        return JoinConfig(rule={"name": "best_worst", **options})

    def test_rejected_is_what_was_chosen_before(
        self, real: Path, candidates: Path, tiny_model: Path, tiny_clip: Path, tmp_path: Path
    ) -> None:
        easy = pair(PairConfig(rule={"scorer": "tiny"}), candidates, tmp_path / "easy")
        near = scored(again(tiny_model, real, tmp_path / "near", 251, 501), tiny_clip)
        normal = join(self.config(scorer="tiny"), near, easy, tmp_path / "normal")
        ours, theirs = (PairSet(each).table().to_pylist() for each in (normal, easy))
        assert len(ours) == 3, "one an image, also where captions repeat"
        before = {self.item(candidates, row["chosen_id"]): row["chosen_id"] for row in theirs}
        for row in ours:
            assert row["rejected_id"] == before[self.item(near, row["chosen_id"])]
        hard = join(self.config(), real, normal, tmp_path / "hard")
        chosen = [row["chosen_id"] for row in PairSet(hard).table().to_pylist()]
        assert chosen == [row["candidate_id"] for row in rows(real)]

    def item(self, pool: Path, candidate: str) -> str:
        return item_of(Rows(Pool(pool))[candidate])

    def test_nothing_left_is_an_error_that_counts(
        self, real: Path, candidates: Path, tiny_clip: Path, tmp_path: Path
    ) -> None:
        scored(real, tiny_clip)
        with pytest.raises(TastemakerError, match="3 dropped: the score rises by less than"):
            join(self.config(scorer="tiny", keep_if=1e6), real, candidates, tmp_path / "out")

    def test_no_image_is_paired_with_itself(self, real: Path, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="3 dropped: chosen and rejected are one image"):
            join(self.config(), real, real, tmp_path / "out")

    def test_a_choice_needs_a_scorer(self, real: Path, candidates: Path, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="name a scorer"):
            join(self.config(), real, candidates, tmp_path / "out")

    def test_mixed_sets_hold_all_pairs(self, real: Path, candidates: Path, tmp_path: Path) -> None:
        easy = pair(PairConfig(rule={"scorer": "tiny"}), candidates, tmp_path / "easy")
        hard = join(self.config(), real, easy, tmp_path / "hard")
        both = PairSet(mix([easy, hard], tmp_path / "both"))
        assert len(both.table()) == 6
        assert {pool.folder for pool in both.pools()} == {real.resolve(), candidates.resolve()}
