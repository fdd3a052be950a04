"""What every page is made with: templates that refuse a missing value and escape what they show."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates(*packages: str) -> Environment:
    """Return the templates of pages: a frame with its style, parts, and those of some packages.

    Args:
        *packages: Whose folders hold further templates.

    Returns:
        The environment; a page begins with `{% extends "frame.html" %}`.
    """
    return Environment(
        loader=ChoiceLoader(
            [PackageLoader(package, ".") for package in ("tastemaker.reporting", *packages)]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
