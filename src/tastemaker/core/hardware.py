"""Devices, precision and processes of a run, and a description of its machine."""

from __future__ import annotations

import ctypes
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tastemaker.core.errors import TastemakerError

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

Value = TypeVar("Value")

PACKAGES = ("tastemaker", "torch", "diffusers", "transformers", "peft", "accelerate", "pyarrow")


WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers state the number of processes: torchrun, accelerate, MPI."""


IGNORED = ("DIFFUSERS_ATTN_BACKEND", "NVIDIA_TF32_OVERRIDE")
"""Variables that change how libraries compute, and that no artifact's key contains."""


PROCESS_GROUP_TIMEOUT = datetime.timedelta(days=1)
"""Torch's own is ten minutes; planning the encodings of millions of images, for which all other
processes wait, takes longer. Where one fails, launchers end the others at once.
"""


def ignore_environment() -> None:
    """Forget variables that change results, before the libraries that read them are loaded."""
    for name in IGNORED:
        os.environ.pop(name, None)


def fix_arithmetic() -> None:
    """Set what of torch changes the precision of results.

    float32 by default and in products of matrices, TF32 in cuDNN's convolutions alone, as torch has
    it by itself: a plugin or library that set it otherwise would make other numbers under the same
    stage key. Denormals are zero: saturated pairs are full of them, and CPUs take 30 times as long.
    """
    import torch

    _flush_denormals()
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def _flush_denormals() -> None:
    """Flush denormals to zero in this thread and in torch's pool."""
    import torch

    torch.set_flush_denormal(True)
    # Threads take this from the one that starts them: those of a pool that runs start anew.
    for openmp in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        ctypes.CDLL(str(openmp)).omp_pause_resource_all(1)


def processes() -> PartialState:
    """Return the processes of this run and the rank of this one, also on CPUs alone.

    By itself accelerate takes each process without an accelerator for the only one: every
    process would then do all the work.

    Returns:
        accelerate's state, the same object at every call.

    Raises:
        TastemakerError: The environment speaks of processes that nobody launched.
    """
    import torch
    from accelerate import PartialState

    on_cpu = _forced_to_cpu() or not torch.accelerator.is_available()
    launched = number_of_processes()
    said = ", ".join(name for name in WORLD_SIZES if name in os.environ)
    try:
        state = PartialState(cpu=on_cpu, timeout=PROCESS_GROUP_TIMEOUT)
        known = state.num_processes
    except ValueError:  # it knows of others, and not how to reach them
        known = 1
    if known != launched:
        raise TastemakerError(
            f"the environment says that {launched} processes were launched, but this one knows of"
            f" {known}: start them by `accelerate launch` or torchrun, or unset what says so"
            f" ({said})."
        )
    return state


def _forced_to_cpu() -> bool:
    """True under `accelerate launch --cpu`, which keeps processes off any accelerator."""
    from accelerate.utils import parse_flag_from_env

    return parse_flag_from_env("ACCELERATE_USE_CPU")


def number_of_processes() -> int:
    """Return the number of processes launched together, before any of them loads torch."""
    return next((int(os.environ[name]) for name in WORLD_SIZES if name in os.environ), 1)


def is_main_process() -> bool:
    """Return whether this process is the one, or the first, of its launch."""
    return number_of_processes() == 1 or processes().is_main_process


def from_main_process(make: Callable[[], Value]) -> Value:
    """Make a value in the main process alone, and hand it to all processes of the launch.

    Args:
        make: Called in the main process.

    Returns:
        The result in the main process.

    Raises:
        TastemakerError: In all processes, where it raised one there.
    """
    if number_of_processes() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if processes().is_main_process:
        try:
            outcome[0] = make()
        except TastemakerError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    value: Value = outcome[0]
    return value


def everywhere(here: bool) -> bool:
    """Return whether something is true in every process of the launch."""
    if number_of_processes() == 1:
        return here
    from accelerate.utils import gather_object

    processes()
    return all(gather_object([here]))


def agree(configuration: str) -> None:
    """Make sure that all processes of a launch run the same configuration, before they begin.

    Without it one would wait for ever for work that the others do elsewhere, or not at all.

    Args:
        configuration: As text.

    Raises:
        TastemakerError: In all processes, where they differ.
    """
    if number_of_processes() == 1:
        return
    from accelerate.utils import gather_object

    processes()
    texts = gather_object([configuration])
    other = next((rank for rank, text in enumerate(texts) if text != texts[0]), None)
    if other is None:
        return
    lines = zip(texts[0].splitlines(), texts[other].splitlines(), strict=False)
    ours, theirs = next((pair for pair in lines if pair[0] != pair[1]), ("more", "less"))
    raise TastemakerError(
        f"process {other} runs another configuration than process 0 ({theirs.strip()!r}, not"
        f" {ours.strip()!r}); start all with the same command and the same files."
    )


def torch_device(name: str) -> torch.device:
    """Turn a configured device into a torch device, on which arithmetic is as torch has it.

    Args:
        name: "auto" (CUDA, then MPS, then CPU; under `accelerate launch --cpu` the CPU), "cpu",
            "cuda" or "mps".

    Returns:
        The device; under `accelerate launch`, this process's own GPU.

    Raises:
        TastemakerError: The device is not there.
    """
    import torch

    fix_arithmetic()
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cpu" if _forced_to_cpu() else next((kind for kind in there if there[kind]), "cpu")
    elif not there.get(name, True):
        raise TastemakerError(f"device {name!r} is not available here; set device=auto or cpu.")
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def torch_dtype(name: str) -> torch.dtype:
    """Turn a configured precision ("fp32", "bf16", "fp16") into a torch dtype."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def fast_dtype(device: str) -> str:
    """Return "bf16" where a device multiplies matrices faster in it than in float32, else "fp32".

    These are NVIDIA's GPUs from Ampere on and AMD's, and CPUs with AVX512-BF16 or AMX.

    Args:
        device: A configured device.
    """
    import torch

    place = torch_device(device)
    if place.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = place.type == "cpu" and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return "bf16" if fast else "fp32"


def check_dtype(device: torch.device, name: str) -> None:
    """Refuse a precision that a device cannot compute in, by trying.

    Args:
        device: Device to compute on.
        name: "fp32", "bf16" or "fp16".

    Raises:
        TastemakerError: The device has no convolution or product of matrices in it.
    """
    import torch

    try:
        one = torch.ones(1, 1, 1, 1, device=device, dtype=torch_dtype(name))
        torch.nn.functional.conv2d(one, one) @ one
    except (RuntimeError, TypeError) as error:
        raise TastemakerError(
            f"device {device.type!r} does not compute in {name} ({error}); take dtype=fp32."
        ) from error


def memory(name: str) -> int | None:
    """Return the bytes that a device has for this process.

    Args:
        name: A configured device.

    Returns:
        Of a GPU, all of its memory; else the machine's, or less where a container is given less.
        None where it is not known.
    """
    import torch

    device = torch_device(name)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    given = limit.read_text(encoding="utf-8").strip() if limit.is_file() else "max"
    return whole if given == "max" else min(whole, int(given))


def environment() -> dict[str, Any]:
    """Describe versions and machine, for `environment.json` of a run."""
    import torch

    versions: dict[str, Any] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(),
        **versions,
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _processor() -> str:
    """Return the name of the CPU's model, or of its architecture where the system tells no more."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
