"""The nuisance panel on scorers whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageStat

from pictures import encoded
from tastemaker.cli.command_line import main
from tastemaker.config.sections import PanelConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import SCORERS
from tastemaker.doctor.nuisance_panel import Rows, nuisance_panel, table

NUMBER = 40


class Held:
    def to(self, device: torch.device, dtype: torch.dtype) -> Held:
        return self


@pytest.fixture
def scorers() -> None:
    @SCORERS.register("lightness")
    class Lightness(Held):
        """Mean of the red channel."""

        def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
            return torch.tensor([ImageStat.Stat(image).mean[0] for image in images])

    @SCORERS.register("constant")
    class Constant(Held):
        """Always one."""

        def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
            return torch.ones(len(images))

    @SCORERS.register("broken")
    class Broken(Held):
        """Not a number."""

        def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
            return torch.full((len(images),), torch.nan)


def rows() -> Rows:
    """Flat grey pictures of level 80, 81, ..., 119, two per prompt."""
    for i in range(NUMBER):
        image = Image.fromarray(np.full((8, 8, 3), 80 + i, dtype=np.uint8))
        yield {"candidate_id": str(i), "prompt": f"p{i // 2}", "image": {"bytes": encoded(image)}}


def panel(scorer: str) -> dict[str, dict[str, float]]:
    found = nuisance_panel(PanelConfig(scorer=scorer, batch_size=5), rows())
    assert (found["images"], found["prompts"]) == (NUMBER, NUMBER // 2)
    entries: dict[str, dict[str, float]] = found["nuisances"]
    return entries


def test_lightness_is_fooled_by_one_grey_level(scorers: None) -> None:
    found = panel("lightness")
    level = found["one grey level more"]
    assert level["win_rate"] == 1
    assert level["fools"]
    # One level, in standard deviations of 0, 1, ..., 39: sqrt((40^2 - 1) / 12).
    assert level["difference"] == pytest.approx((12 / 1599) ** 0.5)
    assert found["contrast x 1.1"]["win_rate"] == 0  # darker than mid-grey, and darker yet
    assert not found["contrast x 1.1"]["fools"]
    for name in ("mirrored", "shifted by one pixel", "blur, radius 0.7"):
        assert (found[name]["win_rate"], found[name]["difference"]) == (0.5, 0), name


def test_a_constant_ties_everywhere(scorers: None) -> None:
    for name, entry in panel("constant").items():
        assert entry["win_rate"] == 0.5, name
        assert entry["difference"] is None
        assert not entry["fools"]


def test_table_names_what_fools(scorers: None) -> None:
    text = table(nuisance_panel(PanelConfig(scorer="lightness"), rows()))
    assert "lightness on 40 images of 20 prompts, sd 11.54" in text
    assert text.splitlines()[-1].endswith("by: one grey level more, brightness x 1.1.")


def test_a_score_that_is_no_number_is_refused(scorers: None) -> None:
    with pytest.raises(TastemakerError, match=r"'broken' returned nan for candidate 0"):
        nuisance_panel(PanelConfig(scorer="broken"), rows())


def test_command_line_on_a_pool_and_on_a_run(
    tmp_path: Path, run_file: Path, tiny_model: Path, scorers: None, capsys: pytest.CaptureFixture
) -> None:
    pool, prompts = str(tmp_path / "pool"), [f"cat {number}" for number in range(12)]
    texts = f"prompts={{name: texts, prompts: {prompts}}}"
    small = ("num_inference_steps=1", "guidance_scale=1", "num_candidates=1")
    assert main(["generate", pool, f"model={tiny_model}", texts, *small]) == 0
    file = tmp_path / "panel.json"
    words = ["doctor", "--scorer", "lightness", pool, "--json", str(file), "batch_size=3"]
    assert main(words) == 1  # fooled
    assert "lightness on 12 images of 12 prompts" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["scorer"] == {"name": "lightness"}
    assert found["nuisances"]["one grey level more"]["fools"]

    words = ["doctor", "--scorer", "{name: constant, label: flat}", str(run_file), "--images", "2"]
    assert main(words) == 0
    assert "flat on 2 images of 2 prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "unknown scorer 'nope'"),
        (["{name: rank, of: [sharpness]}"], "is an ensemble"),
        (["sharpness", "--images", "1"], "--images is 1; give 2 or more"),
        (["sharpness", "."], "is not finished"),
        (["sharpness", "evaluate.steps=4"], "demo: evaluate.steps"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--scorer", *words]) == 2
    assert message in capsys.readouterr().err
