"""One command at a time in an output folder, without what killed ones left half-written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from tastemaker.core.errors import TastemakerError
from tastemaker.core.hardware import everywhere, from_main_process
from tastemaker.storage.files import disk_errors

LOCK = ".lock"

LEASE_SECONDS = 30.0
"""A holder on another host that did not renew its lock for so long is taken for dead."""

SEEN_SECONDS = 60.0
"""Time that a shared file system has to show one process what another one wrote."""

ARTIFACT_FILE = "artifact.json"

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp|\.tmp\w{6}|\.lock\.break\..+")
"""Names that `files.temporary_of`, safetensors and filelock give files until they are whole."""

_tokens: dict[Path, str] = {}
"""Locks of this command: place to token."""


@contextlib.contextmanager
def exclusive(output: Path, *, beside: bool = False, waits: bool = False) -> Iterator[None]:
    """Let one command at a time write in a folder, with all the processes of its launch.

    The lock is a file that names process and host. It needs no support by the file system beyond
    exclusive creation. A lock of a dead process of this host is taken over at once, one of another
    host when it was not renewed for `LEASE_SECONDS`. Whoever has the lock removes the temporary
    files of killed commands; folders that were made for the lock go with it where they stay empty.

    Inside a block with the same lock nothing more is done.

    Args:
        output: The output folder; made where missing.
        beside: The output is a file, or a folder that appears whole: the lock is beside it, and
            nothing but the temporary files of that name is removed.
        waits: Wait for another command that writes there, whatever time it takes.

    Raises:
        TastemakerError: Another command writes in the folder, the disk is not writable, or the
            processes of this launch do not share it.
    """
    lock = output.with_name(f".{output.name}{LOCK}") if beside else output / LOCK
    place = Path(os.path.abspath(lock))
    with contextlib.ExitStack() as stack:
        token = from_main_process(lambda: stack.enter_context(_locked(output, place, waits)))
        if not everywhere(_seen(place, token)):
            raise TastemakerError(
                f"the processes of this launch do not share {output}: some do not see what the main"
                " process writes there. Choose an output on a disk that all machines share."
            )
        yield


def still_held(folder: Path) -> bool:
    """Return whether a folder that this command claimed is still there and its own."""
    place = Path(os.path.abspath(folder / LOCK))
    return place in _tokens and _holds(place, _tokens[place])


def refuse_writers(folder: Path) -> None:
    """Refuse to move a folder in which another command writes; call in the main process.

    Raises:
        TastemakerError: It, or a folder in it, is locked by a command that is alive.
    """
    for lock in sorted(folder.rglob(LOCK)):
        with _locked(lock.parent, Path(os.path.abspath(lock))):
            pass


@contextlib.contextmanager
def _locked(output: Path, place: Path, waits: bool = False) -> Iterator[str]:
    """Hold the lock in this process; yields its token."""
    if place in _tokens:
        yield _tokens[place]
        return
    with disk_errors(place):
        made = _make(place.parent)
    try:
        with disk_errors(place):
            lease = _acquired(output, place, waits)
        token = _tokens[place] = str(lease.token)
        try:
            _remove_temporary_files(output, place)
            with _ended_by_sigterm():
                yield token
        finally:
            del _tokens[place]
            lease.release()
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # what was written there stays
                each.rmdir()


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an error would, unless somebody handles it otherwise."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _make(folder: Path) -> list[Path]:
    """Make a folder; returns those that were missing, the innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquired(output: Path, place: Path, waits: bool) -> SoftFileLease:
    lease = SoftFileLease(place, lease_duration=LEASE_SECONDS, is_singleton=False)
    for patience in (1.0, 1.5 * LEASE_SECONDS):
        with contextlib.suppress(Timeout):
            lease.acquire(timeout=patience, poll_interval=0.2)
            return lease
        owner = lease.owner
        if owner is None and patience == 1.0:  # killed before it could write its name
            place.unlink(missing_ok=True)
            continue
        if owner is None or owner.hostname == _host():
            break
        if patience == 1.0:
            print(f"{output} is locked by host {owner.hostname}; waiting for a sign of life.")
    who = f"process {owner.pid} on {owner.hostname}" if owner else f"the lock {place}"
    if waits:
        print(f"waiting for another command that is writing in {output} ({who}).")
        lease.acquire(poll_interval=1.0)
        return lease
    raise TastemakerError(
        f"another command is writing in {output} ({who}); wait until it has ended, or choose"
        " another output."
    )


def _host() -> str:
    """This host as locks name it."""
    with tempfile.TemporaryDirectory() as place, SoftFileLease(Path(place) / LOCK) as lease:
        assert lease.owner is not None
        return lease.owner.hostname


def _holds(place: Path, token: str) -> bool:
    try:
        return token in place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _seen(place: Path, token: str) -> bool:
    """Wait until this process sees a lock that the main process wrote."""
    end = time.monotonic() + SEEN_SECONDS
    while not _holds(place, token):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
        with contextlib.suppress(OSError):  # listing makes network file systems look again
            os.listdir(place.parent)
    return True


def _remove_temporary_files(output: Path, lock: Path) -> None:
    """Remove what killed commands left half-written of an output that this command has locked.

    Folders inside that other stages claim have locks of their own and are passed over.

    Args:
        output: A folder, or the file beside the lock; it may be missing.
        lock: Its lock.
    """
    inside = lock.name == LOCK
    name = re.escape(output.name)
    own = _TEMPORARY if inside else re.compile(rf"\.{name}\.([0-9a-f]+\.tmp|lock\.break\..+)")
    top = output if inside else output.parent
    for place, folders, files in os.walk(top):
        if place != str(top) and {ARTIFACT_FILE, LOCK} & set(files):
            folders.clear()
            continue
        for each in filter(own.fullmatch, files):
            (Path(place) / each).unlink(missing_ok=True)
        for each in filter(own.fullmatch, folders):
            shutil.rmtree(Path(place) / each, ignore_errors=True)
        if not inside:
            break
