"""DreamBooth's own prompts: a reader for `prompts_and_classes.txt` of its data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import read_lines
from tastemaker.core.templates import SLOT, as_template

Kind = Literal["live", "object"]

_LISTS: dict[str, Kind] = {"Live Subject Prompts": "live", "Object Prompts": "object"}
_CLASSES = "Classes"
_HEADER = "subject_name,class"
_FRAME = re.compile(r"Prompts|prompt_list\s*=\s*\[|\]|")
_PROMPT = re.compile(
    r"""(?P<quote>["'])(?P<text>.*)(?P=quote)\.format\(unique_token, *class_token\),?"""
)


@dataclass(frozen=True)
class DreamBoothPrompts:
    """Contents of the file.

    Args:
        classes: The class's name for every subject, for instance `{"dog2": "dog"}`.
        templates: The two lists, with one slot for token and class together.
    """

    classes: dict[str, str]
    templates: dict[Kind, list[str]]


def is_dreambooth(lines: Sequence[str]) -> bool:
    """Return True for the lines of DreamBooth's file."""
    return next((line.strip() for line in lines if line.strip()), "") == _CLASSES


def read_dreambooth(file: Path) -> DreamBoothPrompts:
    """Read the classes and both lists of prompts of DreamBooth's data set.

    The file has three parts, each under its heading: `Classes`, a table with the header
    `subject_name,class`; `Object Prompts` and `Live Subject Prompts`, each a Python list of lines
    `'a {0} {1} ...'.format(unique_token, class_token),`. It is read as text and never run.

    Args:
        file: `prompts_and_classes.txt`.

    Returns:
        Classes and templates, in the order of the file.

    Raises:
        TastemakerError: The file is missing, lacks one of the parts, or a line is of another form.

    References:
        Ruiz et al. (DreamBooth), arXiv 2208.12242, section 4.1.
    """
    classes: dict[str, str] = {}
    templates: dict[Kind, list[str]] = {"live": [], "object": []}
    heading = ""
    for number, line in enumerate(map(str.strip, read_lines(file)), 1):
        where = f"{file}, line {number}"
        if line == _CLASSES or line in _LISTS:
            heading = line
        elif _FRAME.fullmatch(line) or line == _HEADER:
            continue
        elif heading == _CLASSES:
            subject, name = _row(line, where)
            classes[subject] = name
        elif heading in _LISTS:
            templates[_LISTS[heading]].append(_template(line, where))
        else:
            raise TastemakerError(f"{where} is under no heading; the first is {_CLASSES!r}.")
    held = {_CLASSES: classes, **{title: templates[kind] for title, kind in _LISTS.items()}}
    missing = [title for title, content in held.items() if not content]
    if missing:
        raise TastemakerError(
            f"{file} has nothing under {missing[0]!r}; is it DreamBooth's prompts_and_classes.txt?"
        )
    return DreamBoothPrompts(classes, templates)


def _row(line: str, where: str) -> tuple[str, str]:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 2 or not all(cells):
        raise TastemakerError(f"{where}: {line!r} is not {_HEADER!r}, as 'dog2,dog'.")
    return cells[0], cells[1]


def _template(line: str, where: str) -> str:
    prompt = _PROMPT.fullmatch(line)
    if prompt is None or prompt["text"].count("{0} {1}") != 1:
        raise TastemakerError(
            f"{where}: {line!r} is not 'a {{0}} {{1}} ...'.format(unique_token, class_token)."
        )
    return as_template(prompt["text"].replace("{0} {1}", SLOT), where)
