"""A finished run as a folder for others: weights, card, configuration, figures, pictures."""

from tastemaker.publishing.publish import publish

__all__ = ["publish"]
