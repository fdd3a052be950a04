"""Benchmark scripts still fit the library: imports, `--help`, tables from what is committed."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from tastemaker import compare
from tastemaker.backbones import check_model
from tastemaker.config.training import TrainConfig
from tastemaker.core.hardware import environment
from tastemaker.storage.parquet import read_table
from tastemaker.training.preference.terms import build_credit
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


def credit_cells(
    scheme: str, beta: int, distance: float, chosen: bool, obeyed: Sequence[Sequence[int]]
) -> list[pa.Table]:
    """A setting's made-up scores: its search, and of the chosen one the tests on two pools."""
    best = 1.5 if scheme == "uniform" else 3.0
    cells = [("guidance", 0, scale, scale == best, obeyed[0]) for scale in (1.5, 3.0, 6.0)]
    cells += [("validation", 0, best, chosen, obeyed[1])]
    cells += [("test", pool, best, 0, each) for pool, each in enumerate(obeyed[2:])]
    return [
        pa.table(
            {
                **dict.fromkeys(("checker", "examiner", "judge"), [float(score)] * 2),
                **{name: [value] * 2 for name, value in who.items()},
                "number": [0, 1],
                "prompt": [0, 1],
                "obeyed": pa.array(each, pa.int8()),
                "distance": [float(distance)] * 2,
            }
        )
        for split, pool, scale, score, each in cells
        for who in [
            {"twin": "noise", "scheme": scheme, "beta": float(beta), "pool": pool}
            | {"split": split, "guidance": scale}
        ]
    ]


def test_credit_tables_by_hand() -> None:
    """Differences of pools are (1, 0, 0, 0) / 4: mean .25, stderr .25, t of one degree 12.71."""
    tables = load(BENCHMARKS / "credit" / "tables.py")
    no, yes = (0, 0), (1, 1)
    cells = credit_cells("base", 0, 0, True, (no, no, (0, 1), (0, 1)))
    for beta, far in ((31, 8), (125, 4), (2000, 1), (8000, 0.5)):
        cells += credit_cells("uniform", beta, far, False, (no, no))
    cells += credit_cells("uniform", 500, 2, True, (no, yes, yes, (0, 1)))
    for beta, far in ((125, 1), (500, 0.6), (2000, 0.4), (8000, 0.2)):
        cells += credit_cells("dde", beta, far, False, (no, no))
    cells += credit_cells("dde", 31, 3, True, (yes, yes, yes, yes))
    scores = tables.opened(pa.concat_tables(cells))
    for scheme, beta, scale in (("uniform", 500, 1.5), ("dde", 31, 3.0)):
        policy, best = scores.chosen(("noise", scheme))
        assert (policy.beta, policy.pool, best) == (beta, 0, scale)
    assert scores.chosen(("noise", "d3po")) is None

    wide = "+25.0 [-292.7, +342.7]"
    rows = tables.rows_table(scores)
    assert rows[2] == "| noise | base |  | 3 | 2 | 50.0 % |  |  |  |  |  |"
    assert rows[3].startswith(f"| noise | uniform | 500 | 1.5 | 2 | 75.0 % | {wide} |")
    assert rows[4].endswith("| 3.0 |")
    # Half way between distances 1 and 3, half of the prompts obey; of uniform's the last two do.
    (contrast,) = tables.contrasts_table(scores)[2:]
    assert contrast.startswith(f"| noise | dde | {wide} |")
    assert "| +0.0 [-91.8, +91.8] |" in contrast
    claims = tables.claims_table(scores)
    assert f"| DDE beats the uniform loss | not shown: {wide} | not measured |" in claims
    text = "before\n<!-- claims -->\nold\n<!-- end -->\nafter"
    assert tables.with_tables(text, scores).splitlines() == [
        *("before", "<!-- claims -->", *claims, "<!-- end -->", "after")
    ]
    assert tables.verdict(tables.MeanInterval(0.02, 0.005, 0.01, 0.03)).startswith("shown")
    assert tables.verdict(tables.MeanInterval(-0.02, 0.005, -0.03, -0.01)) == (
        "contradicted: -2.0 [-3.0, -1.0]"
    )


def test_credit_rows_are_trainings() -> None:
    compare = load(BENCHMARKS / "credit" / "compare.py")
    settings = compare.SCHEMES | compare.BANDS
    backbone = check_model("nano")
    assert {scheme for _, scheme in compare.ROWS} == {"base", *settings}
    assert len(set(compare.ROWS)) == len(compare.ROWS)
    for options in settings.values():
        build_credit(TrainConfig(model="nano", **options), backbone)
    policies = {len(compare.tried(row)) for row in compare.ROWS if row[1] != "base"}
    assert policies == {5}
    searched, tested = next(iter(compare.tried(("v", "300-400")).items()))
    assert (searched.scheme, tested.scheme, searched.beta) == ("uniform", "300-400", tested.beta)


def test_credit_readme_is_that_of_the_committed_scores() -> None:
    tables = load(BENCHMARKS / "credit" / "tables.py")
    if not tables.SCORES.is_file():
        pytest.skip("the comparison has not been run yet")
    text = (BENCHMARKS / "credit" / "README.md").read_text(encoding="utf-8")
    assert tables.with_tables(text, tables.opened(tables.SCORES)) == text


def test_a_step_executes_in_few_files(pairs: Path, tiny_model: Path, tmp_path: Path) -> None:
    counts = load(BENCHMARKS / "step_files.py").counts
    ready, whole = counts(train_config(tiny_model), pairs, tmp_path / "out")
    assert len(ready) <= 8, sorted(ready)
    assert len(whole) <= 10, sorted(whole)
    assert {"losses/margins.py", "training/trainer.py"} <= ready.keys() < whole.keys()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demos_table_is_that_of_its_scores(seed: int) -> None:
    models = compare(BENCHMARKS / "demo" / f"seed-{seed}.parquet")["models"]
    cells = []
    for scorer in ("obeyed", "examined"):
        base, policy = (100 * models[name]["scores"][scorer]["mean"] for name in ("base", "policy"))
        cells.append(f"{base:.1f} → {policy:.1f} %")
    gain = models["policy"]["scores"]["examined"]
    mean, low, high = (
        100 * gain[key] for key in ("difference", "difference_low", "difference_high")
    )
    row = f"| {' | '.join(cells)} | {mean:+.1f} [{low:.1f}, {high:.1f}] |"
    page = (BENCHMARKS.parent / "docs" / "diffusion_dpo.md").read_text(encoding="utf-8")
    assert f"| {seed} | 2.5 / 2.5 {row}" in page
    readme = (BENCHMARKS.parent / "README.md").read_text(encoding="utf-8")
    said = {0: f"{mean:.1f} points more, 95 % interval"}.get(seed, f"{mean:+.1f}")
    assert f"{said} [{low:.1f}, {high:.1f}]" in readme


def test_the_tables_of_obedience_are_those_of_its_scores() -> None:
    folder = BENCHMARKS / "obedience"
    measure = load(folder / "measure.py")
    page = (folder / "README.md").read_text(encoding="utf-8")
    for table in measure.tables(read_table(measure.SCORES)).split("\n\n"):
        assert table in page
