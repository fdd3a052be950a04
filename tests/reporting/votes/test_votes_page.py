"""`tastemaker votes`: numbers worked out by hand, the page, merged studies, other formats."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tastemaker.cli.command_line import main
from tastemaker.datasets.studies import read_studies
from tastemaker.datasets.verdicts import verdicts
from tastemaker.reporting.votes.people import agreement, voters
from tastemaker.reporting.votes.results import results
from tastemaker.reporting.votes.scorers import scorers
from tastemaker.reporting.votes.sentence import sentence
from tastemaker.storage.pool import Pool
from tastemaker.storage.votes import Vote
from voting import study, vote, voted_pool

NASTY = '<script>alert("x")</script>'


def cast(won: int, of: int, ties: int = 0, voter: str = "Ada", start: int = 0) -> list[Vote]:
    """Votes on images of `new` and `old`, one per prompt, `new` on alternating sides."""
    found = []
    for i in range(of):
        left = i % 2 == 0
        sides, models = ("n", "o"), ("new", "old")
        meant = "tie" if won <= i < won + ties else "new" if i < won else "old"
        side = "tie" if meant == "tie" else "left" if (meant == "new") == left else "right"
        order = 1 if left else -1
        shown = [f"{each}{i}" for each in sides[::order]]
        found.append(vote(start + i, f"p{i}", shown, side, models=models[::order], voter=voter))
    return found


def test_two_models_by_hand() -> None:
    found = results(cast(24, 40, ties=8))["questions"]["overall"]
    assert list(found["models"]) == ["new", "old"]
    new = found["models"]["new"]
    assert [new[key] for key in ("wins", "ties", "both_bad", "losses")] == [24, 8, 0, 8]
    rate = found["win_rates"]["new"]["old"]
    assert (rate["value"], rate["votes"]) == (0.7, 40)
    d = found["differences"]["new"]["old"]
    # Log odds of 28 in 40, the ridge of .25 against a curvature of 2 * 40 * .21 + .25.
    assert d["value"] == pytest.approx(math.log(28 / 12), abs=0.02)
    assert d["low"] > 0
    assert d["p_holm"] == d["p"] < 0.05
    text = found["sentence"]
    assert text.startswith(
        "One voter cast 40 votes on images of 40 prompts; new was preferred to old"
    )
    assert "in 70.0 % of 40 comparisons, ties counted half" in text
    assert re.search(r"\[0\.\d\d, 1\.\d\d\] in log-odds, p (= \.0\d\d|< \.001)", text)


def test_the_sentence_of_several_models() -> None:
    third = [
        vote(100 + i, f"p{i}", (f"n{i}", f"t{i}"), "left", models=("new", "third"), voter="Bob")
        for i in range(30)
    ]
    found = results([*cast(30, 40), *third])["questions"]["overall"]
    assert found["sentence"].startswith(
        "2 voters cast 70 votes on images of 40 prompts; new ranks first"
    )
    assert "Holm's adjustment over 3 pairs" in found["sentence"]
    assert found["win_rates"]["old"]["third"] is None
    assert found["unlinked"] == []


def test_a_single_pool_has_no_models() -> None:
    found = results([vote(1, "cat", "ab", "left"), vote(2, "dog", "cd", "skip")])
    assert (found["votes"], found["skipped"]) == (1, 1)
    assert "models" not in found["questions"]["overall"]
    assert found["sentence"] == "One voter cast one vote on images of one prompt."
    assert sentence({"voters": 3, "votes": 9, "prompts": 2}) == (
        "3 voters cast 9 votes on images of 2 prompts."
    )


class TestPeople:
    def test_consistency_and_sides_by_hand(self) -> None:
        votes = [
            vote(1, "a", ("a1", "a2"), "left"),
            vote(2, "b", ("b1", "b2"), "left"),
            vote(3, "c", ("c1", "c2"), "tie"),
            vote(4, "a", ("a2", "a1"), "right", chosen_by="repeat"),  # the same image again
            vote(5, "b", ("b2", "b1"), "left", chosen_by="repeat"),  # the other one
            vote(6, "c", ("c2", "c1"), "tie", chosen_by="repeat"),
            vote(7, "d", ("d1", "d2"), "skip", seconds=60.0),
        ]
        ada = voters(votes)["Ada"]
        assert (ada["votes"], ada["skipped"], ada["seconds"]) == (3, 1, 2.0)
        assert ada["consistency"]["value"] == pytest.approx(2 / 3)
        assert ada["consistency"]["votes"] == 3
        # Left preferred: left, left, right, left of four decided.
        assert (ada["left"]["value"], ada["left"]["votes"]) == (0.75, 4)

    def test_gold_items_by_hand(self) -> None:
        better = {frozenset(("g1", "g2")): "g1", frozenset(("h1", "h2")): "h2"}
        votes = [
            vote(1, "g", ("g2", "g1"), "right", chosen_by="gold"),
            vote(2, "h", ("h1", "h2"), "tie", chosen_by="gold"),
        ]
        ada = voters(votes, better)["Ada"]
        assert (ada["votes"], ada["gold"]["value"], ada["gold"]["votes"]) == (0, 0.5, 2)
        assert voters(votes)["Ada"]["gold"] is None

    def test_agreement_does_not_depend_on_sides(self) -> None:
        # Three pairs: agreed, agreed, not: as published alpha of two voters and two values.
        votes = [
            vote(1, "a", ("a1", "a2"), "left"),
            vote(1, "a", ("a2", "a1"), "right", voter="Bob"),
            vote(2, "b", ("b1", "b2"), "right"),
            vote(2, "b", ("b1", "b2"), "right", voter="Bob"),
            vote(3, "c", ("c1", "c2"), "left"),
            vote(3, "c", ("c2", "c1"), "left", voter="Bob"),
        ]
        found = agreement(votes, verdicts(votes))["comparisons"]
        # Values: first 3, second 3 of 6; D_o = 2 / 6, D_e = 2 * 9 / 30: alpha = 1 - .3333 / .6.
        assert found["nominal"]["value"] == pytest.approx(1 - (2 / 6) / (18 / 30))
        assert found["ordinal"]["value"] == pytest.approx(found["nominal"]["value"])
        assert found["nominal"]["units"] == 3

    def test_ratings_have_an_agreement_of_their_own(self) -> None:
        votes = [
            vote(i, "a", (f"a{i}",), stars, kind="rating", voter=voter)
            for voter, given in (("Ada", (1, 3, 5)), ("Bob", (1, 3, 5)))
            for i, stars in enumerate(given)
        ]
        found = agreement(votes, verdicts(votes))
        assert list(found) == ["ratings"]
        assert found["ratings"]["ordinal"]["value"] == 1


class TestScorers:
    def test_shares_by_hand(self) -> None:
        votes = [vote(i, f"p{i}", (f"a{i}", f"b{i}"), "left") for i in range(10)]
        votes.append(vote(10, "p10", ("a10", "b10"), "tie"))
        good = {f"a{i}": 1.0 for i in range(10)} | {f"b{i}": float(i == 0) * 2 for i in range(10)}
        flat = dict.fromkeys(good, 0.0)
        half = {name: score for name, score in good.items() if int(name[1:]) < 5}
        found = scorers(verdicts(votes), {"flat": flat, "good": good, "half": half})
        table = found["scorers"]
        assert list(table) == ["good", "half", "flat"]
        assert (table["good"]["value"], table["good"]["votes"]) == (0.9, 10)
        assert (table["half"]["value"], table["half"]["votes"]) == (0.8, 5)
        assert (table["flat"]["value"], table["good"]["behind"]) == (0.5, None)
        assert table["flat"]["behind"]["value"] == pytest.approx(0.4)
        assert table["half"]["behind"]["value"] == 0  # on the verdicts that both scored
        assert found["best"] is None  # as good on the same verdicts

    def test_best_is_marked_where_the_intervals_separate(self) -> None:
        votes = [vote(i, f"p{i}", (f"a{i}", f"b{i}"), "left") for i in range(60)]
        good = {f"a{i}": 1.0 for i in range(60)} | {f"b{i}": 0.0 for i in range(60)}
        poor = {name: score if int(name[1:]) % 3 else -score for name, score in good.items()}
        assert scorers(verdicts(votes), {"good": good, "poor": poor})["best"] == "good"
        few = verdicts(votes[:3])
        assert scorers(few, {"good": good, "poor": poor})["best"] is None
        assert scorers(verdicts(votes), {}) == {"scorers": {}, "best": None}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    prompts = {f"p{i}": (f"n{i}", f"o{i}") for i in range(12)}
    judge = {f"n{i}": 1.0 for i in range(12)} | {f"o{i}": 0.0 for i in range(12)}
    return voted_pool(tmp_path / "pool", prompts, {"judge": judge})


@pytest.fixture
def folder(tmp_path: Path, pool: Pool) -> Path:
    votes = [*cast(9, 12, ties=1), *cast(8, 12, voter=NASTY[:40], start=50)]
    return study(tmp_path / "study", votes, [str(pool.folder)])


def test_json_and_page(folder: Path, capsys: Any) -> None:
    assert main(["votes", str(folder)]) == 0
    told = capsys.readouterr().out
    found = json.loads((folder / "votes.json").read_text(encoding="utf-8"))
    assert found["sentence"] in told
    assert (found["votes"], found["voters"]) == (24, 2)
    overall = found["questions"]["overall"]
    # new was preferred in 9 + 8 of the 23 decided votes, and the judge always prefers it.
    assert overall["scorers"]["judge"]["value"] == pytest.approx(17 / 23)
    page = (folder / "votes.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for words in ("Win rates", "Scorers against people", "Krippendorff", "left preferred", "<svg"):
        assert words in page
    assert main(["votes", str(folder)]) == 0
    assert (folder / "votes.html").read_text(encoding="utf-8") == page


def test_a_study_begun_again_elsewhere_is_merged(folder: Path, pool: Pool, tmp_path: Path) -> None:
    other = study(tmp_path / "other", cast(2, 12, voter="Eve", start=90), [str(pool.folder)])
    assert main(["votes", str(folder), str(other), f"output={tmp_path / 'both'}"]) == 0
    found = json.loads((tmp_path / "both" / "votes.json").read_text(encoding="utf-8"))
    assert (found["votes"], found["voters"]) == (36, 3)
    # The same votes twice, as a folder and as a file, count once.
    (file,) = (other / "votes").glob("*.jsonl")
    assert main(["votes", str(other), str(file), f"output={tmp_path / 'once'}"]) == 0
    assert json.loads((tmp_path / "once" / "votes.json").read_text())["votes"] == 12


def test_mistakes_are_named(folder: Path, tmp_path: Path, capsys: Any) -> None:
    other = study(tmp_path / "other", cast(2, 12, voter="Eve"), ["elsewhere"])
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, message in (
        ([str(folder), str(other), f"output={tmp_path / 'x'}"], "studies of different sources"),
        ([str(folder), str(folder)], "need a folder: output=FOLDER"),
        ([str(empty)], "has no votes"),
        ([str(folder), "question=colour", f"pool={tmp_path / 'pool'}"], "no vote is on question"),
        ([str(folder), "colum=x"], "column"),
    ):
        assert main(["votes", *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert not (folder / "votes.json").exists()


def test_votes_need_no_torch(folder: Path, pool: Pool) -> None:
    code = (
        "import sys\nfrom tastemaker.cli.command_line import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    words = ["votes", str(folder), f"pool={pool.folder}"]
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def test_exports_come_back(folder: Path, tmp_path: Path) -> None:
    label = tmp_path / "label"
    assert main(["export", str(folder), str(label), "layout=label_studio"]) == 0
    tasks = json.loads((label / "tasks.json").read_text(encoding="utf-8"))
    assert sum(len(task["annotations"]) for task in tasks) == 24
    assert all((label / task["data"]["image1"]).is_file() for task in tasks)
    mine, theirs = read_studies([folder]), read_studies([label / "tasks.json"])
    first, second = (results(each.votes)["questions"]["overall"] for each in (mine, theirs))
    assert first["sentence"] == second["sentence"]
    for key in ("wins", "ties", "both_bad", "losses"):
        assert first["models"]["new"][key] == second["models"]["new"][key]
    assert first["win_rates"]["new"]["old"] == pytest.approx(second["win_rates"]["new"]["old"])
    alphas = [each["agreement"]["comparisons"]["nominal"]["value"] for each in (first, second)]
    assert alphas[0] == pytest.approx(alphas[1])
    pairs = tmp_path / "pairs"
    assert main(["export", str(folder), str(pairs), "layout=pick_a_pic"]) == 0
    assert main(["import", str(tmp_path / "again"), f"comparisons={pairs}"]) == 0
    human = Pool(tmp_path / "again").scores()["human"].to_pylist()
    assert (len(human), human.count(0.5)) == (48, 2)


def test_an_export_of_label_studio_itself(tmp_path: Path) -> None:
    tasks = [
        {
            "id": 7,
            "data": {
                "caption": "a cat",
                "left_image": "s3://x/a.png",
                "right_image": "s3://x/b.png",
            },
            "annotations": [
                {
                    "id": 1,
                    "completed_by": 3,
                    "lead_time": 4.5,
                    "created_at": "2026-01-01T10:00:00Z",
                    "result": [
                        {
                            "from_name": "pw",
                            "to_name": "left_image,right_image",
                            "type": "pairwise",
                            "value": {"selected": "right"},
                        }
                    ],
                },
                {
                    "id": 2,
                    "completed_by": {"email": "eve@x.org"},
                    "was_cancelled": True,
                    "result": [],
                },
            ],
        }
    ]
    file = tmp_path / "export.json"
    file.write_text(json.dumps(tasks), encoding="utf-8")
    (found,) = read_studies([file]).votes
    assert (found.voter, found.answer, found.seconds) == ("annotator 3", "right", 4.5)
    assert found.shown == ("s3://x/a.png", "s3://x/b.png")
    assert read_studies([file]).votes == read_studies([file, file]).votes
