"""Benchmark scripts still fit the library: imports, `--help`, tables from what is committed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tastemaker.core.hardware import environment
from trainings import train_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.rglob("*.py"))


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Scripts import their neighbours by bare names, which other folders have too."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(BENCHMARKS)):
            del sys.modules[name]


def load(script: Path) -> ModuleType:
    """Import a script as its own folder would."""
    sys.path.insert(0, str(script.parent))
    name = f"benchmark_{script.parent.name}_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_script_imports_and_has_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(script)
    assert module.__doc__
    if '__name__ == "__main__"' in script.read_text(encoding="utf-8"):
        monkeypatch.setattr(sys, "argv", [str(script), "--help"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 0
        # One hands its words on to the command line.
        assert re.match(f"usage: ({script.name}|tastemaker)", capsys.readouterr().out)


@pytest.mark.slow
def test_rows_for_a_gpu_go_through_on_a_small_model() -> None:
    gpu = load(BENCHMARKS / "speed" / "gpu.py")
    rows = (
        gpu.Row("tiny", 1, 0, gpu.CACHED),
        gpu.Row("tiny", 1, 0, {"lora": {"r": 2, "target_modules": ["no_such_layer"]}}),
        gpu.Row("tiny", 1, 10**6),
        gpu.Row("tiny", 1, 0, None, compiled=True),
    )
    found = list(gpu.measured(rows, 1.0, tiny=True))
    assert [row.get("error", "")[:12] for row in found] == ["", "lora.target_", "left out: no", ""]
    text = gpu.as_text({"environment": environment(), "dtype": "fp32", "rows": found})
    assert text.count("| tiny, batch 1") == 4


def test_tables_are_those_of_the_committed_results() -> None:
    results = json.loads((BENCHMARKS / "hg_dpo" / "results.json").read_text(encoding="utf-8"))
    tables = load(BENCHMARKS / "hg_dpo" / "tables.py")
    for name in ("table", "search"):
        text = (BENCHMARKS / "hg_dpo" / f"{name}.md").read_text(encoding="utf-8")
        assert getattr(tables, f"_{name}")(results) == text
    results = json.loads((BENCHMARKS / "credit" / "results.json").read_text(encoding="utf-8"))
    compare = load(BENCHMARKS / "credit" / "compare.py")
    text = (BENCHMARKS / "credit" / "table.md").read_text(encoding="utf-8")
    assert compare.as_table(results["chosen"], results["table"]) == text
    results = json.loads((BENCHMARKS / "dreambooth_dpo" / "results.json").read_text("utf-8"))
    drawings = load(BENCHMARKS / "dreambooth_dpo" / "drawings.py")
    text = (BENCHMARKS / "dreambooth_dpo" / "table.md").read_text(encoding="utf-8")
    assert drawings._table(results["rows"], results["before"]) == text


def test_a_step_executes_in_few_files(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    counts = load(BENCHMARKS / "step_files.py").counts
    ready, whole = counts(train_config(tiny_model), pairs, tmp_path / "out")
    assert len(ready) <= 8, sorted(ready)
    assert len(whole) <= 10, sorted(whole)
    assert {"losses.py", "training/trainer.py"} <= ready.keys() < whole.keys()
