"""Hashes of the prompts that a model was trained on, kept beside it for its evaluations."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from tastemaker.storage.files import atomic, read_record

FILE = "trained_prompts.json"


def write_trained_prompts(folder: Path, prompts: Iterable[str], before: Iterable[str]) -> None:
    """Keep the hashes of the prompts that a model was trained on.

    Args:
        folder: The trained model's.
        prompts: Of its training.
        before: Models that it was trained from; their prompts are added where known.
    """
    import numpy as np

    known = itertools.chain.from_iterable(_read(Path(model)) or () for model in before)
    every = itertools.chain(map(_hashed, prompts), known)
    # As numbers and line by line: a million prompts take 8 MB.
    hashes = np.unique(np.fromiter((int(each, 16) for each in every), np.uint64))
    with atomic(folder / FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        lines = (f'\n    "{int(each):016x}"' for each in hashes)
        file.write('{\n  "hashes": [' + next(lines, ""))
        file.writelines(f",{line}" for line in lines)
        file.write("\n  ]\n}\n")


def prompts_trained_on(prompts: Iterable[str], models: Iterable[str | Path]) -> list[str] | None:
    """Find the prompts that models were trained on, whatever their case, spaces and full stop.

    Args:
        prompts: Prompts of an evaluation.
        models: What it judges.

    Returns:
        Those that any of the models was trained on; None where no model's prompts are known.
    """
    known = [hashes for model in models if (hashes := _read(Path(model))) is not None]
    trained = set().union(*known)
    return [prompt for prompt in prompts if _hashed(prompt) in trained] if known else None


def shared_prompts(judged: Iterable[str], trained: Iterable[str]) -> list[str]:
    """Find the prompts to judge on that are trained on, compared as `prompts_trained_on` does.

    Args:
        judged: Prompts of an evaluation.
        trained: Prompts of a training.

    Returns:
        Those of `judged` that are among `trained`, in order.

    Example:
        >>> shared_prompts(["A cat. ", "a dog"], ["a  cat", "a pig"])
        ['A cat. ']
    """
    seen = {normalized_prompt(prompt) for prompt in trained}
    return [prompt for prompt in judged if normalized_prompt(prompt) in seen]


def shared_warning(shared: int, total: int, named: Sequence[str] = ()) -> str | None:
    """Say that prompts of an evaluation are trained on.

    Args:
        shared: How many are.
        total: How many there are.
        named: Those that are, where they are known; the first three are quoted.

    Returns:
        A sentence with the remedy; None where none is shared.

    Example:
        >>> print(shared_warning(4, 9, ["a", "b", "c", "d"]))  # doctest: +ELLIPSIS
        4 of 9 prompts of the evaluation are trained on ('a', 'b', 'c', ...), so that ...
    """
    if not shared:
        return None
    quoted = ", ".join([*map(repr, named[:3]), *["..."] * (len(named) > 3)])
    return (
        f"{shared} of {total} prompts of the evaluation are trained on"
        f"{f' ({quoted})' if quoted else ''}, so that its results say little"
        " of new prompts; name others in evaluate.prompts."
    )


def _read(model: Path) -> set[str] | None:
    return (
        set(read_record(model / FILE, hashes=list)["hashes"]) if (model / FILE).is_file() else None
    )


def _hashed(prompt: str) -> str:
    """A prompt may be private, and a model is shared: its text is not kept."""
    return hashlib.blake2b(normalized_prompt(prompt).encode(), digest_size=8).hexdigest()


def normalized_prompt(prompt: str) -> str:
    """Bring a prompt to the form in which two of them are compared.

    Args:
        prompt: Any text.

    Returns:
        It without case, repeated spaces and a full stop at its end.

    Example:
        >>> normalized_prompt(" A  cat.")
        'a cat'
    """
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split()).rstrip(" .")
