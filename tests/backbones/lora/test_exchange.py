"""LoRAs to other tools and back: literal key names, exact round trips, equal pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import FAMILIES
from stable_diffusion import SIZE
from tastemaker.backbones import Backbone, SamplingBatch, load_backbone, stack
from tastemaker.backbones.lora.adapters import add_lora, trainable
from tastemaker.backbones.lora.exchange import export_lora, import_lora
from tastemaker.backbones.lora.layers import read_layers
from tastemaker.backbones.lora.weights import fuse_attached
from tastemaker.backbones.places import LORA_FILE
from tastemaker.cli.command_line import main
from tastemaker.config.exchange import ExportConfig, LoraImportConfig
from tastemaker.config.training import LoraConfig, TextLoraConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.training.saving import save_lora

HOW = {"num_inference_steps": 2, "guidance_scale": 3.0}
SIDES = {"height": SIZE, "width": SIZE}

# As the tools write them: sd-scripts' files of each family.
KEYS = {
    "sd1": (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
        "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn2_to_k.lora_up.weight",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha",
    ),
    # One layer a block here, two in the real model: attention begins at 1 in place of 4.
    "sdxl": (
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_v.lora_up.weight",
        "lora_unet_output_blocks_3_1_transformer_blocks_0_attn1_to_out_0.alpha",
        "lora_te1_text_model_encoder_layers_1_self_attn_k_proj.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj.lora_up.weight",
    ),
    "sd3": (
        "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight",
        "lora_unet_joint_blocks_1_x_block_attn_proj.alpha",
        "lora_te1_text_model_encoder_layers_0_self_attn_v_proj.lora_up.weight",
        "lora_te2_text_model_encoder_layers_0_self_attn_v_proj.lora_up.weight",
    ),
    "flux": (
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
        "lora_unet_double_blocks_0_img_attn_proj.lora_up.weight",
        "lora_unet_single_blocks_0_linear1.alpha",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
    ),
}
KEYS["sd2"] = KEYS["sd1"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, models: dict[str, Path]) -> Path:
    return models[family]


def trained(base: Path, output: Path, *, seed: int = 0) -> Path:
    """A LoRA with weights that act, alpha twice its rank, on the text encoders too."""
    backbone = load_backbone(str(base), device="cpu")
    fuse_attached(backbone)
    add_lora(backbone.denoiser, LoraConfig(r=2, alpha=4), seed)
    parts = [backbone.denoiser]
    for number, encoder in enumerate(backbone.text_encoders):
        add_lora(encoder, TextLoraConfig(r=3, alpha=6), seed, part=f"text_encoder_{number}")
        parts.append(encoder)
    generator = torch.Generator().manual_seed(seed)
    for part in parts:
        for weight in trainable(part).values():
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    save_lora(backbone, str(base), output)
    return output


@pytest.fixture(scope="module")
def lora(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(model, tmp_path_factory.mktemp("lora") / "policy")


def drawn(model: Path) -> torch.Tensor:
    """What a model draws."""
    return drawn_by(load_backbone(str(model), device="cpu"))


def drawn_by(backbone: Backbone) -> torch.Tensor:
    negative = stack([backbone.encode_negative("")])
    drawing = SamplingBatch(backbone.encode_prompts(["a cat"]), negative, [1], **HOW)
    return backbone.sample(drawing, **SIDES)


def test_keys_are_those_of_the_tools(lora: Path, family: str, tmp_path: Path) -> None:
    file = export_lora(ExportConfig(), lora, tmp_path)
    assert file.name == "policy.safetensors"
    keys = set(load_file(file))
    assert set(KEYS[family]) <= keys
    ends = {key.partition(".")[2] for key in keys}
    assert ends == {"lora_down.weight", "lora_up.weight", "alpha"}


def test_kohya_and_back_is_bit_for_bit(lora: Path, model: Path, tmp_path: Path) -> None:
    file = export_lora(ExportConfig(), lora, tmp_path)
    back = import_lora(LoraImportConfig(lora=str(file), model=str(model)), tmp_path / "back")
    assert (back / LORA_FILE).read_bytes() == (lora / LORA_FILE).read_bytes()


def test_foreign_file_without_header_draws_the_same(
    lora: Path, model: Path, tmp_path: Path
) -> None:
    tensors = load_file(export_lora(ExportConfig(), lora, tmp_path))
    save_file(tensors, tmp_path / "foreign.safetensors")
    config = LoraImportConfig(lora=str(tmp_path / "foreign.safetensors"), model=str(model))
    back = import_lora(config, tmp_path / "back")
    assert torch.allclose(drawn(back), drawn(lora), atol=1e-5)
    assert not torch.allclose(drawn(back), drawn(model), atol=1e-2)


def test_diffusers_reads_the_exported_file(
    lora: Path, model: Path, family: str, tmp_path: Path
) -> None:
    """The library's own reader of kohya's files, where it has one, finds the same update."""
    if family in ("sd3", "flux"):
        pytest.skip("diffusers reads no kohya file of SD3, and of FLUX those of its real size only")
    file = export_lora(ExportConfig(), lora, tmp_path)
    backbone = load_backbone(str(model), device="cpu")
    backbone.pipeline.load_lora_weights(str(file), adapter_name="kohya")
    ours = drawn_by(backbone)
    assert torch.allclose(ours, drawn(lora), atol=1e-4)


def test_loras_on_one_another_are_exported_as_one(lora: Path, model: Path, tmp_path: Path) -> None:
    top = trained(lora, tmp_path / "top", seed=1)
    whole = drawn(top)
    file = export_lora(ExportConfig(name="both"), top, tmp_path)
    back = import_lora(LoraImportConfig(lora=str(file), model=str(model)), tmp_path / "back")
    assert torch.allclose(drawn(back), whole, atol=1e-4)
    export_lora(ExportConfig(layout="diffusers"), top, tmp_path / "flat")
    assert json.loads((tmp_path / "flat" / "model.json").read_text())["base"] == str(model)
    assert torch.allclose(drawn(tmp_path / "flat"), whole, atol=1e-4)


def test_merged_weights_draw_the_same(lora: Path, tmp_path: Path) -> None:
    merged = export_lora(ExportConfig(layout="merged"), lora, tmp_path / "merged")
    assert (merged / "model_index.json").is_file()
    assert torch.allclose(drawn(merged), drawn(lora), atol=1e-4)


def test_file_of_another_family_is_refused(
    lora: Path, family: str, models: dict[str, Path], tmp_path: Path
) -> None:
    other = models["flux" if family != "flux" else "sd1"]
    for layout in ("kohya", "diffusers"):
        file = export_lora(ExportConfig(layout=layout), lora, tmp_path / layout)
        with pytest.raises(TastemakerError, match="another family"):
            import_lora(LoraImportConfig(lora=str(file), model=str(other)), tmp_path / f"x{layout}")


def test_other_kinds_of_adapters_are_refused(lora: Path, model: Path, tmp_path: Path) -> None:
    tensors = load_file(export_lora(ExportConfig(), lora, tmp_path))
    first = next(iter(tensors)).partition(".")[0]
    tensors[f"{first}.dora_scale"] = torch.ones(1)
    save_file(tensors, tmp_path / "dora.safetensors")
    config = LoraImportConfig(lora=str(tmp_path / "dora.safetensors"), model=str(model))
    with pytest.raises(TastemakerError, match="plain LoRA alone is read"):
        import_lora(config, tmp_path / "back")


@pytest.mark.parametrize("begins", ["", "base_model.model."], ids=["bare", "peft"])
def test_a_networks_own_lora_is_the_denoisers(
    begins: str, lora: Path, model: Path, tmp_path: Path
) -> None:
    """As PEFT saves it: no part of a pipeline in its keys, alpha in a file beside it."""
    tensors = load_file(export_lora(ExportConfig(layout="diffusers"), lora, tmp_path))
    denoisers = ("unet.", "transformer.")
    own = {
        begins + key.partition(".")[2]: value
        for key, value in tensors.items()
        if key.startswith(denoisers)
    }
    place = tmp_path / "peft"
    place.mkdir()
    save_file(own, place / "adapter_model.safetensors")
    (place / "adapter_config.json").write_text('{"lora_alpha": 3}', encoding="utf-8")
    config = LoraImportConfig(lora=str(place / "adapter_model.safetensors"), model=str(model))
    back = import_lora(config, tmp_path / "back")
    kept = load_file(back / LORA_FILE)
    assert kept.keys() == {key for key in tensors if key.startswith(denoisers)}
    assert all(kept[key].equal(tensors[key]) for key in kept)
    assert {layer.alpha for layer in read_layers(back / LORA_FILE).values()} == {3.0}


def test_torn_and_missing_files_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"{}")
    assert main(["import", str(tmp_path / "a"), f"lora={torn}", f"model={model}"]) == 2
    assert "is not a whole safetensors file" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "b"), "lora=none.safetensors", f"model={model}"]) == 2
    assert "none.safetensors does not exist" in capsys.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "c")]) == 2
    assert "has no LoRA" in capsys.readouterr().err
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "model.json").write_text('{"base": "nano"}', encoding="utf-8")
    assert main(["export", str(tmp_path / "weightless"), str(tmp_path / "d")]) == 2
    assert "has no LoRA" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
