"""Removal of this machine's folders from published data."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def without_places(data: Any) -> Any:
    """Shorten every absolute path, or path in the user's home, to its last name.

    Args:
        data: JSON-like.

    Returns:
        The same with shorter texts; keys are texts too.

    Example:
        >>> without_places({"model": "/home/me/models/sd15", "prompts": "~/cats.txt", "seed": 3})
        {'model': 'sd15', 'prompts': 'cats.txt', 'seed': 3}
    """
    if isinstance(data, dict):
        return {without_places(key): without_places(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_places(value) for value in data]
    if isinstance(data, str) and (data.startswith("~") or Path(data).is_absolute()):
        return Path(data).name
    return data
