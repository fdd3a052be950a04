"""A run's folder: the path of everything in it, and the configuration that it belongs to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tastemaker.core.content_hash import files_below
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import from_main_process, is_main_process
from tastemaker.core.reading import parse_yaml, read_yaml
from tastemaker.storage.artifact import first_difference, results
from tastemaker.storage.files import write_json, write_text
from tastemaker.storage.locks import ARTIFACT_FILE, exclusive

CUTS = {"batch_size", "gradient_accumulation_steps", "device"}
"""Keys that say how work is cut and where it is done. Where results depend on them, stages say."""


def _uncut(config: Any) -> Any:
    """A run's configuration as far as it is another run's with other values."""
    if not isinstance(config, dict):
        return config
    return {key: _uncut(value) for key, value in config.items() if key not in CUTS}


@dataclass(frozen=True)
class RunDir:
    """A run's folder: every path in one place.

    Args:
        folder: `output/name` of the run.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, written first."""
        return self.folder / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions and machine."""
        return self.folder / "environment.json"

    @property
    def candidates(self) -> Path:
        """The pool that `generate` makes and `score` adds to."""
        return self.folder / "candidates"

    @property
    def real(self) -> Path:
        """The pool of real images."""
        return self.folder / "real"

    @property
    def held_out(self) -> Path:
        """The pool of real images that nothing is trained on."""
        return self.folder / "held_out"

    def source(self, name: str) -> Path:
        """A further pool: reconstructions or blends of real images, or images of a class."""
        return self.folder / "sources" / name

    def round(self, number: int) -> Path:
        """The pool of candidates of one of several rounds, counted from 1."""
        return self.candidates / f"round_{number}"

    @property
    def pairs(self) -> Path:
        """The pairs."""
        return self.folder / "pairs"

    @property
    def policy(self) -> Path:
        """The trained model, its checkpoints and `metrics.jsonl`."""
        return self.folder / "policy"

    def stage_pairs(self, stage: str) -> Path:
        """The pairs of one stage of a curriculum."""
        return self.pairs / stage

    def model(self, name: str) -> Path:
        """The policy, or the model after a stage of a curriculum, with that training's metrics."""
        return self.policy if name == "policy" else self.folder / "stages" / name

    @property
    def evaluation(self) -> Path:
        """One scored pool a model, on the same prompts and seeds."""
        return self.folder / "evaluation"

    @property
    def report_json(self) -> Path:
        """Means, standard errors and win rates."""
        return self.folder / "report.json"

    @property
    def report_html(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    @property
    def before_after(self) -> Path:
        """The page's strips as one picture."""
        return self.folder / "before_after.png"

    @contextlib.contextmanager
    def claimed(self, config: str, environment: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """Have the folder for a configuration and this command alone.

        Args:
            config: The resolved configuration as YAML text.
            environment: Gives versions and machine, JSON-like.

        Raises:
            TastemakerError: The folder belongs to another configuration, or another command is
                writing there.
        """
        with exclusive(self.folder):
            from_main_process(lambda: self.open(config, environment()))
            try:
                yield
            except BaseException:
                own = {self.config, self.environment}
                if is_main_process() and own >= set(results(self.folder)):
                    for file in own:
                        file.unlink(missing_ok=True)
                raise

    def open(self, config: str, environment: dict[str, Any]) -> RunDir:
        """Claim the folder for a configuration.

        Args:
            config: The resolved configuration as YAML text.
            environment: Versions and machine, JSON-like.

        Raises:
            TastemakerError: The folder belongs to another configuration.
        """
        if self.config.is_file():
            held = _uncut(read_yaml(self.config))
            new = _uncut(parse_yaml(config, self.config))
            if held != new:
                change = first_difference(held, new)
                raise TastemakerError(
                    f"{self.folder} holds a run of another configuration ({change})."
                    f" Choose another name (name=...), or delete {self.folder}."
                )
        elif self.folder.is_dir() and any(files_below(self.folder)):
            raise TastemakerError(f"{self.folder} exists and is no run; choose another name=....")
        else:
            write_text(self.config, config)
        if not self.environment.is_file():
            write_json(self.environment, environment)
        return self


def refuse_claimed(output: Path) -> None:
    """Refuse to write into a folder that a stage or a run has: its files would be replaced.

    Args:
        output: Of a command that is no artifact.

    Raises:
        TastemakerError: It is such a folder.
    """
    if (output / ARTIFACT_FILE).is_file() or RunDir(output).policy.is_dir():
        raise TastemakerError(f"{output} holds what another command made; choose another output.")
