"""Lines of a text file, with one clear error where it has none to give."""

from __future__ import annotations

from pathlib import Path

from tastemaker.errors import TastemakerError


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file.

    Args:
        file: UTF-8, with or without a mark at its beginning.

    Returns:
        Its lines as they stand; the line at i is number i + 1.

    Raises:
        TastemakerError: The file is missing, may not be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise TastemakerError(f"{file} is not UTF-8 text: {error}; save it as UTF-8.") from None
    except OSError as error:
        raise TastemakerError(f"{file} cannot be read: {error.strerror}.") from None
