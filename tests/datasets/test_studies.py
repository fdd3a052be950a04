"""Studies as the studio leaves them: their sources are found, merged and exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tastemaker.cli.command_line import main
from tastemaker.config.studio import StudioConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.studies import is_study, read_studies, study_comparisons
from tastemaker.storage.files import write_json
from tastemaker.storage.vote_files import VoteFile
from tastemaker.storage.votes import Vote
from tastemaker.studio.run import STUDY_FILE, description, make_plan
from tastemaker.studio.sources import read_sources
from voting import vote, voted_pool


def begun(output: Path, sources: Sequence[Path], votes: Sequence[Vote]) -> Path:
    """A folder with what the studio writes of sources, and votes."""
    config = StudioConfig(output=str(output))
    items = read_sources(sources)
    about = description(config, items, sources, make_plan(config, items, sources))
    write_json(output / STUDY_FILE, about)
    for each in votes:
        VoteFile(output, each.voter).append(each)
    return output


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    for name in "ab":
        voted_pool(tmp_path / name, {"cat": (f"c{name}",), "dog": (f"d{name}",)})
    return [tmp_path / "a", tmp_path / "b"]


def between(voter: str) -> list[Vote]:
    return [vote(1, "cat", ("ca", "cb"), "left", models=("a", "b"), voter=voter)]


def test_pools_of_models(models: list[Path], tmp_path: Path) -> None:
    study = begun(tmp_path / "study", models, between("Ada"))
    assert is_study(study)
    read = read_studies([study])
    assert [pool.folder.name for pool in read.pools] == ["a", "b"]
    (found,) = study_comparisons(study, None)
    assert (found.ids, found.models, found.voter) == (("ca", "cb"), ("a", "b"), "Ada")
    assert found.verdicts == (1.0, 0.0)
    assert len(set(found.images)) == 2


def test_equal_sources_may_lie_elsewhere(models: list[Path], tmp_path: Path) -> None:
    mine = begun(tmp_path / "mine", models, between("Ada"))
    theirs = begun(tmp_path / "theirs", models, between("Bob"))
    about = json.loads((theirs / STUDY_FILE).read_text(encoding="utf-8"))
    for source in about["sources"]:
        source["folder"] = "/another/machine/" + source["folder"]
    write_json(theirs / STUDY_FILE, about)
    read = read_studies([mine, theirs])
    assert [each.voter for each in read.votes] == ["Ada", "Bob"]
    assert len(read.pools) == 2
    one = voted_pool(tmp_path / "one", {"cat": ("x", "y")})
    single = begun(tmp_path / "single", [one.folder], [vote(1, "cat", "xy", "tie")])
    with pytest.raises(TastemakerError, match="studies of different sources"):
        read_studies([mine, single])


def test_a_folder_of_images_is_exported(tmp_path: Path) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for name, colour in (("1.png", "red"), ("2.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(source / name)
    cast = [vote(1, "a thing", ("2.png", "1.png"), "both_bad")]
    study = begun(tmp_path / "study", [source], cast)
    (found,) = study_comparisons(study, None)
    assert found.images == ((source / "2.png").read_bytes(), (source / "1.png").read_bytes())
    assert found.bad
    assert main(["export", str(study), str(tmp_path / "out"), "layout=folder"]) == 0
    (source / "1.png").unlink()
    with pytest.raises(TastemakerError, match=r"image 1\.png is in none of the study's sources"):
        list(study_comparisons(study, None))


def test_gold_items_know_their_better_image(tmp_path: Path) -> None:
    pool = voted_pool(tmp_path / "pool", {"cat": ("x", "y")}, {"judge": {"x": 0.0, "y": 1.0}})
    pairs = tmp_path / "gold"
    assert main(["pair", str(pool.folder), str(pairs), "rule.scorer=judge"]) == 0
    study = begun(tmp_path / "study", [pool.folder], [vote(1, "cat", "xy", "tie")])
    about = json.loads((study / STUDY_FILE).read_text(encoding="utf-8"))
    write_json(study / STUDY_FILE, {**about, "gold": {"folder": str(pairs), "key": ""}})
    assert read_studies([study]).gold == {frozenset("xy"): "y"}
