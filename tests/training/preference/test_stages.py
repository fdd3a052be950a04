"""Training in stages: one LoRA carried on, its start as reference, the text encoder's own LoRA."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from tastemaker.backbones import load_backbone
from tastemaker.config.training import LoraConfig, TextLoraConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.pairs import PairSet
from tastemaker.training.batches import residual
from tastemaker.training.encoding import encode
from tastemaker.training.optimization import adamw, text_rates, trainable_parameters
from tastemaker.training.preference.pairs import open_pairs
from tastemaker.training.preference.parameters import add_text_adapters, make_trainable
from tastemaker.training.preference.train import train
from trainings import batch_of, perturb, rows, train_config

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, pairs: Path, tiny_model: Path) -> Path:
    """A first stage whose adapters have moved far."""
    folder = tmp_path_factory.mktemp("first") / "policy"
    return train(train_config(tiny_model, learning_rate=0.05), pairs, folder)


class TestStart:
    def test_goes_on_from_the_first_stage(
        self, pairs: Path, tiny_model: Path, first: Path, tmp_path: Path
    ) -> None:
        """Against its own start the loss begins at ln 2; against the base it does not."""
        for reference, at_ln2 in (("frozen_adapter", True), ("adapters_off", False)):
            config = train_config(tiny_model, start=str(first), reference=reference)
            folder = train(config, pairs, tmp_path / reference)
            began = rows(folder)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
            assert began is at_ln2
            base = json.loads((folder / "model.json").read_text())["base"]
            assert base == str(tiny_model), "one LoRA on the base, not one on another"

    def test_reference_is_the_stage_start_bitwise(
        self, pairs: Path, tiny_model: Path, first: Path, tmp_path: Path
    ) -> None:
        """Also after the policy moved: the frozen adapter says what the first stage says."""
        config = train_config(tiny_model, start=str(first), reference="frozen_adapter")
        backbone = load_backbone(str(tiny_model), device="cpu")
        data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
        reference = make_trainable(config, backbone)
        batch = batch_of(data, backbone, range(4), seed=0, sample_posterior=True)
        with torch.no_grad():
            policy = residual(backbone, backbone.denoiser, batch)
        assert torch.equal(policy, reference.residual(batch))
        perturb(backbone.denoiser)
        alone = load_backbone(str(first), device="cpu")
        with torch.no_grad():
            expected = residual(alone, alone.denoiser, batch)
            moved = residual(backbone, backbone.denoiser, batch)
        assert torch.equal(reference.residual(batch), expected)
        assert not torch.allclose(moved, expected, rtol=1e-3)

    def test_killed_and_resumed_ends_with_the_same_bytes(
        self,
        pairs: Path,
        tiny_model: Path,
        first: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from tastemaker.training.preference.trainer import PreferenceTrainer

        options = {
            "start": str(first),
            "reference": "frozen_adapter",
            "max_steps": 4,
            "save_steps": 2,
            "text_lora": {"r": 2},
            "statistics": {"weight": 10.0},
            "curriculum": {"chunks": 2, "steps_per_chunk": 2},
        }
        config = train_config(tiny_model, **options)
        whole = train(config, pairs, tmp_path / "whole")
        batch = PreferenceTrainer.batch

        def dies(self: PreferenceTrainer, step: int, part: int) -> Any:
            if step == 3:
                raise KeyboardInterrupt
            return batch(self, step, part)

        with monkeypatch.context() as patch:
            patch.setattr(PreferenceTrainer, "batch", dies)
            with pytest.raises(KeyboardInterrupt):
                train(config, pairs, tmp_path / "killed")
        again = train(config, pairs, tmp_path / "killed")
        assert (again / FILE).read_bytes() == (whole / FILE).read_bytes()

    def test_a_lora_of_another_form_is_refused(
        self, pairs: Path, tiny_model: Path, first: Path, tmp_path: Path
    ) -> None:
        config = train_config(tiny_model, start=str(first), lora={"r": 4})
        with pytest.raises(TastemakerError, match="rank 8"):
            train(config, pairs, tmp_path / "rank")
        other = tmp_path / "other"
        other.mkdir()
        state = load_file(first / FILE)
        save_file(
            {key.replace("down_blocks.0", "down_blocks.7"): state[key] for key in state},
            other / FILE,
        )
        with pytest.raises(TastemakerError, match="does not fit UNet2DConditionModel"):
            train(train_config(tiny_model, start=str(other)), pairs, tmp_path / "layers")
        assert not (tmp_path / "rank").exists()
        assert not (tmp_path / "layers").exists()

    def test_what_does_not_go_together(self, tiny_model: Path) -> None:
        for options, message in (
            ({"reference": "frozen_adapter"}, "start"),
            ({"method": "full", "reference": "frozen_copy", "start": "x"}, "LoRA to carry on"),
            ({"method": "frozen"}, "nothing to train"),
            (
                {"method": "full", "reference": "frozen_copy", "text_lora": {}},
                "text_lora goes with",
            ),
        ):
            with pytest.raises(ValueError, match=message):
                train_config(tiny_model, **options)


class TestTextEncoder:
    def test_alone_it_leaves_the_denoiser(
        self, pairs: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        config = train_config(
            tiny_model, method="frozen", text_lora={"r": 2, "learning_rate": 0.05}
        )
        folder = train(config, pairs, tmp_path / "text")
        assert rows(folder)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
        state = load_file(folder / FILE)
        assert state
        assert all(key.startswith("text_encoder.text_model.encoder.layers.") for key in state)
        backbone = load_backbone(str(folder), device="cpu")
        base = load_backbone(str(tiny_model), device="cpu")
        ours, theirs = (
            each.encode_prompts(["a cat"])["prompt_embeds"] for each in (backbone, base)
        )
        assert not torch.allclose(ours, theirs, rtol=1e-3)

    def test_learning_rates_are_their_own(self, tiny_model: Path) -> None:
        config = train_config(tiny_model, learning_rate=1e-3, text_lora={"learning_rate": 1e-4})
        backbone = load_backbone(str(tiny_model), device="cpu")
        add_text_adapters(config, backbone)
        make_trainable(config, backbone)
        weights = trainable_parameters(backbone.denoiser, backbone.text_encoders)
        denoiser, text = adamw(weights, config, text_rates(weights, config)).param_groups
        assert (denoiser["rate"], text["rate"]) == (1.0, pytest.approx(0.1))
        assert len(text["params"]) == 8  # two factors on four layers

    @pytest.mark.parametrize("prefix", ["text_model.", ""])
    def test_plain_script_reads_both_key_layouts(
        self, pairs: Path, tiny_model: Path, tmp_path: Path, prefix: str
    ) -> None:
        """Keys as transformers 4 has them (what is written), and as transformers 5 has them."""
        config = train_config(tiny_model, learning_rate=0.05, text_lora={"r": 2, "alpha": 3})
        folder = train(config, pairs, tmp_path / "both")
        ours = load_backbone(str(folder), device="cpu").encode_prompts(["a cat"])["prompt_embeds"]
        from safetensors import safe_open

        with safe_open(folder / FILE, framework="pt") as stored:
            metadata = stored.metadata()
        state = load_file(folder / FILE)
        assert any(key.startswith("text_encoder.text_model.") for key in state)
        assert any(key.startswith("unet.") for key in state)
        renamed = {
            key.replace("text_encoder.text_model.", f"text_encoder.{prefix}"): value
            for key, value in state.items()
        }
        save_file(renamed, tmp_path / FILE, metadata)
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
        before = pipeline.encode_prompt("a cat", "cpu", 1, False)[0]
        pipeline.load_lora_weights(tmp_path, weight_name=FILE)
        after = pipeline.encode_prompt("a cat", "cpu", 1, False)[0]
        assert torch.equal(after, ours)
        assert not torch.allclose(after, before, rtol=1e-3)

    def test_a_start_with_text_adapters_needs_them_to_train(
        self, pairs: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        config = train_config(tiny_model, text_lora={"r": 2})
        folder = train(config, pairs, tmp_path / "both")
        with pytest.raises(TastemakerError, match="train.text_lora"):
            train(train_config(tiny_model, start=str(folder)), pairs, tmp_path / "next")

    def test_sections_have_their_own_defaults(self) -> None:
        assert TextLoraConfig().r == 64
        assert LoraConfig().r == 8


def test_curriculum_draws_the_widest_gaps_first(
    pairs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_model), device="cpu")
    data = encode(open_pairs(pairs), backbone, tmp_path / "encoded")
    margins = torch.tensor(PairSet(pairs).table()["margin"].to_pylist())
    draws = range(40)
    quarter = {"chunks": 4, "steps_per_chunk": 1}
    some = batch_of(data, backbone, draws, seed=0, sample_posterior=False, curriculum=quarter)
    everything = batch_of(data, backbone, draws, seed=0, sample_posterior=False)
    widest = {
        tuple(row.flatten()[:4].tolist())
        for row in data.text(data.prompts(margins.argsort(descending=True)[:2]))[0]["prompt_embeds"]
    }
    drawn = {tuple(row.flatten()[:4].tolist()) for row in some.conditioning["prompt_embeds"]}
    assert drawn == widest
    assert len(everything.conditioning["prompt_embeds"].unique(dim=0)) == 8
