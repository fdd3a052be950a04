"""The file of one voter, to append to: a vote is on disk before it is acknowledged."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from tastemaker.storage.files import disk_errors
from tastemaker.storage.votes import FOLDER, Undo, Vote, file_stem


class VoteFile:
    """One voter's file, to append to: each line is on disk before `append` returns.

    Args:
        folder: Folder of a study.
        voter: Name, as `checked_voter` returns it.
    """

    def __init__(self, folder: Path, voter: str) -> None:
        self.path = folder / FOLDER / f"{file_stem(voter)}.jsonl"

    def append(self, line: Vote | Undo) -> None:
        """Add a line, flushed to the disk.

        Args:
            line: The vote, or the undoing of one.

        Raises:
            TastemakerError: The disk is full, not writable or gone; nothing was added.
        """
        data = json.dumps(asdict(line), ensure_ascii=False).encode() + b"\n"
        with disk_errors(self.path):
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                start = _end_whole(self.path, file.tell())
                file.truncate(start)
                try:
                    file.write(data if _ends_line(self.path, start) else b"\n" + data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(start)
                    raise
            if new:
                _sync_folder(self.path.parent)


def _end_whole(path: Path, size: int) -> int:
    """Offset at which a file's last whole line ends: behind it a killed process left a part."""
    with path.open("rb") as file:
        tail = b""
        while size - len(tail) > 0 and b"\n" not in tail:
            file.seek(max(0, size - len(tail) - 4096))
            tail = file.read(size - file.tell())
    rest = tail[tail.rfind(b"\n") + 1 :]
    return size if _is_object(rest) else size - len(rest)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _ends_line(path: Path, size: int) -> bool:
    if not size:
        return True
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


def _sync_folder(folder: Path) -> None:
    """Have the name of a new file on disk too, where the system opens folders."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
