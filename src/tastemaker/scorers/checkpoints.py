"""Weights as others publish them: one file, by its path or by its place on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_file

if TYPE_CHECKING:
    import torch

SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}


def is_file(name: str) -> bool:
    """Return True for a name of one file of weights, False for a model's folder or hub id."""
    return Path(name).suffix.lower() in SUFFIXES


def hub_place(name: str) -> tuple[str, str] | None:
    """Read a name as a file on the hub: `owner/name/path/of/file`.

    Args:
        name: A path or a place on the hub.

    Returns:
        Repository and file in it; None where the name can only be a path.

    Example:
        >>> hub_place("xswu/HPSv2/HPS_v2_compressed.pt")
        ('xswu/HPSv2', 'HPS_v2_compressed.pt')
        >>> hub_place("./HPS_v2_compressed.pt") is None
        True
    """
    found = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)/([^\\]+)", name)
    return (found[1], found[2]) if found else None


def weights_file(name: str) -> Path:
    """Find a file of weights: here, in the hub's cache, or on the hub.

    Args:
        name: A path, or `owner/name/file` of a model repository on the hub.

    Returns:
        The file.

    Raises:
        TastemakerError: It is not here and cannot be fetched.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    place = hub_place(name)
    if place is None:
        raise TastemakerError(f"file of weights {name!r} does not exist; check the path.")
    return hub_file(name, *place)


def read_weights(name: str) -> dict[str, torch.Tensor]:
    """Read a file of weights by name.

    A checkpoint's weights may lie under "state_dict" or "model", and all names may begin with
    "module.", as training on several GPUs leaves them.

    Args:
        name: A path, or `owner/name/file` on the hub. Other files than safetensors are read with
            `weights_only`: tensors, numbers and text, and no code.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        TastemakerError: The file cannot be found or read, or holds no weights.
    """
    import torch

    path = weights_file(name)
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            held: Any = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    # torn, a pickle of something else, or one that would run code
    except Exception as error:
        raise TastemakerError(
            f"{str(path)!r} is not a file of weights that can be read safely"
            f" ({_first_line(error)});"
            " download it again, or save its tensors as .safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    tensors = (
        {str(key): each for key, each in held.items() if isinstance(each, torch.Tensor)}
        if isinstance(held, Mapping)
        else {}
    )
    if not tensors:
        raise TastemakerError(f"{str(path)!r} holds no weights by name; give a state dict.")
    if all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): each for key, each in tensors.items()}
    return tensors


def filled(
    kind: Any, config: Any, weights: Mapping[str, torch.Tensor], source: str, **options: Any
) -> Any:
    """Make a transformers model of weights in memory.

    Args:
        kind: The model's class.
        config: Its configuration.
        weights: All of its weights, by its own names.
        source: Where they come from, for the message.
        **options: Of the class.

    Returns:
        The model in float32, not trainable.

    Raises:
        TastemakerError: A weight is missing, of another shape, or one too many.
    """
    import torch

    try:
        network, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights),
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except (RuntimeError, ValueError) as error:
        raise TastemakerError(f"weights of {source!r} do not fit: {_first_line(error)}") from error
    for what, keys in (
        ("lack", info["missing_keys"]),
        ("hold beside the model", info["unexpected_keys"]),
    ):
        if keys:
            raise TastemakerError(
                f"weights of {source!r} {what} {sorted(keys)[0]!r} ({len(keys)} in all); it is the"
                " checkpoint of another model."
            )
    return network.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
