"""What is wrong with any part of a command or a run is said before the first byte is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tastemaker.backbones import check_compile
from tastemaker.cli.command_line import main
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.loading import load, shipped_runs
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import LOSSES
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.preflight import KINDS, LOADING_LOOKS, LOOKS, expect
from tastemaker.recipes.run import check_run
from tastemaker.reporting.model_card import plain

Says = Callable[..., str]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run the command line, expect a refusal, return the message."""

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in arguments]) == 2
        return capsys.readouterr().err

    return refused


NOWHERE = "./no/such"
MISTAKES = {
    "generate.model": NOWHERE,
    "train.model": NOWHERE,
    "evaluate.base": NOWHERE,
    "generate.prompts": "missing.txt",
    "evaluate.prompts": "missing.txt",
    "score.reuse": f"[{NOWHERE}]",
    "score.scorers": f"[{{name: clip, label: tiny, model: {NOWHERE}}}]",
    "evaluate.scorers": f"[{{name: clip, model: {NOWHERE}}}]",
    "evaluate.features": f"[{NOWHERE}]",
    "pair.filters.without": "missing.txt",
    "train.start": NOWHERE,
    "train.report_to": "tensorbord",
    "train.dtype": "fp16",
    "train.lora.target_modules": "[to_nothing]",
    "train.text_lora.target_modules": "[to_nothing]",
    "train.credit": "{name: dde, buckets: 1001}",
    "generate.scheduler": "DDIMSheduler",
    "evaluate.scheduler": "FlowMatchEulerDiscreteScheduler",
    "evaluate.height": "33",
    "evaluate.width": "8000000",
    "generate.batch_size": "1000000000",
    "pair.rule.scorer": "tinny",
    "pair.filters.min_gap": "{tinny: 1}",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 needs a device that is not here")
@pytest.mark.parametrize("key", MISTAKES)
def test_a_run_is_refused_before_it_begins(run_file: Path, says: Says, key: str) -> None:
    message = says("run", run_file, f"{key}={MISTAKES[key]}")
    assert all(part in message for part in key.split(".")[:-1])
    assert "Traceback" not in message
    assert not (run_file.parent / "runs").exists()


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("section", ["generate", "train", "evaluate"])
def test_compilation_without_a_compiler_is_refused_before_a_run_begins(
    run_file: Path, says: Says, section: str
) -> None:
    message = says("run", run_file, f"{section}.torch_compile=true")
    assert f"{section}: torch_compile: torch cannot compile for 'cpu'" in message
    assert "install a C++ compiler" in message
    assert not (run_file.parent / "runs").exists()


def test_compilation_of_a_network_without_repeated_blocks_is_refused() -> None:
    with pytest.raises(TastemakerError, match="no repeated blocks of a Linear; set torch_compile"):
        check_compile(torch.nn.Linear(1, 1), torch.device("cpu"))


def test_a_refused_run_mended_is_the_run_that_was_meant(run_file: Path, says: Says) -> None:
    assert "evaluate.features" in says("run", run_file, f"evaluate.features=[{NOWHERE}]")
    assert main(["run", str(run_file), "train.max_steps=1"]) == 0


def test_a_loss_of_a_plugin_that_looks_at_nothing_is_refused(
    run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LOSSES.names()
    monkeypatch.setitem(LOSSES._entries, "strange", lambda weights: weights)
    with pytest.raises(
        TastemakerError, match="train: loss 'strange' takes weights; name its parameters"
    ):
        check_run(load(str(run_file), ("train.loss=strange",)))


@pytest.mark.parametrize("name", [name for name in shipped_runs() if "nano" in name])
def test_shipped_runs_pass(name: str) -> None:
    check_run(load(name))


@pytest.mark.parametrize("what", sorted(LOOKS | LOADING_LOOKS))
@pytest.mark.parametrize("value", ["/no/where", "no", "x" * 300])
def test_everything_that_an_option_can_name_is_looked_for(what: str, value: str) -> None:
    if what == "device":
        value = "cuda"
        if torch.cuda.is_available():
            pytest.skip("the device is here")
    with pytest.raises((TastemakerError, OSError)):
        (LOOKS | LOADING_LOOKS)[what](value)


def test_evaluate_looks_for_the_policy_before_it_draws_the_base(
    tmp_path: Path, tiny_model: Path, tiny_clip: Path, says: Says
) -> None:
    words = (f"base={tiny_model}", "prompts={name: texts, prompts: [a]}")
    scorers = f"scorers=[{{name: clip, model: {tiny_clip}}}]"
    assert "nowhere" in says("evaluate", "nowhere", tmp_path / "out", *words, scorers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [["base"], ["Base"], ["a", "A"], ["../x"], [""]])
def test_judged_models_have_folders_of_their_own(
    tmp_path: Path, tiny_model: Path, names: list[str]
) -> None:
    config = EvaluateConfig(
        base=str(tiny_model),
        prompts={"name": "texts", "prompts": ["a"]},
        scorers=["nano_judge"],
    )
    models = dict.fromkeys(names, str(tiny_model))
    with pytest.raises(TastemakerError, match="a judged model"):
        evaluate(config, models, tmp_path / "out", tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def test_one_kind_of_folder_for_another_is_named(pairs: Path, tmp_path: Path, says: Says) -> None:
    pool = pairs.parent / "pool"
    train = ("model=nano", "max_steps=1", "report_to=null")
    assert "is a pool of candidates; give a folder of pairs" in says(
        "train", pool, tmp_path / "out", *train
    )
    assert "is a folder of pairs; give a pool" in says(
        "pair", pairs, tmp_path / "out", "rule.scorer=tiny"
    )
    assert "is a folder of pairs; give a pool" in says("score", pairs, "scorers=[sharpness]")
    (tmp_path / "empty").mkdir()
    assert "empty is not finished" in says("train", tmp_path / "empty", tmp_path / "out", *train)
    assert "Did you mean tiny" in says("pair", pool, tmp_path / "out", "rule.scorer=tinny")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_nothing_is_told_by_its_state(tmp_path: Path) -> None:
    assert not any(holds(tmp_path) for holds in KINDS.values())
    with pytest.raises(TastemakerError, match="does not exist"):
        expect(tmp_path / "no", "pool")


def test_more_images_than_can_be_listed_are_refused_at_once(tmp_path: Path, says: Says) -> None:
    words = ("model=nano", "prompts={name: texts, prompts: [a]}", "num_candidates=1000000000000")
    assert "ask for fewer" in says("generate", tmp_path / "pool", *words)
    assert not (tmp_path / "pool").exists()


def test_markup_in_names_is_shown_as_it_is() -> None:
    assert plain("<b>a|b`") == "&lt;b&gt;a\\|b\\`"
