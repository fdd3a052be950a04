"""Networks that metrics look at images with, known by name and content before they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tastemaker.config.choices import ScorerChoice
from tastemaker.core.content_hash import file_content
from tastemaker.core.registry import SCORERS
from tastemaker.scorers.checkpoints import weights_file
from tastemaker.scorers.inputs import scorer_inputs

INCEPTION = "inception"
INCEPTION_LABEL = "Inception pool3"
TORCHSCRIPT = {".pt", ".pth", ".ts", ".torchscript"}


class Network(NamedTuple):
    """Identity of a network.

    Attributes:
        label: Its name in `report.json`, for instance "clip:my-clip".
        inputs: Options and contents of its files, JSON-like.
    """

    label: str
    inputs: dict[str, Any]


def features_identity(name_or_path: str) -> Network:
    """Identify the network of `feature_network`.

    Args:
        name_or_path: As of `feature_network`.

    Returns:
        Its label, and what its features depend on.

    Raises:
        TastemakerError: A file does not exist or cannot be read.
    """
    path = Path(name_or_path).expanduser()
    if is_inception(name_or_path):
        return Network(INCEPTION_LABEL, _inception_inputs(name_or_path))
    if is_torchscript(path):
        return _of_file(path)
    if name_or_path in SCORERS:
        return _of_scorer(name_or_path, name_or_path, {})
    return _of_scorer(f"clip:{path.name}", "clip", {"model": name_or_path})


def classifier_identity(name_or_path: str) -> Network:
    """Identify the network of `classifier_network`.

    Args:
        name_or_path: `inception`, `inception:FILE`, or a TorchScript file.

    Returns:
        Its label, and what its logits depend on.

    Raises:
        TastemakerError: The file does not exist or cannot be read.
    """
    if is_inception(name_or_path):
        return Network("Inception", _inception_inputs(name_or_path))
    return _of_file(Path(name_or_path).expanduser())


def is_inception(name_or_path: str) -> bool:
    """Return whether a name means Inception, with its usual weights or with those of a file."""
    return name_or_path.partition(":")[0] == INCEPTION


def inception_file(name_or_path: str) -> Path | None:
    """Return the file of weights of `inception:FILE`; None for `inception`.

    Args:
        name_or_path: A name of which `is_inception` is true; the file is a path, or
            `owner/name/file` on the hub.

    Raises:
        TastemakerError: The file is not here and cannot be fetched.
    """
    file = name_or_path.partition(":")[2]
    return weights_file(file) if file else None


def _inception_inputs(name_or_path: str) -> dict[str, Any]:
    file = inception_file(name_or_path)
    return {} if file is None else {"content": file_content(file)}


def is_torchscript(path: Path) -> bool:
    """Return whether a path is taken for a TorchScript file."""
    return path.is_file() or path.suffix in TORCHSCRIPT


def _of_file(path: Path) -> Network:
    return Network(f"torchscript:{path.stem}", {"content": file_content(path)})


def _of_scorer(label: str, scorer: str, given: dict[str, str]) -> Network:
    options = SCORERS.validate(scorer, given)
    choice = ScorerChoice(name=scorer, **options)
    return Network(label, {**choice.model_dump(mode="json"), "inputs": scorer_inputs(choice)})
