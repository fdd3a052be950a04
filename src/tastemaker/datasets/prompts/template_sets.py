"""Sets of templates: shipped ones, and those of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tastemaker.core.errors import TastemakerError, nearest
from tastemaker.core.reading import read_lines, say_counts
from tastemaker.core.seeding import keyed_seed
from tastemaker.core.templates import SLOT, as_template
from tastemaker.datasets.prompts.captions import read_captions, rewritten
from tastemaker.datasets.prompts.dreambooth import Kind, is_dreambooth, read_dreambooth

SETS = ("live", "object", "scenes", "scenes_held_out")
"""Shipped sets. `live` and `object`, in the manner of DreamBooth's, 25 each: places, views,
art and materials; `live` has outfits and accessories in place of some. `scenes`, 48, and
`scenes_held_out`, 24 others: places, neighbours and backgrounds that the embedded model knows."""


def load_templates(name: str, kind: Kind | None = None, words: Sequence[str] = ()) -> list[str]:
    """Load a set by its name, or read it from a file.

    Args:
        name: One of `SETS`, or a file: `.txt` with one template per line; with `kind`, DreamBooth's
            `prompts_and_classes.txt`; with `words`, captions (`.json` of COCO's form, or `.txt`).
        kind: List of DreamBooth's file to take.
        words: The class's names that captions are searched for.

    Returns:
        Unique templates in their order.

    Raises:
        TastemakerError: No such set or file, a file of another form, a line without the slot or
            with two, nothing in it, or options of another kind of file.

    Example:
        >>> load_templates("live")[0]
        'a {} at the foot of a waterfall'
    """
    if name in SETS:
        if kind or words:
            raise TastemakerError(
                f"templates {name!r} are shipped; kind and words are options of files."
            )
        return _listed(Path(__file__).parent / f"{name}.txt")
    file = Path(name)
    if not file.is_file():
        raise TastemakerError(f"templates {name!r} is not a file. {nearest(name, SETS)}")
    if kind and words:
        raise TastemakerError(f"{name}: kind is of DreamBooth's file, words of captions; keep one.")
    if kind:
        return list(dict.fromkeys(read_dreambooth(file).templates[kind]))
    return _of_captions(file, words) if words else _listed(file)


def crossed(templates: Sequence[str], file: Path, seed: int) -> list[str]:
    """Put every caption of a file behind every template: "a {} made of mud, two boats on a lake".

    Args:
        templates: Sentences with one slot.
        file: Captions, as `read_captions` reads them; those with braces are left out.
        seed: Of the order: templates and captions are mixed, so that the first n are of many.

    Returns:
        Unique templates, as many as templates times captions.

    Raises:
        TastemakerError: No captions in the file, or none without braces.
    """
    given = read_captions(file)
    captions = dict.fromkeys(
        " ".join(each.split()).rstrip(" .") for each in given if not {*"{}"} & {*each}
    )
    left_out = (len(given) - len(captions), "have braces or repeat an earlier caption")
    if not captions:
        raise TastemakerError(f"{file}: all captions have braces; give others.")
    say_counts(str(file), len(captions), len(given), left_out)
    product = [f"{template}, {caption}" for template in templates for caption in captions]
    return sorted(product, key=lambda each: (keyed_seed(seed, "crossed", each), each))


def _listed(file: Path) -> list[str]:
    if file.suffix.lower() != ".txt":
        raise TastemakerError(
            f"{file}: templates come as .txt, one per line; captions need words=[dog, puppy]."
        )
    lines = read_lines(file)
    if is_dreambooth(lines):
        raise TastemakerError(f"{file} holds two lists; choose one with kind=live or kind=object.")
    numbered = ((line, f"{file}, line {number}") for number, line in enumerate(lines, 1))
    templates = [as_template(line, where) for line, where in numbered if line.strip()]
    if not templates:
        raise TastemakerError(f"{file} has no templates; write one per line, such as 'a {SLOT}'.")
    unique = list(dict.fromkeys(templates))
    repeated = len(templates) - len(unique)
    say_counts(str(file), len(unique), len(templates), (repeated, "repeat an earlier template"))
    return unique


def _of_captions(file: Path, words: Sequence[str]) -> list[str]:
    captions = read_captions(file)
    result = rewritten(captions, words)
    if not result.templates:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in result.left_out.items())
        raise TastemakerError(
            f"no caption of {file} names {' or '.join(words)} in a usable way ({reasons});"
            " choose other words or another file."
        )
    left_out = ((count, reason) for reason, count in result.left_out.items())
    say_counts(str(file), len(result.templates), len(captions), *left_out)
    return result.templates
