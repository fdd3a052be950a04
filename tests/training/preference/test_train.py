"""Laws of training: what the loss starts at, and which ways of computing it must agree."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from folders import digests
from tastemaker.backbones import load_backbone
from tastemaker.backbones.lora.adapters import add_lora, trainable
from tastemaker.backbones.places import LORA_FILE
from tastemaker.core.errors import TastemakerError
from tastemaker.core.interruption import Interruption
from tastemaker.losses import dpo
from tastemaker.storage.pairs import PairSet
from tastemaker.training.batches import mean_square, pair_index, residual
from tastemaker.training.encoding import encode
from tastemaker.training.preference.data import dropped_prompts
from tastemaker.training.preference.objective import (
    FrozenCopy,
    Reference,
    errors_of,
    residuals_of,
)
from tastemaker.training.preference.pairs import open_pairs
from tastemaker.training.preference.train import train
from tastemaker.training.preference.trainer import PreferenceTrainer
from trainings import batch_of, perturb, rows, train_config


def test_loss_starts_at_ln2_for_every_pair(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    add_lora(backbone.denoiser, train_config(tiny_model).lora, seed=0)
    batch = batch_of(data, backbone, range(8), seed=0, sample_posterior=True)
    errors = errors_of(*residuals_of(backbone, backbone.denoiser, Reference(backbone), batch))
    losses = dpo(errors.margin, beta=5000)
    assert torch.equal(losses, torch.full((8,), math.log(2)))


def test_references_agree(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    frozen = FrozenCopy(backbone)
    add_lora(backbone.denoiser, train_config(tiny_model).lora, seed=0)
    perturb(backbone.denoiser)
    batch = batch_of(data, backbone, range(8), seed=0, sample_posterior=True)
    off = Reference(backbone).residual(batch)
    policy = residual(backbone, backbone.denoiser, batch)
    assert torch.equal(off, frozen.residual(batch))
    assert not torch.allclose(off, policy, rtol=1e-3)


def test_reference_strategies_train_alike(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    for name in ("adapters_off", "frozen_copy"):
        train(train_config(tiny_model, reference=name), pairs, tmp_path / name)
    first, second = (
        load_file(tmp_path / name / "pytorch_lora_weights.safetensors")
        for name in ("adapters_off", "frozen_copy")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_one_forward_equals_four(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    joint = batch_of(data, backbone, [0, 1], seed=0, sample_posterior=True)
    together = mean_square(residual(backbone, backbone.denoiser, joint))
    singles = []
    for i in range(4):
        prediction = backbone.predict(
            backbone.denoiser,
            joint.noisy_latents[i : i + 1],
            joint.timesteps[i : i + 1],
            {key: value[i : i + 1] for key, value in joint.conditioning.items()},
        )
        singles.append((prediction - joint.target[i : i + 1]).square().mean())
    assert torch.allclose(together, torch.stack(singles), rtol=1e-5)


def test_accumulated_batches_equal_one(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    for size, parts in ((8, 1), (1, 8)):
        # With a large epsilon AdamW's step is proportional to the gradient; with a small one it is
        # its sign, and rounding decides the sign of gradients that are zero but for it.
        config = train_config(
            tiny_model,
            batch_size=size,
            gradient_accumulation_steps=parts,
            adam_epsilon=10.0,
            learning_rate=1.0,
        )
        train(config, pairs, tmp_path / str(size))
    for one, eight in zip(rows(tmp_path / "8"), rows(tmp_path / "1"), strict=True):
        for key, value in one.items():
            # Rewards are differences of errors times 2500: rounding of the errors shows in them.
            assert eight[key] == pytest.approx(value, rel=1e-2, abs=2e-3), key
    one, eight = (
        load_file(tmp_path / size / "pytorch_lora_weights.safetensors") for size in ("8", "1")
    )
    for key in one:
        assert torch.allclose(one[key], eight[key], atol=2e-4), key


def test_credit_does_not_see_how_a_step_is_cut(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Arrays learn once a step, from all its pairs: every number of both files is one number."""
    beta, kappa = 100.0, 10.0
    fixed = {
        "loss": {"name": "dpo", "beta": beta},
        "adam_epsilon": 10.0,
        "learning_rate": 30.0,
        "weight_decay": 0.0,
    }
    for size in (8, 2):
        config = train_config(
            tiny_model,
            batch_size=size,
            gradient_accumulation_steps=8 // size,
            credit="dde",
            **fixed,
        )
        train(config, pairs, tmp_path / str(size))
    # Errors are near 1, and equal up to the order of a network's sums in fp32; the scaled margin
    # has four of them, a band at most eight margins.
    rounding = 8 * torch.finfo(torch.float32).eps
    within = 8 * 4 * 0.5 * beta * kappa * rounding
    for name in ("metrics.jsonl", "credit.jsonl"):
        whole, cut = (
            [json.loads(line) for line in (tmp_path / size / name).open()] for size in ("8", "2")
        )
        assert len(whole) == len(cut) == 3
        for one, other in zip(whole, cut, strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                if "accura" in key:
                    continue  # a margin of nearly 0 may change its sign
                tight = 20 * rounding if key in ("correction", "count") else within
                found, expected = (torch.tensor(each).double() for each in (other[key], value))
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=tight, msg=key)


def test_a_checkpoint_that_a_kill_left_over_goes(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = train_config(tiny_model, save_steps=1)
    folder = train(config, pairs, tmp_path / "out") / "checkpoints"
    kept = sorted(folder.iterdir())
    shutil.copy(kept[-1], folder / "step-000001.safetensors")
    assert sorted(folder.iterdir()) != kept
    (tmp_path / "out" / "done.json").unlink()
    train(config, pairs, tmp_path / "out")
    assert sorted(folder.iterdir()) == kept


def test_a_damaged_checkpoint_is_noticed_and_done_without(
    pairs: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bit of a moment: the same LoRA in the end."""
    config = train_config(tiny_model, max_steps=4, save_steps=2)
    trained = train(config, pairs, tmp_path) / LORA_FILE
    whole = trained.read_bytes()
    newest = tmp_path / "checkpoints" / "step-000004.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(data)
    trained.unlink()
    train(config, pairs, tmp_path)
    assert trained.read_bytes() == whole
    assert f"{newest} is damaged" in capsys.readouterr().out


def test_cached_equals_live(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    live = encode(open_pairs(pairs), backbone)
    encode(open_pairs(pairs), backbone, tmp_path)
    cached = encode(open_pairs(pairs), backbone, tmp_path)
    first, second = (
        batch_of(each, backbone, range(5), seed=7, sample_posterior=True) for each in (live, cached)
    )
    assert torch.equal(first.noisy_latents, second.noisy_latents)
    assert torch.equal(first.conditioning["prompt_embeds"], second.conditioning["prompt_embeds"])
    row = PairSet(pairs).table().to_pylist()[pair_index(0, 8, 7)]
    direct = backbone.encode_prompts([row["prompt"]])["prompt_embeds"]
    found = first.conditioning["prompt_embeds"][:1]
    torch.testing.assert_close(found, direct, rtol=1e-6, atol=1e-6)


def test_pair_shares_noise_and_timestep(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    batch = batch_of(data, backbone, range(6), seed=0, sample_posterior=False)
    assert torch.equal(*batch.timesteps.chunk(2))
    assert torch.equal(*batch.target.chunk(2))
    assert not torch.equal(*batch.noisy_latents.chunk(2))


def test_posterior_is_sampled_apart(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    sampled = batch_of(data, backbone, [0], seed=0, sample_posterior=True)
    means = batch_of(data, backbone, [0], seed=0, sample_posterior=False)
    difference = sampled.noisy_latents - means.noisy_latents
    assert difference.abs().max() > 0
    assert not torch.equal(*difference.chunk(2))


def test_dropped_prompts_are_the_empty_prompt(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """For both images and both models, from cache and tokens; nothing else of a pair changes."""
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded", text_trains=True)
    plain, half, every = (
        batch_of(
            data,
            backbone,
            range(8),
            seed=1,
            sample_posterior=True,
            proportion_empty_prompts=share,
        )
        for share in (0.0, 0.5, 1.0)
    )
    dropped = dropped_prompts(range(8), 0.5, seed=1)
    assert 0 < dropped.sum() < 8
    for name, kept, some, none, empty in (
        (
            "prompt_embeds",
            *(each.conditioning["prompt_embeds"] for each in (plain, half, every)),
            backbone.encode_prompts([""])["prompt_embeds"],
        ),
        (
            "input_ids",
            *(each.tokens["input_ids"] for each in (plain, half, every)),
            backbone.tokenize([""])["input_ids"],
        ),
    ):
        assert torch.equal(none, empty.expand_as(none)), name
        where = torch.cat([dropped, dropped]).view(-1, *[1] * (kept.dim() - 1))
        assert torch.equal(some, torch.where(where, empty, kept)), name
        assert not torch.equal(some, kept), name
    assert torch.equal(plain.noisy_latents, every.noisy_latents)
    assert torch.equal(plain.timesteps, every.timesteps)
    again = [dropped_prompts([draw], 0.5, seed=1) for draw in range(8)]
    assert torch.equal(torch.cat(again), dropped)


def test_a_fifth_of_the_prompts_is_dropped() -> None:
    dropped = dropped_prompts(range(4000), 0.2, seed=0)
    # Four standard deviations of a binomial.
    assert abs(dropped.float().mean().item() - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_each_epoch_sees_every_pair_once() -> None:
    for epoch in range(3):
        seen = [pair_index(epoch * 7 + i, 7, seed=5) for i in range(7)]
        assert sorted(seen) == list(range(7))


def test_gradient_steps_learn_the_preference(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    add_lora(backbone.denoiser, train_config(tiny_model).lora, seed=0)
    batch = batch_of(data, backbone, range(8), seed=0, sample_posterior=False)
    optimizer = torch.optim.AdamW(trainable(backbone.denoiser).values(), lr=3e-3)
    for _ in range(40):
        errors = errors_of(*residuals_of(backbone, backbone.denoiser, Reference(backbone), batch))
        dpo(errors.margin, beta=5000).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    errors = errors_of(*residuals_of(backbone, backbone.denoiser, Reference(backbone), batch))
    assert (errors.margin > 0).all()
    assert dpo(errors.margin, beta=5000).mean() < 0.3


def test_metrics_tell_the_branches_apart(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    row = rows(train(train_config(tiny_model), pairs, tmp_path / "out"))[-1]
    assert row["rewards/margins"] == pytest.approx(
        row["rewards/chosen"] - row["rewards/rejected"], rel=1e-3, abs=1e-3
    )
    assert row["rewards/chosen"] == pytest.approx(-2500 * row["errors/chosen"], rel=1e-3)
    assert row["rewards/rejected"] == pytest.approx(-2500 * row["errors/rejected"], rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bf16"},
        {"gradient_checkpointing": True},
        {"ema_decay": 0.9},
        {"lr_scheduler": "cosine", "warmup_steps": 1},
        {"lora": {"r": 2, "dropout": 0.5}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_train(
    pairs: Path, tiny_model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = train(train_config(tiny_model, **options), pairs, tmp_path / "out")
    assert all(math.isfinite(row["loss"]) for row in rows(out))
    backbone = load_backbone(str(out), device="cpu")
    assert any("lora" in name for name, _ in backbone.denoiser.named_parameters())


def test_gradient_checkpointing_changes_nothing(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for flag in (False, True):
        train(train_config(tiny_model, gradient_checkpointing=flag), pairs, tmp_path / str(flag))
    assert rows(tmp_path / "True") == rows(tmp_path / "False")


def test_all_weights_train_to_a_pipeline(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = train_config(tiny_model, method="full", reference="frozen_copy", learning_rate=1e-4)
    out = train(config, pairs, tmp_path / "out")
    trained, base = load_backbone(str(out)), load_backbone(str(tiny_model))
    before, after = base.denoiser.state_dict(), trained.denoiser.state_dict()
    assert before.keys() == after.keys()
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) > 0.9 * len(before)
    text = base.pipeline.text_encoder.state_dict()
    same = trained.pipeline.text_encoder.state_dict()
    assert all(torch.equal(text[key], same[key]) for key in text)


def test_ema_is_what_is_saved(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    slow = train(train_config(tiny_model, ema_decay=0.9999), pairs, tmp_path / "slow")
    fast = train(train_config(tiny_model), pairs, tmp_path / "fast")

    def size(folder: Path) -> float:
        weights = load_file(folder / "pytorch_lora_weights.safetensors")
        return sum(float(v.abs().sum()) for k, v in weights.items() if "lora_B" in k or ".up." in k)

    assert size(slow) < 0.01 * size(fast)


def test_nan_gradient_names_the_last_checkpoint(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = train_config(
        tiny_model, max_steps=400, learning_rate=1e30, save_steps=1, max_grad_norm=1e30
    )
    with pytest.raises(TastemakerError, match=r"last good checkpoint is .*step-0000"):
        train(config, pairs, tmp_path / "out")
    assert not (tmp_path / "out" / "done.json").exists()


def test_fp16_needs_a_gpu(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match="fp16"):
        train(train_config(tiny_model, dtype="fp16"), pairs, tmp_path / "out")


def test_unknown_lora_target(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = train_config(tiny_model, lora={"target_modules": ["to_z"]})
    with pytest.raises(TastemakerError, match="to_z"):
        train(config, pairs, tmp_path / "out")


def test_full_training_needs_a_frozen_copy(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="frozen_copy"):
        train_config(tiny_model, method="full")


def test_a_second_round_starts_from_the_first(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    first = train(train_config(tiny_model, learning_rate=0.05), pairs, tmp_path / "first")
    second = train(train_config(first, learning_rate=0.05), pairs, tmp_path / "second")
    assert rows(second)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    data = encode(open_pairs(pairs), load_backbone(str(tiny_model)), tmp_path / "encoded")
    errors = []
    for model in (tiny_model, first, second):
        backbone = load_backbone(str(model), device="cpu")
        batch = batch_of(data, backbone, range(8), seed=0, sample_posterior=False)
        with torch.no_grad():
            errors.append(mean_square(residual(backbone, backbone.denoiser, batch)))
    base, one, two = errors
    assert not torch.allclose(base, one, rtol=1e-3)
    assert not torch.allclose(one, two, rtol=1e-3)


def test_unknown_tracker_is_named(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match="no_such_tracker"):
        train(train_config(tiny_model, report_to="no_such_tracker"), pairs, tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ipo"},
        {"loss": "sft"},
        {"extra_losses": [{"name": "sft", "weight": 0.1}]},
        {"credit": {"name": "dde", "kappa_max": 10, "buckets": 20}},
        {"credit": "dde_step"},
        {"credit": "discounted"},
        {"credit": {"name": "window", "low": 200, "high": 700}},
        {"guards": {"safeguard": 0.1, "chosen_penalty": 10}},
        {"guards": {"safeguard": 0.1, "safeguard_over": "batch"}},
        {"proportion_empty_prompts": 0.5, "text_lora": {"r": 2}},
    ],
    ids=str,
)
def test_losses_credit_and_guards_train_and_resume(
    pairs: Path, tiny_model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = train_config(tiny_model, max_steps=4, save_steps=2, **options)
    whole = train(config, pairs, tmp_path / "whole")
    again = shutil.copytree(whole, tmp_path / "again")
    for name in ("done.json", "checkpoints/step-000004.safetensors", LORA_FILE, "credit.json"):
        (again / name).unlink()
    train(config, pairs, again)
    for name in ("metrics.jsonl", "credit.json", "credit.jsonl", LORA_FILE):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert all(math.isfinite(value) for row in rows(whole) for value in row.values())


def test_an_anchor_sees_the_plain_error(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A loss of the chosen error regresses at its timestep: no scale, no correction."""
    fixed = {"loss": "sft", "max_steps": 2}
    for credit in ("uniform", "dde"):
        train(train_config(tiny_model, credit=credit, **fixed), pairs, tmp_path / credit)
    losses = [[row["loss"] for row in rows(tmp_path / name)] for name in ("uniform", "dde")]
    assert losses[0] == losses[1]


def test_credit_is_refused_before_training(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = train_config(tiny_model, credit={"name": "window", "low": 700, "high": 200})
    with pytest.raises(TastemakerError, match=r"window \[700, 200\) holds no timestep"):
        train(config, pairs, tmp_path / "out")
    with pytest.raises(ValueError, match="ema"):
        train_config(tiny_model, credit={"name": "dde", "ema": 1.0})


def test_a_gradient_that_explodes_stops_the_run(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = train_config(tiny_model, guards={"max_gradient": 1e-9})
    with pytest.raises(TastemakerError, match="max_gradient"):
        train(config, pairs, tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_writes_a_checkpoint_and_the_training_goes_on_from_it(
    pairs: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    ending: type[BaseException],
) -> None:
    config = train_config(tiny_model, max_steps=4, save_steps=2)
    whole = train(config, pairs, tmp_path / "whole")
    loss, seen = PreferenceTrainer.loss, []

    def interrupted(self: PreferenceTrainer, batch: Any) -> Any:
        seen.append(self.done)
        if len(seen) == 3:
            os.kill(os.getpid(), number)
        return loss(self, batch)

    monkeypatch.setattr(PreferenceTrainer, "loss", interrupted)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ending):
        train(config, pairs, tmp_path / "again")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    files = [file.stem for file in sorted((tmp_path / "again" / "checkpoints").iterdir())]
    assert files == ["step-000002", "step-000003"]
    again = train(config, pairs, tmp_path / "again")
    assert seen == [0, 1, 2, 3]
    assert digests(again) == digests(whole)


@pytest.mark.parametrize(("signals", "ends_at"), [(0, 3), (1, 3), (2, 2)])
def test_a_signal_acts_at_the_end_and_a_second_at_once(signals: int, ends_at: int) -> None:
    done = []

    def block() -> None:
        with Interruption() as interruption:
            for number in range(3):
                done.append(number)
                if number < signals:
                    os.kill(os.getpid(), signal.SIGINT)
                assert interruption.signal == (signals and signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) if signals else contextlib.nullcontext():
        block()
    assert len(done) == ends_at
