"""Similarity of faces to photographs of a person, by the user's own face recognition network."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from tastemaker.core.errors import TastemakerError
from tastemaker.core.lazy_torch import F, no_grad, torch
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.datasets.subjects import photographs
from tastemaker.scorers.base import Needs, Subject
from tastemaker.scorers.embedding import Encoder
from tastemaker.scorers.encoders import image_encoder
from tastemaker.scorers.likeness import Likeness
from tastemaker.scorers.pixels import normalised, unit_pixels

ONNX = Needs("onnxruntime", "onnx", ".onnx")
TORCHSCRIPT = {".pt", ".pth", ".ts", ".torchscript"}
SIDE = 112
"""Of the square that face recognition networks commonly take, pixels."""


@SCORERS.register("identity")
class Identity(Likeness):
    """Identity: the mean cosine of a face's embedding to those of a person's photographs.

    `score = mean_k cos(face, photograph_k)`, in [-1, 1]. What is one person's depends on the
    network: measure photographs of one person, and of others, with it. Only scores of one network
    and the same photographs compare.

    Faces are not looked for: network and score see the middle square of every picture, photographs
    and candidates alike. Face recognition networks are trained on faces that were found and turned
    upright, eyes on given places. Give portraits, or crop the photographs as your candidates are;
    where no face is, the score says nothing. Ask people before you compare their faces, and read
    the licence of the network: most allow research alone.

    Args:
        images: Folder of the person's photographs.
        model: An .onnx file (ArcFace's, for instance) or a TorchScript file, which takes
            [images, 3, size, size] to embeddings; or folder or hub id of a DINOv2 or CLIP, which
            has a processor of its own and leaves `size`, `mean` and `std` alone.
        size: Side of the square that the network takes; None asks the .onnx file, else 112.
        mean: Subtracted from red, green and blue in [0, 1].
        std: What the difference is divided by.

    Raises:
        TastemakerError: No such folder or model, a photograph that cannot be read, the extra `onnx`
            is missing. On use: a gradient is asked of an .onnx file, which has none.

    References:
        Deng et al. (ArcFace), arXiv 1801.07698; deepinsight/insightface for the pixels that its
        networks take.
    """

    def __init__(
        self,
        *,
        images: Annotated[str, Subject(), Field(description="Folder of the person's photographs.")],
        model: Annotated[
            str,
            Weights(),
            ONNX,
            Field(description="An .onnx or TorchScript file, or a DINOv2 or CLIP."),
        ],
        size: Annotated[
            int | None, Field(ge=8, description="Side that the network takes; null: its own.")
        ] = None,
        mean: Annotated[float, Field(description="Subtracted from pixels in [0, 1].")] = 0.5,
        std: Annotated[float, Field(gt=0, description="Divisor of the pixels.")] = 0.5,
    ) -> None:
        pictures = photographs(images)
        super().__init__(_encoder(model, size, mean, std), pictures)


def _encoder(model: str, size: int | None, mean: float, std: float) -> Encoder:
    path = Path(model).expanduser()
    suffix = path.suffix.lower()
    if suffix not in {".onnx", *TORCHSCRIPT}:
        return image_encoder(model)
    if not path.is_file():
        raise TastemakerError(f"face network {model!r} does not exist; check the path.")
    network = OnnxNetwork(path) if suffix == ".onnx" else TorchScriptNetwork(path)
    return FaceEncoder(network, size or network.side or SIDE, mean, std)


class FaceEncoder:
    """The middle square of a picture to an embedding of length 1.

    Args:
        network: Takes pixels, [images, 3, side, side], to embeddings.
        side: Of the square, pixels.
        mean: Subtracted from pixels in [0, 1].
        std: What they are divided by.
    """

    def __init__(
        self, network: OnnxNetwork | TorchScriptNetwork, side: int, mean: float, std: float
    ) -> None:
        self.network = network
        self.side = side
        self.mean = mean
        self.std = std

    def to(self, device: torch.device, dtype: torch.dtype) -> FaceEncoder:
        """Move the network, which stays in float32; return the encoder."""
        self.network.to(device)
        return self

    @no_grad
    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the embeddings of pictures, float32, shape [images, width]."""
        return self._embedded(torch.cat([self._square(unit_pixels(image)) for image in images]))

    def pixel_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of pixels in [0, 1], [images, 3, height, width], with gradient."""
        return self._embedded(self._square(pixels.float()))

    def _square(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = pixels.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        middle = pixels[..., top : top + side, left : left + side]
        size = (self.side, self.side)
        return F.interpolate(middle, size, mode="bicubic", antialias=True).clamp(0, 1)

    def _embedded(self, squares: torch.Tensor) -> torch.Tensor:
        embeddings = self.network(normalised(squares, [self.mean] * 3, [self.std] * 3))
        return F.normalize(embeddings.flatten(1).float(), dim=-1)


class TorchScriptNetwork:
    """A network that was saved with its code: differentiable. Load files that you trust.

    Args:
        path: Of the file.

    Raises:
        TastemakerError: It is not TorchScript.
    """

    side: int | None = None

    def __init__(self, path: Path) -> None:
        try:
            self.network: Any = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise TastemakerError(
                f"face network {str(path)!r} is not a TorchScript file"
                f" ({str(error).strip().splitlines()[0]}); save it with torch.jit.script or trace."
            ) from error
        for weight in self.network.parameters():
            weight.requires_grad_(False)
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)
        self.device = device

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings of normalised pixels, with gradient."""
        embeddings: torch.Tensor = self.network(inputs.to(self.device))
        return embeddings


class OnnxNetwork:
    """A network in an .onnx file, run by onnxruntime; no gradient passes.

    Args:
        path: Of the file.

    Raises:
        TastemakerError: onnxruntime is not installed, or the file is not ONNX.

    Attributes:
        side: Of the square that it takes; None where the file leaves it open.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.runtime = importlib.import_module(ONNX.module)
        except ImportError:
            raise TastemakerError(
                f"face network {str(path)!r} needs the extra {ONNX.extra!r}:"
                f" pip install 'tastemaker[{ONNX.extra}]', or give a TorchScript file."
            ) from None
        self.path = path
        self.to(torch.device("cpu"))
        shape = self.session.get_inputs()[0].shape
        self.side = shape[-1] if len(shape) == 4 and isinstance(shape[-1], int) else None
        # Some files are for one picture at a time.
        self.one_by_one = shape[0] == 1

    def to(self, device: torch.device) -> None:
        """Run it there, where onnxruntime can."""
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in (
            self.runtime.get_available_providers()
        ):
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self.session = self.runtime.InferenceSession(str(self.path), providers=providers)
        # onnxruntime's own errors share no base with each other but this one
        except Exception as error:
            raise TastemakerError(
                f"face network {str(self.path)!r} is not an ONNX file that can be run"
                f" ({str(error).strip().splitlines()[0]})."
            ) from error

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings of normalised pixels, on the CPU."""
        if inputs.requires_grad:
            raise TastemakerError(
                f"face network {str(self.path)!r} is an ONNX file, which passes no gradient; train"
                " on a TorchScript file of it."
            )
        name = self.session.get_inputs()[0].name
        parts = inputs.cpu().split(1) if self.one_by_one else [inputs.cpu()]
        outputs = [self.session.run(None, {name: part.numpy()})[0] for part in parts]
        return torch.cat([torch.from_numpy(each) for each in outputs])
