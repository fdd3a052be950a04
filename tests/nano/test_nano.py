"""The embedded model: its grammar's splits, its size and licences, and that it draws and scores."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.config.choices import Choice, ScorerChoice
from tastemaker.core.registry import SCORERS
from tastemaker.datasets.prompts.sources import load_prompts
from tastemaker.nano import JUDGE, MODEL, PREFERENCE, WEIGHTS
from tastemaker.nano.captions import (
    CONCEPTS,
    SPLITS,
    caption,
    prompts,
    sample_scene,
    split_of,
    vocabulary,
)

MEBIBYTE = 1024 * 1024


@given(st.integers(0, 10**9), st.sampled_from(list(SPLITS)))
def test_scenes_belong_to_their_split_and_the_vocabulary(seed: int, split: str) -> None:
    scene = sample_scene(Random(seed), split)
    assert split_of(scene) == split
    words = caption(scene).replace(",", " ,").split()
    assert set(words) <= set(vocabulary())


def test_splits_share_no_prompt() -> None:
    sets = [set(prompts(split, 400)) for split in SPLITS]
    assert all(len(each) == 400 for each in sets)
    assert not any(one & other for one, other in combinations(sets, 2))


def test_there_are_enough_concepts() -> None:
    assert 40 <= len(CONCEPTS) <= 120
    assert len(set(CONCEPTS)) == len(CONCEPTS)


def test_named_sets_are_splits() -> None:
    assert load_prompts(Choice(name="nano_test", number=9)) == prompts("test", 9)
    assert load_prompts(Choice(name="nano_train", number=9, seed=4)) == prompts("train", 9, 4)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_largest_set_can_be_had(split: str) -> None:
    assert len(load_prompts(Choice(name=f"nano_{split}", number=4000))) == 4000


def test_weights_are_small_half_precision_and_documented() -> None:
    import torch
    from safetensors.torch import load_file

    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20 * MEBIBYTE
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]
    for path in WEIGHTS.rglob("*.safetensors"):
        kinds = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
        assert kinds == {torch.float16}, path
    for path in WEIGHTS.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(encoding="utf-8"), path
    card = (WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("CC-BY-4.0", "Apache", "PSNR", "make nano", "recognised", "samples.png"):
        assert word in card, word


def test_model_is_a_plain_pipeline() -> None:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    pipeline = StableDiffusionPipeline.from_pretrained(MODEL)
    assert isinstance(pipeline.unet, UNet2DConditionModel)
    assert isinstance(pipeline.vae, AutoencoderKL)
    assert isinstance(pipeline.text_encoder, CLIPTextModel)
    schedule = pipeline.scheduler.config
    assert (schedule.beta_start, schedule.beta_end) == (0.00085, 0.012)
    assert (schedule.beta_schedule, schedule.num_train_timesteps) == ("scaled_linear", 1000)
    assert schedule.prediction_type == "v_prediction"
    words = pipeline.tokenizer("a dog left of a tree")["input_ids"]
    assert len(words) == 6 + 2


@pytest.mark.parametrize("folder", [PREFERENCE, JUDGE], ids=["preference", "judge"])
def test_scorers_are_plain_clip_models(folder: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder)
    assert model.config.vision_config.image_size == 64
    assert len(AutoTokenizer.from_pretrained(folder)("two apples on")["input_ids"]) == 5


def test_scorers_prefer_the_prompt_that_was_drawn(tmp_path: Path) -> None:
    """Each picture outscores itself under the prompt of another, for both scorers, mostly."""
    from tastemaker.config.sections import SamplingConfig
    from tastemaker.sampling.plans import plan
    from tastemaker.sampling.sampler import sample_pool
    from tastemaker.scorers.base import Scorer
    from tastemaker.storage.images import decode
    from tastemaker.storage.pool import Pool

    texts = prompts("test", 12)
    config = SamplingConfig(num_inference_steps=10, guidance_scale=2.5, device="cpu")
    sample_pool(config, "nano", plan(texts, 1, 0), tmp_path, keep_latents=False, shard_size=12)
    rows = Pool(tmp_path).candidates().to_pylist()
    images = [decode(row["image"]["bytes"], row["candidate_id"]) for row in rows]
    for name in ("nano_preference", "nano_judge"):
        choice = ScorerChoice(name=name)
        scorer: Scorer = SCORERS.bind(choice.name, choice.options)()
        matched = scorer(images, texts)
        mismatched = scorer(images, texts[1:] + texts[:1])
        assert (matched > mismatched).float().mean() >= 0.75
