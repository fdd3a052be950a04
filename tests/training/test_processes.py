"""Two processes compute what one computes: the same batch, errors, arrays and weights."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.utils import DynamoBackend
from safetensors.torch import load_file

from launching import launch
from tastemaker.backbones import load_backbone
from tastemaker.backbones.places import LORA_FILE
from tastemaker.cli.command_line import main
from tastemaker.config.loading import load
from tastemaker.config.training import OptimisationConfig
from tastemaker.core.hardware import IGNORED, WORLD_SIZES, number_of_processes, torch_device
from tastemaker.recipes.run import run
from tastemaker.storage import locks as claims
from tastemaker.storage.run_dir import RunDir
from tastemaker.training.optimization import accelerator_for


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.open()]


BETA, KAPPA_MAX = 100, 10

# The sums of one process and of two have other orders: an error of order one, in fp32, may differ
# by a few units of 2^-24. The margin multiplies four of them, the weight that again by kappa.
ERROR = 8 * 2**-24
MARGIN = 0.5 * BETA * KAPPA_MAX * 4 * ERROR
TOLERANCES = {
    "step": 0.0,
    "count": 0.0,
    "learning_rate": 0.0,
    "errors": ERROR,
    "grad_norm": MARGIN,
    "rewards": MARGIN,
    "loss": MARGIN,
    "margin": MARGIN,
    "saturation": MARGIN,
    "correction": 16 * ERROR,
    "weight": KAPPA_MAX * MARGIN,
    "gradient": KAPPA_MAX**2 * MARGIN,
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_that_one_process_began_goes_on_on_two(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = [
        f"model={tiny_model}",
        "device=cpu",
        "max_steps=3",
        "save_steps=1",
        "gradient_accumulation_steps=2",
        # AdamW divides by the gradient's size, which would blow up the last digits.
        "learning_rate=1e-2",
        "adam_epsilon=1e-2",
        f"loss.beta={BETA}",
        f"credit={{name: dde, buckets: 10, kappa_max: {KAPPA_MAX}}}",
        "report_to=null",
    ]
    one, two = tmp_path / "1", tmp_path / "2"
    assert main(["train", str(pairs), str(one), *options, "batch_size=4"]) == 0
    # Killed in its second step.
    shutil.copytree(one, two)
    for name in ("done.json", *(f"checkpoints/step-{step:06d}.safetensors" for step in (2, 3))):
        (two / name).unlink()
    words = ["train", str(pairs), str(two), *options, "batch_size=2"]
    ended = launch(main, words, folder=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    for name in ("metrics.jsonl", "credit.jsonl"):
        for alone, together in zip(lines(one / name), lines(two / name), strict=True):
            assert together.keys() == alone.keys()
            for key, value in alone.items():
                if "accura" in key:  # the margin's sign, which the last digit may turn
                    continue
                found = torch.tensor(together[key], dtype=torch.float64)
                expected = torch.tensor(value, dtype=torch.float64)
                most = TOLERANCES[key.partition("/")[0]]
                torch.testing.assert_close(found, expected, rtol=most, atol=most, msg=key)
    checkpoint = "checkpoints/step-000003.safetensors"
    alone, together = load_file(one / checkpoint), load_file(two / checkpoint)
    assert alone["credit.visited"].equal(together["credit.visited"])
    assert alone["credit.visited"].any()
    arrays = (each["credit.values"] for each in (together, alone))
    torch.testing.assert_close(*arrays, rtol=ERROR, atol=ERROR)
    for name in (name for name in alone if name.startswith("weights.")):
        torch.testing.assert_close(together[name], alone[name], rtol=1e-2, atol=1e-4)


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_whole_run_of_two_processes_is_that_of_one(run_file: Path, tmp_path: Path) -> None:
    """All five commands: pools and pairs have the same bytes, and each process does half."""
    exact = {"learning_rate": 1e-2, "adam_epsilon": 1e-2, "loss": {"name": "dpo", "beta": 100}}
    words = [f"train.{key}={json.dumps(value)}" for key, value in exact.items()]
    words += ["generate.shard_size=3", "train.save_steps=4"]
    one = run(load(str(run_file), (*words, "name=one")))
    halves = ["name=two", "train.batch_size=1"]
    ended = launch(main, ["run", str(run_file), *words, *halves], folder=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    two = RunDir(one.folder.with_name("two"))
    drawn = re.findall(r"generate candidates: .*?\| *\d+/(\d+) \[", ended.err)
    assert max(map(int, drawn)) == 6
    scored = re.findall(r"score candidates by tiny: (\d+)images \[", ended.err)
    assert max(map(int, scored)) == 6
    folders = (one.candidates, one.pairs)
    files = [
        file.relative_to(one.folder) for folder in folders for file in folder.rglob("*.parquet")
    ]
    assert len(files) == 9
    for file in files:
        assert (one.folder / file).read_bytes() == (two.folder / file).read_bytes(), file
    trained = [load_file(each.policy / LORA_FILE) for each in (one, two)]
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-2, atol=1e-4)
    reports = [json.loads(each.report_json.read_text()) for each in (one, two)]
    assert reports[0].keys() == reports[1].keys()
    for model, found in reports[0]["models"].items():
        for key, value in found["scores"]["tiny"].items():
            other = reports[1]["models"][model]["scores"]["tiny"][key]
            assert other == pytest.approx(value, rel=2e-3, abs=2e-3), (model, key)


def different(words: list[str]) -> int:
    return main([*words, f"max_steps={2 + int(os.environ['RANK'])}"])


def apart(words: list[str], output: Path) -> int:
    """Each process has a folder of its own under the same relative name."""
    claims.SEEN_SECONDS = 1.0
    own = output.with_name(os.environ["RANK"])
    own.mkdir()
    os.chdir(own)
    return main(["out" if word == str(output) else word for word in words])


DYING = """
import os, sys
from tastemaker.cli.command_line import main
from tastemaker.training.preference import trainer as loop

if os.environ["RANK"] == "1":
    loop.PreferenceTrainer.loss = lambda self, batch: os._exit(7)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def words(pairs: Path, tiny_model: Path, tmp_path: Path) -> list[str]:
    """A short training."""
    words = ["train", str(pairs), str(tmp_path / "out"), f"model={tiny_model}", "device=cpu"]
    return [*words, "report_to=null", "batch_size=2"]


def test_processes_of_different_configurations_end(words: list[str], tmp_path: Path) -> None:
    ended = launch(different, words, folder=tmp_path)
    assert ended.code == 2
    assert "'max_steps: 3', not 'max_steps: 2'" in ended.err


def test_processes_that_share_no_disk_end(words: list[str], tmp_path: Path) -> None:
    ended = launch(apart, words, tmp_path / "out", folder=tmp_path)
    assert ended.code == 2
    assert "do not share out" in ended.err


@pytest.mark.slow
def test_a_process_that_dies_ends_torchrun(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "launched.py"
    file.write_text(DYING, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(file), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert "exitcode  : 7" in done.stderr


@pytest.mark.parametrize("launcher", WORLD_SIZES)
def test_every_launcher_says_how_many_processes_there_are(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WORLD_SIZES:
        monkeypatch.delenv(name, raising=False)
    assert number_of_processes() == 1
    monkeypatch.setenv(launcher, "3")
    assert number_of_processes() == 3


def test_processes_that_nobody_launched_are_refused(tmp_path: Path) -> None:
    """A variable left over from a batch system: keys would count processes that do not exist."""
    done = subprocess.run(
        [sys.executable, "-c", "from tastemaker.core.hardware import processes; processes()"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"},
    )
    assert "2 processes were launched, but this one knows of 1" in done.stderr
    assert "(WORLD_SIZE)" in done.stderr


def test_a_launchers_settings_do_not_change_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "7")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = OptimisationConfig(model="nano", gradient_accumulation_steps=2, device="cpu")
    accelerator = accelerator_for(config, tmp_path)
    assert accelerator.gradient_accumulation_steps == 2
    assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert accelerator.mixed_precision == "no"


def test_arithmetic_is_torchs_own_whatever_a_plugin_set() -> None:
    default = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch_device("cpu")
    assert (torch.get_default_dtype(), torch.get_float32_matmul_precision()) == default
    assert default == (torch.float32, "highest")


def test_variables_that_change_results_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IGNORED:
        monkeypatch.setenv(name, "1")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert not set(IGNORED) & set(os.environ)


def test_a_folder_does_not_hide_a_model_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nano"
    folder.mkdir()
    (folder / LORA_FILE).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert load_backbone("nano", device="cpu").name == "nano"
