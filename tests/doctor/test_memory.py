"""What a run needs: worked out without weights, held against a training that really ran."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
import yaml

from families import FAMILIES
from tastemaker.cli.command_line import main
from tastemaker.config.loading import load
from tastemaker.doctor.live_bytes import LiveBytes
from tastemaker.doctor.memory import needs
from tastemaker.doctor.peak_memory import personalisation, reward, training

MEASURED = """
import json, sys, threading, time
import torch
from pathlib import Path
from tastemaker.config.loading import load
from tastemaker.sampling.generate import generate
from tastemaker.pairing.join import join
from tastemaker.config.datasets import JoinConfig
from tastemaker.training.preference.train import train

def resident():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))

run, out = load(sys.argv[1]), Path(sys.argv[2])
pools = [
    generate(run.generate.model_copy(update={"seed": seed}), out / f"pool-{seed}")
    for seed in range(2)
]
pairs = join(JoinConfig(rule="best_worst"), *pools, out / "pairs")
# Once small: what the libraries take at their first step is not the training's.
train(run.train.model_copy(update={"batch_size": 1}), pairs, out / "first")
before, most, going = resident(), 0, True

def watch():
    global most
    while going:
        most = max(most, resident())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
train(run.train, pairs, out / "policy")
going = False
thread.join()
print(json.dumps(most - before))
"""


def test_live_bytes_rise_and_fall() -> None:
    with torch.device("meta"), LiveBytes() as live:
        kept = torch.zeros(250)
        torch.zeros(1000)
        torch.zeros(500)
    assert live.peak == 4 * 1250
    assert live.live == 4 * 250
    assert kept.is_meta


@pytest.mark.parametrize("heads", [8, 2])
def test_attention_takes_no_matrix(heads: int) -> None:
    with torch.device("meta"), LiveBytes() as live:
        query = torch.empty(1, 8, 4096, 64, requires_grad=True)
        key = torch.empty(1, heads, 4096, 64)
        grouped = {"enable_gqa": True} if heads < 8 else {}
        found = torch.utils.checkpoint.checkpoint(
            lambda: F.scaled_dot_product_attention(query, key, key, **grouped), use_reentrant=False
        )
        found.sum().backward()
    assert live.peak < 12 * query.nbytes < 8 * 4 * 4096**2


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A short run on the embedded model."""
    (tmp_path / "prompts.txt").write_text("".join(f"a cat and {i}\n" for i in range(16)))
    sampling = {"num_inference_steps": 1, "prompts": str(tmp_path / "prompts.txt")}
    train = {"max_steps": 2, "batch_size": 16, "report_to": None}
    data = {
        "name": "short",
        "output": str(tmp_path / "runs"),
        "model": "nano",
        "device": "cpu",
        "generate": {**sampling, "num_candidates": 1},
        "score": {"scorers": ["nano_preference"]},
        "pair": {"rule": {"name": "best_worst", "scorer": "nano_preference"}},
        "train": train,
        "evaluate": {**sampling, "scorers": ["nano_preference"]},
    }
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return file


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_training_takes_what_was_worked_out(nano: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(nano), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    (need,) = (each for each in needs(load(str(nano))) if each.section == "train")
    assert need.trains == 100352
    # The allocator keeps and rounds; convolutions have a workspace of their own.
    assert 0.6 < measured / need.peak < 1.6


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_worked_out(family: str, nano: Path, models: dict[str, Path]) -> None:
    size = ("generate.height=32", "generate.width=32", "evaluate.height=32", "evaluate.width=32")
    base = (f"model={models[family]}", *size)
    plain = {each.section: each for each in needs(load(str(nano), base))}
    both, checkpointed = (
        training("train", load(str(nano), (*base, *words)).train, (32, 32))
        for words in (
            ("train.method=full", "train.reference=frozen_copy"),
            ("train.gradient_checkpointing=true", "train.text_lora={r: 2}"),
        )
    )
    assert set(plain) == {"evaluate", "generate", "train"}
    assert both.trains > 5 * plain["train"].trains
    assert both.weights > plain["train"].weights
    assert checkpointed.trains > plain["train"].trains
    assert plain["train"].peak > plain["train"].weights > 0


def test_checkpointing_saves_memory(nano: Path) -> None:
    plain, saved = (
        training("train", load(str(nano), words).train, (None, None)).peak
        for words in ((), ("train.gradient_checkpointing=true",))
    )
    assert saved < 0.7 * plain


@pytest.mark.slow
def test_a_reward_is_propagated_through_the_kept_steps() -> None:
    run = "align_prop-nano"
    few, many, checkpointed = (
        reward("train", load(run, words).train)
        for words in (
            ("train.keep=1", "train.gradient_checkpointing=false"),
            ("train.keep=3", "train.gradient_checkpointing=false"),
            ("train.keep=3",),
        )
    )
    assert few.trains == many.trains > 0
    assert many.peak - many.weights > 2 * (few.peak - few.weights)
    assert checkpointed.peak < 1.1 * few.peak


@pytest.mark.slow
def test_personalising_is_worked_out() -> None:
    run = "dreambooth_dpo-nano"
    lora, prior, word, full = (
        personalisation("personalize", load(run, words).personalize)
        for words in (
            (),
            ("personalize.prior={pool: none}",),
            ("personalize.identifier=<toy>", "personalize.token={}"),
            (
                "personalize.method=full",
                "personalize.text_lora=null",
                "personalize.train_text_encoder=true",
            ),
        )
    )
    assert prior.trains == lora.trains
    assert prior.peak > lora.peak > lora.weights
    assert word.trains > lora.trains
    assert word.weights > lora.weights  # the text encoder stays
    assert full.trains > 20 * lora.trains


def test_doctor_says_whether_it_fits(nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(nano)]) == 0
    assert "It fits: this machine has" in capsys.readouterr().out
    assert main(["doctor", str(nano), "train.batch_size=100000"]) == 0
    said = capsys.readouterr().out
    assert "It does not fit: train needs" in said
    assert "gradient_checkpointing=true" in said
