"""What a run or a training is warned of: distilled models, unlike sizes, shared prompts."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from tastemaker.config.loading import load
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.recipes.warnings import model_warnings, prompts_warning
from tastemaker.training.personalization.personalize import personalize
from tastemaker.training.preference.trainer import PreferenceTrainer

PAIR = {
    "prompt": "a cat",
    "chosen": Image.new("RGB", (64, 64), "red"),
    "rejected": Image.new("RGB", (64, 64), "blue"),
}


@pytest.fixture
def turbo(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "tiny-turbo"))


def test_a_sound_run_is_not_warned_of(run_file: Path) -> None:
    config = load(str(run_file))
    assert list(model_warnings(config)) == []
    assert prompts_warning(config) is None


def test_a_run_on_a_distilled_base(run_file: Path, turbo: Path) -> None:
    (warning,) = model_warnings(load(str(run_file), (f"model={turbo}",)))
    assert "distilled to a few steps (turbo)" in warning


def test_a_lora_that_distils_counts_as_well(run_file: Path, tiny_model: Path) -> None:
    adapter = run_file.parent / "lcm-lora"
    adapter.mkdir()
    (adapter / "pytorch_lora_weights.safetensors").touch()
    (adapter / "model.json").write_text(json.dumps({"base": str(tiny_model)}))
    (warning,) = model_warnings(load(str(run_file), (f"train.model={adapter}",)))
    assert "distilled to a few steps (lcm)" in warning


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (("generate.height=64",), ("64 x 32", "32 x 32")),
        (("evaluate.height=64", "evaluate.width=64"), ("32 x 32", "64 x 64")),
        (("generate.height=64", "evaluate.width=64"), None),  # of equal areas
    ],
)
def test_a_run_that_draws_other_sizes_than_it_trains_on(
    run_file: Path, options: tuple[str, ...], sizes: tuple[str, str] | None
) -> None:
    warnings = list(model_warnings(load(str(run_file), options)))
    if sizes is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert warning.startswith(
            f"generate: training images of {sizes[0]} pixels, while evaluate draws {sizes[1]}:"
        )


def test_shared_prompts_are_named(run_file: Path) -> None:
    (run_file.parent / "held_out.txt").write_text("a moon\nA  cat.\nthe sun\n", encoding="utf-8")
    warning = prompts_warning(load(str(run_file)))
    assert str(warning).startswith("2 of 3 prompts")
    assert "('A  cat.', 'the sun')" in str(warning)


def test_a_loaded_pipeline_and_images_of_another_size(
    turbo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(turbo)
    options = {"max_steps": 1, "batch_size": 1, "report_to": None, "device": "cpu"}
    PreferenceTrainer(pipeline, [PAIR], output=tmp_path / "out", **options)
    said = capsys.readouterr().out
    assert "distilled to a few steps (turbo)" in said
    assert f"training images of 64 x 64 pixels, while {turbo} by default draws 32 x 32" in said


@pytest.mark.parametrize(("resolution", "warned"), [(64, True), (None, False)])
def test_photographs_of_another_size(
    resolution: int | None,
    warned: bool,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for color in ("red", "blue"):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{color}.png")
    given = {"photographs": str(tmp_path), "class_name": "toy", "resolution": resolution}
    config = PersonalizeConfig(model=str(tiny_model), device="cpu", max_steps=1, **given)
    personalize(config, tmp_path / "out")
    assert ("training images of 64 x 64 pixels" in capsys.readouterr().out) == warned
