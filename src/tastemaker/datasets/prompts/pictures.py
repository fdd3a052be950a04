"""Pictures that prompt beside the texts, for an IP-Adapter: one for all, or one per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tastemaker.core.errors import TastemakerError
from tastemaker.datasets.listing import SUFFIXES


def picture_files(path: str) -> list[Path]:
    """List a picture, or the pictures of a folder in order of their names.

    Hidden files, files of other kinds and folders inside are left out.

    Args:
        path: A picture's file, or a folder of pictures.

    Returns:
        One or more files.

    Raises:
        TastemakerError: The path does not exist, or the folder has no picture.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise TastemakerError(f"picture {path!r} does not exist; check the path.")
    files = sorted(
        file
        for file in (place.iterdir() if place.is_dir() else [place])
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise TastemakerError(
            f"{path!r} is neither a picture nor a folder of some (looked for"
            f" {', '.join(sorted(SUFFIXES))}); name one."
        )
    return files


def pictures_by(path: str, keys: Sequence[str]) -> dict[str, Path]:
    """Match pictures with prompts, or with real images.

    Args:
        path: As of `picture_files`.
        keys: Prompts, or ids of real images, in their order.

    Returns:
        The one picture for every key, or the k-th for the k-th key.

    Raises:
        TastemakerError: There are several pictures, and not as many as keys.
    """
    files = picture_files(path)
    if len(files) not in {1, len(keys)}:
        raise TastemakerError(
            f"ip_adapter_image: {path} has {len(files)} pictures for {len(keys)} prompts or real"
            " images; give one for each, in order of their names, or a single one for all."
        )
    return dict(zip(keys, files * len(keys) if len(files) == 1 else files, strict=True))
