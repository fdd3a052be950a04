"""A picture beside the prompt: images as diffusers draws them, with a policy, resumed, refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from folders import digests
from pictures import noise
from tastemaker.backbones import SamplingBatch, check_model, load_backbone
from tastemaker.backbones.conditioning import IMAGE_EMBEDS
from tastemaker.backbones.gradient_sampling import sample_with_gradient
from tastemaker.backbones.ip_adapter import check_ip_adapter, encode_pictures
from tastemaker.backbones.lora.adapters import add_lora
from tastemaker.cli.command_line import main
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.sections import (
    AdapterConfig,
    GenerateConfig,
    IPAdapterConfig,
    ReconstructConfig,
)
from tastemaker.config.training import LoraConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.importing import import_images
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.preflight import check
from tastemaker.sampling.generate import generate, reconstruct
from tastemaker.sampling.loading import PolicyLoader, load_policy
from tastemaker.storage.candidates import latents_of
from tastemaker.storage.images import decode
from tastemaker.storage.pool import Pool
from tastemaker.training.saving import save_lora
from trainings import perturb

PROMPTS = ("a cat", "a red dog")
SIDE = 32
HIDDEN, PROJECTED = 16, 8
"""Widths of the image encoder's hidden states, and of its embedding."""
WIDTH = {"sd1": 16, "sdxl": 32}
"""Of the text that the denoisers of `families` take."""


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) / 2


def plain(width: int) -> dict[str, torch.Tensor]:
    """Four tokens of the embedding, as `ip-adapter_sd15` has them."""
    return {
        "proj.weight": random(4 * width, PROJECTED),
        "proj.bias": random(4 * width),
        "norm.weight": random(width),
        "norm.bias": random(width),
    }


def full_face(width: int) -> dict[str, torch.Tensor]:
    """Each hidden state is a token, as of `ip-adapter-full-face_sd15`."""
    return {
        "proj.0.weight": random(HIDDEN, HIDDEN),
        "proj.0.bias": random(HIDDEN),
        "proj.2.weight": random(width, HIDDEN),
        "proj.2.bias": random(width),
        "proj.3.weight": random(width),
        "proj.3.bias": random(width),
    }


def plus(width: int) -> dict[str, torch.Tensor]:
    """A resampler of hidden states, as of `ip-adapter-plus_sd15`."""
    inner, head = 24, 64
    tensors = {
        "latents": random(1, 5, inner),
        "proj_in.weight": random(inner, HIDDEN),
        "proj_in.bias": random(inner),
        "proj_out.weight": random(width, inner),
        "proj_out.bias": random(width),
        "norm_out.weight": random(width),
        "norm_out.bias": random(width),
    }
    for layer in (f"layers.{i}" for i in range(4)):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            tensors |= {f"{layer}.{norm}.{each}": random(inner) for each in ("weight", "bias")}
        tensors |= {
            f"{layer}.0.to_q.weight": random(head, inner),
            f"{layer}.0.to_kv.weight": random(2 * head, inner),
            f"{layer}.0.to_out.weight": random(inner, head),
            f"{layer}.1.1.weight": random(4 * inner, inner),
            f"{layer}.1.3.weight": random(inner, 4 * inner),
        }
    return tensors


KINDS: dict[str, Callable[[int], dict[str, torch.Tensor]]] = {
    "plain": plain,
    "plus": plus,
    "full": full_face,
}


def write_adapter(file: Path, kind: str, model: Path, width: int) -> None:
    """Random weights in the published layout for one denoiser."""
    tensors = {f"image_proj.{key}": value for key, value in KINDS[kind](width).items()}
    unet = load_backbone(str(model), device="cpu").denoiser
    layers = [layer for name, layer in unet.named_modules() if name.endswith("attn2")]
    for number, layer in enumerate(layers):  # published files count self-attention too
        for key in ("k", "v"):
            name = f"ip_adapter.{2 * number + 1}.to_{key}_ip.weight"
            tensors[name] = random(layer.to_k.out_features, width)
    save_file(tensors, file)


def write_encoder(folder: Path, projected: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        options = {"hidden_size": HIDDEN, "intermediate_size": 32, "projection_dim": projected}
        layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
        sizes = {"image_size": SIDE, "patch_size": 8}
        config = CLIPVisionConfig(**options, **layers, **sizes)
        CLIPVisionModelWithProjection(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Path:
    """A folder as h94/IP-Adapter is one, and pictures beside it."""
    folder = tmp_path_factory.mktemp("ip")
    write_encoder(folder / "models" / "image_encoder", PROJECTED)
    write_encoder(folder / "wide" / "encoder", 2 * PROJECTED)
    for family, width in WIDTH.items():
        for kind in KINDS:
            file = folder / "models" / f"{kind}_{family}.safetensors"
            write_adapter(file, kind, models[family], width)
    (folder / "faces").mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        noise(number, 48, 40).save(folder / "faces" / name)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    return folder


def named(place: Path, kind: str = "plain", family: str = "sd1") -> dict[str, str]:
    name = f"{kind}_{family}.safetensors"
    return {"model": str(place), "subfolder": "models", "weight_name": name}


def options(place: Path, model: Path, kind: str = "plain", **given: Any) -> dict[str, Any]:
    """Options of `generate`, with the first picture."""
    family = "sdxl" if "sdxl" in str(model) else "sd1"
    return {
        "model": str(model),
        "prompts": str(place / "prompts.txt"),
        "num_candidates": 1,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "device": "cpu",
        "ip_adapter": named(place, kind, family),
        "ip_adapter_image": str(place / "faces" / "a.png"),
        "ip_adapter_scale": 0.7,
        **given,
    }


def theirs(place: Path, model: Path, kind: str, lora: Path | None = None) -> Any:
    """The pipeline as a user of diffusers loads it."""
    pipeline = DiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    # The default of diffusers needs torchvision.
    crop = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop)
    pipeline.register_modules(feature_extractor=processor)
    given = named(place, kind, "sdxl" if "sdxl" in str(model) else "sd1")
    pipeline.load_ip_adapter(given.pop("model"), **given)
    pipeline.set_ip_adapter_scale(0.7)
    if lora is not None:
        pipeline.load_lora_weights(lora)
    return pipeline


def rows(pool: Path) -> list[dict[str, Any]]:
    return Pool(pool).candidates().to_pylist()


def latents(pool: Path) -> list[torch.Tensor]:
    kept = [latents_of(row) for row in rows(pool)]
    assert all(each is not None for each in kept)
    return kept  # type: ignore[return-value]


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> Path:
    """A policy that has moved."""
    return moved(models["sd1"], tmp_path_factory.mktemp("lora"), far=True)


def moved(model: Path, folder: Path, *, far: bool) -> Path:
    backbone = load_backbone(str(model), device="cpu")
    add_lora(backbone.denoiser, LoraConfig(r=2), seed=0)
    if far:
        perturb(backbone.denoiser)
    save_lora(backbone, str(model), folder)
    return folder


@pytest.mark.parametrize(
    ("family", "kind", "scale"),
    [("sd1", "plain", 3.0), ("sd1", "plus", 3.0), ("sd1", "full", 1.0), ("sdxl", "plain", 3.0)],
)
def test_images_are_those_of_diffusers(
    family: str, kind: str, scale: float, place: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    given = options(place, models[family], kind, guidance_scale=scale)
    drawn = rows(generate(GenerateConfig(**given), tmp_path / "pool"))
    images = theirs(place, models[family], kind)(
        list(PROMPTS),
        ip_adapter_image=Image.open(given["ip_adapter_image"]),
        generator=[torch.Generator().manual_seed(row["seed"]) for row in drawn],
        num_inference_steps=2,
        guidance_scale=scale,
    ).images
    for row, image in zip(drawn, images, strict=True):
        ours = decode(row["image"]["bytes"], "ours")
        assert np.array_equal(np.asarray(ours), np.asarray(image))


def test_each_prompt_has_its_own_picture_in_one_batch_with_a_policy(
    place: Path, models: dict[str, Path], lora: Path, tmp_path: Path
) -> None:
    given = options(place, lora, "plus", ip_adapter_image=str(place / "faces"))
    pool = generate(GenerateConfig(**given), tmp_path / "pool")
    pipeline = theirs(place, models["sd1"], "plus", lora)
    for row, ours, name in zip(rows(pool), latents(pool), ("a.png", "b.png"), strict=True):
        (alone,) = pipeline(
            row["prompt"],
            ip_adapter_image=Image.open(place / "faces" / name),
            generator=torch.Generator().manual_seed(row["seed"]),
            num_inference_steps=2,
            guidance_scale=3.0,
            output_type="latent",
        ).images
        assert torch.allclose(ours, alone, atol=1e-4)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_batch_carries_its_pictures_through_every_sampler(
    family: str, place: Path, models: dict[str, Path]
) -> None:
    given = options(place, models[family], scheduler="DDIMScheduler")
    backbone = load_policy(GenerateConfig(**given), str(models[family]))
    files = [place / "faces" / name for name in ("a.png", "b.png")]
    found = encode_pictures(backbone, files)
    assert found[files[0]][0].shape == (1, 1, PROJECTED)
    assert not found[files[0]][1].any(), "the unconditional branch has zeros"
    conditioning = backbone.encode_prompts(PROMPTS)
    negative = backbone.encode_prompts(["", ""])
    conditioning[IMAGE_EMBEDS] = torch.cat([found[file][0] for file in files])
    negative[IMAGE_EMBEDS] = torch.cat([found[file][1] for file in files])
    for scale in (1.0, 3.0):
        batch = SamplingBatch(
            conditioning, negative, [1, 2], num_inference_steps=2, guidance_scale=scale
        )
        drawn = backbone.sample(batch, height=SIDE, width=SIDE)
        kept = sample_with_gradient(
            backbone, backbone.denoiser, batch, keep=0, height=SIDE, width=SIDE
        )
        assert torch.allclose(drawn, kept, atol=1e-5)
        # One row alone, in the other's place: rows do not mix.
        turned = backbone.sample(batch.select([1, 0]), height=SIDE, width=SIDE)
        assert torch.allclose(turned.flip(0), drawn, atol=1e-5)


def test_loras_that_change_nothing_leave_the_picture_where_it_was(
    place: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    """In both passes of LAN, and in both halves of a batch with a negative-preference LoRA."""
    model = models["sd1"]
    zero = moved(model, tmp_path / "zero", far=False)
    expected = latents(generate(GenerateConfig(**options(place, model)), tmp_path / "plain"))
    adapters = {"lan": AdapterConfig(lan=True), "negative": AdapterConfig(negative=str(zero))}
    for name, adapter in adapters.items():
        config = GenerateConfig(**options(place, zero, adapter=adapter))
        for ours, plain_one in zip(
            latents(generate(config, tmp_path / name)), expected, strict=True
        ):
            assert torch.allclose(ours, plain_one, atol=1e-4)


def test_bf16_draws_nearly_the_same(
    place: Path, models: dict[str, Path], lora: Path, tmp_path: Path
) -> None:
    drawn = {}
    for dtype in ("fp32", "bf16"):
        config = GenerateConfig(**options(place, lora, "plus", dtype=dtype))
        drawn[dtype] = torch.stack(latents(generate(config, tmp_path / dtype)))
    apart = (drawn["bf16"] - drawn["fp32"]).square().mean() / drawn["fp32"].square().mean()
    assert 0 < apart < 0.02**2


def test_models_after_one_another_are_those_alone(
    place: Path, models: dict[str, Path], lora: Path
) -> None:
    """With the picture, with another weight of it, without it."""
    loader = PolicyLoader()
    base = options(place, models["sd1"], "plus")
    none = {"ip_adapter": None, "ip_adapter_image": None, "ip_adapter_scale": 1.0}
    seen = []
    for given in ({}, {"ip_adapter_scale": 0.2}, none):
        config = GenerateConfig(**{**base, **given})
        for model in (models["sd1"], lora):
            pair = []
            for backbone in (loader(config, str(model)), load_policy(config, str(model))):
                conditioning, negative = (backbone.encode_prompts([each]) for each in ("a", ""))
                if config.ip_adapter is not None:
                    file = place / "faces" / "a.png"
                    rows_of = encode_pictures(backbone, [file])[file]
                    conditioning[IMAGE_EMBEDS], negative[IMAGE_EMBEDS] = rows_of
                batch = SamplingBatch(
                    conditioning, negative, [1], num_inference_steps=2, guidance_scale=3.0
                )
                pair.append(backbone.sample(batch))
            assert torch.equal(*pair)
            seen.append(pair[0])
    for i, one in enumerate(seen):
        assert not any(torch.allclose(one, other, rtol=1e-3) for other in seen[:i])


def test_a_picture_acts_on_its_real_image_alone(
    place: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "photographs").mkdir()
    for number in range(2):
        noise(10 + number).save(tmp_path / "photographs" / f"{number}.png")
        (tmp_path / "photographs" / f"{number}.txt").write_text("a man", encoding="utf-8")
    images = str(tmp_path / "photographs")
    real = import_images(images=images, resolution=SIDE, output=tmp_path / "real")

    def again(name: str, **given: Any) -> list[torch.Tensor]:
        base = options(place, models["sd1"], num_inference_steps=4, timesteps=(600,), **given)
        for option in ("prompts", "num_candidates"):
            del base[option]
        return latents(reconstruct(ReconstructConfig(**base), real, tmp_path / name))

    first = again("first", ip_adapter_image=str(place / "faces"))
    (tmp_path / "others").mkdir()
    shutil.copy(place / "faces" / "a.png", tmp_path / "others")
    noise(99).save(tmp_path / "others" / "b.png")
    second = again("second", ip_adapter_image=str(tmp_path / "others"))
    assert torch.allclose(first[0], second[0], atol=1e-6)
    assert not torch.allclose(first[1], second[1], rtol=1e-3)
    none = {"ip_adapter": None, "ip_adapter_image": None, "ip_adapter_scale": 1.0}
    off, without = again("off", ip_adapter_scale=0), again("none", **none)
    for ours, plain_one, drawn in zip(off, without, first, strict=True):
        assert torch.allclose(ours, plain_one, atol=1e-6)
        assert not torch.allclose(ours, drawn, rtol=1e-3)


def test_resumed_is_undisturbed_and_another_picture_is_another_pool(
    place: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(place / "faces", pictures)
    given = options(place, models["sd1"], ip_adapter_image=str(pictures), shard_size=1)
    pool = generate(GenerateConfig(**given), tmp_path / "pool")
    whole = digests(pool)
    (pool / "done.json").unlink()
    (shard := Pool(pool).shards()[1]).unlink()
    generate(GenerateConfig(**given), pool)
    assert digests(pool)[shard.name] == whole[shard.name]
    generate(GenerateConfig(**given), pool)
    with pytest.raises(TastemakerError, match=r"another configuration \(ip_adapter_scale: 0.7"):
        generate(GenerateConfig(**{**given, "ip_adapter_scale": 0.5}), pool)
    noise(5).save(pictures / "b.png")
    with pytest.raises(TastemakerError, match=r"another configuration \(inputs.ip_adapter.pict"):
        generate(GenerateConfig(**given), pool)


def test_an_evaluation_draws_all_models_with_the_pictures(
    place: Path, models: dict[str, Path], lora: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    given = options(place, models["sd1"], ip_adapter_image=str(place / "faces"))
    for option in ("model", "num_candidates"):
        del given[option]
    config = EvaluateConfig(base=str(models["sd1"]), scorers=("sharpness",), **given)
    out = tmp_path / "evaluation"
    report = evaluate(config, {"policy": lora}, out, tmp_path / "report.json")
    written = report.stat().st_mtime_ns
    evaluate(config, {"policy": lora}, out, report)
    assert report.stat().st_mtime_ns == written
    for name, model in (("base", models["sd1"]), ("policy", lora)):
        again = GenerateConfig(**options(place, model, ip_adapter_image=str(place / "faces")))
        images = [row["image"] for row in rows(generate(again, tmp_path / name))]
        assert [row["image"] for row in rows(out / name)] == images
    search = {"guidance_scales": (1, 2), "prompts": {"name": "texts", "prompts": ["a sun"]}}
    searched = {"guidance_search": {**search, "scorer": "sharpness"}, "judge": "tiny"}
    scorers = ("sharpness", {"name": "clip", "label": "tiny", "model": str(tiny_clip)})
    config = EvaluateConfig(base=str(models["sd1"]), scorers=scorers, **given, **searched)
    with pytest.raises(TastemakerError, match="have no pictures of their own"):
        check(config)


class TestRefused:
    @pytest.mark.parametrize("family", ["sd3", "flux"])
    def test_families_without_it(self, family: str, place: Path, models: dict[str, Path]) -> None:
        config = IPAdapterConfig(**named(place))
        with pytest.raises(TastemakerError, match="diffusers has no IPAdapterMixin"):
            check_ip_adapter(config, check_model(str(models[family])))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weight_name": "no.safetensors"}, "no weights: .* has no models/no.safetensors"),
            ({"image_encoder_folder": "no"}, "no image encoder: .* has no models/no/config.json"),
            ({"image_encoder_folder": "wide/encoder"}, "width 8, and the encoder .* gives 16"),
            ({"weight_name": "plain_sdxl.safetensors"}, "is 32 wide, and the text of .* 16"),
            ({"weight_name": "face.safetensors"}, "FaceID"),
            ({"weight_name": "other.safetensors"}, "it is another file"),
            ({"weight_name": "torn.safetensors"}, "not a whole safetensors file"),
            ({"model": "./no"}, "no such folder"),
        ],
        ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
    )
    def test_what_does_not_fit(
        self, change: dict[str, str], message: str, place: Path, models: dict[str, Path]
    ) -> None:
        face = {"image_proj.proj.0.weight": random(2, 2), "image_proj.norm.weight": random(2)}
        save_file(
            {**face, "ip_adapter.1.to_k_ip.weight": random(2, 2)},
            place / "models" / "face.safetensors",
        )
        save_file({"weight": random(2)}, place / "models" / "other.safetensors")
        (place / "models" / "torn.safetensors").write_bytes(b"torn")
        config = IPAdapterConfig(**{**named(place), **change})
        with pytest.raises(TastemakerError, match=message):
            check_ip_adapter(config, check_model(str(models["sd1"])))

    def test_layers_of_another_denoiser(
        self, place: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        """Equal width, as of SD 1.x and a smaller student of it: fewer layers."""
        shutil.copytree(place / "models", tmp_path / "models")
        file = tmp_path / "models" / "short.safetensors"
        tensors = load_file(tmp_path / "models" / "plain_sd1.safetensors")
        save_file({k: v for k, v in tensors.items() if "ip_adapter.3." not in k}, file)
        config = GenerateConfig(**options(place, models["sd1"], ip_adapter=str(file)))
        with pytest.raises(TastemakerError, match="could not be loaded: KeyError"):
            load_policy(config, str(models["sd1"]))

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            ("no.png", "picture .*no.png' does not exist"),
            ("prompts.txt", "'.*prompts.txt' is neither a picture nor a folder"),
            ("models", "'.*models' is neither a picture nor a folder"),
        ],
    )
    def test_a_missing_picture_before_anything_is_written(
        self,
        image: str,
        message: str,
        place: Path,
        models: dict[str, Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        file = place / "models" / "plain_sd1.safetensors"
        words = [f"model={models['sd1']}", f"prompts={place / 'prompts.txt'}", "device=cpu"]
        words += [f"ip_adapter={file}", f"ip_adapter_image={place / image}"]
        assert main(["generate", str(tmp_path / "pool"), *words]) == 2
        assert re.search(f"ip_adapter_image: {message}", capsys.readouterr().err)
        assert not (tmp_path / "pool").exists()

    def test_pictures_that_are_not_one_per_prompt(
        self, place: Path, models: dict[str, Path], tmp_path: Path
    ) -> None:
        given = options(place, models["sd1"], ip_adapter_image=str(place / "faces"))
        given["prompts"] = {"name": "texts", "prompts": ["a", "b", "c"]}
        with pytest.raises(TastemakerError, match="has 2 pictures for 3 prompts"):
            generate(GenerateConfig(**given), tmp_path / "pool")
        assert not (tmp_path / "pool").exists()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"ip_adapter_image": None, "ip_adapter_scale": 1}, "give both"),
            ({"ip_adapter": None, "ip_adapter_scale": 1}, "give both"),
            ({"ip_adapter": None, "ip_adapter_image": None}, "is of an ip_adapter"),
            ({"ip_adapter": "h94/IP-Adapter"}, "not a .safetensors file"),
            ({"trajectories": True}, "without a picture"),
        ],
    )
    def test_options_that_contradict(
        self, given: dict[str, Any], message: str, place: Path, models: dict[str, Path]
    ) -> None:
        with pytest.raises(ValueError, match=message):
            GenerateConfig(**options(place, models["sd1"], **given))


def test_a_path_and_the_arguments_of_diffusers_are_one(place: Path) -> None:
    hub = IPAdapterConfig.model_validate("h94/IP-Adapter/sdxl_models/ip.safetensors")
    assert (hub.model, hub.subfolder, hub.weight_name) == (
        "h94/IP-Adapter",
        "sdxl_models",
        "ip.safetensors",
    )
    here = IPAdapterConfig.model_validate(str(place / "models" / "plain_sd1.safetensors"))
    assert (here.model, here.subfolder) == (str(place / "models"), "")
