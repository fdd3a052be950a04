"""The notebook's cells run in order, made small, and show pictures."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import tastemaker as tm

NOTEBOOK = Path(__file__).parents[1] / "examples" / "nano.ipynb"
SMALL = (
    *("generate.prompts.number=8", "generate.num_inference_steps=2", "train.max_steps=2"),
    *("train.warmup_steps=0", "evaluate.prompts.number=8", "evaluate.num_inference_steps=2"),
    "evaluate.guidance_search.prompts.number=4",
)


@pytest.mark.slow
def test_the_notebook_goes_from_prompts_to_judgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *rest = (
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    )
    names: dict[str, Any] = {}
    exec(first, names)
    names["run"] = tm.load("demo", SMALL)
    for cell in rest:
        exec(cell, names)
    assert len(plt.get_fignums()) == 7
    assert "examined: " in capsys.readouterr().out
    plt.close("all")
