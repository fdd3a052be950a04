"""Sampling of pools: plans, prompts in batches, and memory that does not grow with prompts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import clip_tokenizer
from stable_diffusion import stable_diffusion, unet
from tastemaker.backbones import load_backbone
from tastemaker.core.errors import TastemakerError
from tastemaker.sampling.plans import MOST_IMAGES, RealImage, plan, plan_items, plan_reconstructions

MORE = [f"a cat {number}" for number in range(40)]
"""More prompts than text encoders take together."""


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 7))
def test_shards_are_the_plan_cut_into_parts(prompts: int, draws: int, size: int) -> None:
    planned = plan([f"prompt {i}" for i in range(prompts)], draws, seed=3)
    whole = planned.shard(0, len(planned))
    assert [item.prompt for item in whole] == [f"prompt {i // draws}" for i in range(len(whole))]
    assert len({item.seed for item in whole}) == len(planned) == prompts * draws
    parts = [planned.shard(index, size) for index in range(planned.shards(size))]
    assert [item for part in parts for item in part] == whole
    assert all(parts)


def test_real_images_are_planned_in_their_order() -> None:
    real = [RealImage("x", "a man", (8, 16)), RealImage("y", "a man", (16, 8))]
    items = plan_items(real, 2, seed=0).shard(0, 4)
    assert [item.source_id for item in items] == ["x", "x", "y", "y"]
    assert [item.size for item in items] == [(8, 16), (8, 16), (16, 8), (16, 8)]
    assert len({item.seed for item in items}) == 4
    again = plan_reconstructions(real, (500, 700), seed=0).shard(0, 4)
    assert [item.source_id for item in again] == ["x", "y", "x", "y"]
    assert [item.timestep for item in again] == [500, 500, 700, 700]


def test_too_many_images_are_refused() -> None:
    with pytest.raises(TastemakerError, match="ask for fewer per prompt"):
        plan(["a cat"], MOST_IMAGES + 1, seed=0)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_prompts_together_have_the_embeddings_of_each_alone(
    family: str, models: dict[str, Path]
) -> None:
    backbone = load_backbone(str(models[family]), device="cpu")
    together = backbone.encode_prompts(MORE)
    alone = [backbone.encode_prompts([prompt]) for prompt in MORE]
    for name, values in together.items():
        assert torch.allclose(values, torch.cat([each[name] for each in alone]), atol=1e-6)
    assert not torch.equal(values[0], values[1])


GENERATE = """
import re, sys
from pathlib import Path
from tastemaker.config.sections import GenerateConfig
from tastemaker.sampling.generate import generate

model, prompts, size = sys.argv[1:]
options = dict(num_inference_steps=1, guidance_scale=1, num_candidates=1, device="cpu")
options |= dict(batch_size=16, shard_size=int(size), keep_latents=False)
generate(GenerateConfig(model=model, prompts=prompts, **options), Path(f"{prompts}-{size}"))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's peak memory")
def test_memory_does_not_grow_with_prompts(tmp_path: Path) -> None:
    """An embedding has 512 KB: 320 take 150 MB more than a shard's 16."""
    tokenizer, options = clip_tokenizer(tmp_path)
    tokenizer.model_max_length = 128
    wide = {"hidden_size": 1024, "max_position_embeddings": 128, "num_hidden_layers": 1}
    pipeline = stable_diffusion(tokenizer, {**options, **wide})
    pipeline.unet = unet(cross_attention_dim=1024)
    pipeline.save_pretrained(tmp_path / "model")

    def peak(number: int, shard_size: int) -> int:
        prompts = tmp_path / f"{number}.txt"
        prompts.write_text("".join(f"a cat {i}\n" for i in range(number)), encoding="utf-8")
        words = [GENERATE, str(tmp_path / "model"), str(prompts), str(shard_size)]
        done = subprocess.run([sys.executable, "-c", *words], check=True, capture_output=True)
        return int(done.stdout.split()[-1])

    few = peak(64, 16)
    assert peak(320, 16) < 1.06 * few
    assert peak(320, 320) > 1.1 * few, "the measurement shows what grows"
