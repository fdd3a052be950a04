"""Photographs of one subject, in a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_bytes, read_text, say_counts
from tastemaker.core.registry import SUBJECTS
from tastemaker.core.templates import SLOT, filled
from tastemaker.datasets.listing import SUFFIXES
from tastemaker.storage.photographs import Decoded, read_photograph


def photograph_files(folder: str) -> list[Path]:
    """List the photographs of a subject in order of their names.

    Hidden files, files of other kinds and folders inside are left out and their number is
    printed.

    Args:
        folder: Folder of photographs, 3 to 6 are usual; one photograph, as a file; or a registered
            subject (`nano_fish`).

    Returns:
        One or more files.

    Raises:
        TastemakerError: No such folder, or no photograph in it.
    """
    root = SUBJECTS.entry(folder)() if folder in SUBJECTS else Path(folder).expanduser()
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        return [root]
    if not root.is_dir():
        raise TastemakerError(
            f"folder of photographs {folder!r} does not exist; check the path."
            f" Subjects by name: {', '.join(SUBJECTS.names())}."
        )
    held = list(root.iterdir())
    files = sorted(
        file
        for file in held
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )
    if not files:
        raise TastemakerError(
            f"{folder!r} holds no photograph (looked for {', '.join(sorted(SUFFIXES))}); put those"
            " of the subject into it."
        )
    captions = [file for file in held if file in {caption_file(each) for each in files}]
    others = len(held) - len(files) - len(captions)
    say_counts(folder, len(files), len(held), (others, "hidden, folders or of another kind"))
    return files


def caption_file(photograph: Path) -> Path:
    """Return the file that a photograph's own caption is read from, as kohya's trainers do."""
    return photograph.with_suffix(".txt")


def captioned(photograph: Path, prompt: str, subject: str) -> str:
    """Return the prompt of a photograph.

    Args:
        photograph: Beside it, perhaps, a text file of its name: its own caption.
        prompt: Without one.
        subject: Phrase that a caption names, or has a slot `{}` for.

    Raises:
        TastemakerError: A caption does not name the subject.
    """
    if not (file := caption_file(photograph)).is_file():
        return prompt
    caption = " ".join(read_text(file).split())
    if SLOT in caption:
        return filled(caption, subject)
    if subject not in caption:
        raise TastemakerError(
            f"caption {str(file)!r} does not name the subject; write {SLOT} or {subject!r} where it"
            " belongs, or remove the file."
        )
    return caption


def photographs(folder: str) -> list[Image.Image]:
    """Read the photographs of a subject, upright, in order of their names.

    Args:
        folder: As for `photograph_files`.

    Returns:
        One or more pictures, RGB, each of its own size.

    Raises:
        TastemakerError: No such folder, no photograph in it, or one that cannot be read.
    """
    files = photograph_files(folder)
    decoded = [_decoded(file) for file in files]
    notes = Counter(note for each in decoded for note in each.notes)
    counts = ((number, note) for note, number in notes.items())
    say_counts(folder, len(files), len(files), *counts)
    return [each.image for each in decoded]


def photograph(file: Path) -> Image.Image:
    """Read one photograph as `photographs` does.

    Raises:
        TastemakerError: It cannot be read.
    """
    return _decoded(file).image


def _decoded(file: Path) -> Decoded:
    try:
        return read_photograph(read_bytes(file))
    except TastemakerError as error:
        raise TastemakerError(
            f"photograph {str(file)!r}: {error}; repair it or remove it from the folder."
        ) from None
