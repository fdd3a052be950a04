"""A handful of photographs of one subject, in a folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tastemaker.captioned import SUFFIXES
from tastemaker.errors import TastemakerError
from tastemaker.images import decode_photograph
from tastemaker.registry import SUBJECTS


def photograph_files(folder: str) -> list[Path]:
    """List the photographs of a subject in order of their names.

    Hidden files, files of other kinds and folders inside are not looked at: a folder holds one
    subject.

    Args:
        folder: Where they lie, 3 to 6 are usual; or a registered subject (`nano_fish`).

    Returns:
        One or more files.

    Raises:
        TastemakerError: No such folder, or no photograph in it.
    """
    root = SUBJECTS.entry(folder)() if folder in SUBJECTS else Path(folder).expanduser()
    if not root.is_dir():
        raise TastemakerError(
            f"folder of photographs {folder!r} does not exist; check the path."
            f" Subjects by name: {', '.join(SUBJECTS.names())}."
        )
    files = sorted(
        file
        for file in root.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )
    if not files:
        raise TastemakerError(
            f"{folder!r} holds no photograph (looked for {', '.join(sorted(SUFFIXES))}); put those"
            " of the subject into it."
        )
    return files


def photographs(folder: str) -> list[Image.Image]:
    """Read the photographs of a subject, upright, in order of their names.

    Args:
        folder: As for `photograph_files`.

    Returns:
        One or more pictures, RGB, each of its own size.

    Raises:
        TastemakerError: No such folder, no photograph in it, or one that cannot be read.
    """
    return [_read(file) for file in photograph_files(folder)]


def _read(file: Path) -> Image.Image:
    try:
        return decode_photograph(file.read_bytes())
    except (OSError, TastemakerError) as error:
        raise TastemakerError(
            f"photograph {str(file)!r}: {error}; mend it or take it out of the folder."
        ) from None
