"""Artifact: the output folder of a command, known by its configuration and inputs."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tastemaker.core.content_hash import file_content, files_below
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import everywhere, from_main_process, is_main_process
from tastemaker.core.plugins import plugin_code
from tastemaker.storage.files import config_key, read_record, write_json
from tastemaker.storage.kept import bring_back, copy_work, kept_artifacts, put_aside, run_above
from tastemaker.storage.locks import ARTIFACT_FILE, LOCK, exclusive, still_held
from tastemaker.storage.unfinished import UNFINISHED


@dataclass(frozen=True)
class Artifact:
    """Output folder of a command: its configuration, and whether it is finished.

    Args:
        folder: Where the command writes.
        command: The command's name.
        config: The resolved configuration and the keys of the inputs, JSON-like.
        rising: Key of `config` that may rise in a run: the work of a lower value is gone on from.
    """

    folder: Path
    command: str
    config: dict[str, Any]
    rising: str | None = None

    def __post_init__(self) -> None:
        """Add the code of plugins that the configuration names: another code, another artifact."""
        if code := plugin_code(set(_texts(self.config))):
            object.__setattr__(self, "config", {**self.config, "plugins": code})

    @property
    def key(self) -> str:
        """The hash that identifies this stage's results."""
        return config_key(self.command, self.config)

    @property
    def finished(self) -> bool:
        """True if the command ended here before, with this configuration and all its files."""
        marker = self.folder / DONE_FILE
        if not marker.is_file() or read_record(marker, key=str)["key"] != self.key:
            return False
        return not _amiss(self.folder, whole=True)

    @contextlib.contextmanager
    def claimed(self, check: Callable[[], object] = list) -> Iterator[bool]:
        """Have the folder to write in, alone; call before anything is written there.

        In a run, an artifact of another key is put aside first, and one of this key brought back.

        Args:
            check: Called where there is work to do, before anything is written.

        A claim is undone where the block ends in an error before it wrote a result: the corrected
        command then takes the folder. All processes of a launch enter together.

        Yields:
            Whether there is work to do; False where the command ended here before.

        Raises:
            TastemakerError: The folder is of another configuration and not in a run, or of none, or
                another command is writing there.
        """
        if not from_main_process(self._is_here):
            check()
        from_main_process(self._select)
        if from_main_process(self._is_done):
            if from_main_process(lambda: (self.folder / LOCK).exists()):
                with exclusive(self.folder):  # killed between its last file and its end
                    pass
            yield False
            return
        with exclusive(self.folder):
            from_main_process(self._claim)
            try:
                yield True
            except BaseException:
                if is_main_process() and not results(self.folder):
                    (self.folder / ARTIFACT_FILE).unlink(missing_ok=True)
                raise
            everywhere(True)  # a barrier: the next command reads what the main process finished

    def _is_here(self) -> bool:
        marker = self.folder / ARTIFACT_FILE
        here = marker.is_file() and read_record(marker, key=str)["key"] == self.key
        return here and self.finished

    def _select(self) -> None:
        """In a run, have the artifact of this key at the folder's place, where there is one."""
        run = run_above(self.folder)
        marker = self.folder / ARTIFACT_FILE
        if run is None:
            return
        if marker.is_file() and read_record(marker, key=str)["key"] != self.key:
            put_aside(self.folder, run)
        if not self.folder.exists() and not bring_back(self.folder, self.key, run):
            self._go_on_from_less(run)

    def _go_on_from_less(self, run: Path) -> None:
        """Begin with the checkpoints of the artifact that differs in a lower rising value alone."""
        if self.rising is None:
            return
        wanted, lower = self.config[self.rising], {}
        for place, about in kept_artifacts(run):
            same = config_key(about["command"], {**about["config"], self.rising: wanted})
            if same == self.key and (place / CHECKPOINTS).is_dir():
                lower[about["config"][self.rising]] = place
        lower = {value: place for value, place in lower.items() if value < wanted}
        if lower:
            copy_work(lower[max(lower)], self.folder, MADE_ALONG | {"logs"}, self._about)

    @property
    def _about(self) -> dict[str, Any]:
        return {"command": self.command, "key": self.key, "config": self.config}

    def _is_done(self) -> bool:
        self._refuse_others()
        return self.finished

    def _refuse_others(self) -> None:
        marker = self.folder / ARTIFACT_FILE
        if not marker.is_file():
            return
        there = read_record(marker, key=str, config=dict)
        if there["key"] != self.key:
            raise TastemakerError(
                f"{self.folder} was made by another configuration"
                f" ({first_difference(there['config'], self.config)})."
                " Choose another name or output, or delete the folder."
            )

    def _claim(self) -> None:
        self._refuse_others()
        if not (self.folder / ARTIFACT_FILE).is_file():
            if others := results(self.folder):
                raise TastemakerError(
                    f"{self.folder} has {others[0].name} and no {ARTIFACT_FILE} that says what it"
                    " is of; choose another output, or delete the folder."
                )
            write_json(self.folder / ARTIFACT_FILE, self._about)
        elif (self.folder / DONE_FILE).is_file():
            for file, why in _amiss(self.folder, whole=True).items():
                print(f"{file} {why}; it is made again.")
                file.unlink(missing_ok=True)
            (self.folder / DONE_FILE).unlink()

    def finish(self, **summary: Any) -> None:
        """Mark the command as ended, with the size and hash of every file that it made.

        Args:
            **summary: Counts worth keeping, JSON-like.

        Raises:
            TastemakerError: The folder was moved or deleted while the command ran.
        """
        if not is_main_process():
            return
        if not still_held(self.folder):
            raise TastemakerError(
                f"{self.folder} was moved, deleted or taken by another command while this one ran;"
                " put it back, or delete what is there, and run the same command again."
            )
        for part in self.folder.glob(f"{UNFINISHED}-*"):
            part.unlink()
        files = {
            file.relative_to(self.folder).as_posix(): {
                "bytes": file.stat().st_size,
                "content": file_content(file),
            }
            for file in results(self.folder)
            if not MADE_ALONG & set(file.relative_to(self.folder).parts)
        }
        record = {"command": self.command, "key": self.key, **summary, "files": files}
        write_json(self.folder / DONE_FILE, record)


def _texts(value: Any) -> Iterator[str]:
    """All texts of a JSON-like value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inside in value.values():
            yield from _texts(inside)
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _texts(inside)


DONE_FILE = "done.json"
CHECKPOINTS = "checkpoints"
ENCODED = "encoded"
"""Folder, below that of pairs, of what trainings work out of them once."""

MADE_ALONG = {
    CHECKPOINTS,
    "credit.json",
    "credit.jsonl",
    ENCODED,
    "metrics.jsonl",
    "validation",
}
"""Files and folders that no later command needs: who deletes them has a finished stage still."""

_NO_RESULTS = {ARTIFACT_FILE, DONE_FILE, ENCODED, "left_out.jsonl", "logs"}


def results(folder: Path) -> list[Path]:
    """The files that a command made in its folder, and with them what others made below it."""
    if not folder.is_dir():
        return []
    return [
        file
        for file in files_below(folder)
        if not _NO_RESULTS & set(file.relative_to(folder).parts) and file.stat().st_size
    ]


def _amiss(folder: Path, *, whole: bool) -> dict[Path, str]:
    """Check the files of a finished artifact; returns what is wrong, by file.

    Args:
        folder: Its folder.
        whole: Compare contents too, not sizes alone.
    """
    wrong = {}
    listed = read_record(folder / DONE_FILE, key=str).get("files", {})
    for name, about in listed.items() if isinstance(listed, dict) else ():
        file = folder / name
        expected = about if isinstance(about, dict) else {}
        if not file.is_file():
            wrong[file] = "is missing"
        elif file.stat().st_size != expected.get("bytes"):
            wrong[file] = "is truncated, or not the file that was made here"
        elif whole and file_content(file) != expected.get("content"):
            wrong[file] = "is damaged, or not the file that was made here"
    return wrong


def finished_key(folder: Path, *, whole: bool = False) -> str:
    """Return the key of a finished artifact, as an input of the next.

    Args:
        folder: Its folder.
        whole: Compare the contents of its files too, not their sizes alone; for files without
            checksums of their own.

    Raises:
        TastemakerError: The folder does not exist, its command did not end, or one of its files is
            missing or damaged.
    """
    marker = folder / DONE_FILE
    if not marker.is_file():
        state = "is not finished" if folder.is_dir() else "does not exist"
        raise TastemakerError(f"{folder} {state}; run the command that makes it first.")
    for file, why in _amiss(folder, whole=whole).items():
        raise TastemakerError(
            f"{file} {why}; run the command that made {folder} again, which makes what is missing,"
            " or put the file back."
        )
    return str(read_record(marker, key=str)["key"])


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """Name the first key in which two configurations differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                path = f"{where}.{name}" if where else name
                if name in {"content", "revision"} and old.get(name) and new.get(name):
                    what = new.get("model") or new.get("path") or where
                    return f"{where}: the {name} of {what} is another than before"
                return first_difference(old.get(name), new.get(name), path)
    return f"{where or 'key'}: {reprlib.repr(old)} there, {reprlib.repr(new)} now"
