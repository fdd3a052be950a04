"""Models of others: what is understood is read as it was meant, the rest is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler, UNet2DConditionModel
from PIL import Image

from families import FAMILIES
from stable_diffusion import BETAS, SIZE
from tastemaker.backbones import (
    Backbone,
    SamplingBatch,
    check_model,
    check_sampling,
    load_backbone,
    model_identity,
    stack,
    student_warning,
)
from tastemaker.backbones.flux import _packed
from tastemaker.backbones.latents import encode_row
from tastemaker.backbones.schedulers import DIFFUSION, PREDICTIONS, noise_schedule_of, sampler
from tastemaker.config.sections import SamplingConfig
from tastemaker.core.errors import TastemakerError

PROMPTS = ("a cat", "a red dog")
SIDES = {"height": SIZE, "width": SIZE}


def changed(model: Path, output: Path, file: str, **options: Any) -> Path:
    """A copy of a model with other options in one of its JSON files; None deletes one."""
    shutil.copytree(model, output)
    content = {**json.loads((output / file).read_text()), **options}
    kept = {key: value for key, value in content.items() if value != "DELETED"}
    (output / file).write_text(json.dumps(kept))
    return output


def drawing(backbone: Backbone, steps: int = 3) -> SamplingBatch:
    negative = stack([backbone.encode_negative("")] * len(PROMPTS))
    conditioning = backbone.encode_prompts(PROMPTS)
    how = {"num_inference_steps": steps, "guidance_scale": 3.0}
    return SamplingBatch(conditioning, negative, (1, 2), **how)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestSamplers:
    @pytest.mark.parametrize("name", DIFFUSION)
    @pytest.mark.parametrize("own", [DDIMScheduler, LCMScheduler])
    def test_every_sampler_has_the_model_s_noise_schedule(self, name: str, own: Any) -> None:
        """Also where the model's file leaves betas to the defaults of its own class."""
        needs = {"DPMSolverSDEScheduler": "torchsde", "LMSDiscreteScheduler": "scipy"}
        if name in needs:
            pytest.importorskip(needs[name])
        made = sampler(getattr(diffusers, name), own())
        assert torch.allclose(made.alphas_cumprod, own().alphas_cumprod, atol=1e-6)
        assert not made.config.get("clip_sample")
        assert not made.config.get("thresholding")

    @pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
    def test_latents_above_one_survive(self, kind: Any) -> None:
        """x_0 = 5 is found again from its noisy latents by a perfect prediction of the noise."""
        made = sampler(kind, diffusers.EulerDiscreteScheduler(**BETAS))
        made.set_timesteps(2)
        timestep = made.timesteps[-1]
        latents, noise = torch.full((1, 4, 2, 2), 5.0), torch.ones(1, 4, 2, 2)
        noisy = made.add_noise(latents, noise, timestep[None])
        found = made.step(noise, timestep, noisy).pred_original_sample
        assert torch.allclose(found, latents, atol=1e-4)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_our_loop_takes_the_pipeline_s_steps(
        self, models: dict[str, Path], tmp_path: Path, family: str
    ) -> None:
        file = "scheduler/scheduler_config.json"
        scheduler = None
        model = models[family]
        if family in ("sd1", "sd2", "sdxl"):
            scheduler = "DDIMScheduler"
            model = changed(model, tmp_path / "model", file, clip_sample="DELETED")
        backbone = load_backbone(str(model), device="cpu", scheduler=scheduler)
        wanted = drawing(backbone)
        theirs: list[torch.Tensor] = []

        def note(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            theirs.append(values["latents"])
            return values

        how = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "latent"}
        generators = wanted.generators()
        backbone.pipeline(
            list(PROMPTS), generator=generators, callback_on_step_end=note, **how, **SIDES
        )
        shape = backbone.latent_shape(SIZE, SIZE)
        grid = backbone.deterministic_grid(3, shape)
        step = backbone.step(backbone.denoiser, grid, wanted)
        latents = wanted.noise(shape, backbone.device)
        with torch.no_grad():
            for timestep, expected in zip(grid.timesteps, theirs, strict=True):
                latents = step(latents, timestep)
                packed = _packed(latents) if family == "flux" else latents
                # Three steps in fp32 of numbers of size 10 at most.
                assert torch.allclose(packed, expected, atol=1e-4)

    def test_zero_terminal_snr_goes_with_v(self, models: dict[str, Path], tmp_path: Path) -> None:
        file = "scheduler/scheduler_config.json"
        v = changed(models["sd2"], tmp_path / "v", file, rescale_betas_zero_snr=True)
        backbone = load_backbone(str(v), device="cpu")
        assert backbone.noise_schedule.alpha[-1] == 0
        latents = torch.ones(1, *backbone.latent_shape(SIZE, SIZE))
        last = torch.tensor([backbone.num_timesteps - 1])
        assert torch.equal(backbone.add_noise(latents, 2 * latents, last), 2 * latents)
        assert torch.equal(backbone.target(latents, 2 * latents, last), -latents)
        with pytest.raises(TastemakerError, match="does not draw from its noise schedule"):
            load_backbone(str(v), device="cpu", scheduler="PNDMScheduler")
        noise = changed(models["sd1"], tmp_path / "noise", file, rescale_betas_zero_snr=True)
        with pytest.raises(TastemakerError, match="pure noise"):
            load_backbone(str(noise), device="cpu")

    @pytest.mark.parametrize("prediction", PREDICTIONS)
    @pytest.mark.parametrize("name", DIFFUSION)
    def test_every_sampler_steps_or_is_refused(self, name: str, prediction: str) -> None:
        try:
            made = sampler(getattr(diffusers, name), DDIMScheduler(prediction_type=prediction))
        except TastemakerError:
            pytest.skip("needs another package")
        # Noise and v are drawn by all.
        allowed = contextlib.suppress(*[TastemakerError] * (prediction == "sample"))
        with allowed:
            noise_schedule_of("m", made)

    @pytest.mark.parametrize("betas", [[0.1, 0.2], [0.1, -0.1, 0.2], [0.1, 0.2, 1.5]])
    def test_betas_must_make_a_schedule(self, betas: list[float]) -> None:
        with pytest.raises(TastemakerError, match="no noise schedule"):
            noise_schedule_of("m", DDIMScheduler(num_train_timesteps=3, trained_betas=betas))

    def test_trained_betas_are_taken(self) -> None:
        own = DDIMScheduler(num_train_timesteps=3, trained_betas=[0.1, 0.2, 0.5])
        abar = noise_schedule_of("m", own).alphas_cumprod
        assert abar.tolist() == pytest.approx([0.9, 0.72, 0.36])


SCHEDULER, UNET, VAE = "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json"
TRANSFORMER = "transformer/config.json"


@pytest.mark.parametrize(
    ("family", "file", "options", "said"),
    [
        ("sd1", SCHEDULER, {"prediction_type": "v-prediction"}, "v_prediction"),
        ("sd1", SCHEDULER, {"beta_schedule": "cosine"}, "cosine"),
        ("sdxl", SCHEDULER, {"timestep_type": "continuous"}, "timestep_type"),
        ("sd3", SCHEDULER, {"stochastic_sampling": True}, "stochastic_sampling"),
        ("sd1", "model_index.json", {"scheduler": ["diffusers", "EDMEulerScheduler"]}, "EDMEuler"),
        ("sd3", "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "FlowMatch"),
        ("sd1", "model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "AutoencoderKL"),
        ("sd1", "model_index.json", {"unet": [None, None]}, "unet is missing"),
        ("sd1", "model_index.json", {"unet": 5}, "broken at 'unet'"),
        ("sd1", "model_index.json", {"_class_name": "KolorsPipeline"}, "KolorsPipeline"),
        ("sd1", UNET, {"in_channels": 9}, "inpainting"),
        ("sd1", UNET, {"in_channels": 8}, "instruct-pix2pix"),
        ("sd1", UNET, {"out_channels": 8}, "gives 8"),
        ("sd1", UNET, {"time_cond_proj_dim": 16}, "time_cond_proj_dim"),
        ("sd1", UNET, {"class_embed_type": "timestep"}, "class_embed_type"),
        ("sd1", UNET, {"addition_embed_type": "text"}, "addition_embed_type"),
        ("sdxl", UNET, {"addition_embed_type": None}, "addition_embed_type"),
        ("sdxl", UNET, {"projection_class_embeddings_input_dim": 16 + 5 * 8}, "refiner"),
        ("sdxl", VAE, {"scaling_factor": "DELETED"}, "scaling_factor"),
        ("sd1", VAE, {"scaling_factor": 0}, "scaling_factor"),
        ("flux", VAE, {"shift_factor": None}, "shift_factor"),
        ("flux", TRANSFORMER, {"in_channels": 128}, "another task"),
        ("flux", TRANSFORMER, {"quantization_config": {"load_in_4bit": True}}, "quantised"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    models: dict[str, Path],
    tmp_path: Path,
    family: str,
    file: str,
    options: dict[str, Any],
    said: str,
) -> None:
    model = changed(models[family], tmp_path / "model", file, **options)
    for read in (check_model, load_backbone):
        with pytest.raises(TastemakerError, match=said):
            read(str(model))


@pytest.mark.parametrize("content", ["[1]", "null", "5", "{}", "{"])
def test_an_index_of_another_shape_is_refused(
    models: dict[str, Path], tmp_path: Path, content: str
) -> None:
    shutil.copytree(models["sd1"], tmp_path / "model")
    (tmp_path / "model" / "model_index.json").write_text(content)
    with pytest.raises(TastemakerError):
        check_model(str(tmp_path / "model"))


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_models_are_accepted(models: dict[str, Path], family: str) -> None:
    assert check_model(str(models[family]), [(SIZE, SIZE)]).device.type == "meta"


def test_a_model_is_looked_at_again_once_a_file_changed(
    models: dict[str, Path], tmp_path: Path
) -> None:
    model = changed(models["sd1"], tmp_path / "model", UNET)
    first = check_model(str(model))
    assert check_model(str(model)) is first
    other = check_model(str(model), scheduler="DDPMScheduler")
    found = [type(each.pipeline.scheduler).__name__ for each in (first, other)]
    assert found == ["DDIMScheduler", "DDPMScheduler"]
    changed(model, tmp_path / "other", UNET, sample_size=8)
    shutil.copy(tmp_path / "other" / UNET, model / UNET)
    assert check_model(str(model)).latent_shape(None, None) == (4, 8, 8)
    (model / UNET).unlink()
    with pytest.raises(TastemakerError, match="download"):
        check_model(str(model))


def test_missing_files_are_named(models: dict[str, Path], tmp_path: Path) -> None:
    for file in ("unet/config.json", "vae/diffusion_pytorch_model.safetensors"):
        model = tmp_path / file.replace("/", "-")
        shutil.copytree(models["sd1"], model)
        (model / file).unlink()
        with pytest.raises(TastemakerError, match="download"):
            check_model(str(model))


def test_a_safety_checker_that_was_deleted_is_not_missed(
    models: dict[str, Path], tmp_path: Path
) -> None:
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    file = "model_index.json"
    model = changed(models["sd1"], tmp_path / "model", file, safety_checker=checker)
    check_model(str(model))
    load_backbone(str(model), device="cpu")


def test_torn_weights_are_one_line(models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["sd1"], tmp_path / "model")
    (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(TastemakerError, match="could not be loaded") as caught:
        load_backbone(str(tmp_path / "model"), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_variant_alone_is_found_and_shards_are_counted(
    models: dict[str, Path], tmp_path: Path
) -> None:
    whole = load_backbone(str(models["sd1"]), device="cpu")
    model = tmp_path / "model"
    shutil.copytree(models["sd1"], model)
    for file in list(model.rglob("*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    again = load_backbone(str(model), device="cpu")
    weights = zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    UNet2DConditionModel.from_pretrained(models["sd1"] / "unet").save_pretrained(
        model / "unet", max_shard_size="40KB"
    )
    (model / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    load_backbone(str(model), device="cpu")
    next(model.glob("unet/*-00001-of-*.safetensors")).unlink()
    with pytest.raises(TastemakerError, match="not whole"):
        load_backbone(str(model), device="cpu")


@pytest.mark.parametrize("name", ["models/m.safetensors", "m.ckpt"])
def test_a_single_file_is_called_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TastemakerError, match="no such file"):
        load_backbone(name)
    (tmp_path / "models").mkdir()
    Path(name).write_bytes(b"weights")
    with pytest.raises(TastemakerError, match="from_single_file"):
        load_backbone(name)


def test_a_hub_id_without_network_is_one_sentence() -> None:
    with pytest.raises(TastemakerError, match="hub cannot be reached") as caught:
        check_model("acme/none")
    assert "\n" not in str(caught.value)


def test_a_lora_on_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    for content, said in (({"base": str(tmp_path)}, "lies on itself"), ([1], "names no base")):
        (tmp_path / "model.json").write_text(json.dumps(content))
        for read in (load_backbone, check_model, model_identity):
            with pytest.raises(TastemakerError, match=said):
                read(str(tmp_path))


def test_a_tokenizer_without_limit_takes_the_encoder_s(
    models: dict[str, Path], tmp_path: Path
) -> None:
    long = "many words " * 40
    for family in ("sd1", "flux"):
        file = "tokenizer/tokenizer_config.json"
        model = changed(models[family], tmp_path / family, file, model_max_length="DELETED")
        one, other = (load_backbone(str(each), device="cpu") for each in (models[family], model))
        for name, value in one.encode_prompts([long]).items():
            assert torch.equal(value, other.encode_prompts([long])[name])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_size_may_be_a_pair(models: dict[str, Path], tmp_path: Path, family: str) -> None:
    pair = changed(models[family], tmp_path / "pair", UNET, sample_size=[8, 16])
    backbone = load_backbone(str(pair), device="cpu")
    assert backbone.latent_shape(None, None) == (4, 8, 16)
    assert backbone.sample(drawing(backbone)).shape == (2, 4, 8, 16)
    none = changed(models[family], tmp_path / "none", UNET, sample_size=None)
    with pytest.raises(TastemakerError, match="give height and width"):
        load_backbone(str(none), device="cpu").latent_shape(None, None)


@pytest.mark.parametrize(
    ("family", "guidance"),
    [("sd1", 7.5), ("sd2", 7.5), ("sdxl", 5.0), ("sd3", 7.0), ("flux", 3.5)],
)
def test_guidance_is_the_family_s_unless_given(
    models: dict[str, Path], family: str, guidance: float
) -> None:
    backbone = check_model(str(models[family]))
    assert backbone.guidance_scale(None) == guidance
    assert backbone.guidance_scale(0.0) == 0


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("sd1", {"height": SIZE + 1}, "multiples of 2"),
        ("flux", {"height": SIZE + 2}, "multiples of 4"),
        ("sd3", {"height": 1024}, "at most"),
        ("sd1", {"scheduler": "LCMScheduler", "num_inference_steps": 60}, "too many"),
        ("sd1", {"scheduler": "DIMScheduler"}, "DDIMScheduler"),
        ("flux", {"scheduler": "FlowMatchHeunDiscreteScheduler"}, "leave scheduler out"),
        ("flux", {"negative_prompt": "blurry"}, "no negative prompt"),
    ],
)
def test_what_a_model_cannot_draw_is_said_without_weights(
    models: dict[str, Path], family: str, options: dict[str, Any], said: str
) -> None:
    config = SamplingConfig(**{"device": "cpu", **SIDES, **options})
    with pytest.raises(TastemakerError, match=said):
        check_sampling(config, str(models[family]))


def test_a_sampler_whose_package_is_missing_is_said(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.utils import dummy_torch_and_torchsde_objects as dummies

    monkeypatch.setattr(diffusers, "DPMSolverSDEScheduler", dummies.DPMSolverSDEScheduler)
    with pytest.raises(TastemakerError, match="torchsde|cannot be built"):
        check_model(str(models["sd1"]), scheduler="DPMSolverSDEScheduler")


def test_more_steps_than_timesteps_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    model = changed(models["sd1"], tmp_path / "model", SCHEDULER, num_train_timesteps=20)
    with pytest.raises(TastemakerError, match="20 timesteps"):
        check_sampling(SamplingConfig(device="cpu", num_inference_steps=21), str(model))


def test_students_are_warned_of(models: dict[str, Path], tmp_path: Path) -> None:
    assert not any(student_warning(str(models[name])) for name in FAMILIES)
    schnell = changed(models["flux"], tmp_path / "a", TRANSFORMER, guidance_embeds=False)
    turbo = changed(models["sd1"], tmp_path / "b", "model_index.json", _name_or_path="x/sd-turbo")
    assert "guidance_embeds" in str(student_warning(str(schnell)))
    assert "turbo" in str(student_warning(str(turbo)))


def test_latents_of_another_autoencoder_are_not_taken(models: dict[str, Path]) -> None:
    backbone = load_backbone(str(models["sd1"]), device="cpu")
    file = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), "red").save(file, "png")
    latents = torch.full((4, SIZE // 2, SIZE // 2), 3.0)
    row = {
        "candidate_id": "a",
        "image": {"bytes": file.getvalue()},
        "latents": latents.numpy().tobytes(),
        "latents_shape": list(latents.shape),
    }
    own, std = encode_row(backbone, {**row, "model": str(models["sd2"])})
    assert torch.equal(own, latents)
    assert not std.any()
    encoded, std = encode_row(backbone, {**row, "model": str(models["sdxl"])})
    assert not torch.equal(encoded, latents)
    assert std.all()


def test_images_of_other_sizes_are_not_trained_on(models: dict[str, Path]) -> None:
    backbone = load_backbone(str(models["flux"]), device="cpu")
    file = io.BytesIO()
    Image.new("RGB", (SIZE + 2, SIZE)).save(file, "png")
    with pytest.raises(TastemakerError, match="multiples of 4"):
        encode_row(backbone, {"candidate_id": "a", "image": {"bytes": file.getvalue()}})
