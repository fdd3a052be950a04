"""Inputs of scorers beside their options: weights, photographs, plugin code."""

from __future__ import annotations

from typing import Any

from tastemaker.config.choices import ScorerChoice, scorer_table
from tastemaker.core.content_hash import file_content, weights_content
from tastemaker.core.registry import SCORERS
from tastemaker.datasets.subjects import photograph_files
from tastemaker.scorers.base import Subject, Weights
from tastemaker.scorers.checkpoints import hub_place, is_file


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
            found[option] = {file.name: file_content(file) for file in photograph_files(name)}
        elif any(isinstance(mark, Weights) for mark in field.metadata) and name not in SCORERS:
            place = hub_place(name) if is_file(name) else None
            found[option] = weights_content(*(place or (name, "config.json")), path=name)
    return found
