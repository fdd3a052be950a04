"""Work in two processes as `torchrun` starts them, without their imports: those are made once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

# Every process is a fork of one that has imported what takes seconds, and computes nothing itself:
# a process whose threads have computed cannot be forked safely.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "tastemaker.training.preference.trainer",
        "tastemaker.training.reward.trainer",
        "tastemaker.scorers.pool",
        "tastemaker.backbones.unet",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "transformers.models.clip.modeling_clip",
        "matplotlib.pyplot",
    ]
)


class Ended(NamedTuple):
    """What two processes wrote, and the status of the first that failed, or 0."""

    code: int
    out: str
    err: str


def launch(
    work: Callable[..., Any],
    *arguments: Any,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Call a function in two processes on the CPU; when one fails, the other is ended.

    Args:
        work: A module's function; a number that it returns is the process's exit status.
        *arguments: Of the function.
        folder: For the files of what the processes write.
        environment: More variables, beside those that say which process of how many it is.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {**(environment or {}), "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2"}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # Bytes are compared with those of this process: other threads sum in another order.
    threads = torch.get_num_threads()
    written = [folder / "stdout.txt", folder / "stderr.txt"]
    for file in written:
        file.write_bytes(b"")
    running = [
        SERVER.Process(
            target=_process,
            args=(
                {**variables, "RANK": rank, "LOCAL_RANK": rank},
                threads,
                written,
                work,
                arguments,
            ),
            daemon=True,
        )
        for rank in ("0", "1")
    ]
    for process in running:
        process.start()
    failed = 0
    while left := [process for process in running if process.exitcode is None]:
        wait([process.sentinel for process in left])
        failed = failed or next((each.exitcode for each in running if each.exitcode), 0)
        if failed:
            for process in left:
                process.kill()
    return Ended(failed, *(file.read_text(encoding="utf-8", errors="replace") for file in written))


def _process(
    variables: Mapping[str, str],
    threads: int,
    written: Sequence[Path],
    work: Callable[..., Any],
    arguments: Sequence[Any],
) -> None:
    os.environ.update(variables)
    for number, file in enumerate(written, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    torch.set_num_threads(threads)
    status = work(*arguments)
    sys.exit(status if isinstance(status, int) else 0)
