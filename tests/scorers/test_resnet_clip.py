"""A ResNet CLIP: the published layers one by one, pooling by hand, and pictures of any size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from pictures import noise
from published import Weights, drawn, hps_shapes
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.scorers.resnet_clip import _AttentionPool, _tower

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WIDTH, DEPTHS, OUTPUT = 4, (2, 1, 2, 1), 24
IMAGES = [noise(0, 40, 70), noise(1, 64, 33), Image.new("RGB", (32, 32), "red")]


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts}


def resnet_shapes() -> dict[str, tuple[int, ...]]:
    """The keys of RN50.pt, a few numbers wide."""
    half = WIDTH // 2
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (out, into) in enumerate(((half, 3), (half, half), (WIDTH, half)), 1):
        shapes |= {f"conv{number}.weight": (out, into, 3, 3)} | norm_shapes(f"bn{number}", out)
    inputs = WIDTH
    for group, depth in enumerate(DEPTHS):
        inner = WIDTH * 2**group
        for block in range(depth):
            name = f"layer{group + 1}.{block}."
            sizes = ((inner, inputs, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1))
            for number, size in enumerate(sizes, 1):
                shapes[f"{name}conv{number}.weight"] = size
                shapes |= norm_shapes(f"{name}bn{number}", size[0])
            if block == 0:
                shapes[f"{name}downsample.0.weight"] = (4 * inner, inputs, 1, 1)
                shapes |= norm_shapes(f"{name}downsample.1", 4 * inner)
            inputs = 4 * inner
    for part, out in (("q", inputs), ("k", inputs), ("v", inputs), ("c", OUTPUT)):
        shapes |= {f"attnpool.{part}_proj.weight": (out, inputs)}
        shapes |= {f"attnpool.{part}_proj.bias": (out,)}
    shapes["attnpool.positional_embedding"] = (50, inputs)
    return {f"visual.{key}": shape for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def weights(tiny_clip: Path) -> Weights:
    from transformers import AutoTokenizer

    text = hps_shapes(len(AutoTokenizer.from_pretrained(tiny_clip)), embedding=OUTPUT)
    found = {key: shape for key, shape in text.items() if not key.startswith("visual.")}
    made = drawn(found | resnet_shapes(), seed=5)
    for key in made:
        if key.endswith("running_var") or (".bn" in key and key.endswith("weight")):
            made[key] = 0.5 + made[key].abs()
    return made | {"logit_scale": torch.tensor(math.log(100.0))}


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet") / "open_clip_model.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path


def convolved(x: Tensor, weights: Weights, name: str, norm: str, stride: int = 1) -> Tensor:
    kernel = weights[f"visual.{name}.weight"]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    parts = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(weights[f"visual.{norm}.{part}"] for part in parts))


def embedding(x: Tensor, weights: Weights) -> Tensor:
    """The published network, with torch's own fused attention and no positional embedding."""
    x = convolved(x, weights, "conv1", "bn1", 2).relu()
    x = convolved(x, weights, "conv2", "bn2").relu()
    x = F.avg_pool2d(convolved(x, weights, "conv3", "bn3").relu(), 2)
    for group, depth in enumerate(DEPTHS, 1):
        for block in range(depth):
            stride = 2 if group > 1 and block == 0 else 1
            name = f"layer{group}.{block}."
            y = convolved(x, weights, f"{name}conv1", f"{name}bn1").relu()
            y = convolved(y, weights, f"{name}conv2", f"{name}bn2").relu()
            y = convolved(F.avg_pool2d(y, stride), weights, f"{name}conv3", f"{name}bn3")
            if block == 0:
                shrunk, down = F.avg_pool2d(x, stride), f"{name}downsample."
                x = convolved(shrunk, weights, f"{down}0", f"{down}1")
            x = (x + y).relu()
    places = x.flatten(2).permute(2, 0, 1)
    places = torch.cat([places.mean(0, keepdim=True), places])
    pool = {
        key.removeprefix("visual.attnpool."): value
        for key, value in weights.items()
        if ".attnpool." in key
    }
    width = places.shape[-1]
    pooled, _ = F.multi_head_attention_forward(
        places[:1], places, places, width, width // 64, None,
        torch.cat([pool[f"{part}_proj.bias"] for part in "qkv"]), None, None, False, 0.0,
        pool["c_proj.weight"], pool["c_proj.bias"], training=False, need_weights=False,
        use_separate_proj_weight=True, q_proj_weight=pool["q_proj.weight"],
        k_proj_weight=pool["k_proj.weight"], v_proj_weight=pool["v_proj.weight"],
    )  # fmt: skip
    return pooled[0]


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (100, 65)])
def test_the_tower_is_the_published_one(weights: Weights, size: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = _tower(weights).eval()(pixels)
    torch.testing.assert_close(found, embedding(pixels, weights), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_pooling_of_equal_places_is_the_place(size: tuple[int, int]) -> None:
    pool = _AttentionPool(2, 1)
    with torch.no_grad():
        for part in (pool.q_proj, pool.k_proj, pool.v_proj):
            part.weight.copy_(torch.eye(2))
            part.bias.zero_()
        pool.c_proj.weight.copy_(torch.tensor([[1.0, 10.0]]))
        pool.c_proj.bias.fill_(0.5)
        place = torch.tensor([2.0, 3.0])[None, :, None, None].expand(1, 2, *size)
        assert pool(place).tolist() == [[pytest.approx(2 + 30 + 0.5)]]


def test_the_mean_asks_itself_and_all_places() -> None:
    """One head of width 1: softmax(m m, m a, m b) over m = 2, a = 1 and b = 3."""
    pool = _AttentionPool(1, 1)
    with torch.no_grad():
        for part in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            part.weight.fill_(1)
            part.bias.zero_()
        found = pool(torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)).item()
    shares = [math.exp(2 * value) for value in (2, 1, 3)]
    assert found == pytest.approx((2 * shares[0] + shares[1] + 3 * shares[2]) / sum(shares))


def test_clip_iqa_is_the_softmax_of_its_cosines(
    weights: Weights, file: Path, tiny_clip: Path
) -> None:
    scorer = SCORERS.bind("clip_iqa", {"model": str(file), "tokenizer": str(tiny_clip)})()
    texts = scorer.encoder.text_features(["Good photo.", "Bad photo."])
    expected = []
    for image in IMAGES:
        pixels = torch.tensor(np.asarray(image.convert("RGB"))) / 255
        x = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None]
        good, bad = (100 * F.cosine_similarity(embedding(x, weights), text) for text in texts)
        expected.append(torch.sigmoid(good - bad).item())
    scores = scorer(IMAGES, [""] * len(IMAGES))
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 3) for score in scores.tolist()}) == len(IMAGES)


def test_gradients_reach_the_pixels(file: Path, tiny_clip: Path) -> None:
    scorer = SCORERS.bind("clip_iqa", {"model": str(file), "tokenizer": str(tiny_clip)})()
    pixels = torch.rand(1, 3, 40, 40, requires_grad=True)
    scorer.score_pixels(pixels, [""]).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_small_pictures_and_other_weights_are_refused(
    weights: Weights, file: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    options = {"model": str(file), "tokenizer": str(tiny_clip)}
    with pytest.raises(TastemakerError, match="31 x 40 pixels is too small"):
        SCORERS.bind("clip_iqa", options)()([Image.new("RGB", (31, 40))], [""])
    for name in ("visual.attnpool.q_proj.bias", "visual.conv3.weight", "text_projection"):
        other = tmp_path / "other.safetensors"
        save_file({key: value for key, value in weights.items() if key != name}, other)
        with pytest.raises(TastemakerError, match=r"weights of .*other.safetensors' are not"):
            SCORERS.bind("clip_iqa", {**options, "model": str(other)})()
