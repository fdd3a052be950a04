"""Image and text similarity: cosines as the towers give them, no rare token in a text encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pictures import noise
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.core.templates import filled
from tastemaker.datasets.subjects import photographs
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.encoders import image_encoder
from tastemaker.scorers.similarity import plain

CPU = torch.device("cpu")
OWL = {"subject": "sks owl", "class_name": "owl"}


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.tensor(np.array(image)).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `Dinov2Model` of 32x32 pixels and its image processor."""
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny-dino")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = Dinov2Model(
            Dinov2Config(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                mlp_ratio=2,
                image_size=32,
                patch_size=8,
            )
        )
    model.save_pretrained(folder)
    processor = BitImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A folder with three photographs, one of them lying on its side by its EXIF data."""
    folder = tmp_path / "owl"
    folder.mkdir()
    noise(1, 40, 50).save(folder / "b.png")
    noise(2, 64, 33).save(folder / "A.PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    noise(3, 40, 50).save(folder / "c.jpg", exif=exif, quality=95)
    (folder / "notes.txt").write_text("not a photograph", encoding="utf-8")
    (folder / ".hidden.png").write_bytes(b"no picture")
    (folder / "more.png").mkdir()
    return folder


@pytest.fixture(params=["tiny_clip", "tiny_dino", "nano_judge"])
def model(request: pytest.FixtureRequest) -> str:
    """A CLIP's folder, a DINOv2's, and a scorer by name."""
    known = request.param in SCORERS
    return request.param if known else str(request.getfixturevalue(request.param))


def image_similarity(**options: Any) -> Any:
    return SCORERS.bind("image_similarity", options)()


def text_similarity(**options: Any) -> Any:
    return SCORERS.bind("text_similarity", {**OWL, **options})()


class TestPhotographs:
    def test_they_are_read_upright_and_nothing_else_is(self, subject: Path) -> None:
        assert [image.size for image in photographs(str(subject))] == [(33, 64), (50, 40), (40, 50)]

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match="'.*none' does not exist; check the path"):
            photographs(str(tmp_path / "none"))

    def test_no_photograph(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("", encoding="utf-8")
        with pytest.raises(TastemakerError, match=r"holds no photograph \(looked for .*\.png"):
            photographs(str(tmp_path))

    @pytest.mark.parametrize("damage", [b"", b"no picture at all", None])
    def test_a_corrupt_one_is_named(self, subject: Path, damage: bytes | None) -> None:
        whole = (subject / "b.png").read_bytes()
        (subject / "b.png").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
        with pytest.raises(TastemakerError, match=r"b\.png.*no readable.*repair it") as caught:
            photographs(str(subject))
        assert "\n" not in str(caught.value)


class TestImageSimilarity:
    def test_it_is_the_mean_cosine(self, subject: Path, model: str) -> None:
        scorer = image_similarity(images=str(subject), model=model)
        encoder = image_encoder(model)
        images = [noise(4, 40, 50), noise(5, 33, 80), noise(1, 40, 50)]
        cosines = encoder.features(images) @ encoder.features(photographs(str(subject))).T
        scores = scorer(images, ["", "a dog", "any"])
        torch.testing.assert_close(scores, cosines.mean(1), atol=1e-6, rtol=0)
        assert scores.dtype == torch.float32
        assert scorer([], []).shape == (0,)

    def test_one_photograph_is_its_own_likeness(self, tmp_path: Path, model: str) -> None:
        noise(7, 40, 50).save(tmp_path / "only.png")
        scorer = image_similarity(images=str(tmp_path), model=model)
        own, other = scorer([noise(7, 40, 50), noise(8, 40, 50)], ["", ""]).tolist()
        assert own == pytest.approx(1, abs=1e-5)
        assert -1 <= other < own

    def test_the_order_of_photographs_does_not_matter(self, subject: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        again.mkdir()
        for name, file in zip("xyz", ("c.jpg", "b.png", "A.PNG"), strict=True):
            (again / f"{name}{Path(file).suffix}").write_bytes((subject / file).read_bytes())
        first, second = (
            image_similarity(images=str(folder), model="nano_judge")([noise(4, 40, 50)], [""])
            for folder in (subject, again)
        )
        assert torch.equal(first, second)

    def test_gradients_reach_the_pixels(self, subject: Path, model: str) -> None:
        scorer = image_similarity(images=str(subject), model=model)
        pixels = pixels_of(noise(4, 48, 48)).requires_grad_()
        scores = scorer.score_pixels(pixels, [""])
        torch.testing.assert_close(
            scores.detach(), scorer([noise(4, 48, 48)], [""]), atol=0.01, rtol=0
        )
        scores.sum().backward()
        assert pixels.grad is not None
        assert pixels.grad.abs().sum() > 0

    def test_half_precision_keeps_float_scores(self, subject: Path, model: str) -> None:
        scorer = image_similarity(images=str(subject), model=model)
        images, prompts = [noise(4, 40, 50), noise(5, 40, 50)], ["", ""]
        before = scorer(images, prompts)
        after = scorer.to(CPU, torch.bfloat16)(images, prompts)
        assert after.dtype == torch.float32
        torch.testing.assert_close(after, before, atol=0.03, rtol=0)

    def test_a_clip_gives_its_image_embedding(self, tiny_clip: Path) -> None:
        images = [noise(4, 40, 50), noise(5, 40, 50)]
        expected = ClipScorer(model=str(tiny_clip)).features(images)
        found = image_encoder(str(tiny_clip)).features(images)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    def test_a_dino_gives_its_class_token(self, tiny_dino: Path) -> None:
        from transformers import Dinov2Model

        network = Dinov2Model.from_pretrained(tiny_dino).eval()
        # 36 pixels are cropped to the middle 32; a flat picture needs no resizing to compare.
        colour = torch.tensor([200, 30, 90]) / 255
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
        inputs = ((colour - mean) / std)[None, :, None, None].expand(1, 3, 32, 32)
        with torch.no_grad():
            hidden = network(pixel_values=inputs).last_hidden_state[:, 0]
        found = image_encoder(str(tiny_dino)).features([Image.new("RGB", (50, 70), (200, 30, 90))])
        torch.testing.assert_close(
            found, hidden / hidden.norm(dim=-1, keepdim=True), atol=1e-5, rtol=0
        )

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("./no/such/folder", "'./no/such/folder' does not exist"),
            ("sharpness", "'sharpness' is not a CLIP"),
            ("no-such-model", "'no-such-model' is neither"),
        ],
    )
    def test_what_is_no_encoder_is_named(self, subject: Path, name: str, words: str) -> None:
        with pytest.raises(TastemakerError, match=words):
            image_similarity(images=str(subject), model=name)

    def test_a_dino_is_no_clip(self, tiny_dino: Path, tiny_clip: Path, tmp_path: Path) -> None:
        """Even with a tokenizer beside it: its missing text encoder would be random."""
        folder = tmp_path / "dino"
        shutil.copytree(tiny_clip, folder)
        for file in tiny_dino.iterdir():
            shutil.copy(file, folder)
        with pytest.raises(TastemakerError, match="is a dinov2, not a CLIP"):
            ClipScorer(model=str(folder))

    def test_a_dino_without_its_processor(self, subject: Path, tiny_dino: Path) -> None:
        torn = subject.parent / "torn"
        torn.mkdir()
        (torn / "config.json").write_bytes((tiny_dino / "config.json").read_bytes())
        with pytest.raises(TastemakerError, match="DINOv2 '.*torn' cannot be loaded"):
            image_similarity(images=str(subject), model=str(torn))


class TestTextSimilarity:
    @pytest.fixture(params=["tiny_clip", "nano_preference"])
    def clip(self, request: pytest.FixtureRequest) -> str:
        known = request.param in SCORERS
        return request.param if known else str(request.getfixturevalue(request.param))

    def test_it_is_the_cosine_to_the_prompt_in_plain_words(self, clip: str) -> None:
        scorer = text_similarity(model=clip)
        images = [noise(1, 40, 50), noise(2, 40, 50)]
        scores = scorer(images, ["a sks owl on snow", "Two of sks owl"])
        plain_words = scorer.clip.text_features(["an owl on snow", "Two of owl"])
        cosines = torch.nn.functional.cosine_similarity(scorer.clip.features(images), plain_words)
        torch.testing.assert_close(scores, cosines, atol=1e-6, rtol=0)
        assert scores.abs().max() <= 1

    def test_pixels_score_as_pictures_do(self, clip: str) -> None:
        scorer = text_similarity(model=clip, mode="removed")
        pixels = pixels_of(noise(4, 64, 64)).requires_grad_()
        scores = scorer.score_pixels(pixels, ["a sks owl on snow"])
        expected = scorer([noise(4, 64, 64)], ["a sks owl on snow"])
        torch.testing.assert_close(scores.detach(), expected, atol=0.01, rtol=0)
        scores.sum().backward()
        assert pixels.grad is not None
        assert pixels.grad.abs().sum() > 0

    @pytest.mark.parametrize("mode", ["class", "removed"])
    def test_the_rare_token_never_reaches_the_tokenizer(self, tiny_clip: Path, mode: str) -> None:
        scorer = text_similarity(model=str(tiny_clip), mode=mode)
        read = spied(scorer)
        prompts = ["a sks owl in snow", "photo of the SKS  Owl's nest", "sks owl, sks owl again"]
        scorer([noise(i, 40, 50) for i in range(3)], prompts)
        scorer.score_pixels(torch.rand(3, 3, 32, 32), prompts)
        assert len(read) == 6
        assert not [text for text in read if "sks" in text.lower()]

    @pytest.mark.parametrize(
        "prompt",
        [
            "a sks owl beside a sks nest",
            "a sks owl, in sks-style",
            "a SKS puppy",
            "sks_owl and a sks owl",
            "a photo of a dog",
        ],
    )
    def test_what_would_reach_it_is_refused_before(self, tiny_clip: Path, prompt: str) -> None:
        scorer = text_similarity(model=str(tiny_clip))
        read = spied(scorer)
        with pytest.raises(TastemakerError, match="sks"):
            scorer([noise(0, 40, 50), noise(1, 40, 50)], ["a sks owl", prompt])
        assert not read

    def test_half_precision_keeps_float_scores(self, clip: str) -> None:
        scorer = text_similarity(model=clip)
        before = scorer([noise(1, 40, 50)], ["a sks owl"])
        after = scorer.to(CPU, torch.bfloat16)([noise(1, 40, 50)], ["a sks owl"])
        assert after.dtype == torch.float32
        torch.testing.assert_close(after, before, atol=0.03, rtol=0)

    def test_a_subject_without_a_word_of_its_own(self, tiny_clip: Path) -> None:
        with pytest.raises(TastemakerError, match="no word that is not in class_name"):
            text_similarity(model=str(tiny_clip), subject="grey Owl", class_name="owl grey")

    @pytest.mark.parametrize("options", [{"mode": "clas"}, {"class_name": " "}, {"subject": ""}])
    def test_options_are_checked(self, options: dict[str, str]) -> None:
        with pytest.raises(TastemakerError, match=next(iter(options))):
            SCORERS.validate("text_similarity", {"model": "any", **OWL, **options})


def spied(scorer: Any) -> list[str]:
    """Every text that the scorer's tokenizer reads from now on."""
    read: list[str] = []
    tokenizer: Callable[..., Any] = scorer.clip.tokenizer

    def spy(texts: list[str], **options: Any) -> Any:
        read.extend(texts)
        return tokenizer(texts, **options)

    scorer.clip.tokenizer = spy
    return read


class TestPlain:
    @pytest.mark.parametrize(
        ("prompt", "phrase", "name", "expected"),
        [
            ("a sks owl on a roof", "sks owl", "owl", "an owl on a roof"),
            ("A sks owl", "sks owl", "owl", "An owl"),
            ("An xyz dog", "xyz dog", "dog", "A dog"),
            ("the SKS dog's bowl", "sks dog", "dog", "the dog's bowl"),
            ("a photo of <toy> and <toy>", "<toy>", "cat toy", "a photo of cat toy and cat toy"),
            ("a dog, no sks dog.", "sks dog", "dog", "a dog, no dog."),
            ("an asks sks dog", "sks dog", "dog", "an asks dog"),
        ],
    )
    def test_the_class_takes_the_place(
        self, prompt: str, phrase: str, name: str, expected: str
    ) -> None:
        assert plain(prompt, phrase, name) == expected

    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("a photo of a sks owl", "a photo of"),
            ("a sks owl, in the snow", "in the snow"),
            ("snow over the sks owl, at night.", "snow over, at night"),
            ("sks owl with sks owl", "with"),
        ],
    )
    def test_or_nothing_does(self, prompt: str, expected: str) -> None:
        assert plain(prompt, "sks owl", "owl", "removed") == expected

    def test_a_prompt_of_the_subject_alone_cannot_lose_it(self) -> None:
        with pytest.raises(TastemakerError, match="empty without its subject; use mode 'class'"):
            plain("a sks owl.", "sks owl", "owl", "removed")

    @pytest.mark.parametrize("template", ["a {} in a hammock", "A {}", "the {}'s bowl", "{}"])
    def test_a_filled_template_is_filled_anew(self, template: str) -> None:
        assert plain(filled(template, "sks owl"), "sks owl", "owl") == filled(template, "owl")

    @given(st.text("ab ,", max_size=12), st.text("ab ,", max_size=12))
    def test_the_rest_of_the_prompt_stays(self, before: str, after: str) -> None:
        # Nothing here is an article but "a", which fits a dog as it fits sks.
        prompt = f"{before} sks dog {after}"
        assert plain(prompt, "sks dog", "dog").split() == prompt.replace("sks ", "").split()
