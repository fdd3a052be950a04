"""The command line."""

from tastemaker.cli.command_line import main

__all__ = ["main"]
