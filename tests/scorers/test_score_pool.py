"""Scoring: nothing is scored twice, ensembles of columns, and bytes that resume exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from tastemaker.config.choices import Judges, PixelScorer, Scorers
from tastemaker.config.loading import section
from tastemaker.config.sections import ScoreConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import ENSEMBLES, SCORERS
from tastemaker.evaluation.score import score
from tastemaker.scorers import pool as scoring
from tastemaker.scorers.cache import content
from tastemaker.scorers.ensembles import mean, rank, standardised, weighted
from tastemaker.scorers.pool import score_pools
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.candidates import candidate_table
from tastemaker.storage.groups import Groups
from tastemaker.storage.images import encode_png
from tastemaker.storage.parquet import read_table, write_table
from tastemaker.storage.pool import Pool

SHARD = 3


class Counting:
    """Scores by mean and prompt, and keeps what it was asked."""

    seen: ClassVar[list[tuple[float, str]]] = []
    fail_after: ClassVar[int | None] = None

    loaded: ClassVar[int] = 0

    def __init__(self, *, gain: float = 1.0) -> None:
        Counting.loaded += 1
        self.gain = gain

    def to(self, device: torch.device, dtype: torch.dtype) -> Counting:
        return self

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        values = []
        for image, prompt in zip(images, prompts, strict=True):
            if Counting.fail_after is not None and len(Counting.seen) >= Counting.fail_after:
                raise KeyboardInterrupt
            level = float(np.asarray(image).mean())
            Counting.seen.append((level, prompt))
            values.append(self.gain * (level + len(prompt)) / 7)
        return torch.tensor(values)


class Contrast(Counting):
    """Another opinion."""

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(np.asarray(image).std()) / 3 for image in images])


@pytest.fixture(autouse=True)
def registered() -> None:
    SCORERS.register("counting")(Counting)
    SCORERS.register("contrast")(Contrast)
    Counting.seen, Counting.fail_after = [], None


def picture(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 20 + 20 * seed, (4, 4, 3), dtype=np.uint8)
    return encode_png(Image.fromarray(values))


# Prompt and picture of each candidate: 0 comes again with its prompt in another shard and in its
# own, and with another prompt.
PLAN = [("a", 0), ("a", 1), ("a", 0), ("bb", 2), ("bb", 0), ("a", 0), ("ccc", 3), ("ccc", 4)]


def new_pool(
    folder: Path, plan: Sequence[tuple[str, int]] = PLAN, source: str = "generated"
) -> Pool:
    pool = Pool(folder)
    rows = [
        {
            "candidate_id": f"c{number}",
            "prompt_id": prompt,
            "prompt": prompt,
            "seed": number,
            "source": source,
            "source_id": "",
            "timestep": None,
            "model": "m",
            "image": {"bytes": picture(seed), "path": None},
        }
        for number, (prompt, seed) in enumerate(plan)
    ]
    artifact = Artifact(folder, "generate", {"made": folder.name})
    with artifact.claimed():
        for index, start in enumerate(range(0, len(rows), SHARD)):
            write_table(pool.shard(index), candidate_table(rows[start : start + SHARD]))
        artifact.finish()
    return pool


def scored(pool: Pool, *scorers: Any, **options: Any) -> Pool:
    score(ScoreConfig(scorers=scorers, device="cpu", **options), pool.folder)
    return pool


def files(pool: Pool, column: str) -> dict[str, bytes]:
    folder = pool.folder / "scores" / column
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class TestContent:
    def test_an_image_with_its_prompt_is_scored_once(self, tmp_path: Path) -> None:
        pool = scored(new_pool(tmp_path / "pool"), "counting", batch_size=2)
        assert len(Counting.seen) == len(set(PLAN)) == 6
        values = pool.scores()["counting"].to_pylist()
        for one, value in zip(PLAN, values, strict=True):
            assert [v for other, v in zip(PLAN, values, strict=True) if other == one] == [
                value
            ] * PLAN.count(one)
        assert values[0] != values[4], "another prompt"

    def test_scoring_twice_costs_nothing(self, tmp_path: Path) -> None:
        pool = scored(new_pool(tmp_path / "pool"), "counting")
        before = files(pool, "counting")
        Counting.seen = []
        scored(pool, "counting", batch_size=3)
        assert Counting.seen == []
        assert files(pool, "counting") == before

    @pytest.mark.parametrize("stop", [1, 3, 5])
    def test_a_stopped_run_ends_byte_for_byte(self, tmp_path: Path, stop: int) -> None:
        whole = files(scored(new_pool(tmp_path / "a" / "pool"), "counting"), "counting")
        pool = new_pool(tmp_path / "b" / "pool")
        Counting.seen, Counting.fail_after = [], stop
        with pytest.raises(KeyboardInterrupt):
            scored(pool, "counting", batch_size=1)
        Counting.seen, Counting.fail_after = [], None
        scored(pool, "counting", batch_size=1)
        assert files(pool, "counting") == whole

    def test_batches_enter_no_score(self, tmp_path: Path) -> None:
        one = scored(new_pool(tmp_path / "a" / "pool"), "counting", batch_size=1)
        all_ = scored(new_pool(tmp_path / "b" / "pool"), "counting", batch_size=64)
        assert files(one, "counting") == files(all_, "counting")

    def test_files_without_contents_are_gone_on_from(self, tmp_path: Path) -> None:
        """A pool that an earlier version scored half of."""
        pool = scored(new_pool(tmp_path / "pool"), "counting")
        expected = pool.scores()
        folder = pool.folder / "scores" / "counting"
        old = read_table(folder / "scores-00000.parquet", ("candidate_id", "counting"))
        write_table(folder / "scores-00000.parquet", old)
        (folder / "scores-00001.parquet").unlink()
        (folder / "done.json").unlink()
        Counting.seen = []
        assert scored(pool, "counting").scores().equals(expected)
        assert len(Counting.seen) == 3

    def test_another_pool_of_the_same_images(self, tmp_path: Path) -> None:
        first = scored(new_pool(tmp_path / "first"), "counting")
        Counting.seen = []
        plan = [*reversed(PLAN), ("new", 5)]
        again = scored(new_pool(tmp_path / "again", plan), "counting", reuse=(str(first.folder),))
        assert [prompt for _, prompt in Counting.seen] == ["new"]
        values = first.scores()["counting"].to_pylist()
        assert again.scores()["counting"].to_pylist()[:-1] == values[::-1]

    @pytest.mark.parametrize("other", [{"gain": 2.0}, {}])
    def test_scores_of_another_scorer_are_not_taken_over(
        self, tmp_path: Path, other: dict[str, float]
    ) -> None:
        first = scored(new_pool(tmp_path / "first"), {"name": "counting", **other})
        Counting.seen = []
        dtype = "fp32" if other else "bf16"
        pool = new_pool(tmp_path / "again")
        scored(pool, "counting", reuse=(str(first.folder),), dtype=dtype)
        assert len(Counting.seen) == 6

    def test_a_pool_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="none does not exist"):
            scored(new_pool(tmp_path / "pool"), "counting", reuse=(str(tmp_path / "none"),))

    def test_image_and_prompt_do_not_run_together(self) -> None:
        assert content(b"c", "ab") != content(b"bc", "a")
        assert len(content(b"", "")) == 16


class TestSeveral:
    def test_a_scorer_is_loaded_once_for_all_pools(self, tmp_path: Path) -> None:
        pools = [new_pool(tmp_path / name / "pool") for name in "ab"]
        before = Counting.loaded
        choices = TypeAdapter(Scorers).validate_python(BOTH)
        score_pools(pools, choices, device="cpu")
        assert Counting.loaded == before + len(BOTH)
        assert files(pools[0], "counting") == files(pools[1], "counting")
        assert files(scored(new_pool(tmp_path / "c" / "pool"), *BOTH), "contrast") == files(
            pools[1], "contrast"
        )

    def test_scorers_of_one_clip_embed_an_image_once(self, tmp_path: Path, tiny_clip: Path) -> None:
        """And score it as each does alone, to the last byte."""
        Image.new("RGB", (40, 50), (200, 30, 90)).save(tmp_path / "subject.png")
        model = {"model": str(tiny_clip)}
        choices = [
            {"name": "clip", "label": "one", **model},
            {"name": "image_similarity", "label": "two", "images": str(tmp_path), **model},
            {"name": "clip_score", "label": "three", **model},
        ]
        batches: list[int] = []

        def count(module: Any, inputs: Any, output: Any) -> None:
            if type(module).__name__ == "CLIPVisionEmbeddings":
                batches.append(len(output))

        hook = torch.nn.modules.module.register_module_forward_hook(count)
        try:
            together = scored(new_pool(tmp_path / "together" / "pool"), *choices, batch_size=2)
            assert batches.count(1) == 1, "the photograph of the subject"
            assert sum(batches) == 1 + len(set(PLAN))
            for number, choice in enumerate(choices):
                alone = scored(new_pool(tmp_path / str(number) / "pool"), choice, batch_size=2)
                column = choice["label"]
                assert files(alone, column) == files(together, column)
        finally:
            hook.remove()


BOTH = ("counting", "contrast")
MEAN = {"name": "mean", "of": ["counting", "contrast"]}


class TestColumns:
    def test_they_are_what_the_functions_give_on_the_columns(self, tmp_path: Path) -> None:
        weights = {"name": "weighted", "of": {"counting": 2, "contrast": -1}}
        raw = {**weights, "zscored": False, "label": "sum"}
        per_prompt = {**MEAN, "within": "prompt", "label": "within"}
        ranks = {"name": "rank", "of": ["counting", "contrast"]}
        pool = scored(new_pool(tmp_path / "pool"), *BOTH, MEAN, ranks, weights, raw, per_prompt)
        table = pool.scores()
        members = np.stack([table[name].to_numpy() for name in BOTH], 1).astype(np.float64)
        of = [{"a": 0, "bb": 1, "ccc": 2}[prompt] for prompt, _ in PLAN]
        group = np.array(of)
        both = ("counting", "contrast")
        expected = {
            "mean": mean(members, group, of=both),
            "rank": rank(members, group, of=both),
            "weighted": weighted(members, group, of={"counting": 2.0, "contrast": -1.0}),
            "sum": members @ [2.0, -1.0],
            "within": mean(members, group, of=both, within="prompt"),
        }
        for name, values in expected.items():
            assert table[name].to_numpy() == pytest.approx(values, abs=1e-6), name
        assert {name for each in Groups(pool) for name in each.scores} == {*BOTH, *expected}

    def test_a_photograph_competes_with_none(self, tmp_path: Path) -> None:
        pool = new_pool(tmp_path / "pool", source="real")
        ranks = scored(pool, "counting", {"name": "rank", "of": ["counting"]}).scores()["rank"]
        assert ranks.to_pylist() == [0.5] * len(PLAN)

    def test_an_ensemble_of_ensembles(self, tmp_path: Path) -> None:
        top = {"name": "rank", "of": ["mean", "counting"], "label": "top"}
        assert "top" in scored(new_pool(tmp_path / "pool"), *BOTH, MEAN, top).scorers()

    def test_batches_and_stops_enter_no_byte(self, tmp_path: Path) -> None:
        whole = scored(new_pool(tmp_path / "a" / "pool"), *BOTH, MEAN, batch_size=8)
        pool = scored(new_pool(tmp_path / "b" / "pool"), *BOTH, MEAN, batch_size=1)
        assert files(pool, "mean") == files(whole, "mean")
        folder = pool.folder / "scores" / "mean"
        (folder / "scores-00001.parquet").unlink()
        (folder / "done.json").unlink()
        scored(pool, *BOTH, MEAN)
        assert files(pool, "mean") == files(whole, "mean")

    def test_processes_write_their_own_shards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = scored(new_pool(tmp_path / "a" / "pool"), *BOTH, MEAN)
        pool = scored(new_pool(tmp_path / "b" / "pool"), *BOTH)
        choice = TypeAdapter(Scorers).validate_python((*BOTH, MEAN))[-1]
        for index in (1, 0):
            state = SimpleNamespace(
                process_index=index, num_processes=2, wait_for_everyone=lambda: None
            )
            monkeypatch.setattr(scoring, "processes", lambda state=state: state)
            scoring._combine_missing(pool, choice)
            number = len(list((pool.folder / "scores" / "mean").glob("*.parquet")))
            assert number == (1 if index else 3)
        scores = {name: data for name, data in files(whole, "mean").items() if "scores-" in name}
        assert files(pool, "mean") == scores

    def test_members_made_anew_are_noticed(self, tmp_path: Path) -> None:
        pool = scored(new_pool(tmp_path / "pool"), *BOTH, MEAN)
        folder = pool.folder / "scores" / "counting"
        for file in folder.iterdir():
            file.unlink()
        with pytest.raises(TastemakerError, match=r"another configuration \(members.counting"):
            scored(pool, {"name": "counting", "gain": 3}, "contrast", MEAN)


class TestValidation:
    @pytest.mark.parametrize(
        ("scorers", "words"),
        [
            ([MEAN], "ensemble 'mean' is of 'counting', which no scorer before it"),
            (["counting", MEAN], "is of 'contrast', which no scorer before it"),
            ([MEAN, *BOTH], "is of 'counting', which no scorer before it"),
            (["counting", {"name": "mean", "of": ["countin"]}], "Did you mean counting"),
            (["counting", {"name": "mean", "of": []}], "option 'of'"),
            (["counting", {"name": "mean"}], "option 'of' is required"),
            (["counting", {"name": "weighted", "of": ["counting"]}], "option 'of'"),
            (["counting", {"name": "rank", "of": ["counting"], "within": "day"}], "'within'"),
            (["counting", {"name": "rnak", "of": ["counting"]}], "Did you mean rank"),
            ([*BOTH, MEAN, MEAN], "'mean' is named twice"),
        ],
    )
    def test_mistakes_are_found_when_the_configuration_is_read(
        self, scorers: list[Any], words: str
    ) -> None:
        with pytest.raises(ValidationError, match=words):
            TypeAdapter(Scorers).validate_python(scorers)

    def test_from_the_command_line(self) -> None:
        words = ("scorers=[counting, {name: mean, of: [counting, contrst]}]",)
        with pytest.raises(TastemakerError, match="scorers: .*'contrst', which no scorer before"):
            section(ScoreConfig, None, words)

    def test_models_are_not_compared_by_what_one_pool_gives(self) -> None:
        with pytest.raises(ValidationError, match="name its scorers alone"):
            TypeAdapter(Judges).validate_python([*BOTH, MEAN])

    def test_no_gradient_passes(self) -> None:
        with pytest.raises(ValidationError, match="'mean' is not differentiable"):
            TypeAdapter(PixelScorer).validate_python(MEAN)

    def test_a_users_ensemble_and_one_without_members(self, tmp_path: Path) -> None:
        @ENSEMBLES.register("lowest")
        def lowest(scores: Any, groups: Any, *, of: tuple[str, ...]) -> Any:
            return scores.min(1)

        @ENSEMBLES.register("nothing")
        def nothing(scores: Any, groups: Any) -> Any:
            return scores

        choice = {"name": "lowest", "of": list(BOTH)}
        table = scored(new_pool(tmp_path / "pool"), *BOTH, choice).scores()
        both = [table[name].to_numpy() for name in BOTH]
        assert table["lowest"].to_pylist() == np.minimum(*both).tolist()
        with pytest.raises(ValidationError, match="'nothing' has no option `of`"):
            TypeAdapter(Scorers).validate_python(["nothing"])

    def test_a_plug_in_may_take_an_ensembles_name(self) -> None:
        SCORERS.register("rank")(Contrast)
        (choice,) = TypeAdapter(Scorers).validate_python(["rank"])
        assert choice.members == ()


numbers = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)


def columns(values: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)[:, None]


class TestFunctions:
    @given(numbers, st.integers(1, 9), st.integers(-5, 5))
    def test_the_scale_of_a_member_does_not_enter(
        self, values: list[float], gain: int, shift: int
    ) -> None:
        group = np.zeros(len(values), dtype=np.int64)
        table, other = columns(values), gain * columns(values) + shift
        for function in (mean, rank):
            one, two = (function(each, group, of=("a",)) for each in (table, other))
            assert one == pytest.approx(two, abs=1e-9)

    @given(numbers)
    def test_order_is_kept(self, values: list[float]) -> None:
        group = np.zeros(len(values), dtype=np.int64)
        for function in (mean, rank):
            scores = function(columns(values), group, of=("a",))
            for one, score_one in zip(values, scores, strict=True):
                for two, score_two in zip(values, scores, strict=True):
                    assert (one < two) == (score_one < score_two - 1e-12)

    @given(numbers)
    def test_ranks_by_counting(self, values: list[float]) -> None:
        scores = rank(columns(values), np.zeros(len(values), dtype=np.int64), of=("a",))
        for value, held in zip(values, scores, strict=True):
            others = len(values) - 1
            below = sum(other < value for other in values)
            equal = sum(other == value for other in values) - 1
            assert held == pytest.approx((below + equal / 2) / others if others else 0.5)

    def test_groups_are_apart(self) -> None:
        table = np.array([[1.0], [30.0], [2.0], [10.0]])
        group = np.array([0, 1, 0, 1])
        assert rank(table, group, of=("a",)).tolist() == [0, 1, 1, 0]
        assert mean(table, group, of=("a",), within="prompt").tolist() == [-1, 1, 1, -1]
        pooled = standardised(table, np.zeros(4, dtype=np.int64))
        assert pooled.mean() == pytest.approx(0)
        assert pooled.std() == pytest.approx(1)

    def test_a_member_that_runs_away_has_one_vote(self) -> None:
        table = np.array([[1.0, 1.0, 1e9], [2.0, 2.0, -1e9], [0.0, 0.0, 0.0]])
        ranks = rank(table, np.zeros(3, dtype=np.int64), of=("a", "b", "c"))
        assert ranks.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 6])

    def test_equal_scores_add_nothing(self) -> None:
        table = np.full((5, 1), 0.1)
        assert mean(table, np.zeros(5, dtype=np.int64), of=("a",)).tolist() == [0] * 5
