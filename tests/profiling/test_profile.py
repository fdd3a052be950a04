"""`tastemaker profile`: a whole table on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tastemaker.cli.command_line import main


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler")
def test_table_and_numbers(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "speed.json"
    assert main(["profile", str(run_file), "--rounds", "1", "--json", str(numbers)]) == 0
    table = capsys.readouterr().out
    for words in ("# Speed of small", "2 pairs of 32 x 32 pixels", "| backward |", "images/s"):
        assert words in table
    found = json.loads(numbers.read_text())
    options = [[row["options"] for row in found[kind]] for kind in ("training", "drawing")]
    shared = ["dtype=bf16", "torch_compile=true"]
    assert options[0][1:] == ["reference_draws=1", *shared, "gradient_checkpointing=true"]
    assert options[1][1:] == shared
    own, cached, _, compiled, checkpointed = found["training"]
    assert "install a C++ compiler" in compiled["error"]
    assert cached["flops"] < own["flops"]
    assert checkpointed["flops"] == own["flops"] > 0
    for shares in own["parts"].values():
        assert sum(shares.values()) == pytest.approx(1)
        assert all(share >= 0 for share in shares.values())
    step, plain = own["parts"]["step"], own["parts"]["plain"]
    assert step["encode"] == plain["data"] == 0
    assert min(plain["encode"], step["reference"], step["backward"], step["optimiser"]) > 0
    assert found["drawing"][0]["num_inference_steps"] == 2
    assert not (run_file.parent / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("align_prop-nano",), "no training on pairs"),
        (("demo", "--rounds", "0"), "--rounds is 0"),
    ],
)
def test_refusals(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *words]) == 2
    assert said in capsys.readouterr().err
