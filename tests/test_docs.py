"""Every documented command is read by the command line; those on `nano` run, made small."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tastemaker.cli.command_line import _parsed, main
from tastemaker.cli.commands import COMMANDS
from tastemaker.config.choices import Choice
from tastemaker.config.loading import load, section
from tastemaker.config.sections import Section, sections_of
from tastemaker.core.errors import TastemakerError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNS = sorted((ROOT / "src/tastemaker/recipes").glob("*.yaml"))
KINDS = {verb.name: verb.kinds for verb in COMMANDS}
ART = "hg_dpo-nano"
"""Its pictures are drawn by an extra that tests do without."""


class Line(NamedTuple):
    """A command as a page has it."""

    page: Path
    words: list[str]

    @property
    def needs_a_plugin(self) -> bool:
        """Whether it names a file that another test writes."""
        return any(word.startswith("plugins=") for word in self.words)

    def __str__(self) -> str:
        return f"{self.page.name}: {' '.join(self.words)}"


def lines(page: Path) -> Iterator[Line]:
    """Commands in blocks, and those in running text that have no `NAME|OTHER` and no `...`."""
    text = page.read_text(encoding="utf-8").replace("\\\n#", "\\\n")
    text = re.sub(r"\\\n\s*", "", text)
    blocks = re.findall(r"^(?: {4}|#   command:\s+)(tastemaker .*)$", text, re.M)
    inline = [" ".join(each.split()) for each in re.findall(r"`(tastemaker [a-z]+ [^`]+)`", text)]
    for command in [*blocks, *inline]:
        words = shlex.split(command, comments=True)[1:]
        if not re.search(r"\||\.\.\.|\b(RUN|NAME|S)\b", " ".join(words)):
            yield Line(page, words)


LINES = [line for page in (*PAGES, *RUNS) for line in lines(page)]


LEAST = {"warmup_steps": 0, "gradient_accumulation_steps": 1, "keep": 1, "num_images": 2}


def small(config: Section) -> list[str]:
    """Overrides that leave a few images, two denoising steps and two optimizer steps."""
    words = []
    for path, inside in sections_of(config):
        given = inside.model_fields_set
        for key, value in {"num_inference_steps": 2, "max_steps": 2, "num_candidates": 6}.items():
            if key in type(inside).model_fields:
                words.append(f"{path}.{key}={value}".removeprefix("."))
        for key, value in LEAST.items():
            if key in given:
                words.append(f"{path}.{key}={value}".removeprefix("."))
        prompts = getattr(inside, "prompts", None)
        if isinstance(prompts, Choice) and "number" in prompts.options:
            words.append(f"{path}.prompts.number=4".removeprefix("."))
    return words


def test_pages_have_commands() -> None:
    assert len(LINES) > 60
    assert {line.words[0] for line in LINES} >= {*KINDS} - {"reconstruct", "blend", "join"}


@pytest.mark.parametrize("line", LINES, ids=str)
def test_the_command_line_reads_it(line: Line) -> None:
    if "--help" in line.words:
        with pytest.raises(SystemExit, match="0"):
            _parsed(line.words)
        return
    parsed = _parsed(line.words)
    command, overrides = line.words[0], tuple(getattr(parsed, "overrides", ()))
    of_a_pool = "--scorer" in line.words
    if command in {"run", "doctor", "profile"} and not line.needs_a_plugin and not of_a_pool:
        load(parsed.source, overrides)
    if command in KINDS:
        wrong = [error_of(kind, overrides) for kind in KINDS[command]]
        assert None in wrong, wrong


def error_of(kind: type[Section], overrides: tuple[str, ...]) -> str | None:
    try:
        section(kind, None, overrides)
    except TastemakerError as error:
        return str(error)
    return None


def on_nano(line: Line) -> bool:
    """Whether a run of a recipe is of the embedded model."""
    words = line.words
    if words[0] != "run" or words[1] == ART or line.needs_a_plugin:
        return False
    return load(words[1], tuple(words[2:])).model == "nano"


RUN_LINES = {" ".join(line.words): line.words for line in LINES if on_nano(line)}


@pytest.mark.slow
@pytest.mark.parametrize("words", RUN_LINES.values(), ids=RUN_LINES)
def test_a_run_on_nano_runs(words: list[str], place: Path) -> None:
    assert main([*words, *small(load(words[1], tuple(words[2:])))]) == 0
    assert list(place.glob("runs/*/report.html"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = {
    "generate": ["prompts.number=64", "num_candidates=4", "num_inference_steps=4"],
    "train": ["max_steps=2", "batch_size=2"],
    "evaluate": ["prompts.number=4", "num_inference_steps=2"],
}
ELSEWHERE = re.compile(r"pickscore|FOLDER|HPD|stable-diffusion|SUBJECT|real\.images")
"""Words of commands that need what a page cannot bring: weights, or a user's own files."""


@pytest.mark.slow
def test_steps_on_nano_run_in_the_order_of_their_pages(place: Path) -> None:
    assert main(["run", "demo", *small(load("demo"))]) == 0
    done = []
    for name in ("diffusion_dpo.md", "data.md", "models.md"):
        for line in lines(ROOT / "docs" / name):
            command = line.words[0]
            if command in {"run", "doctor"} or ELSEWHERE.search(" ".join(line.words)):
                continue
            assert main([*line.words, *SMALL.get(command, [])]) == 0, line
            done.append(command)
            if line.words[:2] == ["export", "runs/demo/policy"] and Path("lora").exists():
                shutil.copy("lora/policy.safetensors", "style.safetensors")
        if name == "diffusion_dpo.md":
            assert main(["export", "pairs", "data", "layout=folder"]) == 0
            for folder in ("pool", "pairs"):
                shutil.rmtree(folder)
    assert {*done} >= {"generate", "score", "pair", "train", "evaluate", "import", "export", "show"}
