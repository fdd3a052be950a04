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
from tastemaker.core.reading import read_text
from tastemaker.core.values import MACHINE
from tastemaker.core.yaml_reading import parse_yaml, read_yaml
from tastemaker.storage.artifact import first_difference, results
from tastemaker.storage.files import write_json, write_text
from tastemaker.storage.kept import (
    ENVIRONMENT,
    KEPT,
    PAGE,
    REPORT,
    RUN_FILE,
    STRIPS,
    put_aside,
    put_results_aside,
)
from tastemaker.storage.locks import ARTIFACT_FILE, exclusive

CUTS = {"batch_size", "gradient_accumulation_steps", *MACHINE}
"""Keys of batches and devices do not make another run; artifacts that depend on them have them."""


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
        return self.folder / RUN_FILE

    @property
    def environment(self) -> Path:
        """Versions and machine."""
        return self.folder / ENVIRONMENT

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
        """One scored pool per model, on the same prompts and seeds."""
        return self.folder / "evaluation"

    @property
    def report_json(self) -> Path:
        """Means, standard errors and win rates."""
        return self.folder / REPORT

    @property
    def report_html(self) -> Path:
        """The page."""
        return self.folder / PAGE

    @property
    def before_after(self) -> Path:
        """The page's strips as one picture."""
        return self.folder / STRIPS

    def artifacts(self) -> list[Path]:
        """Return the folders of the current artifacts, scores of pools apart."""
        places = (self.candidates, self.real, self.held_out, self.pairs, self.policy)
        groups = (*places, self.evaluation, self.folder / "sources", self.folder / "stages")
        inside = (each for group in groups for each in sorted(group.glob("*")))
        found = [each for each in (*places, *inside) if (each / ARTIFACT_FILE).is_file()]
        return [each for each in found if each.parent not in found]

    @contextlib.contextmanager
    def claimed(self, config: str, environment: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """Have the folder for a configuration and this command alone.

        Args:
            config: The resolved configuration as YAML text.
            environment: Gives versions and machine, JSON-like.

        Raises:
            TastemakerError: The folder is of another recipe or not a run's, or another command is
                writing there.
        """
        with exclusive(self.folder):
            from_main_process(lambda: self.open(config, environment))
            try:
                yield
            except BaseException:
                own = {self.config, self.environment}
                if is_main_process() and own >= set(results(self.folder)):
                    for file in own:
                        file.unlink(missing_ok=True)
                raise

    def open(self, config: str, environment: Callable[[], dict[str, Any]]) -> RunDir:
        """Claim the folder for a configuration; what another one made is put aside first.

        Args:
            config: The resolved configuration as YAML text.
            environment: Gives versions and machine, JSON-like.

        Raises:
            TastemakerError: The folder is of another recipe, or not a run's.
        """
        if self.config.is_file():
            if not self._is_of(config):
                self._put_all_aside(*self._configurations(config))
                write_text(self.config, config)
        elif self.folder.is_dir() and any(files_below(self.folder)):
            raise TastemakerError(
                f"{self.folder} exists and is not a run; choose another name=...."
            )
        else:
            write_text(self.config, config)
        if not self.environment.is_file():
            write_json(self.environment, environment())
        return self

    def finished_with(self, config: str) -> bool:
        """Return whether a run of this configuration, as YAML text, came to its end here."""
        return self.config.is_file() and self.report_html.is_file() and self._is_of(config)

    def _is_of(self, config: str) -> bool:
        """True where the folder is of a configuration; equal texts need no parsing."""
        if read_text(self.config) == config:
            return True
        old, new = self._configurations(config)
        return bool(old == new)

    def _configurations(self, config: str) -> tuple[Any, dict[str, Any]]:
        """The configuration that the folder is of, and another."""
        return _uncut(read_yaml(self.config)), _uncut(parse_yaml(config, self.config))

    def _put_all_aside(self, old: Any, new: dict[str, Any]) -> None:
        """Put what the configuration made aside; the stages bring back what is the same in both."""
        if not isinstance(old, dict) or old.get("recipe") != new.get("recipe"):
            raise TastemakerError(
                f"{self.folder} is another run's ({first_difference(old, new)});"
                " choose another name=...."
            )
        print(
            f"{self.folder} was made with other options ({first_difference(old, new)}): what"
            f" depends on them is made again, and the earlier results are kept in"
            f" {self.folder / KEPT}."
        )
        for artifact in self.artifacts():
            put_aside(artifact, self.folder)
        put_results_aside(self.folder)
        self.environment.unlink(missing_ok=True)


def refuse_claimed(output: Path) -> None:
    """Refuse to write into a folder that a stage or a run has: its files would be replaced.

    Args:
        output: Of a command that makes no artifact.

    Raises:
        TastemakerError: It is such a folder.
    """
    if (output / ARTIFACT_FILE).is_file() or RunDir(output).policy.is_dir():
        raise TastemakerError(f"{output} was made by another command; choose another output.")
