"""A run with every option explained, and other tools' words for options answered with ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tastemaker.cli import main
from tastemaker.config.foreign_names import FOREIGN, own_name
from tastemaker.config.loading import load, shipped_runs
from tastemaker.config.sections import Section, sections_of
from tastemaker.core.errors import TastemakerError
from tastemaker.core.registry import LOSSES


@pytest.mark.parametrize("name", shipped_runs())
def test_a_commented_run_loads_back_and_explains_every_option(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", name, "seed=7"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    run = load(str(tmp_path / "mine.yaml"))
    assert run == load(name, ("seed=7",))
    words = " ".join(line.strip(" #") for line in text.splitlines())
    for path, section in sections_of(run):
        for option, field in type(section).model_fields.items():
            assert f"\n{'  ' * (path.count('.') + bool(path))}{option}:" in f"\n{text}", path
            assert (field.description or "") in words, f"{path}.{option}"


def test_options_of_a_section_that_is_off_are_comments(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "demo"])
    assert "\n  curriculum: null\n  #   # Parts of the pairs" in capsys.readouterr().out


def kinds(above: type[Section] = Section) -> Iterator[type[Section]]:
    for kind in above.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_answer_is_an_option_of_some_section(name: str) -> None:
    for target in FOREIGN[name].split():
        first, _, option = target.partition(".")
        assert any(first in kind.model_fields for kind in kinds())
        if first == "loss" and option:
            assert option in LOSSES.schema("dpo").model_fields
    assert any(own_name(name, kind) for kind in kinds() if name not in kind.model_fields)


@pytest.mark.parametrize(
    ("override", "own"),
    [
        ("train.train_batch_size=4", "train.batch_size"),
        ("train.network_dim=4", "train.lora.r"),
        ("train.lora.rank=4", "train.lora.r"),
        ("train.beta_dpo=5000", "train.loss.beta"),
        ("train.validation_steps=4", "train.validation.steps"),
        ("generate.num_images_per_prompt=4", "generate.num_candidates"),
        ("evaluate.num_images_per_prompt=4", "evaluate.num_images"),
        ("train.curriculum.every=4", "train.curriculum.steps_per_chunk"),
        ("lr=1", "train.learning_rate"),
        ("train_batch_size=4", "train.batch_size"),
    ],
)
def test_another_tools_word_is_answered_with_ours(override: str, own: str) -> None:
    with pytest.raises(TastemakerError) as caught:
        load("demo", (override,))
    given = override.partition("=")[0]
    assert f"demo: {given}: here it is {own}." in str(caught.value)
