"""Where a LoRA acts while images are drawn, and LoRAs on top of one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from tastemaker.backbones import Backbone, SamplingBatch, load_backbone, merge_adapters
from tastemaker.backbones.lora.switches import BLOCKS, switch_lora, switch_policy
from tastemaker.cli.command_line import main
from tastemaker.config.sections import AdapterConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.preference.train import train
from trainings import train_config

FILE = "pytorch_lora_weights.safetensors"
STEPS = 4


@pytest.fixture(scope="module")
def loras(
    tmp_path_factory: pytest.TempPathFactory, pairs: Path, tiny_model: Path
) -> dict[str, Path]:
    """LoRAs that have moved far: of the denoiser, of the text encoder, of both, and another."""
    folder = tmp_path_factory.mktemp("loras")
    far = {"learning_rate": 0.05}
    text = {"text_lora": {"r": 2, "learning_rate": 0.05}}
    found = {
        "denoiser": train(train_config(tiny_model, **far), pairs, folder / "denoiser"),
        "other": train(train_config(tiny_model, seed=5, **far), pairs, folder / "other"),
        "text": train(train_config(tiny_model, method="frozen", **text), pairs, folder / "text"),
    }
    found["both"] = merge_adapters([found["denoiser"], found["text"]], folder / "both")
    return found


def drawing(backbone: Backbone, guidance: float = 3.0) -> SamplingBatch:
    return SamplingBatch(
        backbone.encode_prompts(["a cat"]),
        backbone.encode_prompts([""]),
        [7],
        num_inference_steps=STEPS,
        guidance_scale=guidance,
    )


def drawn(model: Path, config: AdapterConfig | None = None, guidance: float = 3.0) -> torch.Tensor:
    backbone = load_backbone(str(model), device="cpu")
    if config is not None:
        switch_policy(backbone, config)
    return backbone.sample(drawing(backbone, guidance))


def test_merged_parts_both_act(tiny_model: Path, loras: dict[str, Path]) -> None:
    state = load_file(loras["both"] / FILE)
    assert {key.partition(".")[0] for key in state} == {"unet", "text_encoder"}
    latents = {name: drawn(folder) for name, folder in loras.items()} | {"": drawn(tiny_model)}
    for other in ("", "denoiser", "text"):
        assert not torch.allclose(latents["both"], latents[other], rtol=1e-3)


def test_merging_refuses_the_same_layer_twice(loras: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TastemakerError, match="so does another"):
        merge_adapters([loras["denoiser"], loras["other"]], tmp_path / "merged")


class TestScale:
    def test_at_0_it_is_the_base(self, tiny_model: Path, loras: dict[str, Path]) -> None:
        off = drawn(loras["both"], AdapterConfig(scale=0.0))
        assert torch.allclose(off, drawn(tiny_model), atol=1e-5)

    def test_at_1_it_is_as_loaded(self, loras: dict[str, Path]) -> None:
        assert torch.equal(drawn(loras["both"], AdapterConfig()), drawn(loras["both"]))

    def test_half_lies_in_between_on_a_layer(self, loras: dict[str, Path]) -> None:
        """A linear layer's update is halved exactly."""
        outputs = []
        for scale in (0.0, 0.5, 1.0):
            backbone = load_backbone(str(loras["denoiser"]), device="cpu")
            switch_policy(backbone, AdapterConfig(scale=scale))
            layer = next(
                module
                for name, module in backbone.denoiser.named_modules()
                if name.endswith("attn1.to_q")
            )
            outputs.append(layer(torch.ones(1, layer.in_features)))
        assert torch.allclose(outputs[1], (outputs[0] + outputs[2]) / 2, atol=1e-6)

    def test_a_base_without_lora_has_nothing_to_switch(self, tiny_model: Path) -> None:
        with pytest.raises(TastemakerError, match="has no LoRA that could be switched"):
            drawn(tiny_model, AdapterConfig(scale=0.0))


class TestBlocks:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_one_block_alone(self, loras: dict[str, Path], block: str) -> None:
        backbone = load_backbone(str(loras["denoiser"]), device="cpu")
        switch_policy(backbone, AdapterConfig(blocks=(block,)))  # type: ignore[arg-type]
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, layer in backbone.denoiser.named_modules():
            if isinstance(layer, BaseTunerLayer):
                assert (layer.scaling["policy"] != 0) == name.startswith(f"{block}_block"), name

    def test_unknown_names(self, loras: dict[str, Path]) -> None:
        pipeline = load_backbone(str(loras["denoiser"]), device="cpu").pipeline
        with pytest.raises(TastemakerError, match="no LoRA named 'x' is loaded"):
            switch_lora(pipeline, "x")
        with pytest.raises(TastemakerError, match="unknown block 'side'"):
            switch_lora(pipeline, "policy", blocks=("side",))


class TestTextRange:
    @pytest.mark.parametrize("guidance", [1.0, 3.0])
    def test_ends(self, tiny_model: Path, loras: dict[str, Path], guidance: float) -> None:
        """Nowhere: the denoiser's LoRA alone. Everywhere: both."""
        nowhere = drawn(loras["both"], AdapterConfig(text_range=(0, 1)), guidance)
        assert torch.equal(nowhere, drawn(loras["denoiser"], guidance=guidance))
        everywhere = drawn(loras["both"], AdapterConfig(text_range=(0, 1000)), guidance)
        assert torch.equal(everywhere, drawn(loras["both"], guidance=guidance))

    def test_embeddings_change_at_the_right_step(self, loras: dict[str, Path]) -> None:
        """Of the steps 751, 501, 251, 1, the text encoder's LoRA acts in the first two."""
        backbone = load_backbone(str(loras["both"]), device="cpu")
        switch_policy(backbone, AdapterConfig(text_range=(500, 1000)))
        given = drawing(backbone)
        both = given.conditioning
        seen: list[torch.Tensor] = []
        forward = backbone.denoiser.forward

        def watched(*arguments: Any, **options: Any) -> Any:
            seen.append(options["encoder_hidden_states"][-1])
            return forward(*arguments, **options)

        backbone.denoiser.forward = watched  # type: ignore[method-assign]
        backbone.sample(given)
        inside = [bool(torch.equal(each, both["prompt_embeds"][0])) for each in seen]
        outside = [bool(torch.equal(each, both["outside_prompt_embeds"][0])) for each in seen]
        assert inside == [True, True, False, False]
        assert outside == [False, False, True, True]


def test_stacked_on_another_lora_both_act(tiny_model: Path, loras: dict[str, Path]) -> None:
    """As a user does with a personalised model: two LoRAs of one base, in plain diffusers."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        return pipeline(
            "a cat", num_inference_steps=STEPS, generator=generator, output_type="latent"
        ).images

    base = draw()
    pipeline.load_lora_weights(loras["other"], adapter_name="subject")
    personalised = draw()
    pipeline.load_lora_weights(loras["both"], adapter_name="hg_dpo")
    switch_lora(pipeline, "hg_dpo", scale=0.5, blocks=("up",))
    stacked = draw()
    switch_lora(pipeline, "hg_dpo", scale=0.0)
    assert torch.allclose(draw(), personalised, atol=1e-5), "the subject's LoRA kept its strength"
    switch_lora(pipeline, "subject", scale=0.0)
    for other in (base, personalised):
        assert not torch.allclose(stacked, other, rtol=1e-3)


def test_a_stacked_folder_is_both_in_diffusers(
    tiny_model: Path, loras: dict[str, Path], tmp_path: Path
) -> None:
    stacked = tmp_path / "stacked"
    assert main(["stack", str(loras["both"]), str(loras["other"]), str(stacked)]) == 0
    plain = load_backbone(str(tiny_model), device="cpu")
    plain.pipeline.load_lora_weights(loras["other"], adapter_name="subject")
    plain.pipeline.load_lora_weights(loras["both"], adapter_name="hg_dpo")
    plain.pipeline.set_adapters(["subject", "hg_dpo"], [1.0, 0.5])
    expected = plain.sample(drawing(plain))
    assert torch.allclose(drawn(stacked, AdapterConfig(scale=0.5)), expected, atol=1e-4)
    subject = drawn(loras["other"])
    assert torch.allclose(drawn(stacked, AdapterConfig(scale=0.0)), subject, atol=1e-5)


def test_what_cannot_be_stacked(
    loras: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / FILE).write_bytes((loras["other"] / FILE).read_bytes())
    (strange / "model.json").write_text('{"base": "another/model"}', encoding="utf-8")
    for on, message in (
        (strange, "of another/model; stack LoRAs of one base"),
        (tmp_path, "is not a model"),
    ):
        assert main(["stack", str(loras["both"]), str(on), str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["stack", str(tmp_path), str(strange), str(tmp_path / "out")]) == 2
    assert "is not a LoRA" in capsys.readouterr().err


def test_together_with_ip_adapter_both_act(tiny_model: Path, loras: dict[str, Path]) -> None:
    """An IP-Adapter of random weights, loaded the way diffusers loads published ones."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    width, tokens, image_width = pipeline.unet.config.cross_attention_dim, 4, 8
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    keys = {}
    number = 1
    for name, layer in pipeline.unet.named_modules():
        if name.endswith("attn2"):
            keys[f"{number}.to_k_ip.weight"] = random(layer.to_k.out_features, width)
            keys[f"{number}.to_v_ip.weight"] = random(layer.to_v.out_features, width)
            number += 2  # published files count self-attention too
    projection = {
        "proj.weight": random(tokens * width, image_width),
        "proj.bias": random(tokens * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    picture = random(1, 1, 1, image_width)

    def draw(strength: float) -> torch.Tensor:
        pipeline.set_ip_adapter_scale(strength)
        return pipeline(
            "a cat",
            ip_adapter_image_embeds=[torch.cat([torch.zeros_like(picture), picture])],
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
        ).images

    pipeline.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": keys}])
    with_face, without = draw(1.0), draw(0.0)
    pipeline.load_lora_weights(loras["denoiser"], adapter_name="hg_dpo")
    both, lora_alone = draw(1.0), draw(0.0)
    pairs_that_differ = [
        (with_face, without),
        (both, with_face),
        (both, lora_alone),
        (lora_alone, without),
    ]
    for one, other in pairs_that_differ:
        assert not torch.allclose(one, other, rtol=1e-3)
