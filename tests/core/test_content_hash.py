"""An input is what is in it: the same bytes under a path are the same input, others are another."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.backbones import model_identity
from tastemaker.backbones.places import LORA_FILE, MODEL_FILE
from tastemaker.config.choices import ScorerChoice
from tastemaker.core import content_hash as contents
from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import load_plugins
from tastemaker.core.registry import RULES
from tastemaker.datasets.formats.folder import folder
from tastemaker.datasets.formats.rankings import rankings
from tastemaker.scorers.inputs import scorer_inputs
from tastemaker.storage.files import write_json


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    contents._hashes.cache_clear()
    yield tmp_path / "cache" / "tastemaker" / "contents.sqlite"
    contents._hashes.cache_clear()


def replaced(file: Path, data: bytes) -> None:
    """Give a file other bytes, its size and time of change as they were."""
    before = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


class TestFileContent:
    @given(st.binary(max_size=50), st.binary(max_size=50))
    def test_it_is_that_of_the_bytes(
        self, tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes
    ) -> None:
        folder = tmp_path_factory.mktemp("files")
        (folder / "a").write_bytes(one)
        (folder / "b").write_bytes(other)
        a, b = (contents.file_content(folder / name) for name in "ab")
        assert (a == b) == (one == other)
        assert len(a) == 32

    def test_a_replaced_file_of_equal_size_and_time_is_seen(self, tmp_path: Path) -> None:
        file = tmp_path / "weights"
        file.write_bytes(b"old")
        before = contents.file_content(file)
        for data in (b"new", b"one", b"two"):
            replaced(file, data)
            assert contents.file_content(file) != before

    def test_what_was_not_touched_is_known_the_next_time(self, tmp_path: Path, cache: Path) -> None:
        file = tmp_path / "weights"
        file.write_bytes(b"weights")
        fresh = contents.file_content(file)
        contents._hashes()._flush()
        with sqlite3.connect(cache) as table:
            # It had just been written: within the clock's tick it could have been again.
            assert table.execute("SELECT * FROM hashes").fetchall() == []
        time.sleep(contents.RACY_SECONDS + 0.1)
        assert contents.file_content(file) == fresh
        contents._hashes()._flush()
        contents._hashes.cache_clear()  # another command
        with sqlite3.connect(cache) as table:
            assert table.execute("SELECT content FROM hashes").fetchall() == [(fresh,)]
            table.execute("UPDATE hashes SET content = 'known'")
        assert contents.file_content(file) == "known"
        replaced(file, b"WEIGHTS")
        assert contents.file_content(file) not in {fresh, "known"}

    @pytest.mark.parametrize("harm", ["a file", "damaged"])
    def test_a_cache_that_cannot_be_used_is_done_without(
        self, tmp_path: Path, cache: Path, harm: str
    ) -> None:
        if harm == "a file":
            (tmp_path / "cache").write_text("")
        else:
            cache.parent.mkdir(parents=True)
            cache.write_bytes(b"no database" * 1000)
        (tmp_path / "x").write_bytes(b"x")
        assert contents.file_content(tmp_path / "x") == contents.file_content(tmp_path / "x")

    def test_what_is_no_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="does not exist"):
            contents.file_content(tmp_path / "x")
        with pytest.raises(TastemakerError, match="is a folder"):
            contents.file_content(tmp_path)


class TestFolders:
    def test_names_and_bytes_count_and_hidden_files_do_not(self, tmp_path: Path) -> None:
        def described() -> str:
            return contents.folder_content(tmp_path)

        seen = [described()]
        for name in ("a", "b", "c/d"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
            seen.append(described())
        (tmp_path / "b").rename(tmp_path / "e")
        seen.append(described())
        assert len(set(seen)) == 5
        (tmp_path / ".lock").write_text("x")
        assert described() == seen[-1]

    def test_files_in_their_order_are_one_hash_and_a_bad_one_spoils_none(
        self, tmp_path: Path
    ) -> None:
        for name in "ab":
            (tmp_path / name).write_text(name)
        a, b, gone = (tmp_path / name for name in ("a", "b", "gone"))
        held = contents.contents([a, b])
        assert (held["files"], held["bytes"]) == (2, 2)
        others = [contents.contents(files) for files in ([b, a], [a], [a, b, gone], [])]
        assert len({each["content"] for each in (held, *others)}) == 5


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        (folder, "metadata.jsonl", '{"prompt": "a", "chosen": "0.png", "rejected": "1.png"}\n'),
        (rankings, "rankings.json", '[{"prompt": "a", "image_path": ["0.png", "1.png"]}]'),
    ],
)
def test_images_that_lines_name_are_part_of_a_source(
    tmp_path: Path, source: Callable[..., object], name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))

    def described() -> object:
        return contents.contents(source(path=str(tmp_path)).files)  # type: ignore[attr-defined]

    before = described()
    replaced(tmp_path / "1.png", b"x")
    assert described() != before


class TestModels:
    def test_weights_of_a_pipeline_count_and_what_lies_beside_its_parts_does_not(
        self, tmp_path: Path
    ) -> None:
        for name in ("model_index.json", "unet/weights", "README.md", "checkpoints/step-1"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("old")
        before = model_identity(str(tmp_path))
        for name in ("README.md", "checkpoints/step-1"):
            replaced(tmp_path / name, b"new")
        assert model_identity(str(tmp_path)) == before
        for name in ("model_index.json", "unet/weights"):
            replaced(tmp_path / name, b"new")
            assert model_identity(str(tmp_path)) != before
            replaced(tmp_path / name, b"old")
        assert model_identity(str(tmp_path)) == before

    def test_a_lora_counts_with_all_that_lies_below_it(self, tmp_path: Path) -> None:
        below, above, base = (tmp_path / name for name in ("below", "above", "base"))
        for each in (below, above, base / "unet"):
            each.mkdir(parents=True)
        for lora, on in ((below, base), (above, below)):
            (lora / LORA_FILE).write_text("old")
            write_json(lora / MODEL_FILE, {"base": str(on)})
        for file in (base / "model_index.json", base / "unet" / "weights"):
            file.write_text("old")
        before = model_identity(str(above))
        for file in (above / LORA_FILE, below / LORA_FILE, base / "unet" / "weights"):
            replaced(file, b"new")
            assert model_identity(str(above)) != before
            replaced(file, b"old")
        assert model_identity(str(above)) == before

    def test_the_embedded_model_is_known_by_content_too(self) -> None:
        assert set(model_identity("nano")) == {"model", "content"}


class TestScorers:
    def test_weights_and_photographs_are_part_of_a_scorer(self, tmp_path: Path) -> None:
        for name in ("clip/model.safetensors", "subject/a.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(b"old")
        options = {"model": str(tmp_path / "clip"), "images": str(tmp_path / "subject")}
        choice = ScorerChoice(name="image_similarity", **options)
        before = scorer_inputs(choice)
        assert set(before) == set(options)
        for name in ("clip/model.safetensors", "subject/a.png"):
            replaced(tmp_path / name, b"new")
            assert scorer_inputs(choice) != before
            replaced(tmp_path / name, b"old")
        assert scorer_inputs(choice) == before

    def test_a_scorer_of_the_package_reads_nothing_else(self) -> None:
        assert scorer_inputs(ScorerChoice(name="sharpness")) == {}


def test_the_code_of_a_plugin_is_part_of_its_entry(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    text = (
        "from tastemaker.core.registry import RULES\n"
        "@RULES.register('coded')\n"
        "def f(group): yield\n"
    )
    plugin.write_text(text + "# a")
    load_plugins((str(plugin),))
    before = RULES.code("coded", "best_worst")
    assert set(before) == {"coded"}
    plugin.write_text(text + "# b")
    assert RULES.code("coded") != before
