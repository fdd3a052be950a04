"""The command line: a parser per command. No logic of its own."""

from __future__ import annotations

import argparse
import functools
import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tastemaker.cli.commands import (
    COMMANDS,
    Command,
    config_command,
    profile_command,
    report_command,
    run_command,
    stack_command,
)
from tastemaker.cli.doctor import doctor_command
from tastemaker.cli.endings import status_of
from tastemaker.cli.studio import studio_command
from tastemaker.config import loading as config
from tastemaker.config.comments import default_text
from tastemaker.config.sections import Section, section_class
from tastemaker.config.studio import StudioConfig
from tastemaker.core import __version__
from tastemaker.core.hardware import ignore_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after `tastemaker`; None takes the process's own.

    Returns:
        0 on success, 1 where a check found problems, 2 on a mistake that the user can mend, 70 on
        a fault that is not theirs, 130 after Ctrl-C, 143 after SIGTERM, 141 where nobody reads the
        output.
    """
    ignore_environment()
    # Importing the libraries makes half a million objects that stay; default: 10.
    gc.set_threshold(*gc.get_threshold()[:2], 100)
    # They warn at every start: of torchvision, which nothing here needs, and of LoRAs that leave
    # the text encoder alone, as ours do.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # Line by line, so that prints and progress bars come in order when output goes to a file.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is none
            # Names of files may be no valid text.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    parsed = _parsed(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    return status_of(functools.partial(parsed.command, parsed), words)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the words, with `key=value` before or after any flag."""
    parser = _parser()
    if any("\0" in word for word in arguments or ()):  # a shell cannot give one, a caller can
        parser.error("a word contains a NUL, which neither a file's name nor an option can")
    parsed, more = parser.parse_known_args(arguments)
    strange = [word for word in more if word.startswith("-") or "=" not in word]
    if strange or (more and not hasattr(parsed, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(strange or more)}")
    if more:
        parsed.overrides += more
    if hasattr(parsed, "studies"):  # which a parser reads to the last word
        options = [word for word in parsed.studies[1:] if "=" in word and not Path(word).exists()]
        parsed.studies = [word for word in parsed.studies if word not in options]
        parsed.overrides = [*options, *parsed.overrides]
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tastemaker", description="Teach text-to-image diffusion models what people prefer."
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for verb in COMMANDS:
        command = _verb(verbs, verb.name, verb.text, _options(*verb.kinds), verb.command)
        for place in verb.places.split():
            several = "+" if place.endswith("...") else None
            command.add_argument(place.removesuffix("..."), nargs=several, help=PLACES[place])
        command.add_argument(
            "--config", metavar="FILE", help="YAML file with this command's options"
        )
        if verb.name == "import":
            command.add_argument("--check", action="store_true", help=CHECK)
        command.add_argument("overrides", nargs="*", metavar="key=value", help="options, see below")
    shipped = ", ".join(config.shipped_runs())
    run = _verb(
        verbs, "run", "a recipe from start to report", f"shipped runs: {shipped}", run_command
    )
    run.add_argument("source", metavar="RUN", help="a shipped run's name, or a YAML file")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.max_steps=200")
    options = _verb(verbs, "config", "a run with every option explained", CONFIG, config_command)
    options.add_argument("source", metavar="RUN", help="a shipped run's name, or a YAML file")
    options.add_argument("overrides", nargs="*", metavar="key=value", help="options of the run")
    stack = _verb(
        verbs, "stack", "a LoRA on top of another model of its base", STACK, stack_command
    )
    for place in ("lora", "on", "output"):
        stack.add_argument(place, help=PLACES[place])
    page = _verb(verbs, "report", "make the page of a finished run again", None, report_command)
    page.add_argument("run", help="the run's folder, e.g. runs/demo")
    _add_studio(verbs)
    _add_doctor(verbs)
    speed = _verb(verbs, "profile", "speed of a run's training step", PROFILE, profile_command)
    speed.add_argument("source", metavar="RUN", help="a shipped run's name, or a YAML file")
    speed.add_argument("--rounds", type=int, default=3, help="times that each step is timed")
    speed.add_argument("--json", metavar="FILE", help="write the numbers to a file too")
    speed.add_argument("overrides", nargs="*", metavar="key=value", help="options of the run")
    return parser


def _add_studio(verbs: Any) -> None:
    text = "people judge images on a local page"
    studio = _verb(verbs, "studio", text, _options(StudioConfig), studio_command)
    studio.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a pool, pairs or a folder of images; or several models' pools of equal prompts",
    )
    studio.add_argument("--config", metavar="FILE", help="YAML file with this command's options")
    studio.set_defaults(overrides=[])


def _add_doctor(verbs: Any) -> None:
    text = "versions, machine, every registered name; what a run needs; what fools a scorer"
    doctor = _verb(verbs, "doctor", text, PANEL, doctor_command)
    doctor.add_argument(
        "source",
        nargs="?",
        metavar="RUN",
        help="a shipped run or YAML file: memory of its steps; with --scorer also a pool's folder",
    )
    doctor.add_argument("--scorer", metavar="SCORER", help="a name, or {name: ..., option: ...}")
    doctor.add_argument(
        "--images", type=int, default=64, metavar="N", help="pictures to draw without a pool"
    )
    doctor.add_argument("--json", metavar="FILE", help="write the panel's numbers to a file too")
    doctor.add_argument(
        "overrides", nargs="*", metavar="key=value", help="options of the run, or of the panel"
    )


PANEL = """\
The nuisance panel: a scorer's win rate for pictures that were changed and made no better, on
  doctor --scorer NAME POOL     a pool's pictures; options: batch_size, device, dtype, plugins
  doctor --scorer NAME RUN      a picture of a run's base for each of its first prompts
  doctor --scorer NAME          the same of the embedded model's run `demo`, with its options
Status 1 if a change wins in clearly more than 52 %: docs/scorers.md."""
CONFIG = "A start for a run of your own: tastemaker config demo > mine.yaml"
PROFILE = "On random pictures, beside two yardsticks: docs/speed.md."
STACK = "Whether a subject stays itself: evaluate OUTPUT JUDGED base=ON, with image_similarity."
CHECK = "read all images, list what is wrong by row, write nothing; status 1 if anything is"
PLACES = {
    "lora": "folder of a LoRA, from `train`",
    "on": "the model below it: a personalised LoRA's folder, for instance",
    "output": "folder to write",
    "source": "folder of a LoRA, from `train`; of pairs, of a pool, or of a study",
    "studies...": "folders of studies, or files of votes: .jsonl, .parquet, Label Studio's .json",
    "shown": "folder of a pool, of pairs, or of a run",
    "pool": "folder of candidates, from `generate`",
    "real": "folder of real images, from `import`",
    "chosen": "folder of candidates to choose from",
    "rejected": "folder of candidates to reject from, or of pairs: what was chosen there",
    "pairs": "folder of pairs, from `pair`",
    "run": "the run's folder, e.g. runs/demo",
    "policy": "the model to judge: a trained folder, pipeline folder, hub id or name",
}


def _verb(
    verbs: Any, name: str, text: str, epilog: str | None, command: Command
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(command=command)
    return verb


def _options(*kinds: type[Section]) -> str:
    """Write the help of a command: every key of its sections with type, default and meaning."""
    lines = ["options (key=value; `tastemaker doctor` lists losses, rules, scorers, prompt sets):"]
    for kind in kinds:
        if len(kinds) > 1:
            lines.append(f"\n{kind.__doc__}")
        lines += _lines(kind, "")
    return "\n".join(lines)


def _lines(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = section_class(field.annotation)
        if kind is not None:
            yield from _lines(kind, f"{prefix}{name}.")
            continue
        yield f"  {prefix}{name}={default_text(field)}"
        yield f"      {field.description}"
