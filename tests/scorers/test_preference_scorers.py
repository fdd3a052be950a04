"""PickScore, HPSv2 and ImageReward: published key names, and the numbers of their own maths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pictures import noise
from published import (
    Weights,
    drawn,
    hps_shapes,
    hps_weights,
    reward_shapes,
    write_bert,
    write_hps,
    write_reward,
)
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.scorers import blip, open_clip
from tastemaker.scorers.blip import RewardNetwork
from tastemaker.scorers.open_clip import clip_model

CPU = torch.device("cpu")
PROMPTS = ["a dog", "two red cats on a roof", ""]


IMAGES = [noise(0, 40, 50), noise(1, 70, 33), Image.new("RGB", (32, 32), "red")]


def normed(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def open_clip_tower(x: Tensor, weights: Weights, prefix: str, heads: int, mask: Any) -> Tensor:
    """open_clip's residual attention blocks, with torch's own fused attention module."""
    for number in range(2):
        name = f"{prefix}transformer.resblocks.{number}."
        attention = nn.MultiheadAttention(x.shape[-1], heads, batch_first=True).eval()
        attention.load_state_dict(
            {
                key: weights[f"{name}attn.{key}"]
                for key in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
            }
        )
        y = normed(x, weights, f"{name}ln_1", 1e-5)
        x = x + attention(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = F.gelu(linear(normed(x, weights, f"{name}ln_2", 1e-5), weights, f"{name}mlp.c_fc"))
        x = x + linear(y, weights, f"{name}mlp.c_proj")
    return x


@torch.no_grad()
def open_clip_cosine(pixels: Tensor, tokens: Tensor, weights: Weights) -> Tensor:
    x = F.conv2d(pixels, weights["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    first = weights["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + weights["visual.positional_embedding"]
    x = open_clip_tower(normed(x, weights, "visual.ln_pre", 1e-5), weights, "visual.", 2, None)
    image = normed(x[:, 0], weights, "visual.ln_post", 1e-5) @ weights["visual.proj"]
    y = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    causal = torch.full((16, 16), float("-inf")).triu(1)
    y = normed(open_clip_tower(y, weights, "", 2, causal), weights, "ln_final", 1e-5)
    text = y[torch.arange(len(y)), tokens.argmax(-1)] @ weights["text_projection"]
    return (F.normalize(image, dim=-1) * F.normalize(text, dim=-1)).sum(-1)


def longest_and_pad(image: Image.Image, side: int) -> Tensor:
    """The package's preprocessing, resized by Pillow on numbers that are not rounded."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = np.zeros((3, side, side), dtype=np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    for channel, values in enumerate(np.asarray(image.convert("RGB"), dtype=np.float32).T / 255):
        grey = Image.fromarray(np.ascontiguousarray(values.T))
        resized = grey.resize((width, height), Image.Resampling.BICUBIC)
        canvas[channel, top : top + height, left : left + width] = np.asarray(resized)
    return standardised(torch.from_numpy(canvas))


def standardised(pixels: Tensor) -> Tensor:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return (pixels - mean) / std


def heads_of(x: Tensor, width: int = 64) -> Tensor:
    return x.unflatten(-1, (-1, width)).transpose(-3, -2)


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = heads_of(query) @ heads_of(key).transpose(-2, -1) / 8
    if mask is not None:
        scores = scores.masked_fill(mask[:, None, None] == 0, float("-inf"))
    return (scores.softmax(-1) @ heads_of(value)).transpose(-3, -2).flatten(-2)


@torch.no_grad()
def image_reward(pixels: Tensor, ids: Tensor, mask: Tensor, weights: Weights) -> Tensor:
    """ImageReward as its paper and its published names have it, one operation after the other."""
    name = "blip.visual_encoder."
    x = F.conv2d(
        pixels,
        weights[f"{name}patch_embed.proj.weight"],
        weights[f"{name}patch_embed.proj.bias"],
        16,
    )
    x = torch.cat([weights[f"{name}cls_token"].expand(len(x), 1, -1), x.flatten(2).mT], 1)
    x = x + weights[f"{name}pos_embed"]
    for number in range(2):
        part = f"{name}blocks.{number}."
        y = linear(normed(x, weights, f"{part}norm1", 1e-6), weights, f"{part}attn.qkv")
        x = x + linear(attended(*y.chunk(3, -1)), weights, f"{part}attn.proj")
        y = F.gelu(linear(normed(x, weights, f"{part}norm2", 1e-6), weights, f"{part}mlp.fc1"))
        x = x + linear(y, weights, f"{part}mlp.fc2")
    x = normed(x, weights, f"{name}norm", 1e-6)

    name = "blip.text_encoder."
    z = weights[f"{name}embeddings.word_embeddings.weight"][ids]
    z = z + weights[f"{name}embeddings.position_embeddings.weight"][: ids.shape[1]]
    z = normed(z, weights, f"{name}embeddings.LayerNorm", 1e-12)
    for number in range(2):
        for kind, seen, hidden in (("attention", None, mask), ("crossattention", x, None)):
            part = f"{name}encoder.layer.{number}.{kind}."
            there = z if seen is None else seen
            out = attended(
                linear(z, weights, f"{part}self.query"),
                linear(there, weights, f"{part}self.key"),
                linear(there, weights, f"{part}self.value"),
                hidden,
            )
            out = linear(out, weights, f"{part}output.dense")
            z = normed(out + z, weights, f"{part}output.LayerNorm", 1e-12)
        part = f"{name}encoder.layer.{number}."
        out = F.gelu(linear(z, weights, f"{part}intermediate.dense"))
        out = linear(out, weights, f"{part}output.dense")
        z = normed(out + z, weights, f"{part}output.LayerNorm", 1e-12)
    reward = z[:, 0]
    for number in (0, 2, 4, 6, 7):
        reward = linear(reward, weights, f"mlp.layers.{number}")
    return (reward.squeeze(-1) - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def hps(tiny_clip: Path) -> Weights:
    from transformers import AutoTokenizer

    return hps_weights(len(AutoTokenizer.from_pretrained(tiny_clip)))


@pytest.fixture(scope="module")
def hps_file(hps: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hps(hps, tmp_path_factory.mktemp("hps") / "HPS_v2_compressed.pt")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write_bert(folder)
    return folder


@pytest.fixture(scope="module")
def reward(bert: Path) -> Weights:
    from transformers import AutoTokenizer

    return drawn(reward_shapes(len(AutoTokenizer.from_pretrained(bert))), seed=4)


@pytest.fixture(scope="module")
def reward_file(reward: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward(reward, tmp_path_factory.mktemp("reward") / "ImageReward.pt")


class TestPickScore:
    def test_it_is_what_transformers_computes(self, tiny_clip: Path) -> None:
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        model = CLIPModel.from_pretrained(tiny_clip, dtype=torch.float32).eval()
        tokens = AutoTokenizer.from_pretrained(tiny_clip)(
            PROMPTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
        )
        pixels = CLIPImageProcessorPil.from_pretrained(tiny_clip)(
            images=IMAGES, return_tensors="pt"
        )
        with torch.no_grad():
            expected = model(**tokens, **pixels).logits_per_image.diagonal()
        scorer = SCORERS.bind("pickscore", {"model": str(tiny_clip)})()
        torch.testing.assert_close(scorer(IMAGES, PROMPTS), expected, atol=1e-5, rtol=0)

    def test_its_weights_are_named_by_default(self) -> None:
        assert SCORERS.validate("pickscore", {})["model"] == "yuvalkirstain/PickScore_v1"
        with pytest.raises(TastemakerError, match="'yuvalkirstain/PickScore_v1' is neither"):
            SCORERS.bind("pickscore", {})()


class TestHps:
    @pytest.mark.parametrize("name", ["hps_v2", "hps_v2_1"])
    def test_a_checkpoint_gives_open_clips_cosine(
        self, name: str, hps: Weights, hps_file: Path, tiny_clip: Path
    ) -> None:
        from transformers import AutoTokenizer

        tokens = AutoTokenizer.from_pretrained(tiny_clip)(
            PROMPTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
        )["input_ids"]
        pixels = torch.stack([longest_and_pad(image, 32) for image in IMAGES])
        expected = open_clip_cosine(pixels, tokens, hps)
        options = {"model": str(hps_file), "tokenizer": str(tiny_clip)}
        scores = SCORERS.bind(name, {**options, "scale": 1})()(IMAGES, PROMPTS)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
        assert scores.std() > 0.01
        hundred = SCORERS.bind(name, options)()(IMAGES, PROMPTS)
        torch.testing.assert_close(hundred, 100 * expected, atol=1e-3, rtol=0)

    def test_every_key_has_its_place(self, hps: Weights) -> None:
        network = clip_model({**hps, "attn_mask": torch.zeros(16, 16)}, "here")
        assert network.vision_model.config.num_attention_heads == 2
        assert network.text_model.config.num_attention_heads == 2
        assert network.config.vision_config.image_size == 32
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
        torch.testing.assert_close(network.visual_projection.weight, hps["visual.proj"].T)

    def test_a_folder_of_the_same_weights_gives_the_same(
        self, hps: Weights, hps_file: Path, tiny_clip: Path, tmp_path: Path
    ) -> None:
        from transformers import AutoTokenizer

        clip_model(hps, "here").save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(tiny_clip).save_pretrained(tmp_path)
        folder = SCORERS.bind("hps_v2", {"model": str(tmp_path)})()
        file = SCORERS.bind("hps_v2", {"model": str(hps_file), "tokenizer": str(tiny_clip)})()
        assert torch.equal(folder(IMAGES, PROMPTS), file(IMAGES, PROMPTS))

    def test_pixels_have_the_pictures_scores_exactly(self, hps_file: Path, tiny_clip: Path) -> None:
        scorer = SCORERS.bind("hps_v2", {"model": str(hps_file), "tokenizer": str(tiny_clip)})()
        pixels = torch.tensor(np.array(IMAGES[0])).permute(2, 0, 1)[None] / 255
        scores = scorer.score_pixels(pixels, PROMPTS[:1])
        torch.testing.assert_close(scores, scorer(IMAGES[:1], PROMPTS[:1]))


class TestImageReward:
    def test_a_checkpoint_gives_the_papers_maths(
        self, reward: Weights, reward_file: Path, bert: Path
    ) -> None:
        from transformers import AutoTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        processor = CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
        pixels = processor(images=IMAGES, return_tensors="pt")["pixel_values"]
        tokens = AutoTokenizer.from_pretrained(bert)(
            PROMPTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        expected = image_reward(pixels, tokens["input_ids"], tokens["attention_mask"], reward)
        options = {"model": str(reward_file), "tokenizer": str(bert)}
        scores = SCORERS.bind("image_reward", options)()(IMAGES, PROMPTS)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
        assert scores.std() > 0.01

    def test_picture_and_prompt_both_enter(self, reward_file: Path, bert: Path) -> None:
        scorer = SCORERS.bind("image_reward", {"model": str(reward_file), "tokenizer": str(bert)})()
        one, prompt, picture = scorer(
            [IMAGES[0], IMAGES[0], IMAGES[1]], ["a dog", "a cat", "a dog"]
        ).tolist()
        assert abs(one - prompt) > 1e-3
        assert abs(one - picture) > 1e-3

    def test_a_long_prompt_is_cut(self, reward_file: Path, bert: Path) -> None:
        scorer = SCORERS.bind("image_reward", {"model": str(reward_file), "tokenizer": str(bert)})()
        one, two = scorer([IMAGES[0]] * 2, ["dog " * 50, "dog " * 60]).tolist()
        assert one == pytest.approx(two, abs=1e-4)

    def test_the_head_stays_in_float32(self, reward_file: Path, bert: Path) -> None:
        options = {"model": str(reward_file), "tokenizer": str(bert)}
        scorer = SCORERS.bind("image_reward", options)().to(CPU, torch.bfloat16)
        assert scorer.network.head[0].weight.dtype == torch.float32
        assert scorer.network.text.dtype == torch.bfloat16
        assert scorer(IMAGES, PROMPTS).dtype == torch.float32


def shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


class TestPublishedSizes:
    """The real networks, on the device `meta`: every weight has its place and its shape."""

    def test_hps(self) -> None:
        from transformers import CLIPModel

        sizes = hps_shapes(
            49408,
            layers=(32, 24),
            widths=(1280, 1024),
            hidden=(5120, 4096),
            positions=(257, 77),
            patch=14,
            embedding=1024,
        )
        with torch.device("meta"):
            weights = {name: torch.empty(size) for name, size in sizes.items()}
            config = open_clip._configuration(weights)
            renamed = dict(
                pair for key, each in weights.items() for pair in open_clip._renamed(key, each)
            )
            assert shapes(renamed) == shapes(CLIPModel(config).state_dict())
        assert config.vision_config.image_size == 224
        assert config.vision_config.num_attention_heads == 16
        assert config.text_config.num_attention_heads == 16

    def test_image_reward(self) -> None:
        from transformers import BlipTextModel, BlipVisionModel

        sizes = reward_shapes(
            30524,
            layers=(24, 12),
            widths=(1024, 768),
            hidden=(4096, 3072),
            positions=(197, 512),
            head=(1024, 128, 64, 16, 1),
        )
        with torch.device("meta"):
            weights = {name: torch.empty(size) for name, size in sizes.items()}
            vision, text = (blip._under(name, weights) for name in (blip.VISION, blip.TEXT))
            seeing, reading = blip._vision_configuration(vision), blip._text_configuration(text)
            renamed = {blip._renamed(key): value for key, value in vision.items()}
            assert shapes(renamed) == shapes(BlipVisionModel(seeing).state_dict())
            network = BlipTextModel(reading, add_pooling_layer=False)
            assert shapes(text) == shapes(network.state_dict())
        assert seeing.image_size == 224
        assert (seeing.num_attention_heads, reading.num_attention_heads) == (16, 12)
        assert sizes["mlp.layers.7.weight"] == (1, 16)


def without(key: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if name != key}


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): value for name, value in weights.items()}


class TestCheckpoints:
    """What a file may hold, told once for both."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (without("visual.conv1.weight"), "not a CLIP.*lack 'visual.conv1.weight'"),
            (without("ln_final.bias"), "lack 'text_model.final_layer_norm.bias'"),
            (renamed("mlp.c_fc", "mlp.fc"), "not a CLIP"),
            (
                lambda weights: {**weights, "prompt": torch.zeros(1)},
                "hold beside the model 'prompt'",
            ),
            (
                lambda weights: {**weights, "visual.ln_pre.bias": torch.zeros(3)},
                "weights of 'here'",
            ),
        ],
    )
    def test_a_clip_of_another_kind(
        self, hps: Weights, change: Callable[[Weights], Weights], words: str
    ) -> None:
        with pytest.raises(TastemakerError, match=words) as caught:
            clip_model(change(hps), "here")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (without("blip.visual_encoder.pos_embed"), "not an ImageReward: they lack 'pos_embed'"),
            (without("blip.visual_encoder.norm.bias"), "lack 'post_layernorm.bias'"),
            (without("mlp.layers.4.weight"), "not a stack of linear layers"),
            (renamed("mlp.", "head."), "hold 'head.layers.0.weight': no ImageReward"),
            (
                lambda weights: {**weights, "blip.text_encoder.x": torch.zeros(1)},
                "beside the model 'x'",
            ),
        ],
    )
    def test_a_reward_of_another_kind(
        self, reward: Weights, change: Callable[[Weights], Weights], words: str
    ) -> None:
        with pytest.raises(TastemakerError, match=words) as caught:
            RewardNetwork(change(reward), "here")
        assert "\n" not in str(caught.value)

    def test_safetensors_and_names_of_several_gpus(
        self, hps: Weights, hps_file: Path, tiny_clip: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "hps.safetensors"
        save_file({f"module.{key}": value for key, value in hps.items()}, file)
        options = {"tokenizer": str(tiny_clip)}
        one = SCORERS.bind("hps_v2", {**options, "model": str(file)})()
        two = SCORERS.bind("hps_v2", {**options, "model": str(hps_file)})()
        assert torch.equal(one(IMAGES, PROMPTS), two(IMAGES, PROMPTS))

    @pytest.mark.parametrize("what", ["torn", "text", "code", "numbers"])
    def test_files_that_are_none(
        self, what: str, hps_file: Path, tmp_path: Path, tiny_clip: Path
    ) -> None:
        file = tmp_path / "weights.pt"
        if what == "torn":
            file.write_bytes(hps_file.read_bytes()[:1000])
        elif what == "text":
            file.write_text("version https://git-lfs", encoding="utf-8")
        else:
            torch.save({"epoch": 3} if what == "numbers" else {"run": Path.unlink}, file)
        words = "holds no weights" if what == "numbers" else "not a file of weights that can"
        with pytest.raises(TastemakerError, match=words) as caught:
            SCORERS.bind("hps_v2", {"model": str(file), "tokenizer": str(tiny_clip)})()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("./nowhere.pt", "'./nowhere.pt' does not exist"),
            ("xswu/HPSv2/HPS_v2_compressed.pt", "hub cannot be reached .*hf download xswu"),
        ],
    )
    def test_files_that_are_not_there(self, name: str, words: str, tiny_clip: Path) -> None:
        with pytest.raises(TastemakerError, match=words) as caught:
            SCORERS.bind("hps_v2", {"model": name, "tokenizer": str(tiny_clip)})()
        assert "\n" not in str(caught.value)

    def test_a_tokenizer_that_is_not_there(self, reward_file: Path, tmp_path: Path) -> None:
        options = {"model": str(reward_file), "tokenizer": str(tmp_path / "none")}
        with pytest.raises(TastemakerError, match="tokenizer '.*none' is neither") as caught:
            SCORERS.bind("image_reward", options)()
        assert "\n" not in str(caught.value)
