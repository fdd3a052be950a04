"""Inputs of scorers beside their options: weights, photographs, plugin code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tastemaker.config.choices import ScorerChoice, scorer_table
from tastemaker.core.content_hash import file_content, weights_content
from tastemaker.core.registry import SCORERS
from tastemaker.core.values import Weights
from tastemaker.scorers.base import Subject
from tastemaker.scorers.checkpoints import hub_place, is_file
from tastemaker.storage.artifact import Artifact, finished_key


def scorer_inputs(choice: ScorerChoice) -> dict[str, Any]:
    """Return the contents of a scorer's inputs, for the key of its scores.

    Args:
        choice: The scorer with all its options.

    Returns:
        Content by option, and a plugin's code by name; JSON-like.

    Raises:
        TastemakerError: A file cannot be read.
    """
    table = scorer_table(choice.name)
    found: dict[str, Any] = dict(table.code(choice.name))
    for option, field in table.schema(choice.name).model_fields.items():
        name = choice.options.get(option)
        if not isinstance(name, str):
            continue
        if any(isinstance(mark, Subject) for mark in field.metadata):
            from tastemaker.datasets.subjects import photograph_files  # opens pictures

            found[option] = {file.name: file_content(file) for file in photograph_files(name)}
        elif any(isinstance(mark, Weights) for mark in field.metadata) and name not in SCORERS:
            place = hub_place(name) if is_file(name) else None
            found[option] = weights_content(*(place or (name, "config.json")), path=name)
    return found


def column_artifact(pool: Path, choice: ScorerChoice, dtype: str) -> Artifact:
    """Return the artifact of a scorer's column.

    Args:
        pool: Folder of a finished pool.
        choice: The scorer with all its options.
        dtype: Precision of the scorer.

    Raises:
        TastemakerError: The pool, or a member of an ensemble, is not finished.
    """
    config = {
        **choice.model_dump(mode="json"),
        "pool": finished_key(pool),
        "inputs": scorer_inputs(choice),
    }
    if choice.members:
        config["members"] = {each: finished_key(pool / "scores" / each) for each in choice.members}
    else:
        config["dtype"] = dtype
    return Artifact(pool / "scores" / choice.column, f"score {choice.column}", config)
