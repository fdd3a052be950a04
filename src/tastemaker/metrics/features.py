"""Features of images by the name of what gives them, labelled by what they are."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import torch_device
from tastemaker.core.registry import SCORERS
from tastemaker.metrics.frechet import feature_batches, one_matrix
from tastemaker.metrics.networks import (
    INCEPTION,
    INCEPTION_LABEL,
    inception_file,
    is_inception,
    is_torchscript,
)


@dataclass(frozen=True)
class Extractor:
    """Function from images to their features, [n, d], float64 on the CPU, in their order.

    Args:
        batches: The same batch by batch.
    """

    batches: Callable[[Iterable[Image.Image]], Iterator[Tensor]]

    def __call__(self, images: Iterable[Image.Image]) -> Tensor:
        """Return the features of all images.

        Raises:
            TastemakerError: No images.
        """
        return one_matrix(self.batches(images))


class FeatureNetwork(NamedTuple):
    """Features with their name, as `report.json` holds it; only equal labels compare.

    Attributes:
        label: What the features are, for instance "clip:my-clip".
        features: From images to [n, d].
    """

    label: str
    features: Extractor


def feature_network(
    name_or_path: str, *, device: str = "cpu", batch_size: int = 64
) -> FeatureNetwork:
    """Load the network whose features a distance of two sets of images is to compare.

    | name or path | features | label |
    |---|---|---|
    | `inception` | the 2048 of Inception's `pool3` by torch-fidelity | `Inception pool3` |
    | `inception:FILE` | the same, with torch-fidelity's weights from a file | `Inception pool3` |
    | a scorer in CLIP form, by name | its image embedding | the name |
    | a TorchScript file | its output | `torchscript:` and the file's name |
    | folder or hub id of a `CLIPModel` | its image embedding | `clip:` and the folder's name |

    The first that applies is taken. Only `inception` gives what the literature calls FID and KID,
    from 2,048 images on. Its weights come from torch hub's folder, or are downloaded to it.

    Args:
        name_or_path: A row of the table. A TorchScript network takes pixels in [0, 1], [n, 3,
            height, width], to [n, d]; resizing and normalisation are its own. It is code: load
            files that you trust.
        device: "cpu", "auto", "cuda" or "mps".
        batch_size: Images per network pass; it enters no number.

    Returns:
        The label and the function from images to features. `inception` and TorchScript networks
        take images of one size, CLIPs of any.

    Raises:
        TastemakerError: The network does not exist or cannot be loaded, or its scorer has no
            features; the function raises it where there are no images, or sizes that differ.

    Example:
        >>> label, features = feature_network("nano_judge")
        >>> label, len(features([Image.new("RGB", (64, 64))]))
        ('nano_judge', 1)

    References:
        Heusel et al. (FID), arXiv 1706.08500; torch-fidelity, whose Inception is the original's.
    """
    if batch_size < 1:
        raise TastemakerError(f"batch_size is {batch_size}; it must be 1 or more.")
    where = torch_device(device)
    path = Path(name_or_path).expanduser()
    if is_inception(name_or_path):
        network = _inception(name_or_path)
        return FeatureNetwork(INCEPTION_LABEL, _of_pixels(network, where, batch_size))
    if is_torchscript(path):
        return FeatureNetwork(
            f"torchscript:{path.stem}", _of_pixels(_torchscript(path), where, batch_size)
        )
    try:
        if name_or_path in SCORERS:
            return FeatureNetwork(name_or_path, _of_scorer(name_or_path, {}, where, batch_size))
        features = _of_scorer("clip", {"model": name_or_path}, where, batch_size)
    except TastemakerError as error:
        raise _no_features(name_or_path, error) from error
    return FeatureNetwork(f"clip:{path.name}", features)


def check_features(name_or_path: str, look_for: Callable[[str], None]) -> None:
    """Look for the network of `feature_network`, loading none but a TorchScript file's.

    Args:
        name_or_path: As of `feature_network`.
        look_for: Raises where a model's weights are not there, by folder or hub id.

    Raises:
        TastemakerError: The network does not exist, or its scorer has no features.
    """
    path = Path(name_or_path).expanduser()
    if is_inception(name_or_path):
        _inception(name_or_path)
    elif is_torchscript(path):
        _torchscript(path)
    elif name_or_path in SCORERS:
        SCORERS.validate(name_or_path, {})
        made = SCORERS.entry(name_or_path)
        # Of a function, only what it returns knows.
        if isinstance(made, type) and not hasattr(made, "features"):
            raise _no_features(name_or_path, _scores_alone(name_or_path))
    else:
        try:
            look_for(name_or_path)
        except TastemakerError as error:
            raise _no_features(name_or_path, error) from error


def classifier_network(name_or_path: str) -> nn.Module:
    """Load a classifier from pixels in [0, 1], [n, 3, height, width], to logits.

    Args:
        name_or_path: `inception`, `inception:FILE`, or a TorchScript file.

    Returns:
        The network.

    Raises:
        TastemakerError: The network does not exist, or it cannot be loaded.
    """
    if is_inception(name_or_path):
        return _inception(name_or_path, "logits_unbiased")
    return _torchscript(Path(name_or_path).expanduser())


def classifier_batches(
    name_or_path: str, device: str, batch_size: int
) -> Callable[[Iterable[Image.Image]], Iterator[Tensor]]:
    """Load a classifier as a function from images to their logits, [n, classes].

    Args:
        name_or_path: As of `classifier_network`.
        device: "cpu", "auto", "cuda" or "mps".
        batch_size: Images per network pass.

    Raises:
        TastemakerError: As of `classifier_network`.
    """
    return _of_pixels(classifier_network(name_or_path), torch_device(device), batch_size).batches


def _no_features(name: str, error: TastemakerError) -> TastemakerError:
    return TastemakerError(
        f"{name!r} gives no features: name {INCEPTION!r}, a registered scorer in CLIP form, a"
        f" TorchScript file, or a CLIP's folder or hub id. {error}"
    )


def _of_pixels(network: nn.Module, device: torch.device, batch_size: int) -> Extractor:
    network = network.to(device).eval()
    return Extractor(functools.partial(feature_batches, network=network, batch_size=batch_size))


def _of_scorer(
    name: str, options: dict[str, str], device: torch.device, batch_size: int
) -> Extractor:
    scorer = SCORERS.bind(name, options)().to(device, torch.float32)
    extract = getattr(scorer, "features", None)
    if not callable(extract):
        raise _scores_alone(name)
    return Extractor(functools.partial(_in_batches, extract=extract, batch_size=batch_size))


def _scores_alone(name: str) -> TastemakerError:
    return TastemakerError(f"Scorer {name!r} gives scores alone.")


@torch.no_grad()
def _in_batches(
    images: Iterable[Image.Image],
    extract: Callable[[Sequence[Image.Image]], Tensor],
    batch_size: int,
) -> Iterator[Tensor]:
    """Features by a function that takes pictures of any size, as a scorer's does."""
    stream = iter(images)
    while batch := [image.convert("RGB") for image in islice(stream, batch_size)]:
        yield extract(batch).cpu().double()


def _torchscript(path: Path) -> nn.Module:
    if not path.is_file():
        raise TastemakerError(f"TorchScript file {str(path)!r} does not exist; check the path.")
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise TastemakerError(
            f"{str(path)!r} is not a TorchScript file ({str(error).splitlines()[0]}); save the"
            " network with torch.jit.script(network).save(path). A file of weights alone does not"
            " say what network they are for."
        ) from error


class _Inception(nn.Module):
    """torch-fidelity's Inception, which wants whole numbers and hands out a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network((pixels * 255).round().to(torch.uint8))[0]
        return features


def _inception(name: str, layer: str = "2048") -> nn.Module:
    file = inception_file(name)
    try:
        fidelity = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError:
        raise TastemakerError(
            "'inception' needs the extra 'inception': pip install 'tastemaker[inception]', or name"
            " another network, which gives no FID and no Inception Score."
        ) from None
    try:
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", [layer], feature_extractor_weights_path=file and str(file)
        )
        return _Inception(network)
    except OSError as error:  # an URL that cannot be reached is one
        raise TastemakerError(
            f"the weights of Inception cannot be fetched ({error}); put torch-fidelity's file"
            f" (weights-inception-2015-12-05-*.pth) into {torch.hub.get_dir()}/checkpoints, or"
            " name it: inception:FILE."
        ) from error
    except Exception as error:  # whatever torch stumbles over in a file of something else
        raise TastemakerError(
            f"{name!r} does not hold torch-fidelity's weights of Inception ({error}); download"
            " weights-inception-2015-12-05-*.pth again."
        ) from error
