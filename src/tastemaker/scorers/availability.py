"""Availability of scorers: installed packages and local weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_errors
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.base import Needs
from tastemaker.scorers.checkpoints import hub_place, is_file

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENS = ("tokenizer.json", "vocab.json", "vocab.txt")


def scorer_states() -> Iterator[tuple[str, list[str]]]:
    """Say of every registered scorer whether it can work here; the network is never asked.

    Yields:
        Name, and what is to be known: weights that are here or would be downloaded, options that
        name weights of the user's own, and extras that are missing. Nothing where it just works.
    """
    for name in SCORERS.names():
        notes = []
        for option, field in SCORERS.schema(name).model_fields.items():
            default = None if field.is_required() else field.default
            for mark in field.metadata:
                if isinstance(mark, Weights):
                    notes.append(_weights(option, default, mark))
                elif isinstance(mark, Needs) and importlib.util.find_spec(mark.module) is None:
                    notes.append(
                        f"an {mark.suffix} file needs the missing extra {mark.extra!r}:"
                        f" pip install 'tastemaker[{mark.extra}]'"
                    )
        yield name, notes


def _weights(option: str, name: Any, mark: Weights) -> str:
    """Return a note on an option that names weights."""
    if not isinstance(name, str):
        return f"{option}: weights of yours"
    if here(name, tokenizer=mark.tokenizer):
        return f"{option}: {name} is here"
    place = hub_place(name) if is_file(name) else None
    words = " ".join(place) if place else name
    return f"{option}: {name} is not here; fetched when first used, or: hf download {words}"


def refuse_missing(name: str, *, tokenizer: bool = False) -> None:
    """Look for weights without loading them: by path, in the hub's cache, or else on the hub.

    Args:
        name: A registered scorer, a file, a folder, a hub id, or `owner/name/file`.
        tokenizer: Of a folder or hub id, look for its tokenizer alone.

    Raises:
        TastemakerError: They are not here and cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = TOKENS if tokenizer else WEIGHTS
        if not any((folder / file).is_file() for file in files):
            raise TastemakerError(
                f"{name!r} holds none of {', '.join(files)}; give the folder that a model was saved"
                " to."
            )
    elif name not in SCORERS and not here(name, tokenizer=tokenizer):
        _refuse_unreachable(name, "tokenizer_config.json" if tokenizer else "config.json")


def _refuse_unreachable(name: str, file: str) -> None:
    """Ask the hub for the address of a file, or of a model by one of its small files."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    place = hub_place(name) if is_file(name) else hub_place(f"{name}/{file}")
    if place is None or (not is_file(name) and name.count("/") != 1):
        raise TastemakerError(f"weights {name!r} do not exist; check the path.")
    with hub_errors(name, *place):
        get_hf_file_metadata(hf_hub_url(*place))


def here(name: str, *, tokenizer: bool = False) -> bool:
    """Return True for weights on this machine: by path, or in the hub's cache.

    Args:
        name: A file, a folder, a hub id, or `owner/name/file`.
        tokenizer: Of a hub id, look for its tokenizer alone.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(name).expanduser().exists():
        return True
    if is_file(name):
        place = hub_place(name)
        return place is not None and isinstance(try_to_load_from_cache(*place), str)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return False
    files = TOKENS if tokenizer else WEIGHTS
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
