"""What users rely on: files are whole or absent, and no stage takes another's work for its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import load_plugins
from tastemaker.core.registry import LOSSES
from tastemaker.datasets.listing import Listing
from tastemaker.storage.artifact import Artifact, finished_key
from tastemaker.storage.candidates import Rows
from tastemaker.storage.files import (
    DamagedError,
    atomic,
    config_key,
    read_json,
    write_json,
    write_text,
)
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.parquet import ROWS_AT_ONCE, read_rows, read_table, write_table
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir
from tastemaker.storage.tensors import read_tensors, write_tensors


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def table_of(*ids: str, scorer: str | None = None) -> pa.Table:
    if scorer:
        return pa.table({"candidate_id": ids, scorer: [float(len(each)) for each in ids]})
    number = len(ids)
    return pa.table(
        {
            "candidate_id": ids,
            "prompt_id": ["p"] * number,
            "prompt": ["a dog"] * number,
            "seed": list(range(number)),
            "source": ["model"] * number,
            "source_id": [""] * number,
        }
    )


def pair_of(chosen: str, rejected: str, margin: float) -> dict[str, Any]:
    texts = {"pair_id": f"{chosen}-{rejected}", "prompt_id": "p", "prompt": "a dog"}
    ids = {"chosen_id": chosen, "rejected_id": rejected}
    return {**texts, **ids, "rule": "best_worst", "margin": margin}


def finished(artifact: Artifact) -> None:
    """End an artifact, unless it has ended."""
    with artifact.claimed() as unfinished:
        if unfinished:
            artifact.finish()


def script(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )


class TestAtomic:
    def test_the_file_appears_with_its_folder(self, tmp_path: Path) -> None:
        write_text(tmp_path / "new" / "note.txt", "Grüße")
        assert (tmp_path / "new" / "note.txt").read_text(encoding="utf-8") == "Grüße"
        assert files_in(tmp_path) == ["note.txt"]

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_inside_keeps_the_old_file_and_leaves_nothing_else(
        self, tmp_path: Path, failure: type[BaseException]
    ) -> None:
        file = tmp_path / "note.txt"
        write_text(file, "old")

        def interrupted() -> None:
            with atomic(file) as temporary:
                temporary.write_text("half of the n")
                raise failure

        with pytest.raises(failure):
            interrupted()
        assert file.read_text() == "old"
        assert files_in(tmp_path) == ["note.txt"]

    def test_nan_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "report.json", {"mean": float("nan")})
        assert files_in(tmp_path) == []

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
    def test_a_killed_writer_leaves_no_shard(self, tmp_path: Path) -> None:
        code = """
import os, signal, sys
from pathlib import Path
from tastemaker.storage.files import atomic
from tastemaker.storage.pool import Pool
with atomic(Pool(Path(sys.argv[1])).shard(0)) as temporary:
    temporary.write_bytes(b"PAR1 and then the power went")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert script(code, str(tmp_path)).returncode == -signal.SIGKILL
        with pytest.raises(TastemakerError, match="has no candidates"):
            Pool(tmp_path).shards()

    # The kernel's limit on a file's size fails the write like a full disk, without filling one.
    @pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits")
    @pytest.mark.parametrize("kind", ["text", "table", "tensors"])
    def test_a_full_disk_is_named_and_leaves_no_file(self, tmp_path: Path, kind: str) -> None:
        code = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import write_text
from tastemaker.storage.tensors import write_tensors
from tastemaker.storage.parquet import write_table
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
path = Path(sys.argv[1]) / "big"
try:
    if sys.argv[2] == "text":
        write_text(path, "x" * 100_000)
    elif sys.argv[2] == "tensors":
        import torch
        write_tensors(path, {"a": torch.zeros(100_000)})
    else:
        write_table(path, pa.table({"a": [str(i * 7919) for i in range(100_000)]}))
except TastemakerError as error:
    print(error)
"""
        result = script(code, str(tmp_path), kind)
        assert result.stdout.startswith(f"cannot write {tmp_path / 'big'}"), result.stderr
        assert "run the same command again" in result.stdout
        assert files_in(tmp_path) == []


class TestTables:
    def test_columns_come_back_as_written(self, tmp_path: Path) -> None:
        file = tmp_path / "table.parquet"
        write_table(file, table_of("a", "b"))
        assert read_table(file).equals(table_of("a", "b"))
        assert read_table(file, ("seed", "prompt")).to_pydict() == {
            "seed": [0, 1],
            "prompt": ["a dog", "a dog"],
        }

    @given(share=st.floats(0, 1, exclude_max=True))
    def test_a_torn_file_is_never_read(
        self, tmp_path_factory: pytest.TempPathFactory, share: float
    ) -> None:
        file = tmp_path_factory.mktemp("torn") / "table.parquet"
        write_table(file, table_of(*(str(i) for i in range(200))))
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(TastemakerError, match=r"table\.parquet is not a whole parquet file"):
            read_table(file)

    def test_a_damaged_page_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "table.parquet"
        write_table(file, table_of(*(str(i) for i in range(2000))))
        damaged = bytearray(file.read_bytes())
        start = pq.ParquetFile(file).metadata.row_group(0).column(0).data_page_offset
        damaged[start : start + 400] = bytes(400)
        file.write_bytes(damaged)
        with pytest.raises(TastemakerError, match=r"table\.parquet"):
            read_table(file)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
    def test_a_file_that_would_never_end_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "shard.parquet")
        with pytest.raises(TastemakerError, match=r"shard\.parquet is a "):
            read_table(tmp_path / "shard.parquet")

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("candidate_id", 5, "is int64"),
            ("prompt", None, "is null"),
            ("image", 5, "is int64"),
            ("image", {"bytes": None, "path": ""}, "is empty in 1 rows"),
            ("image", {"path": ""}, "is struct"),
        ],
    )
    def test_columns_of_another_kind_are_named(
        self, tmp_path: Path, name: str, value: object, says: str
    ) -> None:
        pq.write_table(pa.table({name: [value]}), tmp_path / "shard.parquet")
        with pytest.raises(TastemakerError, match=f"'{name}' {says}"):
            read_table(tmp_path / "shard.parquet")
        with pytest.raises(TastemakerError, match=f"'{name}' {says}"):
            list(read_rows(tmp_path / "shard.parquet"))

    def test_missing_files_and_columns_are_named(self, tmp_path: Path) -> None:
        file = tmp_path / "table.parquet"
        with pytest.raises(TastemakerError, match=r"table\.parquet does not exist"):
            read_table(file)
        write_table(file, table_of("a"))
        with pytest.raises(TastemakerError, match="no column 'caption'; it has .*'prompt'"):
            read_table(file, ("prompt", "caption"))

    def test_json_that_is_missing_or_torn_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "report.json"
        with pytest.raises(TastemakerError, match=r"report\.json does not exist"):
            read_json(file)
        file.write_text('{"schema": 1, "mod', encoding="utf-8")
        with pytest.raises(TastemakerError, match=r"report\.json is not JSON"):
            read_json(file)


class TestArtifact:
    def test_a_key_depends_on_values_and_not_on_their_order(self) -> None:
        key = config_key("train", {"steps": 3, "seed": 0})
        assert key == config_key("train", {"seed": 0, "steps": 3})
        assert len(key) == 16
        assert int(key, 16) >= 0
        others = [
            config_key("train", {"steps": 4, "seed": 0}),
            config_key("train", {"steps": "3", "seed": 0}),
            config_key("pair", {"steps": 3, "seed": 0}),
            config_key("train", {"steps": 3}),
        ]
        assert len({key, *others}) == 5

    def test_a_finished_stage_is_known_again_and_hands_on_its_key(self, tmp_path: Path) -> None:
        artifact = Artifact(tmp_path / "pairs", "pair", {"rule": "best_worst"})
        with artifact.claimed() as unfinished:
            assert unfinished
            artifact.finish(pairs=12)
        again = Artifact(tmp_path / "pairs", "pair", {"rule": "best_worst"})
        with again.claimed() as unfinished:
            assert not unfinished
        assert finished_key(tmp_path / "pairs") == again.key
        assert read_json(tmp_path / "pairs" / "done.json")["pairs"] == 12

    def test_a_stage_that_was_killed_is_taken_up_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            with Artifact(tmp_path, "train", {"steps": 3}).claimed() as unfinished:
                assert unfinished

    def test_another_configuration_is_refused_and_the_difference_named(
        self, tmp_path: Path
    ) -> None:
        finished(Artifact(tmp_path, "train", {"loss": {"name": "dpo", "beta": 500.0}}))
        other = Artifact(tmp_path, "train", {"loss": {"name": "dpo", "beta": 2000.0}})
        with pytest.raises(TastemakerError, match=r"loss\.beta: 500\.0 there, 2000\.0 now"):
            finished(other)
        assert finished_key(tmp_path) != other.key

    def test_another_configuration_is_not_finished_here(self, tmp_path: Path) -> None:
        finished(Artifact(tmp_path, "train", {"steps": 3}))
        assert not Artifact(tmp_path, "train", {"steps": 4}).finished

    def test_the_input_of_a_room_must_be_finished(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="does not exist"):
            finished_key(tmp_path / "candidates")
        with Artifact(tmp_path / "candidates", "generate", {}).claimed():
            pass
        with pytest.raises(TastemakerError, match="is not finished"):
            finished_key(tmp_path / "candidates")


class TestPluginCode:
    CODE = """
from tastemaker.core.registry import LOSSES
@LOSSES.register("mine_for_keys")
def mine_for_keys(margin):
    return margin * {factor}
"""

    @pytest.fixture(autouse=True)
    def forgotten(self) -> Iterator[None]:
        yield
        LOSSES._entries.pop("mine_for_keys", None)

    def stage(self, folder: Path, factor: int, loss: str) -> Artifact:
        file = folder / "my_losses.py"
        file.write_text(self.CODE.format(factor=factor), encoding="utf-8")
        load_plugins((str(file),))
        return Artifact(folder / "out", "train", {"loss": {"name": loss}, "steps": 3})

    def test_other_code_is_another_stage(self, tmp_path: Path) -> None:
        artifact = self.stage(tmp_path, 2, "mine_for_keys")
        edited = self.stage(tmp_path, 3, "mine_for_keys")
        assert artifact.key != edited.key
        assert list(edited.config["plugins"]) == ["loss mine_for_keys"]

    def test_stages_that_do_not_name_it_stay(self, tmp_path: Path) -> None:
        assert self.stage(tmp_path, 2, "dpo").key == self.stage(tmp_path, 3, "dpo").key
        assert self.stage(tmp_path, 3, "dpo").config == {"loss": {"name": "dpo"}, "steps": 3}


class TestPool:
    @staticmethod
    def scored(folder: Path, scorer: str, *shards: tuple[str, ...], end: bool = True) -> None:
        artifact = Artifact(folder / "scores" / scorer, "score", {})
        with artifact.claimed():
            for index, ids in enumerate(shards):
                file = Pool(folder).score_file(scorer, Pool(folder).shard(index))
                write_table(file, table_of(*ids, scorer=scorer))
            if end:
                artifact.finish()

    @pytest.fixture
    def pool(self, tmp_path: Path) -> Pool:
        pool = Pool(tmp_path / "pool")
        write_table(pool.shard(1), table_of("ccc"))
        write_table(pool.shard(0), table_of("a", "bb"))
        return pool

    def test_scores_stand_beside_their_candidates_in_shard_order(self, pool: Pool) -> None:
        self.scored(pool.folder, "judge", ("a", "bb"), ("ccc",))
        table = pool.scores()
        assert table["candidate_id"].to_pylist() == ["a", "bb", "ccc"]
        assert table["judge"].to_pylist() == [1.0, 2.0, 3.0]

    def test_a_scorer_that_was_killed_is_left_out(self, pool: Pool) -> None:
        self.scored(pool.folder, "judge", ("a", "bb"), ("ccc",))
        self.scored(pool.folder, "killed", ("a", "bb"), end=False)
        assert pool.scorers() == ["judge"]
        assert "killed" not in pool.scores().column_names

    def test_scores_of_other_candidates_are_refused(self, pool: Pool) -> None:
        self.scored(pool.folder, "judge", ("bb", "a"), ("ccc",))
        with pytest.raises(TastemakerError, match="'judge'.*belong to other candidates"):
            pool.scores()

    def test_a_shard_that_is_gone_or_cut_is_noticed_by_whoever_reads_the_pool(
        self, pool: Pool
    ) -> None:
        artifact = Artifact(pool.folder, "generate", {})
        shards = [(file, file.read_bytes()) for file in pool.shards()]
        for file, _ in shards:
            file.unlink()
        with artifact.claimed():
            for file, data in shards:
                file.write_bytes(data)
            artifact.finish()
        assert len(pool.shards()) == 2
        shards[1][0].write_bytes(shards[1][1][:-1])
        with pytest.raises(TastemakerError, match="candidates-00001.parquet is truncated"):
            pool.scores()
        shards[1][0].unlink()
        with pytest.raises(TastemakerError, match="candidates-00001.parquet is missing"):
            pool.candidates()
        (pool.folder / "done.json").unlink()
        with pytest.raises(TastemakerError, match="has 2 candidates, not 3"):
            pool.require(3)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
    def test_a_score_that_is_no_finite_number_is_refused(
        self, pool: Pool, value: float | None
    ) -> None:
        artifact = Artifact(pool.folder / "scores" / "judge", "score", {})
        with artifact.claimed():
            for ids in (("a", "bb"), ("ccc",)):
                shard = pool.shards()[len(ids) == 1]
                table = {"candidate_id": ids, "judge": pa.array([value] * len(ids), pa.float32())}
                write_table(pool.score_file("judge", shard), pa.table(table))
            artifact.finish()
        with pytest.raises(TastemakerError, match=r"scores-00000.*not a finite number.*again"):
            pool.scores()

    def test_it_opens_with_datasets(
        self, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        datasets = pytest.importorskip("datasets")
        files = [str(shard) for shard in pool.shards()]
        rows = datasets.load_dataset(
            "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert rows["candidate_id"][:] == ["a", "bb", "ccc"]


class TestPairSet:
    def test_pairs_find_their_pools_after_the_run_has_moved(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        pool = Pool(run / "candidates")
        write_table(pool.shard(0), table_of("a", "b"))
        pairs = [pair_of("a", "b", 0.5)]
        assert PairSet(run / "pairs").write(pairs, [pool]) == 1
        moved = run.rename(tmp_path / "elsewhere")
        (found,) = PairSet(moved / "pairs").pools()
        assert found.candidates(("candidate_id",))["candidate_id"].to_pylist() == ["a", "b"]
        assert PairSet(moved / "pairs").table().to_pylist() == pairs

    def test_a_stream_of_pairs_longer_than_a_part_comes_back_whole(self, tmp_path: Path) -> None:
        pairs = [pair_of(f"a{i}", f"b{i}", float(i)) for i in range(2 * ROWS_AT_ONCE + 3)]
        held = PairSet(tmp_path)
        assert held.write(iter(pairs), []) == len(pairs)
        assert list(held.rows()) == held.table().to_pylist() == pairs
        assert pq.ParquetFile(held.file).num_row_groups == 3

    def test_without_a_pair_or_after_an_error_there_is_no_file(self, tmp_path: Path) -> None:
        def breaking() -> Iterator[dict[str, object]]:
            yield pair_of("a", "b", 0.5)
            raise TastemakerError("no more")

        held = PairSet(tmp_path)
        assert held.write([], []) == 0
        with pytest.raises(TastemakerError, match="no more"):
            held.write(breaking(), [])
        assert files_in(tmp_path) == []

    def test_a_torn_file_is_named(self, tmp_path: Path) -> None:
        held = PairSet(tmp_path)
        held.write([pair_of("a", "b", 0.5)], [])
        held.file.write_bytes(held.file.read_bytes()[:-20])
        with pytest.raises(TastemakerError, match=r"pairs\.parquet is not a whole parquet file"):
            list(held.rows())


class TestRows:
    """Rows by candidate, whatever the order of the questions."""

    @pytest.fixture
    def pool(self, tmp_path: Path) -> Pool:
        pool = Pool(tmp_path)
        for shard in range(3):
            write_table(pool.shard(shard), table_of(*(f"{shard}-{i}" for i in range(4))))
        return pool

    @pytest.mark.parametrize("hashed", [hash, lambda name: len(name), lambda name: ord(name[0])])
    def test_each_candidate_is_found_also_where_hashes_collide(
        self, pool: Pool, hashed: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tastemaker.storage.candidates.hash", hashed, raising=False)
        rows = Rows(pool, ("prompt", "seed"))
        for name in ("2-1", "0-0", "2-3", "1-2"):
            assert rows[name] == {
                "candidate_id": name,
                "prompt": "a dog",
                "seed": int(name[-1]),
            }
            assert rows.get(name) == rows[name]
        assert rows.get("2-9") is None
        with pytest.raises(KeyError, match="2-9"):
            rows["2-9"]


class TestListing:
    @given(st.sets(st.binary(min_size=1, max_size=3).filter(lambda name: b"\0" not in name)))
    def test_names_come_in_order_whatever_their_bytes(self, keys: set[bytes]) -> None:
        names = [os.fsdecode(key) for key in keys]
        listing = Listing()
        for key in names:
            assert listing.add(key, f"{key}.png")
            assert not listing.add(key, f"{key}.jpg")
        assert list(listing) == [os.fsdecode(key) for key in sorted(keys)]
        assert len(listing) == len(keys)
        assert dict(listing) == {key: f"{key}.png" for key in names}
        assert "none of them" not in listing


class TestRunDir:
    def test_a_run_is_claimed_once_and_opened_again(self, tmp_path: Path) -> None:
        run = RunDir(tmp_path / "runs" / "demo").open("seed: 0\n", lambda: {"torch": "2"})
        assert run.config.read_text() == "seed: 0\n"
        assert read_json(run.environment) == {"torch": "2"}
        before = {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}
        RunDir(run.folder).open("seed: 0\n", lambda: {"torch": "3"})
        assert {path: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before

    def test_another_configuration_puts_the_artifacts_of_the_first_aside(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = RunDir(tmp_path / "demo").open("train:\n  steps: 3\n", dict)
        finished(Artifact(run.policy, "train", {"steps": 3}))
        write_text(run.folder / "mine.txt", "not of the run")
        run.open("train:\n  steps: 4\n", dict)
        assert "train.steps: 3 there, 4 now" in capsys.readouterr().out
        key = Artifact(run.policy, "train", {"steps": 3}).key
        assert (run.folder / ".artifacts" / f"policy-{key}" / "done.json").is_file()
        assert files_in(run.folder).count("done.json") == 1
        assert (run.folder / "mine.txt").is_file()
        assert run.config.read_text() == "train:\n  steps: 4\n"

    def test_how_work_is_cut_is_the_stages_own_affair(self, tmp_path: Path) -> None:
        """A run of one process goes on on two, with half the batch in each."""
        held = "train: {steps: 3, batch_size: 4, device: cpu}\n"
        RunDir(tmp_path / "demo").open(held, dict)
        RunDir(tmp_path / "demo").open("train: {steps: 3, batch_size: 2, device: cuda}\n", dict)
        assert (tmp_path / "demo" / "config.yaml").read_text() == held

    @pytest.mark.parametrize("held", [b"\xff", b"\x0e", b"[" * 100_000], ids=len)
    def test_a_damaged_configuration_is_named(self, tmp_path: Path, held: bytes) -> None:
        (tmp_path / "config.yaml").write_bytes(held)
        with pytest.raises(TastemakerError, match=r"config\.yaml"):
            RunDir(tmp_path).open("seed: 0\n", dict)

    def test_a_folder_with_other_things_in_it_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(TastemakerError, match="is not a run"):
            RunDir(tmp_path).open("seed: 0\n", dict)
        assert files_in(tmp_path) == ["thesis.tex"]

    def test_an_empty_folder_will_do(self, tmp_path: Path) -> None:
        assert RunDir(tmp_path).open("seed: 0\n", dict).config.is_file()


def test_tensor_files_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2).T}
    metadata = {f"key {i}": f"välue {i}" for i in range(8)}
    written = set()
    for i in range(6):
        write_tensors(tmp_path / f"{i}.safetensors", tensors, metadata)
        written.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(written) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert {**metadata, **file.metadata()} == file.metadata()
        assert torch.equal(file.get_tensor("b"), tensors["b"])
        assert torch.equal(file.get_tensor("a"), tensors["a"])


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_tensor_file_with_any_bit_flipped_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    import torch

    file = tmp_path_factory.mktemp("flipped") / "tensors.safetensors"
    write_tensors(file, {"a": torch.arange(6.0), "b": torch.ones(2, 2)}, {"step": "3"})
    tensors, about = read_tensors(file)
    assert tensors["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert about == {"step": "3"}
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    file.write_bytes(data)
    try:
        found, about = read_tensors(file)
    except DamagedError:
        return
    # Blanks that fill up the header say nothing.
    assert about == {"step": "3"}
    assert all(found[name].equal(value) for name, value in tensors.items())
