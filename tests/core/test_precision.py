"""Precision "auto": bf16 by what the processor says of itself, recorded as what it became."""

from __future__ import annotations

from pathlib import Path

import pytest

from tastemaker.config.sections import GenerateConfig, ScoreConfig
from tastemaker.config.training import TrainConfig
from tastemaker.core.hardware import fast_dtype

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.is_file(), reason="reads what Linux says of the CPU")
def test_bf16_is_taken_where_the_cpu_has_instructions_for_it() -> None:
    flags = CPUINFO.read_text(encoding="utf-8").split()
    expected = "bf16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "fp32"
    assert fast_dtype("cpu") == expected


def test_sections_hold_what_auto_became() -> None:
    precision = fast_dtype("cpu")
    drawing = GenerateConfig(model="nano", prompts="nano_test", device="cpu", dtype="auto")
    assert drawing.dtype == drawing.model_dump()["dtype"] == precision
    assert ScoreConfig(scorers=("nano_judge",), device="cpu", dtype="auto").dtype == precision
    assert TrainConfig(model="nano", device="cpu", dtype="auto").dtype == precision
    assert ScoreConfig(scorers=("nano_judge",), dtype="bf16").dtype == "bf16"
