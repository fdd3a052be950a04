"""Formats of compared images, each read and written in one file."""
