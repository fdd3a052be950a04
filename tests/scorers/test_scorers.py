"""What holds for every scorer, and the arithmetic of those that no other file tests."""

from __future__ import annotations

import io
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from pictures import noise
from published import (
    drawn,
    hps_weights,
    reward_shapes,
    write_bert,
    write_hps,
    write_reward,
)
from tastemaker.config.choices import PixelScorer, Scorer
from tastemaker.core.errors import TastemakerError
from tastemaker.core.plugins import load_plugins
from tastemaker.core.registry import SCORERS
from tastemaker.metrics.hue import mean_hue
from tastemaker.scorers.aesthetic import Aesthetic
from tastemaker.scorers.availability import here, scorer_states
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.colour import hue_closeness
from tastemaker.scorers.pixels import padded, processed, trimmed, unit_pixels
from tastemaker.storage import images

CPU = torch.device("cpu")
WITHOUT_PIXELS = {"sharpness"}
EMBEDDED = {"nano_preference", "nano_judge", "nano_checker", "nano_examiner"}
MODES = ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"]


IMAGES = [noise(0), noise(1, 40, 70), noise(2, 90, 35), Image.new("RGB", (32, 32), "red")]
PROMPTS = ["a dog", "two red cats", "", "a roof at night"]


class Face(nn.Module):
    """Stands for a face recognition network: 3 x 16 x 16 pixels to 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 8)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(self.layer.weight.shape, generator=generator))
            self.layer.bias.copy_(torch.randn(8, generator=generator))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels.flatten(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of a subject in `subject/`, and a face network."""
    folder = tmp_path_factory.mktemp("scorers")
    (folder / "subject").mkdir()
    for number in range(2):
        noise(20 + number).save(folder / "subject" / f"{number}.png")
    torch.jit.trace(Face().eval(), torch.zeros(1, 3, 16, 16)).save(str(folder / "face.pt"))
    return folder


@pytest.fixture(scope="module")
def options(folder: Path, tiny_clip: Path) -> dict[str, dict[str, Any]]:
    """What every scorer that needs weights is told."""
    from transformers import AutoTokenizer

    vocabulary = len(AutoTokenizer.from_pretrained(tiny_clip))
    hps = write_hps(hps_weights(vocabulary), folder / "HPS_v2_compressed.pt")
    words = write_bert(folder / "bert")
    reward = write_reward(drawn(reward_shapes(words), seed=4), folder / "ImageReward.pt")
    save_file(linear_weights(16, 8, 1), folder / "head.safetensors")
    clip = {"model": str(tiny_clip)}
    subject = {"images": str(folder / "subject")}
    return {
        "clip": clip,
        "clip_score": clip,
        "pickscore": clip,
        "hps_v2": {"model": str(hps), "tokenizer": str(tiny_clip)},
        "hps_v2_1": {"model": str(hps), "tokenizer": str(tiny_clip)},
        "image_reward": {"model": str(reward), "tokenizer": str(folder / "bert")},
        "aesthetic": {**clip, "head": str(folder / "head.safetensors")},
        "clip_iqa": clip,
        "image_similarity": {**subject, **clip},
        "identity": {**subject, "model": str(folder / "face.pt"), "size": 16},
        "hue": {"target": 30},
        "sharpness": {},
    }


NAMES = [
    "clip",
    "clip_score",
    "pickscore",
    "hps_v2",
    "hps_v2_1",
    "image_reward",
    "aesthetic",
    "clip_iqa",
    "image_similarity",
    "identity",
    "hue",
    "sharpness",
]
DIFFERENTIABLE = [name for name in NAMES if name not in WITHOUT_PIXELS]

Made = Callable[[str], Any]


@pytest.fixture(scope="module")
def made(options: dict[str, dict[str, Any]]) -> Made:
    """Every scorer, made once."""
    held: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in held:
            held[name] = SCORERS.bind(name, options[name])()
        return held[name]

    return make


def linear_weights(*widths: int) -> dict[str, torch.Tensor]:
    """A head in the published form, with its dropouts counted: layers 0, 2, 4, ..."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        shapes[f"layers.{2 * number}.weight"] = (narrow, wide)
        shapes[f"layers.{2 * number}.bias"] = (narrow,)
    return drawn(shapes, seed=7)


def test_no_scorer_is_left_out() -> None:
    # `text_similarity` wants its subject in every prompt; test_similarity.py holds the same of it.
    ours = {name for name in SCORERS.names() if SCORERS.entry(name).__module__.startswith("taste")}
    assert {*NAMES, *EMBEDDED, "text_similarity"} == ours


@pytest.mark.parametrize("name", NAMES)
class TestEveryScorer:
    def test_batches_and_order_enter_no_number(self, made: Made, name: str) -> None:
        scorer = made(name)
        whole = scorer(IMAGES, PROMPTS)
        assert whole.shape == (4,)
        assert whole.dtype == torch.float32
        assert whole.isfinite().all()
        assert len(set(whole.tolist())) > 2
        alone = torch.cat([scorer([i], [p]) for i, p in zip(IMAGES, PROMPTS, strict=True)])
        torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-5)
        turned = scorer(IMAGES[::-1], PROMPTS[::-1]).flip(0)
        torch.testing.assert_close(turned, whole, atol=1e-5, rtol=1e-5)
        assert scorer([], []).shape == (0,)

    def test_every_mode_is_scored_as_rgb(self, made: Made, name: str) -> None:
        pictures = [noise(4).convert(mode) for mode in MODES]
        scores = made(name)(pictures, ["a dog"] * len(MODES))
        expected = made(name)([each.convert("RGB") for each in pictures], ["a dog"] * len(MODES))
        assert torch.equal(scores, expected)

    def test_pictures_of_one_pixel_and_of_ten_thousand(self, made: Made, name: str) -> None:
        sizes = [(1, 1), (1, 10_000), (10_000, 1), (10_000, 3)]
        pictures = [noise(8, *size) for size in sizes]
        assert made(name)(pictures, ["a dog"] * len(sizes)).isfinite().all()

    def test_what_it_says_of_itself(self, name: str) -> None:
        text = SCORERS.entry(name).__doc__ or ""
        assert "References:" in text
        assert "Args:" in text
        assert all(field.description for field in SCORERS.schema(name).model_fields.values())


@pytest.mark.parametrize("name", DIFFERENTIABLE)
class TestEveryDifferentiableScorer:
    def test_pixels_score_as_the_picture(self, made: Made, name: str) -> None:
        for picture, prompt in zip(IMAGES[:3], PROMPTS, strict=False):
            score = made(name)([picture], [prompt])
            pixels = made(name).score_pixels(unit_pixels(picture), [prompt])
            # But for 8 bits in the resizing.
            torch.testing.assert_close(pixels, score, atol=2e-3, rtol=2e-2)

    def test_gradients_are_finite_and_right(self, made: Made, name: str) -> None:
        pixels = torch.cat([unit_pixels(noise(seed, 40, 48)) for seed in (5, 6)])
        pixels.requires_grad_()
        scores = made(name).score_pixels(pixels, PROMPTS[:2])
        assert scores.shape == (2,)
        (gradient,) = torch.autograd.grad(scores.sum(), pixels)
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).norm(dim=1) > 0).all()
        # A small step along it raises the score, by what the gradient says.
        step = 1e-2 * gradient / gradient.norm()
        with torch.no_grad():
            higher = made(name).score_pixels(pixels + step, PROMPTS[:2]).sum()
            lower = made(name).score_pixels(pixels - step, PROMPTS[:2]).sum()
        slope = (higher - lower) / 2e-2
        assert slope.item() == pytest.approx(gradient.norm().item(), rel=0.05, abs=1e-4)

    @pytest.mark.parametrize("colour", ["black", "white", "grey", "red"])
    def test_flat_pictures_have_finite_gradients(self, made: Made, name: str, colour: str) -> None:
        pixels = unit_pixels(Image.new("RGB", (32, 32), colour)).requires_grad_()
        made(name).score_pixels(pixels, ["a dog"]).sum().backward()
        assert pixels.grad is not None
        assert pixels.grad.isfinite().all()

    def test_half_precision_comes_near(
        self, options: dict[str, dict[str, Any]], made: Made, name: str
    ) -> None:
        half = SCORERS.bind(name, options[name])().to(CPU, torch.bfloat16)
        scores, whole = half(IMAGES, PROMPTS), made(name)(IMAGES, PROMPTS)
        assert scores.dtype == torch.float32
        spread = whole.abs().max().item()
        torch.testing.assert_close(scores, whole, atol=0.1 * spread, rtol=0.1)
        pixels = unit_pixels(IMAGES[0])
        assert half.score_pixels(pixels, PROMPTS[:1]).dtype == torch.float32


class TestPictures:
    @pytest.mark.parametrize("size", [(5, 200), (200, 5), (7, 301)])
    def test_ends_that_no_crop_shows_are_cut_off(self, tiny_clip: Path, size: Any) -> None:
        processor = ClipScorer(model=str(tiny_clip)).processor
        picture = noise(3, *size)
        cut = trimmed(picture)
        assert max(cut.size) <= 16 * min(cut.size) + 1 < max(picture.size)
        whole = processor(images=[picture], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(processed([picture], processor), whole, atol=0.05, rtol=0)

    def test_others_are_left_alone(self) -> None:
        picture = noise(4, 10, 161)
        assert trimmed(picture).tobytes() == picture.tobytes()

    def test_padding_by_hand(self) -> None:
        square = padded(torch.ones(1, 3, 2, 4), 4)
        assert square[0, 0].tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]
        assert padded(torch.rand(1, 3, 1, 10_000), 16).shape == (1, 3, 16, 16)

    @pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("L", "PNG"), ("CMYK", "JPEG")])
    def test_stored_pictures_of_any_mode_are_decoded(self, mode: str, kind: str) -> None:
        buffer = io.BytesIO()
        noise(5).convert(mode).save(buffer, format=kind)
        assert images.decode(buffer.getvalue(), "c").mode == "RGB"

    def test_too_many_pixels_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(TastemakerError, match="image of c7 is corrupt.*decompression bomb"):
            images.decode(images.encode_png(noise(6)), "c7")


class TestClipScore:
    def test_both_conventions(self, tiny_clip: Path) -> None:
        cosines = ClipScorer(model=str(tiny_clip), scale=1)(IMAGES, PROMPTS)
        score = SCORERS.bind("clip_score", {"model": str(tiny_clip)})()
        torch.testing.assert_close(score(IMAGES, PROMPTS), 100 * cosines.clamp(min=0))
        phrase = "a photo depicts "
        paper = {"model": str(tiny_clip), "scale": 2.5, "prefix": phrase}
        prefixed = ClipScorer(model=str(tiny_clip), scale=1)(IMAGES, [phrase + p for p in PROMPTS])
        scores = SCORERS.bind("clip_score", paper)()(IMAGES, PROMPTS)
        torch.testing.assert_close(scores, 2.5 * prefixed.clamp(min=0))

    def test_half_precision_takes_no_steps(self, tiny_clip: Path) -> None:
        # bf16 has steps of 0.5 at 100; the cosine is taken of what the network gave, in float32.
        scorer = SCORERS.bind("pickscore", {"model": str(tiny_clip), "scale": 100})()
        scores = scorer.to(CPU, torch.bfloat16)([noise(seed) for seed in range(8)], ["a dog"] * 8)
        assert len({round(score, 6) for score in scores.tolist()}) == 8


class TestAesthetic:
    @pytest.mark.parametrize("widths", [(16, 8, 6, 4, 1), (16, 1)])
    def test_it_is_the_head_on_clips_embedding(
        self, tiny_clip: Path, tmp_path: Path, widths: tuple[int, ...]
    ) -> None:
        weights = linear_weights(*widths)
        if len(widths) == 2:  # a linear head: sa_0_4_vit_l_14_linear.pth
            weights = {key.removeprefix("layers.0."): value for key, value in weights.items()}
        torch.save(weights, tmp_path / "head.pth")
        clip = ClipScorer(model=str(tiny_clip))
        expected = clip.features(IMAGES)
        for key in sorted(key for key in weights if key.endswith("weight")):
            bias = weights[key.removesuffix("weight") + "bias"]
            expected = F.linear(expected, weights[key], bias)
        scorer = Aesthetic(model=str(tiny_clip), head=str(tmp_path / "head.pth"))
        scores = scorer(IMAGES, PROMPTS)
        torch.testing.assert_close(scores, expected[:, 0], atol=1e-5, rtol=0)
        assert torch.equal(scores, scorer(IMAGES, PROMPTS[::-1]))

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            (linear_weights(12, 1), "embeddings of 12 numbers, and .* gives 16"),
            (linear_weights(16, 2), "not a stack of linear layers"),
            ({**linear_weights(16, 8), "layers.3.weight": torch.ones(1, 9)}, "not a stack"),
            ({"conv.weight": torch.ones(1, 3, 2, 2)}, "not a stack of linear layers"),
        ],
    )
    def test_heads_that_do_not_fit(
        self, tiny_clip: Path, tmp_path: Path, weights: dict[str, torch.Tensor], words: str
    ) -> None:
        save_file(weights, tmp_path / "head.safetensors")
        with pytest.raises(TastemakerError, match=words):
            Aesthetic(model=str(tiny_clip), head=str(tmp_path / "head.safetensors"))


class TestHue:
    def test_the_picture_is_closest_to_its_mean_hue(self) -> None:
        picture = noise(3, 6, 7)
        hue = mean_hue(picture)
        assert hue is not None
        pixels = unit_pixels(picture).double()
        scores = [hue_closeness(pixels, hue + turn).item() for turn in (-5, 0, 5, 90, 180)]
        assert scores[1] == max(scores) > 0
        assert scores[3] == pytest.approx(0, abs=1e-6)
        assert scores[4] == pytest.approx(-scores[1], abs=1e-6)

    def test_by_hand(self) -> None:
        # Red and green at half value: hues 0 and 120, chroma 1 and 0.5; the grey weighs nothing.
        colours = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0.7, 0.7, 0.7]])
        pixels = colours.T.reshape(1, 3, 1, 3)
        expected = (1 * 1 + 0.5 * math.cos(math.radians(120))) / 1.5
        assert hue_closeness(pixels, 0).item() == pytest.approx(expected, abs=1e-6)
        assert hue_closeness(torch.full((1, 3, 2, 2), 0.3), 0).item() == 0

    def test_its_target_is_an_angle(self) -> None:
        with pytest.raises(TastemakerError, match="option 'target' = 361"):
            SCORERS.bind("hue", {"target": 361})


def onnx_file(path: Path, network: Face, batch: int | None) -> None:
    """Write a linear layer as ONNX by hand: Flatten, then Gemm."""

    def field(number: int, value: int | str | bytes) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        data = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(data)) + data

    def varint(value: int) -> bytes:
        low = b""
        while value > 127:
            low += bytes([value & 127 | 128])
            value >>= 7
        return low + bytes([value])

    def tensor(name: str, value: torch.Tensor) -> bytes:
        dims = b"".join(field(1, length) for length in value.shape)
        return dims + field(2, 1) + field(8, name) + field(9, value.detach().numpy().tobytes())

    def port(name: str, *shape: int | str) -> bytes:
        lengths = [field(2, side) if isinstance(side, str) else field(1, side) for side in shape]
        dims = b"".join(field(1, length) for length in lengths)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    def node(kind: str, output: str, *inputs: str, attributes: bytes = b"") -> bytes:
        return (
            b"".join(field(1, each) for each in inputs)
            + field(2, output)
            + field(4, kind)
            + (attributes)
        )

    turned = field(5, field(1, "transB") + field(3, 1) + field(20, 2))
    graph = b"".join(
        [
            field(1, node("Flatten", "flat", "pixels")),
            field(1, node("Gemm", "embedding", "flat", "weight", "bias", attributes=turned)),
            field(2, "face"),
            field(5, tensor("weight", network.layer.weight)),
            field(5, tensor("bias", network.layer.bias)),
            field(11, port("pixels", batch or "n", 3, 16, 16)),
            field(12, port("embedding", batch or "n", 8)),
        ]
    )
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))


class TestIdentity:
    def test_it_is_the_mean_cosine_of_middle_squares(self, made: Made, folder: Path) -> None:
        def embedding(picture: Image.Image) -> torch.Tensor:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            middle = picture.crop((left, top, left + side, top + side))
            size = (16, 16)
            pixels = F.interpolate(unit_pixels(middle), size, mode="bicubic", antialias=True)
            return F.normalize(Face()(pixels.clamp(0, 1) * 2 - 1), dim=-1)[0]

        with torch.no_grad():
            subject = [embedding(noise(20 + number)) for number in range(2)]
            expected = [
                sum((embedding(picture) @ each).item() for each in subject) / 2
                for picture in IMAGES
            ]
        scores = made("identity")(IMAGES, PROMPTS)
        torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("batch", [1, None])
    def test_an_onnx_file_gives_the_same(
        self, made: Made, folder: Path, tmp_path: Path, batch: int | None
    ) -> None:
        pytest.importorskip("onnxruntime")
        onnx_file(tmp_path / "face.onnx", Face(), batch)
        choice = {"images": str(folder / "subject"), "model": str(tmp_path / "face.onnx")}
        scorer = SCORERS.bind("identity", choice)().to(CPU, torch.bfloat16)
        expected = made("identity")(IMAGES, PROMPTS)
        torch.testing.assert_close(scorer(IMAGES, PROMPTS), expected, atol=1e-5, rtol=0)
        pixels = unit_pixels(IMAGES[0])
        torch.testing.assert_close(scorer.score_pixels(pixels, [""]), expected[:1])
        with pytest.raises(TastemakerError, match="passes no gradient"):
            scorer.score_pixels(pixels.requires_grad_(), [""])

    def test_bytes_that_are_no_onnx(self, folder: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        (tmp_path / "face.onnx").write_bytes(b"no network")
        choice = {"images": str(folder / "subject"), "model": str(tmp_path / "face.onnx")}
        with pytest.raises(TastemakerError, match="not an ONNX file that can be run") as caught:
            SCORERS.bind("identity", choice)()
        assert "\n" not in str(caught.value)

    def test_a_missing_extra_is_named(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        (tmp_path / "face.onnx").write_bytes(b"")
        choice = {"images": str(folder / "subject"), "model": str(tmp_path / "face.onnx")}
        with pytest.raises(
            TastemakerError, match=r"extra 'onnx': pip install 'tastemaker\[onnx\]'"
        ):
            SCORERS.bind("identity", choice)()

    def test_models_that_are_none(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "face.pt").write_bytes(b"no network")
        for model, words in (
            ("face.pt", "not a TorchScript file"),
            ("face.ts", "does not exist"),
            ("none", "does not exist"),
        ):
            choice = {"images": str(folder / "subject"), "model": str(tmp_path / model)}
            with pytest.raises(TastemakerError, match=words):
                SCORERS.bind("identity", choice)()

    def test_a_transformers_model_has_a_processor_of_its_own(
        self, folder: Path, tiny_clip: Path, made: Made
    ) -> None:
        choice = {"images": str(folder / "subject"), "model": str(tiny_clip)}
        scores = SCORERS.bind("identity", choice)()(IMAGES, PROMPTS)
        assert torch.equal(scores, made("image_similarity")(IMAGES, PROMPTS))


class TestAvailability:
    def test_every_scorer_is_told_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        states = dict(scorer_states())
        assert set(states) == set(SCORERS.names())
        assert states["sharpness"] == []
        assert states["clip"] == ["model: weights of yours"]
        (note,) = states["pickscore"]
        assert note == (
            "model: yuvalkirstain/PickScore_v1 is not here; fetched when first used, or:"
            " hf download yuvalkirstain/PickScore_v1"
        )
        assert any("hf download xswu/HPSv2 HPS_v2_compressed.pt" in n for n in states["hps_v2"])

    def test_a_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        notes = dict(scorer_states())["identity"]
        assert (
            "an .onnx file needs the missing extra 'onnx': pip install 'tastemaker[onnx]'" in notes
        )

    def test_what_is_in_the_hubs_cache_is_here(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held = {("a/b", "model.safetensors"), ("xswu/HPSv2", "HPS_v2_compressed.pt")}
        monkeypatch.setattr(
            "huggingface_hub.try_to_load_from_cache",
            lambda repo, file: "path" if (repo, file) in held else None,
        )
        assert here("a/b")
        assert not here("a/b", tokenizer=True)
        assert here("xswu/HPSv2/HPS_v2_compressed.pt")
        assert not here("xswu/HPSv2/HPS_v2.1_compressed.pt")
        assert here(str(tmp_path))
        assert not here(str(tmp_path / "none"))


def test_a_users_scorer_without_pixels(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "from tastemaker.core.registry import SCORERS\n\n"
        "@SCORERS.register('brightness')\n"
        "class Brightness:\n"
        "    def __init__(self, *, gain: float = 1.0) -> None:\n"
        "        self.gain = gain\n"
        "    def to(self, device, dtype):\n"
        "        return self\n"
        "    def __call__(self, images, prompts):\n"
        "        means = [sum(image.convert('L').getdata()) for image in images]\n"
        "        return self.gain * torch.tensor([float(mean) for mean in means])\n",
        encoding="utf-8",
    )
    from pydantic import TypeAdapter, ValidationError

    load_plugins((str(file),))
    choice = TypeAdapter(Scorer).validate_python({"name": "brightness", "gain": 2})
    assert choice.options == {"gain": 2.0}
    assert dict(scorer_states())["brightness"] == []
    with pytest.raises(ValidationError, match="'brightness' is not differentiable"):
        TypeAdapter(PixelScorer).validate_python("brightness")
    with pytest.raises(ValidationError, match="Did you mean brightness"):
        TypeAdapter(Scorer).validate_python("brightnes")
