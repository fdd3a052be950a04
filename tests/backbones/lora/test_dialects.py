"""LoRA files of other tools: names, scales, fused layers, refusals; updates among weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from safetensors.torch import save_file

from families import FAMILIES
from tastemaker.backbones import Backbone, load_backbone
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.backbones.lora.dialects import read_foreign
from tastemaker.backbones.lora.exchange import export_lora, import_lora
from tastemaker.backbones.lora.kohya import names_of, to_kohya
from tastemaker.backbones.lora.layers import (
    Layer,
    Layers,
    effective_alpha,
    read_layers,
    read_tensors,
    summed,
    write_layers,
)
from tastemaker.backbones.lora.originals import RENAMES, adaptable, text_layers
from tastemaker.backbones.lora.weights import (
    adapter_layers,
    attached_layers,
    fuse,
    fuse_attached,
    load_lora,
)
from tastemaker.backbones.meta_device import load_skeleton
from tastemaker.backbones.places import LORA_FILE, MODEL_FILE, adapter_chain, name_base
from tastemaker.config.exchange import ExportConfig, LoraImportConfig
from tastemaker.config.training import LoraConfig
from tastemaker.core.errors import TastemakerError

FILE = Path("style.safetensors")
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
DOUBLE = "transformer_blocks.0.attn"


@pytest.fixture(scope="module")
def skeletons(models: dict[str, Path]) -> dict[str, Backbone]:
    return {name: load_skeleton(str(model)) for name, model in models.items()}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(tensors: dict[str, torch.Tensor], model: Backbone, file: Path = FILE) -> Layers:
    return read_foreign(tensors, {}, file, model)


def update(layer: Layer) -> torch.Tensor:
    """The weight that a layer adds, [outputs, inputs]."""
    return layer.scale * layer.up.double().flatten(1) @ layer.down.double().flatten(1)


def kohya(name: str, down: torch.Tensor, up: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(alpha),
    }


# Scales


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("ranks", [{}, {"second": 3}])
@pytest.mark.parametrize(
    "alphas", [{}, {"second": 1}, {"^first": 5, "econd": 7}, {"body.first": 2}]
)
def test_scale_is_pefts(rslora: bool, ranks: dict[str, int], alphas: dict[str, int]) -> None:
    layers = {"first": torch.nn.Linear(4, 4), "second": torch.nn.Linear(4, 4)}
    body = torch.nn.ModuleDict(layers)
    options = {"use_rslora": rslora, "rank_pattern": ranks, "alpha_pattern": alphas}
    config = PeftConfig(r=2, lora_alpha=6, target_modules=["first", "second"], **options)
    network = get_peft_model(
        torch.nn.ModuleDict({"body": body, "first": torch.nn.Linear(4, 4)}), config
    )
    found = dict(adapter_layers(network.base_model.model, "default"))
    assert len(found) == 3
    for path, layer in found.items():
        alpha = effective_alpha(config.to_dict(), path, layer.rank)
        assert alpha / layer.rank == pytest.approx(layer.scale, rel=1e-12)


def test_going_on_from_a_lora_keeps_its_update() -> None:
    network = torch.nn.ModuleDict({"to_q": torch.nn.Linear(5, 3)})
    network.add_adapter = lambda config, adapter_name: get_peft_model(  # type: ignore[assignment]
        network, config, adapter_name
    )
    add_lora(network, LoraConfig(r=2, alpha=3, target_modules=["to_q"]), 0, name="policy")
    given = {"to_q": Layer(random(2, 5), random(3, 2, seed=1), 7.0)}
    load_lora(network, "policy", given, Path("start"))
    (carried,) = dict(adapter_layers(network, "policy")).values()
    assert carried.scale == 1.5
    assert torch.allclose(update(carried), update(given["to_q"]), rtol=1e-6)
    with pytest.raises(TastemakerError, match=r"1 layers of rank 4.*lora\.r "):
        load_lora(
            network, "policy", {"to_q": Layer(random(4, 5), random(3, 4), 4.0)}, Path("start")
        )


# Layers that the original code fuses

FUSED = [
    ("flux", "double_blocks.0.img_attn.qkv", [f"{DOUBLE}.to_{x}" for x in "qkv"], [32] * 3),
    ("flux", "double_blocks.0.txt_attn.qkv", [f"{DOUBLE}.add_{x}_proj" for x in "qkv"], [32] * 3),
    (
        "flux",
        "single_blocks.0.linear1",
        [
            *(f"single_transformer_blocks.0.attn.to_{x}" for x in "qkv"),
            "single_transformer_blocks.0.proj_mlp",
        ],
        [32, 32, 32, 128],
    ),
    (
        "sd3",
        "joint_blocks.1.x_block.attn.qkv",
        [f"transformer_blocks.1.attn.to_{x}" for x in "qkv"],
        [16] * 3,
    ),
    (
        "sd3",
        "joint_blocks.0.context_block.attn.qkv",
        [f"{DOUBLE}.add_{x}_proj" for x in "qkv"],
        [16] * 3,
    ),
]


@pytest.mark.parametrize(
    ("family", "path", "parts", "rows"), FUSED, ids=[each[1] for each in FUSED]
)
def test_a_fused_layer_falls_into_its_rows_and_back(
    family: str, path: str, parts: list[str], rows: list[int], skeletons: dict[str, Backbone]
) -> None:
    """Any shared `down`, not only block-diagonal ones; export gives the same file again."""
    name = f"lora_unet_{path.replace('.', '_')}"
    given = kohya(name, random(4, rows[0]), random(sum(rows), 4, seed=1), 2.0)
    layers = read(given, skeletons[family])
    whole = (
        0.5 * given[f"{name}.lora_up.weight"].double() @ given[f"{name}.lora_down.weight"].double()
    )
    assert list(layers) == [f"transformer.{part}" for part in parts]
    for layer, wanted in zip(layers.values(), whole.split(rows), strict=True):
        assert torch.equal(update(layer), wanted)
    back = to_kohya(layers, names_of(skeletons[family]))
    assert back.keys() == given.keys()
    assert all(torch.equal(back[key], given[key]) for key in given)


def test_fused_layers_of_unlike_parts_are_exact(skeletons: dict[str, Backbone]) -> None:
    """Own factors, ranks and scales of query and value, none of the key."""
    q = Layer(random(2, 32), random(32, 2, seed=1), 3.0)
    v = Layer(random(3, 32, seed=2), random(32, 3, seed=3), 1.0)
    given = {f"transformer.{DOUBLE}.to_q": q, f"transformer.{DOUBLE}.to_v": v}
    back = read(to_kohya(given, names_of(skeletons["flux"])), skeletons["flux"])
    assert back.keys() == given.keys()
    for name, layer in back.items():
        assert torch.allclose(update(layer), update(given[name]), atol=1e-6)


def test_a_denoiser_without_original_names_is_read_by_its_own(
    skeletons: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken for no other family, and not written in kohya's layout."""
    monkeypatch.delitem(RENAMES, "FluxTransformer2DModel")
    model, path = skeletons["flux"], f"transformer.{DOUBLE}.to_q"
    factors = {"A": random(2, 32), "B": random(32, 2, seed=1)}
    layers = read({f"{path}.lora_{key}.weight": value for key, value in factors.items()}, model)
    assert torch.equal(update(layers[path]), factors["B"].double() @ factors["A"].double())
    with pytest.raises(TastemakerError, match="layout=diffusers"):
        names_of(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_of_a_family_come_back(family: str, skeletons: dict[str, Backbone]) -> None:
    """Linear layers and convolutions of denoiser and CLIP, as kohya names them; no name is lost."""
    model, layers = skeletons[family], {}
    for part in model.adaptable_parts:
        network = getattr(model.pipeline, part)
        paths = (
            adaptable(part, network)
            if part in ("unet", "transformer")
            else text_layers(part, network)
        )
        for number, layer in enumerate(paths.values()):
            down = random(2, *layer.inputs, seed=number)
            ends = [1] * (len(layer.inputs) - 1)
            layers[layer.parts[0]] = Layer(down, random(layer.rows[0], 2, *ends, seed=number), 2.0)
    back = read(to_kohya(layers, names_of(model)), model)
    assert back.keys() == layers.keys()
    for name, layer in layers.items():
        assert torch.equal(update(back[name]), update(layer))


def test_scale_and_shift_change_places(skeletons: dict[str, Backbone]) -> None:
    """The last layer of FLUX gives shift and scale in the original code, scale and shift here."""
    up = torch.arange(64.0)[:, None]
    given = kohya("lora_unet_final_layer_adaLN_modulation_1", torch.ones(1, 32), up, 1.0)
    (layer,) = read(given, skeletons["flux"]).values()
    assert layer.up[:, 0].tolist() == [*range(32, 64), *range(32)]


# Names

SPELLINGS = {
    ("sd1", f"unet.{ATTENTION}.to_q"): [
        f"unet.{ATTENTION}.processor.to_q_lora.{{}}.weight",
        f"unet.{ATTENTION}.to_q.lora.{{}}.weight",
        f"unet.{ATTENTION}.to_q.lora_{{}}.default.weight",
        f"base_model.model.{ATTENTION}.to_q.lora_{{}}.weight",
        f"{ATTENTION}.to_q.lora_{{}}.weight",
        f"lora_unet_{ATTENTION.replace('.', '_')}_to_q.lora_{{}}.weight",
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_{}.weight",
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_{}.weight",
    ],
    ("sd1", f"unet.{ATTENTION}.to_out.0"): [
        f"unet.{ATTENTION}.processor.to_out_lora.{{}}.weight",
        f"unet.{ATTENTION}.to_out.0.lora_{{}}.weight",
    ],
    ("sd1", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"): [
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.{}.weight",
        "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.{}.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.{}.weight",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
        "lora_te_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight",
        "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight",
    ],
    ("sdxl", f"unet.{ATTENTION}.to_q"): [
        f"lora_unet_{ATTENTION.replace('.', '_')}_to_q.lora_{{}}.weight",
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_{}.weight",
    ],
    ("sdxl", "text_encoder_2.text_model.encoder.layers.1.mlp.fc1"): [
        "text_encoder_2.text_model.encoder.layers.1.mlp.fc1.lora_linear_layer.{}.weight",
        "text_encoder_2.encoder.layers.1.mlp.fc1.lora_{}.weight",
        "lora_te2_text_model_encoder_layers_1_mlp_fc1.lora_{}.weight",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1.lora_{}.weight",
    ],
    ("sd3", f"transformer.{DOUBLE}.to_out.0"): [
        f"transformer.{DOUBLE}.to_out.0.lora_{{}}.weight",
        f"lora_transformer_{DOUBLE.replace('.', '_')}_to_out_0.lora_{{}}.weight",
        "lora_unet_joint_blocks_0_x_block_attn_proj.lora_{}.weight",
        "diffusion_model.joint_blocks.0.x_block.attn.proj.lora_{}.weight",
    ],
    ("flux", f"transformer.{DOUBLE}.to_out.0"): [
        f"transformer.{DOUBLE}.to_out.0.lora_{{}}.weight",
        f"{DOUBLE}.to_out.0.lora_{{}}.weight",
        f"lora_transformer_{DOUBLE.replace('.', '_')}_to_out_0.lora_{{}}.weight",
        f"lycoris_{DOUBLE.replace('.', '_')}_to_out_0.lora_{{}}.weight",
        "lora_unet_double_blocks_0_img_attn_proj.lora_{}.weight",
        "diffusion_model.double_blocks.0.img_attn.proj.lora_{}.weight",
        "base_model.model.double_blocks.0.img_attn.proj.lora_{}.weight",
        "double_blocks.0.img_attn.proj.lora_{}.weight",
        "double_blocks.0.processor.proj_lora1.{}.weight",  # XLabs, by diffusers' converter
    ],
}
CASES = [(*where, key) for where, keys in SPELLINGS.items() for key in keys]


@pytest.mark.parametrize(("family", "module", "key"), CASES, ids=[each[2] for each in CASES])
def test_names_of_the_tools(
    family: str, module: str, key: str, skeletons: dict[str, Backbone]
) -> None:
    model = skeletons[family]
    part, _, path = module.partition(".")
    weight = {
        **adaptable(part, getattr(model.pipeline, part)),
        **text_layers(part, getattr(model.pipeline, part)),
    }[path]
    down, up = random(2, *weight.inputs), random(weight.rows[0], 2)
    for endings in (("down", "up"), ("A", "B")):
        if "lora_{}" not in key and endings[0] == "A":
            continue
        tensors = {key.format(endings[0]): down, key.format(endings[1]): up}
        (found,) = read(tensors, model).items()
        assert found[0] == module
        assert torch.equal(update(found[1]), up.double() @ down.double())
        alpha = (
            re.split(r"\.lora_\{|_lora1?\.\{|\.lora\.\{|\.lora_linear_layer\.\{", key)[0] + ".alpha"
        )
        if "processor" not in key and "_lora." not in key:
            (scaled,) = read({**tensors, alpha: torch.tensor(1.0)}, model).values()
            assert scaled.scale == 0.5


def test_a_control_and_its_kind_fall_to_diffusers(skeletons: dict[str, Backbone]) -> None:
    """XLabs' query, key and value of a single block, without its mlp."""
    name = "single_blocks.0.processor.qkv_lora"
    down, up = random(2, 32), random(96, 2, seed=1)
    layers = read({f"{name}.down.weight": down, f"{name}.up.weight": up}, skeletons["flux"])
    assert list(layers) == [f"transformer.single_transformer_blocks.0.attn.to_{x}" for x in "qkv"]
    assert torch.equal(
        torch.cat([update(each) for each in layers.values()]), up.double() @ down.double()
    )


def test_tucker_and_pointwise_convolutions(skeletons: dict[str, Backbone]) -> None:
    """LoCon's `lora_mid` acts as one plain LoRA; a linear LoRA fits a convolution of one pixel."""
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    down, mid, up = random(2, 8, 1, 1), random(2, 2, 3, 3, seed=1), random(8, 2, 1, 1, seed=2)
    given = {**kohya(conv, down, up, 2.0), f"{conv}.lora_mid.weight": mid}
    (layer,) = read(given, skeletons["sd1"]).values()
    x = random(1, 8, 5, 5, seed=3)
    one = torch.nn.functional.conv2d
    assert torch.allclose(
        one(one(x, layer.down), layer.up), one(one(one(x, down), mid), up), atol=1e-4
    )
    flat = kohya("lora_unet_down_blocks_0_attentions_0_proj_in", random(2, 8), random(8, 2), 2.0)
    (layer,) = read(flat, skeletons["sd1"]).values()
    assert layer.down.shape == (2, 8, 1, 1)


# Refusals

NAME = f"lora_unet_{ATTENTION.replace('.', '_')}_to_q"
PLAIN = kohya(NAME, torch.ones(2, 8), torch.ones(8, 2), 2.0)
REFUSED = {
    "DoRA": {**PLAIN, f"{NAME}.dora_scale": torch.ones(8)},
    "LoHa": {f"{NAME}.hada_w1_a": torch.ones(8, 2)},
    "LoKr": {f"{NAME}.lokr_w1": torch.ones(2, 2)},
    "biases": {**PLAIN, f"{NAME}.lora_up.bias": torch.ones(8)},
    "whole weights": {**PLAIN, "lora_unet_conv_in.diff_b": torch.ones(8)},
    "textual inversion": {"emb_params": torch.ones(2, 8)},
    "no second factor": {key: value for key, value in PLAIN.items() if "up" not in key},
    "not factors of one update": {**PLAIN, f"{NAME}.lora_up.weight": torch.ones(8, 3)},
    "another size": {**PLAIN, f"{NAME}.lora_down.weight": torch.ones(2, 9)},
    "alpha 0": {**PLAIN, f"{NAME}.alpha": torch.tensor(0.0)},
    "two updates": {
        **PLAIN,
        f"unet.{ATTENTION}.to_q.lora_A.weight": torch.ones(2, 8),
        f"unet.{ATTENTION}.to_q.lora_B.weight": torch.ones(8, 2),
    },
    "LoRA of FLUX.1": kohya(
        "lora_unet_single_blocks_7_linear2", torch.ones(1, 4), torch.ones(4, 1), 1
    ),
    "LoRA of SD3": kohya(
        "lora_unet_joint_blocks_7_x_block_attn_proj", torch.ones(1, 4), torch.ones(4, 1), 1
    ),
    "LoRA of Wan": kohya(
        "diffusion_model.blocks.0.self_attn.q", torch.ones(1, 4), torch.ones(4, 1), 1
    ),
    "LoRA of a language model": kohya(
        "base_model.model.model.layers.0.self_attn.q_proj", torch.ones(1, 4), torch.ones(4, 1), 1
    ),
    "names that are not known": kohya("lora_unet_mystery", torch.ones(1, 4), torch.ones(4, 1), 1),
    "not known, is not a layer": {"model.diffusion_model.out.2.weight": torch.ones(4)},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_refused_is_named(said: str, skeletons: dict[str, Backbone]) -> None:
    with pytest.raises(TastemakerError, match=said) as error:
        read(REFUSED[said], skeletons["sd1"])
    assert ("another family" in str(error.value)) == said.startswith("LoRA of")


def test_additions_of_zero_say_nothing(skeletons: dict[str, Backbone]) -> None:
    tensors = {**PLAIN, "lora_unet_conv_in.diff_b": torch.zeros(8)}
    assert list(read(tensors, skeletons["sd1"])) == [f"unet.{ATTENTION}.to_q"]


def test_starts_that_changed_the_base_are_refused(
    skeletons: dict[str, Backbone], tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"init_lora_weights": "pissa_niter_4"}')
    with pytest.raises(TastemakerError, match="path_initial_model_for_weight_conversion"):
        read(PLAIN, skeletons["sd1"], tmp_path / "adapter_model.safetensors")


def test_t5_is_refused_unless_zero(models: dict[str, Path], tmp_path: Path) -> None:
    attention = kohya("lora_unet_double_blocks_0_img_attn_proj", random(2, 32), random(32, 2), 1.0)
    t5 = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    for number, up in enumerate((torch.zeros(16, 2), torch.ones(16, 2))):
        file = tmp_path / f"{number}.safetensors"
        save_file({**attention, **kohya(t5, random(2, 32), up, 1.0)}, file)
        config = LoraImportConfig(lora=str(file), model=str(models["flux"]))
        if up.any():
            with pytest.raises(TastemakerError, match="adapts T5"):
                import_lora(config, tmp_path / "refused")
            assert not (tmp_path / "refused").exists()
        else:
            assert len(read_layers(import_lora(config, tmp_path / "in") / LORA_FILE)) == 1


def test_files_that_cannot_be_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    torch.save({"a": torch.ones(1)}, file)
    with pytest.raises(TastemakerError, match=r"pickle.*weights_only=True"):
        read_tensors(file)
    save_file({}, file)
    with pytest.raises(TastemakerError, match="is empty"):
        read_tensors(file)
    for bad in (float("nan"), float("inf")):
        save_file({"a": torch.tensor([1.0, bad])}, file)
        with pytest.raises(TastemakerError, match="a is not finite"):
            read_tensors(file)
    save_file({"a": torch.ones(4, dtype=torch.int8)}, file)
    with pytest.raises(TastemakerError, match="quantised"):
        read_tensors(file)


# Written and loaded


@pytest.mark.parametrize(
    "dtypes",
    [(torch.bfloat16,) * 2, (torch.float16, torch.float32), (torch.float8_e4m3fn,) * 2],
    ids=["bf16", "mixed", "fp8"],
)
def test_precisions_are_kept(
    dtypes: tuple[torch.dtype, torch.dtype], models: dict[str, Path], tmp_path: Path
) -> None:
    down, up = random(2, 8).to(dtypes[0]), random(8, 2, seed=1).to(dtypes[1])
    save_file(kohya(NAME, down, up, 1.0), tmp_path / "x.safetensors")
    config = LoraImportConfig(lora=str(tmp_path / "x.safetensors"), model=str(models["sd1"]))
    (layer,) = read_layers(import_lora(config, tmp_path / "in") / LORA_FILE).values()
    assert torch.equal(update(layer), 0.5 * up.double() @ down.double())
    acting, plain = (
        load_backbone(str(place), device="cpu") for place in (tmp_path / "in", models["sd1"])
    )
    fuse_attached(acting)
    before, after = (
        each.denoiser.get_submodule(f"{ATTENTION}.to_q").weight for each in (plain, acting)
    )
    assert torch.allclose(after - before, update(layer).float(), atol=1e-6)


def test_names_that_end_alike_keep_their_own_scale(models: dict[str, Path], tmp_path: Path) -> None:
    """FLUX's `proj_out` is also the end of `single_transformer_blocks.0.proj_out`."""
    outer = kohya("transformer.proj_out", random(2, 32), random(64, 2), 1.0)
    inner = kohya(
        "transformer.single_transformer_blocks.0.proj_out", random(3, 160), random(32, 3), 6.0
    )
    for number, tensors in enumerate((outer, {**outer, **inner})):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        config = LoraImportConfig(
            lora=str(tmp_path / f"{number}.safetensors"), model=str(models["flux"])
        )
        folder = import_lora(config, tmp_path / f"in-{number}")
        live = attached_layers(load_backbone(str(folder)))
        assert {name: layer.scale for name, layer in live.items()} == {
            key.removesuffix(".alpha"): float(value)
            / len(tensors[key.replace("alpha", "lora_down.weight")])
            for key, value in tensors.items()
            if key.endswith(".alpha")
        }


def test_a_header_that_no_longer_holds_is_not_kept(models: dict[str, Path], tmp_path: Path) -> None:
    """A tool that scaled our file left our header in it."""
    source = {f"unet.{ATTENTION}.to_q": Layer(random(2, 8), random(8, 2), 4.0)}
    write_layers(source, tmp_path / "lora")
    name_base(str(models["sd1"]), tmp_path / "lora")
    file = export_lora(ExportConfig(), tmp_path / "lora", tmp_path)
    tensors, header = read_tensors(file)
    save_file({**tensors, f"{NAME}.alpha": torch.tensor(1.0)}, file, header)
    config = LoraImportConfig(lora=str(file), model=str(models["sd1"]))
    (layer,) = read_layers(import_lora(config, tmp_path / "in") / LORA_FILE).values()
    assert layer.scale == 0.5


def test_half_precision_files_keep_alpha(skeletons: dict[str, Backbone]) -> None:
    """Of rank-stabilised LoRA, 16 * sqrt(6): in bf16 it would be .3 % off."""
    alpha = effective_alpha({"lora_alpha": 16, "use_rslora": True}, "", 6)
    layer = Layer(random(6, 8).bfloat16(), random(8, 6).bfloat16(), alpha)
    tensors = to_kohya({f"unet.{ATTENTION}.to_q": layer}, names_of(skeletons["sd1"]))
    assert float(tensors[f"{NAME}.alpha"]) == pytest.approx(16 * 6**0.5, rel=1e-7)


# Among the weights


def test_updates_are_added_in_float32_and_rounded_once() -> None:
    """Two updates, each below half a step of bf16, together above it."""
    network = torch.nn.ModuleDict({"to_q": torch.nn.Linear(2, 2, bias=False, dtype=torch.bfloat16)})
    network["to_q"].weight.data.fill_(1.0)
    step = 2.0**-7  # of bf16 above 1
    part = {"to_q": Layer(torch.full((1, 2), 0.4 * step), torch.ones(2, 1), 1.0)}
    for _ in range(2):
        fuse(network, part)
    assert network["to_q"].weight.tolist() == [[1.0, 1.0]] * 2
    fuse(network, summed([part, part]))
    assert network["to_q"].weight.tolist() == [[1.0 + step] * 2] * 2


def test_fused_updates_err_by_the_rounding_of_the_sum() -> None:
    network = torch.nn.ModuleDict(
        {"to_q": torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)}
    )
    before = network["to_q"].weight.detach().double()
    layers = {"to_q": Layer(random(8, 64) / 64, random(64, 8, seed=1) / 8, 3.0)}
    fuse(network, layers)
    wanted = before + update(layers["to_q"])
    off = (network["to_q"].weight.detach().double() - wanted).abs()
    # Half a step of bf16's 8 bits, and float32's own rounding.
    assert (off <= wanted.abs() * 2.0**-8 * 1.001 + 1e-7).all()


def test_rounds_are_summed_before_they_are_rounded(models: dict[str, Path], tmp_path: Path) -> None:
    """A model of three rounds in bf16 is the base plus all their updates, rounded once."""
    below, updates = str(models["sd1"]), []
    for number in range(3):
        layer = Layer(random(2, 8, seed=number), 0.01 * random(8, 2, seed=number + 3), 2.0)
        write_layers({f"unet.{ATTENTION}.to_q": layer}, tmp_path / f"{number}")
        name_base(below, tmp_path / f"{number}")
        below, updates = str(tmp_path / f"{number}"), [*updates, update(layer)]
    base, top = (
        load_backbone(model, device="cpu", dtype="bf16", fused=True).denoiser.get_submodule(
            f"{ATTENTION}.to_q"
        )
        for model in (str(models["sd1"]), below)
    )
    wanted = (base.weight.double() + sum(updates)).float()
    off = (top.weight.float() - wanted).abs()
    assert (off <= wanted.abs() * 2.0**-8 * 1.001 + 1e-7).all()


# Folders

MARKERS = {
    "torn": '{"base": ',
    "list": "[1]",
    "empty": "{}",
    "number": '{"base": 3}',
    "nothing": '{"base": ""}',
}


@pytest.mark.parametrize("kind", MARKERS)
def test_a_folder_that_names_no_base_is_refused(kind: str, tmp_path: Path) -> None:
    write_layers({"unet.a.b": Layer(torch.ones(1, 1), torch.ones(1, 1), 1.0)}, tmp_path)
    (tmp_path / MODEL_FILE).write_text(MARKERS[kind])
    with pytest.raises(TastemakerError, match=re.escape(MODEL_FILE)):
        adapter_chain(str(tmp_path))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_folder_below_itself_is_refused(length: int, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(length)]
    for folder, base in zip(folders, [*folders[1:], folders[0]], strict=True):
        write_layers({"unet.a.b": Layer(torch.ones(1, 1), torch.ones(1, 1), 1.0)}, folder)
        (folder / MODEL_FILE).write_text(json.dumps({"base": str(base)}))
    with pytest.raises(TastemakerError, match="lies on itself"):
        load_backbone(str(folders[0]))
    with pytest.raises(TastemakerError, match="lies on itself"):
        export_lora(ExportConfig(), folders[0], tmp_path / "out")
