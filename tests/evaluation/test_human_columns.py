"""Votes as columns of a pool: strengths, ties, gaps, and the pairs that rules make of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tastemaker.cli.command_line import main
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.verdicts import verdicts
from tastemaker.evaluation.human_columns import add_human_columns, human_strengths, voter_column
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.groups import Groups
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import write_table
from tastemaker.storage.pool import Pool
from voting import pool_ids, study, vote, voted_pool

PROMPTS = {"cat": ("c1", "c2", "c3"), "dog": ("d1", "d2"), "sun": ("s1", "s2")}
VOTES = [
    vote(1, "cat", ("c1", "c2"), "left"),
    vote(2, "dog", ("d1", "d2"), "tie"),
    vote(3, "cat", ("c2", "c1"), "right", voter="Bob"),
]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return voted_pool(
        tmp_path / "pool",
        PROMPTS,
        {"judge": {"c1": 0.0, "c2": 1.0, "c3": 2.0, "d1": 0.0, "d2": 1.0, "s1": 0.0, "s2": 1.0}},
    )


def column(pool: Pool, name: str) -> dict[str, float | None]:
    table = pool.scores()
    return dict(zip(table["candidate_id"].to_pylist(), table[name].to_pylist(), strict=True))


def test_strengths_by_hand(pool: Pool) -> None:
    assert add_human_columns(verdicts(VOTES), pool, "human") == {
        "human": 4,
        "human_Ada": 4,
        "human_Bob": 2,
    }
    # One vote: 1 - 1 / (1 + e^-d) = .25 d / 2 at d = 1.4815; two: 2 (1 - ...) = .25 d / 2.
    human, ada = column(pool, "human"), column(pool, "human_Ada")
    assert ada["c1"] == pytest.approx(1.4815 / 2, abs=1e-3)
    d = human["c1"] - human["c2"]  # type: ignore[operator]
    assert 2 / (1 + math.exp(d)) == pytest.approx(0.125 * d, abs=1e-5)
    assert d > 1.4815
    assert (human["d1"], human["d2"]) == (0.0, 0.0)
    assert [human[name] for name in ("c3", "s1", "s2")] == [None, None, None]
    assert column(pool, "human_Bob")["d1"] is None


def test_a_chain_orders_what_was_never_compared() -> None:
    found = human_strengths(
        verdicts([vote(1, "cat", ("a", "b"), "left"), vote(2, "cat", ("b", "c"), "left")])
    )
    assert found["a"] > found["b"] > found["c"]
    assert found["b"] == 0
    assert found["a"] == pytest.approx(-found["c"])


def test_pairs_of_people(pool: Pool, tmp_path: Path, capsys: Any) -> None:
    place = study(tmp_path / "study", VOTES, [str(pool.folder)])
    assert main(["votes", str(place), f"pool={pool.folder}"]) == 0
    assert "human of 4 images" in capsys.readouterr().out
    words = ["pair", str(pool.folder), str(tmp_path / "pairs"), "rule.scorer=human"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "1 pairs of 2 prompts" in told
    assert "1 dropped: all candidates tie" in told
    assert "3 dropped: candidates without a score that the options name" in told
    (pair,) = PairSet(tmp_path / "pairs").table().to_pylist()
    assert (pair["chosen_id"], pair["rejected_id"]) == ("c1", "c2")
    # Every pair that people order, in two columns: neither the tie nor what nobody saw.
    words = ["pair", str(pool.folder), str(tmp_path / "all"), "rule.name=threshold", "rule.gap=0"]
    assert main([*words, "rule.scorer={human: 1.0, judge: 0.0}", "rule.max_pairs=null"]) == 0
    assert PairSet(tmp_path / "all").table().num_rows == 1
    # A rule that does not name people sees all candidates.
    assert main([*words[:2], str(tmp_path / "judged"), "rule.scorer=judge"]) == 0
    assert PairSet(tmp_path / "judged").table().num_rows == 3
    assert main(["show", str(pool.folder), f"html={tmp_path / 'page.html'}"]) == 0
    assert "human  mean 0," in capsys.readouterr().out


def test_gaps_are_counted(pool: Pool) -> None:
    add_human_columns(verdicts(VOTES), pool, "human")
    groups = Groups(pool, scored=["human"])
    assert [each.candidate_ids for each in groups] == [["c1", "c2"], ["d1", "d2"]]
    assert groups.unscored == 3
    every = list(Groups(pool))
    assert math.isnan(every[0].scores["human"][2])
    assert Groups(pool, ["c1", "c3", "s1"], ["human"]).unscored == 2


def test_more_votes_make_the_column_again(pool: Pool) -> None:
    add_human_columns(verdicts(VOTES[:1]), pool, "human")
    before = column(pool, "human")
    more = [*VOTES, vote(4, "sun", ("s1", "s2"), "right")]
    add_human_columns(verdicts(more), pool, "human")
    after = column(pool, "human")
    assert (before["s2"], after["s1"] < after["s2"]) == (None, True)  # type: ignore[operator]
    file = pool.score_file("human", pool.shards()[0])
    written = file.stat().st_mtime_ns
    add_human_columns(verdicts(reversed(more)), pool, "human")
    assert file.stat().st_mtime_ns == written  # the same votes make nothing again


def test_a_column_that_is_not_of_votes_is_left_alone(pool: Pool) -> None:
    artifact = Artifact(pool.folder / "scores" / "human", "score human", {})
    with artifact.claimed():
        for shard in pool.shards():
            names = pool_ids(shard)
            table = {"candidate_id": names, "human": pa.array([1.0] * len(names), pa.float32())}
            write_table(pool.score_file("human", shard), pa.table(table))
        artifact.finish()
    with pytest.raises(TastemakerError, match="column 'human' that is not of votes.*column="):
        add_human_columns(verdicts(VOTES), pool, "human")
    assert column(pool, "human")["c3"] == 1.0
    assert "votes" in add_human_columns(verdicts(VOTES), pool, "votes")


def test_votes_on_other_images_are_refused(pool: Pool) -> None:
    with pytest.raises(TastemakerError, match="no vote is on images of"):
        add_human_columns(verdicts([vote(1, "x", ("a", "b"), "left")]), pool, "human")


def test_names_of_columns() -> None:
    assert voter_column("human", "Ada Lovelace") == "human_Ada Lovelace"
    odd = {voter_column("human", name) for name in ("a/b", "a\\b", "a.", "ä" * 40, "语" * 40)}
    assert len(odd) == 5
    assert not any(set(name) & set("/\\") for name in odd)


def test_an_ensemble_takes_whole_columns(pool: Pool) -> None:
    from tastemaker.scorers.pool import _column

    add_human_columns(verdicts(VOTES), pool, "human")
    with pytest.raises(TastemakerError, match="'human' has no score for some images"):
        _column(pool, "human")
    assert len(_column(pool, "judge")) == 7
    record = json.loads((pool.folder / "scores" / "human" / "done.json").read_text())
    assert record["partial"] is True
