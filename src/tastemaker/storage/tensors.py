"""Safetensors files, atomic, with a checksum and the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.core.reading import open_file
from tastemaker.storage.files import atomic, damaged

if TYPE_CHECKING:
    import torch


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically, with the same bytes for the same content.

    Args:
        path: The file.
        tensors: On any device.
        metadata: Strings to keep beside them.

    Raises:
        TastemakerError: The disk is full.
    """
    from safetensors.torch import save_file

    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic(path) as temporary:
        save_file(contiguous, temporary, dict(metadata or {}))
        sort_header(temporary)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a file of `write_tensors`, once its checksum is right.

    Args:
        path: The file.

    Returns:
        Its tensors on the CPU, and its metadata.

    Raises:
        DamagedError: It is torn, or not what was written.
        TastemakerError: It is missing or cannot be read.
    """
    from safetensors.torch import load_file

    with open_file(path) as file:
        try:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, path.stat().st_size)))
            metadata = header["__metadata__"]
            held = metadata.pop(CHECKSUM)
        except (ValueError, LookupError, TypeError):
            raise damaged(path, "its header cannot be read") from None
        digest = _digest(header)
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
        if digest.hexdigest() != held:
            raise damaged(path, "its checksum is wrong")
    return load_file(path), metadata


CHECKSUM = "checksum"
"""In a file's metadata: hash of the rest of its header and of its tensors."""


def _digest(header: dict[str, Any]) -> Any:
    """Begin the hash of a file with its header."""
    return hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)


def sort_header(path: Path) -> None:
    """Rewrite a safetensors file with the keys of its metadata in order, and with a checksum.

    The library writes metadata in the random order of a hash map: without this, equal files would
    differ in their bytes.

    Args:
        path: A whole safetensors file, not yet in use by anybody.
    """
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + size]), memoryview(data)[8 + size :]
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    digest = _digest(header)
    digest.update(tensors)
    header["__metadata__"][CHECKSUM] = digest.hexdigest()
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(tensors)
