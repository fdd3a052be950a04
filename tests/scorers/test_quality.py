"""Scores of the picture alone: sharpness by hand, CLIP-IQA as transformers computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from pictures import noise
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.quality import ClipIQA, Sharpness, sharpness

MODES = ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"]


def picture(rows: Sequence[Sequence[int]]) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def board(height: int, width: int) -> Image.Image:
    return picture([[255 * ((x + y) % 2) for x in range(width)] for y in range(height)])


@pytest.fixture
def images() -> list[Image.Image]:
    return [noise(0), noise(1, 40, 70), Image.new("RGB", (32, 32), "red"), board(50, 32)]


class TestSharpness:
    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 5)])
    def test_a_flat_picture_has_none(self, size: tuple[int, int]) -> None:
        assert sharpness(Image.new("RGB", size, (12, 200, 31))) == 0

    @pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (5, 4)])
    def test_a_chessboard_has_the_most(self, height: int, width: int) -> None:
        # Every neighbour is the opposite, beyond the border too: +-4 * 255, as many + as -.
        assert sharpness(board(height, width)) == 1020

    def test_a_single_row_is_mirrored_into_itself(self) -> None:
        assert sharpness(board(1, 2)) == 510

    def test_a_step_by_hand(self) -> None:
        # Each row's Laplacian is 0, 255, -255, 0: the mirrored borders are no edges.
        step = picture([[0, 0, 255, 255]] * 3)
        assert sharpness(step) == pytest.approx(255 / math.sqrt(2))

    def test_a_dot_by_hand(self) -> None:
        # -1020 in the middle; 510 on the sides, whose mirrored neighbour is the dot; 0 in corners.
        dot = picture([[0, 0, 0], [0, 255, 0], [0, 0, 0]])
        mean = (4 * 510 - 1020) / 9
        assert sharpness(dot) == pytest.approx(
            math.sqrt((4 * 510**2 + 1020**2) / 9 - mean**2), rel=1e-12
        )

    @pytest.mark.parametrize(("colour", "luma"), [("red", 76), ("lime", 150), ("blue", 29)])
    def test_colours_weigh_as_luma(self, colour: str, luma: int) -> None:
        # ITU-R 601: 0.299, 0.587, 0.114 of 255, in whole steps.
        squares = Image.composite(
            Image.new("RGB", (4, 4), colour), Image.new("RGB", (4, 4)), board(4, 4)
        )
        assert sharpness(squares) == 4 * luma

    def test_blur_lowers_it(self) -> None:
        values = [sharpness(noise(0).filter(ImageFilter.GaussianBlur(r))) for r in (0, 0.5, 1, 2)]
        assert values == sorted(values, reverse=True)
        assert values[0] > 10 * values[-1] > 0

    def test_contrast_scales_it(self) -> None:
        grey = noise(1).convert("L").point(lambda value: 2 * (value // 4))
        doubled = grey.point(lambda value: 2 * value)
        assert sharpness(doubled) == pytest.approx(2 * sharpness(grey), rel=1e-12)

    def test_turns_and_mirrors_do_not_change_it(self) -> None:
        image = noise(2, 20, 30)
        for change in (Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT):
            assert sharpness(image.transpose(change)) == pytest.approx(sharpness(image), rel=1e-12)

    def test_it_is_measured_at_one_size(self) -> None:
        large = noise(3, 32, 48).resize((192, 128), Image.Resampling.BICUBIC)
        small = large.resize((48, 32), Image.Resampling.LANCZOS)
        assert sharpness(large, 32) == sharpness(small)
        assert sharpness(small, 32) == sharpness(small)  # already there
        assert sharpness(large) < 0.5 * sharpness(small)  # and why it must be
        tall = large.transpose(Image.Transpose.ROTATE_90)  # the shorter side, whichever it is
        assert sharpness(tall, 32) == pytest.approx(sharpness(small), rel=0.01)

    @pytest.mark.parametrize("mode", MODES)
    def test_modes_are_converted(self, mode: str) -> None:
        image = noise(4).convert(mode)
        assert sharpness(image) == sharpness(image.convert("RGB")) > 0

    def test_the_scorer_gives_a_number_a_picture(self) -> None:
        scorer = SCORERS.bind("sharpness", {})()
        images = [board(4, 4), noise(5), Image.new("L", (1, 1))]
        scores = scorer.to(torch.device("cpu"), torch.bfloat16)(images, ["", "a dog", ""])
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, torch.tensor([1020, sharpness(images[1]), 0]))
        assert Sharpness()([], []).shape == (0,)

    def test_its_size_is_an_option(self) -> None:
        image = noise(6, 40, 60)
        scorer = SCORERS.bind("sharpness", {"size": "16"})()
        assert scorer([image], [""]).item() == pytest.approx(sharpness(image, 16))
        with pytest.raises(TastemakerError, match="option 'size' = 0"):
            SCORERS.bind("sharpness", {"size": 0})


class TestClipIQA:
    @pytest.mark.parametrize(
        ("options", "texts"),
        [
            ({}, ["Good photo.", "Bad photo."]),
            ({"words": "sharpness"}, ["Sharp photo.", "Blurry photo."]),
            ({"pair": ["a cat", "no cat"]}, ["a cat", "no cat"]),
        ],
    )
    def test_it_is_what_transformers_computes(
        self,
        tiny_clip: Path,
        images: list[Image.Image],
        options: dict[str, object],
        texts: list[str],
    ) -> None:
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        model = CLIPModel.from_pretrained(tiny_clip, dtype=torch.float32).eval()
        tokens = AutoTokenizer.from_pretrained(tiny_clip)(
            texts, padding="max_length", max_length=16, return_tensors="pt"
        )
        processor = CLIPImageProcessorPil.from_pretrained(tiny_clip)
        rgb = [image.convert("RGB") for image in images]
        with torch.no_grad():
            output = model(**tokens, **processor(images=rgb, return_tensors="pt"))
        expected = output.logits_per_image.softmax(1)[:, 0]
        scorer = SCORERS.bind("clip_iqa", {"model": str(tiny_clip), **options})()
        scores = scorer(images, [""] * len(images))
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
        assert scores.dtype == torch.float32
        assert len(set(scores.tolist())) == len(images)

    def test_batches_order_and_prompts_enter_no_number(
        self, tiny_clip: Path, images: list[Image.Image]
    ) -> None:
        scorer = ClipIQA(model=str(tiny_clip))
        whole = scorer(images, [""] * 4)
        alone = torch.cat([scorer([image], ["a dog"]) for image in images])
        turned = scorer(images[::-1], ["a", "b", "c", "d"]).flip(0)
        torch.testing.assert_close(alone, whole, atol=1e-6, rtol=0)
        torch.testing.assert_close(turned, whole, atol=1e-6, rtol=0)

    def test_swapped_texts_give_the_other_probability(
        self, tiny_clip: Path, images: list[Image.Image]
    ) -> None:
        one = ClipIQA(model=str(tiny_clip), pair=("light", "dark"))(images, [""] * 4)
        two = ClipIQA(model=str(tiny_clip), pair=("dark", "light"))(images, [""] * 4)
        torch.testing.assert_close(one + two, torch.ones(4))
        assert (one - two).abs().max() > 1e-3

    def test_half_precision_comes_near(self, tiny_clip: Path, images: list[Image.Image]) -> None:
        scorer = ClipIQA(model=str(tiny_clip))
        whole = scorer(images, [""] * 4)
        half = scorer.to(torch.device("cpu"), torch.bfloat16)(images, [""] * 4)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, whole, atol=0.05, rtol=0)

    @pytest.mark.parametrize("mode", MODES)
    def test_modes_are_converted(self, tiny_clip: Path, mode: str) -> None:
        scorer = ClipIQA(model=str(tiny_clip))
        image = noise(7).convert(mode)
        one, two = scorer([image, image.convert("RGB")], ["", ""]).tolist()
        assert one == pytest.approx(two, abs=1e-6)

    def test_pictures_of_any_size_and_none(self, tiny_clip: Path) -> None:
        scorer = ClipIQA(model=str(tiny_clip))
        scores = scorer([noise(8, *size) for size in ((1, 1), (3, 3), (1, 9), (90, 5))], [""] * 4)
        assert ((scores > 0) & (scores < 1)).all()
        assert scorer([], []).shape == (0,)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "option 'model' is required"),
            ({"model": "m", "words": "beauty"}, "option 'words' = 'beauty'"),
            ({"model": "m", "pair": ["one"]}, "option 'pair"),
            ({"model": "m", "text": "good"}, "unknown option 'text'"),
        ],
    )
    def test_bad_options(self, options: dict[str, object], words: str) -> None:
        with pytest.raises(TastemakerError, match=words):
            SCORERS.bind("clip_iqa", options)

    def test_equal_texts_and_missing_models_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="both are 'good'"):
            ClipIQA(model=str(tmp_path), pair=("good", "good"))
        with pytest.raises(TastemakerError, match="does not exist"):
            ClipIQA(model=str(tmp_path / "nowhere"))


def test_a_clips_score_is_the_scaled_cosine_of_its_features(tiny_clip: Path) -> None:
    scorer = ClipScorer(model=str(tiny_clip), scale=3)
    images, prompts = [noise(9), noise(10)], ["a dog", "two cats"]
    text = scorer.text_features(prompts)
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(scorer(images, prompts), 3 * (scorer.features(images) * text).sum(1))
