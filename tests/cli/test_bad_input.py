"""What a hurried user does wrong: one clear error each, and nothing half-written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from tastemaker.cli.command_line import main
from tastemaker.storage.files import read_json, write_json
from tastemaker.storage.pool import Pool
from tastemaker.storage.tensors import read_tensors, write_tensors

Refuses = Callable[..., str]


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Refuses:
    """Run the command line, expect a refusal, return the message."""

    def refused(*arguments: str) -> str:
        assert main(arguments) == 2
        message = capsys.readouterr().err
        line = message[message.index("tastemaker: ") :]
        assert "Traceback" not in message
        return line

    return refused


def test_missing_prompts_are_said_before_the_backbones_are_imported(
    refuses: Refuses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tastemaker.backbones", "tastemaker.sampling.sampler"):
        monkeypatch.setitem(sys.modules, module, None)
    arguments = ("generate", str(tmp_path / "pool"), "model=no/such", "prompts=missing.txt")
    assert "missing.txt' does not exist" in refuses(*arguments)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rat=1", ["train.learning_rat", "Did you mean learning_rate"]),
        ("pair.rule.name=best_wrost", ["best_wrost", "Did you mean best_worst"]),
        ("pair.rule.gap=1", ["gap", "best_worst"]),
        ("train.loss.betta=1", ["betta", "Did you mean beta"]),
        ("train.loss.beta=-1", ["beta", "greater than 0"]),
        ("score.scorers=[picscore]", ["picscore", "Known"]),
        ("recipe=difusion_dpo", ["Did you mean diffusion_dpo"]),
        ("train.max_steps=many", ["train.max_steps", "many"]),
        ("generate.scheduler=DDIMSheduler", ["Did you mean DDIMScheduler"]),
        ("generate.prompts=missing.txt", ["missing.txt", "does not exist"]),
        ("plugins=missing.py", ["missing.py", "does not exist"]),
        ("generate", ["key=value"]),
        ("train.credit={name: dde, ema: 1}", ["ema", "less than 1"]),
        ("train.credit={name: dde_step, ema: 0}", ["ema", "greater than 0"]),
        ("train.credit={name: window, low: -1}", ["low", "greater than or equal to 0"]),
        ("train.credit={name: window, high: 1001}", ["high", "less than or equal to 1000"]),
        ("train.credit=ddee", ["ddee", "Did you mean dde"]),
    ],
)
def test_wrong_words(run_file: Path, refuses: Refuses, override: str, words: list[str]) -> None:
    message = refuses("run", str(run_file), override)
    for word in words:
        assert word in message
    assert not list(run_file.parent.glob("runs/small/**/*.parquet"))


def test_wrong_run_name(refuses: Refuses) -> None:
    assert "Did you mean demo" in refuses("run", "demmo")


@pytest.mark.parametrize("model", ["./no/such/folder", "no-such-name"])
def test_missing_model(run_file: Path, refuses: Refuses, model: str) -> None:
    message = refuses("run", str(run_file), f"model={model}")
    assert model in message
    assert "does not exist" in message


def test_folder_that_is_no_model(run_file: Path, refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in refuses("run", str(run_file), f"model={tmp_path / 'empty'}")


def test_model_of_an_unknown_family(run_file: Path, refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "CogVideoXPipeline"}')
    message = refuses("run", str(run_file), f"model={tmp_path}")
    assert "CogVideoXPipeline" in message
    assert "this version knows" in message


def test_empty_prompt_file(run_file: Path, refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n  \n")
    message = refuses("run", str(run_file), f"generate.prompts={tmp_path / 'blank.txt'}")
    assert "blank.txt holds no prompts" in message


def test_scorer_that_returns_nan(run_file: Path, refuses: Refuses, tmp_path: Path) -> None:
    plugin = tmp_path / "my_scorers.py"
    plugin.write_text(
        "import torch\n"
        "from tastemaker.core.registry import SCORERS\n"
        "@SCORERS.register('broken')\n"
        "class Broken:\n"
        "    '''Fails on every third image.'''\n"
        "    def to(self, device, dtype): return self\n"
        "    def __call__(self, images, prompts):\n"
        "        return torch.tensor([0.0, 1.0, float('nan')])[torch.arange(len(images)) % 3]\n"
    )
    message = refuses(
        "run",
        str(run_file),
        f"plugins=[{plugin}]",
        "score.scorers=[broken]",
        "pair.rule.scorer=broken",
    )
    assert "scorer 'broken' returned nan for candidate" in message
    assert not list(run_file.parent.glob("runs/**/scores/broken/*.parquet"))


def test_no_pair_left(run_file: Path, refuses: Refuses) -> None:
    message = refuses("run", str(run_file), "pair.rule={name: threshold, scorer: tiny, gap: 1000}")
    assert "left no pair of 4 prompts" in message
    assert not list(run_file.parent.glob("runs/**/pairs.parquet"))


def test_rule_asks_for_a_scorer_that_did_not_score(run_file: Path, refuses: Refuses) -> None:
    assert "Did you mean tiny" in refuses("run", str(run_file), "pair.rule.scorer=tinny")


def test_corrupt_image(run_file: Path, refuses: Refuses, tmp_path: Path) -> None:
    section = yaml.safe_load(run_file.read_text())
    (tmp_path / "g.yaml").write_text(
        yaml.safe_dump({**section["generate"], "model": section["model"]})
    )
    assert main(["generate", str(tmp_path / "pool"), "--config", str(tmp_path / "g.yaml")]) == 0
    shard = Pool(tmp_path / "pool").shards()[0]
    table = pq.read_table(shard)
    rows = table.to_pylist()
    rows[1]["image"]["bytes"] = rows[1]["image"]["bytes"][:40]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), shard)
    done = read_json(tmp_path / "pool" / "done.json")  # of a version that did not count files
    write_json(tmp_path / "pool" / "done.json", {**done, "files": {}})
    scorers = f"scorers={json.dumps(section['score']['scorers'])}"
    message = refuses("score", str(tmp_path / "pool"), scorers)
    assert f"image of {rows[1]['candidate_id']} is corrupt" in message


@pytest.mark.parametrize(
    ("credit", "words"),
    [
        ("{name: window, low: 700, high: 200}", ["window [700, 200)"]),
        ("{name: dde, buckets: 1001}", ["1001 buckets", "1000 timesteps"]),
    ],
)
def test_credit_that_the_schedule_cannot_serve(
    run_file: Path, refuses: Refuses, credit: str, words: list[str]
) -> None:
    message = refuses("run", str(run_file), f"train.credit={credit}")
    for word in ("train.credit=", *words):
        assert word in message
    assert not list(run_file.parent.glob("runs/small/policy/metrics.jsonl"))


@pytest.mark.slow
def test_checkpoint_with_credit_arrays_of_another_length(run_file: Path, refuses: Refuses) -> None:
    """A checkpoint of 50 buckets where 20 belong: named before the first step."""
    options = ("run", str(run_file), "train.credit={name: dde, buckets: 20}")
    assert main(options) == 0
    policy = run_file.parent / "runs" / "small" / "policy"
    newest = sorted(policy.glob("checkpoints/*.safetensors"))[-1]
    state, about = read_tensors(newest)
    arrays = [name for name in state if name.startswith("credit.") and state[name].shape[-1] == 20]
    assert arrays
    for name in arrays:
        state[name] = torch.cat([state[name]] * 2, dim=-1)
    write_tensors(newest, state, about)
    (policy / "done.json").unlink()
    before = (policy / "metrics.jsonl").read_bytes()
    message = refuses(*options)
    assert newest.name in message
    assert "40" in message
    assert "20" in message
    assert (policy / "metrics.jsonl").read_bytes() == before


def test_score_before_generate(refuses: Refuses, tmp_path: Path) -> None:
    message = refuses("score", str(tmp_path / "pool"), "scorers=[nano_judge]")
    assert "does not exist; run the command that makes it first" in message


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_disk_full_while_writing_a_shard(run_file: Path, tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse the shard's bytes, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-m", "tastemaker", "run", str(run_file), "generate.shard_size=100"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "candidates-00000.parquet" in done.stderr
    assert not (tmp_path / "runs" / "small").exists()
    assert main(["run", str(run_file), "generate.shard_size=100"]) == 0
