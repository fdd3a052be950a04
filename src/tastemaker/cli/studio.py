"""The command `studio`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tastemaker.config import loading as config
from tastemaker.config.studio import StudioConfig

_OPTION = re.compile(r"[a-z_]+(\.[\w -]+)*=")


def studio_command(parsed: argparse.Namespace) -> None:
    """People judge images on a local page."""
    words = [*parsed.sources, *parsed.overrides]
    options = tuple(word for word in words if _OPTION.match(word) and not Path(word).exists())
    section = config.section(StudioConfig, parsed.config, options)
    from tastemaker.studio.run import open_studio

    open_studio(section, [Path(word) for word in words if word not in options])
