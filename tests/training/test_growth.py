"""Memory of a training does not grow with its pairs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory" / "pairs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The benchmark, which runs the command in processes of their own."""
    spec = importlib.util.spec_from_file_location("memory_pairs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS counts resident memory in bytes")
@pytest.mark.timeout(400)
def test_thirty_times_the_pairs_take_the_same_memory(script: ModuleType, tmp_path: Path) -> None:
    peaks = {}
    for number in (1_000, 30_000):
        pairs = script.write_pairs(tmp_path / str(number), number)
        for name in ("first", "second"):
            output = tmp_path / str(number) / name
            peaks[number, name] = script.trained(pairs, output, "max_steps=3")["megabytes"]
    for name in ("first", "second"):
        assert peaks[30_000, name] < 1.06 * peaks[1_000, name], peaks
