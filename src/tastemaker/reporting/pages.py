"""Templates of all pages: they refuse missing values and escape all text."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates(*packages: str) -> Environment:
    """Return the templates of pages: a frame with its style, parts, and those of some packages.

    Args:
        *packages: Packages with further templates.

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
