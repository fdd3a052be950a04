"""Prompt sets: files and templates, read into a list of unique, non-empty strings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tastemaker.config.choices import Choice
from tastemaker.core.delimited import delimited_rows
from tastemaker.core.errors import TastemakerError
from tastemaker.core.reading import (
    json_lines,
    read_lines,
    require_file,
    require_unicode,
    say_counts,
)
from tastemaker.core.registry import PROMPTS
from tastemaker.core.templates import filled, parts
from tastemaker.datasets.prompts.dreambooth import Kind
from tastemaker.datasets.prompts.template_sets import crossed, load_templates
from tastemaker.storage.parquet import read_table


def load_prompts(choice: Choice) -> list[str]:
    """Build a configured prompt set.

    Args:
        choice: A registered prompt set with its options.

    Returns:
        Stripped prompts in order, without repetition; what is left out is counted aloud.

    Raises:
        TastemakerError: The set is empty, its file is unreadable, or a prompt is not valid
            Unicode.
    """
    prompts = PROMPTS.bind(choice.name, choice.options)()
    where = str(choice.options.get("path", choice.name))
    texts = [text for prompt in prompts if (text := prompt.strip())]
    unique = list(dict.fromkeys(texts))
    if not unique:
        raise TastemakerError(f"{where} holds no prompts; add at least one line.")
    for number, text in enumerate(unique, 1):
        require_unicode(text, f"{where}: prompt {number}")
    say_counts(
        where,
        len(unique),
        len(prompts),
        (len(texts) - len(unique), "repeat an earlier prompt"),
        (len(prompts) - len(texts), "are blank"),
        (sum(text.startswith("#") for text in unique), "begin with # and are prompts like others"),
        (sum("\n" in text for text in unique), "run over several lines"),
    )
    return unique


@PROMPTS.register("texts")
def texts(
    *, prompts: Annotated[tuple[str, ...], Field(min_length=1, description="The prompts.")]
) -> list[str]:
    """Take the prompts of the configuration itself.

    Args:
        prompts: One or more.

    Returns:
        The same prompts.
    """
    return list(prompts)


@PROMPTS.register("file")
def prompt_file(
    *,
    path: Annotated[str, Field(description="A .txt, .jsonl, .csv, .tsv or .parquet file.")],
    column: Annotated[str, Field(description="Column or key of the prompt.")] = "prompt",
    number: Annotated[int | None, Field(ge=1, description="Take the first so many.")] = None,
) -> list[str]:
    """Read prompts from a file: one per line, or a named column.

    Args:
        path: The file; its ending tells the format.
        column: Column (csv, tsv, parquet) or key (jsonl).
        number: Take only the first so many.

    Returns:
        The prompts of the file, unchanged.

    Raises:
        TastemakerError: The file is missing, of another kind, or lacks the column.
    """
    file = Path(path)
    if not os.path.lexists(file):
        known = ", ".join(PROMPTS.names())
        raise TastemakerError(f"prompt file {path!r} does not exist (named sets: {known}).")
    readers = {
        ".txt": _lines,
        ".jsonl": _json_lines,
        ".csv": _delimited,
        ".tsv": _delimited,
        ".parquet": _parquet,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise TastemakerError(f"{path}: prompts come as {', '.join(readers)}, not {file.suffix!r}.")
    require_file(file)
    return reader(file, column)[:number]


@PROMPTS.register("imagenet_classes")
def imagenet_classes(
    *,
    number: Annotated[
        int | None, Field(ge=1, le=1000, description="Take the first so many.")
    ] = None,
) -> list[str]:
    """Return "A photo of <class>" for the 1000 classes of ImageNet (ILSVRC 2012), in their order.

    The prompts of the DDE paper's Inception Score, with 50 images each. As there, the two pairs of
    classes that share a name are distinguished. The paper's words for them were not available:
    these are CLIP's, "crane bird" and "construction crane", "tights" and "one-piece bathing suit"
    (both called maillot). So are other names whose plain word means something else first (cricket
    insect, cardigan sweater).

    Args:
        number: Take only the first so many; the order is by kind, beginning with fish and birds.

    Returns:
        The prompts; the prompt at i is of the class of a classifier's logit i.

    References:
        Shi et al. (DDE), arXiv 2411.14871; Russakovsky et al. (ILSVRC), arXiv 1409.0575; Radford
        et al. (CLIP), arXiv 2103.00020, class names of its zero-shot ImageNet.
    """
    names = (Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8")
    return [f"A photo of {name}" for name in names.splitlines()[:number]]


Captions = Annotated[
    str | None,
    Field(
        description="File of captions (.txt, or COCO's .json), each put behind every template:"
        " prompts by the thousand, in an order mixed by `seed`."
    ),
]


@PROMPTS.register("templates")
def filled_templates(
    *,
    subject: Annotated[
        str,
        Field(
            pattern=r"\S", description="Phrase that fills the slot: token and class, or the class."
        ),
    ],
    set: Annotated[  # noqa: A002  # the option's name in YAML
        str, Field(description="live, object, or a file: templates, DreamBooth's, captions.")
    ] = "live",
    kind: Annotated[Kind | None, Field(description="List of DreamBooth's file.")] = None,
    words: Annotated[
        tuple[str, ...], Field(description="The class's names, to make templates of captions.")
    ] = (),
    captions: Captions = None,
    part: Annotated[int, Field(ge=1, description="Part to take, from 1 to `of`.")] = 1,
    of: Annotated[int, Field(ge=1, description="Split into so many disjoint parts.")] = 1,
    seed: Annotated[int, Field(ge=0, description="Equal seeds give equal parts.")] = 0,
    number: Annotated[
        int | None, Field(ge=1, description="Take the first so many of the part.")
    ] = None,
) -> list[str]:
    """Fill templates, "a {} in a hammock", with a personalised model's subject.

    Args:
        subject: Phrase of the slot, without an article: "sks dog" to generate with, "dog" to
            compare another model.
        set: `live` or `object`, 25 templates each; or a file as `load_templates` reads it.
        kind: List of DreamBooth's `prompts_and_classes.txt`, if `set` names that file.
        words: The class's names in the singular, if `set` names a file of captions.
        captions: File of captions; every one is put behind every template, after a comma.
        part: Part of the split; no two parts share a prompt.
        of: Parts in the split; 1 for the whole set.
        seed: Seed of the split, and of the order of templates with captions.
        number: Take only the first so many of the part.

    Returns:
        The prompts, in the order of their templates; with `captions` in the mixed one.

    Raises:
        TastemakerError: No such set or file, a template without the slot or with two, more parts
            than templates, or `part` above `of`.

    Example:
        >>> filled_templates(subject="sks dog", number=1)
        ['a sks dog at the foot of a waterfall']
    """
    if part > of:
        raise TastemakerError(f"prompts.part={part} of prompts.of={of}: parts count from 1 to of.")
    templates = load_templates(set, kind, words)
    whole = crossed(templates, Path(captions), seed) if captions else templates
    templates = parts(whole, of, seed)[part - 1]
    return [filled(template, subject) for template in templates[:number]]


def _lines(file: Path, column: str) -> list[str]:
    lines = read_lines(file)
    return lines if lines[-1] else lines[:-1]  # the text behind the last line's end is empty


def _json_lines(file: Path, column: str) -> list[str]:
    return [_text(row, column, f"{file}, line {n}") for n, row in json_lines(file)]


def _delimited(file: Path, column: str) -> list[str]:
    return [_text(row, column, f"{file}, line {n}") for n, row in delimited_rows(file)]


def _parquet(file: Path, column: str) -> list[str]:
    rows = read_table(file, (column,)).to_pylist()
    return [_text(row, column, f"{file}, row {n}") for n, row in enumerate(rows, 1)]


def _text(row: Any, column: str, where: str) -> str:
    if isinstance(row, TastemakerError):
        raise TastemakerError(f"{where}: {row}")
    if not isinstance(row, dict) or column not in row:
        held = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise TastemakerError(f"{where} has no {column!r}; it has {held}. Set prompts.column.")
    if not isinstance(row[column], str):
        raise TastemakerError(f"{where}: {column!r} is {row[column]!r}, not text.")
    require_unicode(row[column], f"{where}: the prompt")
    return row[column]
