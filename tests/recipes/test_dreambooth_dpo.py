"""DreamBoothDPO as a user runs it, on tiny models: rounds, resume, what is told once, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tastemaker.backbones import load_backbone
from tastemaker.cli.command_line import main
from tastemaker.config.loading import load
from tastemaker.core.errors import TastemakerError
from tastemaker.recipes.run import run
from tastemaker.storage.files import read_json
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    folder = tmp_path_factory.mktemp("dreambooth")
    photographs = folder / "photographs"
    photographs.mkdir()
    generator = np.random.default_rng(1)
    for i in range(3):
        low = generator.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(low).resize((40, 40)).save(photographs / f"{i}.png")
    templates, held_out = folder / "templates.txt", folder / "held_out.txt"
    templates.write_text("\n".join(f"a {{}} {i}" for i in range(6)), encoding="utf-8")
    held_out.write_text("a {} 8\na {} 9\n", encoding="utf-8")
    sampling = {"num_inference_steps": 3, "guidance_scale": 2.0}
    scorers = [
        {"name": "image_similarity", "model": str(tiny_clip)},
        {"name": "text_similarity", "model": str(tiny_clip)},
    ]
    short = {"batch_size": 2, "learning_rate": 0.02, "save_steps": 1}
    data = {
        "recipe": "dreambooth_dpo",
        "name": "subject",
        "output": str(folder / "runs"),
        "model": str(tiny_model),
        "device": "cpu",
        "personalize": {
            "photographs": str(photographs),
            "class_name": "person",
            "max_steps": 2,
            **short,
        },
        "class_images": {
            "prompts": {"name": "texts", "prompts": ["a person"]},
            "num_candidates": 3,
            **sampling,
        },
        "generate": {
            "prompts": {"name": "templates", "set": str(templates)},
            "num_candidates": 6,
            **sampling,
        },
        "score": {"scorers": scorers},
        "pair": {
            "rule": {
                "name": "angle",
                "fidelity": "image_similarity",
                "prompt": "text_similarity",
                "low": 5,
                "high": 85,
                "zscored": True,
            }
        },
        "train": {"max_steps": 2, "report_to": None, **short},
        "evaluate": {
            "prompts": {"name": "templates", "set": str(held_out)},
            "num_images": 2,
            "scorers": scorers,
            **sampling,
        },
    }
    (folder / "subject.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return folder / "subject.yaml"


@pytest.fixture(scope="module")
def finished(file: Path) -> RunDir:
    return run(load(str(file)))


class TestConfiguration:
    def test_the_subject_is_told_once(self, file: Path) -> None:
        config = load(str(file), ("personalize.identifier=zwx",))
        for section in (config.generate, config.evaluate):
            assert section.prompts.options["subject"] == "zwx person"
        for section in (config.score, config.evaluate):
            image, text = section.scorers
            assert image.options["images"] == config.personalize.photographs
            assert text.options["subject"] == "zwx person"
            assert text.options["class_name"] == "person"

    def test_class_images_have_defaults(self, file: Path, tmp_path: Path) -> None:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        other = tmp_path / "defaults.yaml"
        other.write_text(yaml.safe_dump({**data, "class_images": {}}), encoding="utf-8")
        images = load(str(other)).class_images
        assert images.num_candidates == 100
        assert images.prompts.options["prompts"] == ("a photo of a person",)
        assert images.model == data["model"]

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "generate.prompts=prompts.txt",
                "generate.prompts: 'file' cannot be split among 2 rounds",
            ),
            ("generate.prompts.of=3", "the rounds set part and of"),
            ("pair.rule.low=90", r"the window \[90, 85\] is empty"),
            ("personalize.class_name=''", "personalize.class_name"),
        ],
    )
    def test_mistakes_are_named(self, file: Path, override: str, message: str) -> None:
        with pytest.raises(TastemakerError, match=message):
            load(str(file), (override,))

    def test_more_rounds_than_prompts(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        options = ("rounds=7", "name=rounds", "personalize.max_steps=1", "class_images=null")
        assert main(["run", str(file), *options]) == 2
        assert "6 templates cannot be split into 7 parts" in capsys.readouterr().err


class TestRun:
    def test_rounds_have_prompts_of_their_own(self, finished: RunDir) -> None:
        first, second = (
            set(Pool(finished.round(k)).candidates(("prompt",))["prompt"].to_pylist())
            for k in (1, 2)
        )
        assert len(first) == len(second) == 3
        assert not first & second
        assert all("sks person" in prompt for prompt in first | second)

    def test_class_images_are_of_the_base_and_the_class(
        self, finished: RunDir, tiny_model: Path
    ) -> None:
        pool = Pool(finished.source("class_images")).candidates(("prompt", "model"))
        assert set(pool["prompt"].to_pylist()) == {"a person"}
        assert set(pool["model"].to_pylist()) == {str(tiny_model)}

    def test_each_round_draws_with_the_model_before(self, finished: RunDir) -> None:
        before = finished.model("personalized")
        for number, label in ((1, "round_1"), (2, "policy")):
            drawn_by = Pool(finished.round(number)).candidates(("model",))["model"].to_pylist()
            assert set(drawn_by) == {str(before)}
            before = finished.model(label)

    def test_the_reference_is_the_model_before_bitwise(self, finished: RunDir) -> None:
        """What lies below the policy's LoRA is what the first round's model computes."""
        policy = load_backbone(str(finished.policy), device="cpu")
        before = load_backbone(str(finished.model("round_1")), device="cpu", fused=True)
        policy.denoiser.disable_adapters()
        hidden = policy.encode_prompts(["a sks person 8"])
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            below = policy.predict(policy.denoiser, noise, torch.tensor([400]), hidden)
            expected = before.predict(before.denoiser, noise, torch.tensor([400]), hidden)
        assert torch.equal(below, expected)
        first = json.loads((finished.policy / "metrics.jsonl").read_text().splitlines()[0])
        assert first["rewards/margins"] == pytest.approx(0, abs=1e-4)

    def test_pairs_point_into_the_window(self, finished: RunDir) -> None:
        pairs = PairSet(finished.stage_pairs("round_1"))
        scores = {row["candidate_id"]: row for row in Pool(finished.round(1)).scores().to_pylist()}
        rows = pairs.table().to_pylist()
        assert rows
        for row in rows:
            chosen, rejected = scores[row["chosen_id"]], scores[row["rejected_id"]]
            for scorer in ("image_similarity", "text_similarity"):
                assert chosen[scorer] > rejected[scorer]

    def test_models_are_held_against_the_personalised_one(self, finished: RunDir) -> None:
        report = read_json(finished.report_json)
        assert list(report["models"]) == ["base", "round_1", "policy"]
        drawn_by = Pool(finished.evaluation / "base").candidates(("model",))["model"].to_pylist()
        assert set(drawn_by) == {str(finished.model("personalized"))}

    def test_the_report_shows_plane_and_rounds(self, finished: RunDir) -> None:
        page = finished.report_html.read_text()
        for word in ("round_1", "policy", "image_similarity", "text_similarity"):
            assert word in page

    @pytest.mark.slow
    def test_killed_anywhere_it_ends_with_the_same_bytes(
        self, file: Path, finished: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tastemaker.training.preference.trainer import PreferenceTrainer

        config = load(str(file), ("name=killed",))
        batch = PreferenceTrainer.batch
        calls = []

        def dies(self: PreferenceTrainer, step: int, part: int) -> Any:
            calls.append(step)
            if len(calls) in (2, 4):
                raise KeyboardInterrupt
            return batch(self, step, part)

        monkeypatch.setattr(PreferenceTrainer, "batch", dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run(config)
        ended = run(config)
        assert (ended.policy / FILE).read_bytes() == (finished.policy / FILE).read_bytes()


def test_a_window_that_keeps_no_pair(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["name=narrow", "rounds=1", "class_images=null", "personalize.max_steps=1"]
    window = ["pair.rule.low=44.99", "pair.rule.high=45"]
    assert main(["run", str(file), *options, *window]) == 2
    told = capsys.readouterr().err
    assert "dropped: ordered pairs outside [44.99, 45] degrees" in told


@pytest.mark.slow
def test_all_weights_in_one_round(file: Path) -> None:
    options = (
        "name=whole",
        "rounds=1",
        "class_images=null",
        "personalize.method=full",
        "train.method=full",
        "train.reference=frozen_copy",
    )
    ended = run(load(str(file), options))
    assert (ended.policy / "model_index.json").is_file()


def test_identity_before_and_after_stacking(
    file: Path, finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A further LoRA on the personalised model: is the subject still itself?"""
    subject, lora = finished.model("personalized"), finished.model("round_1")
    stacked, judged = tmp_path / "stacked", tmp_path / "judged"
    assert main(["stack", str(lora), str(subject), str(stacked)]) == 0
    evaluate = load(str(file)).evaluate.model_dump(mode="json")
    evaluate |= {"base": str(subject), "adapter": {"scale": 0.5}}
    options = tmp_path / "evaluate.yaml"
    options.write_text(yaml.safe_dump(evaluate), encoding="utf-8")
    assert main(["evaluate", str(stacked), str(judged), "--config", str(options)]) == 0
    models = read_json(judged / "report.json")["models"]
    before, after = (models[name]["scores"]["image_similarity"] for name in ("base", "policy"))
    assert before["mean"] != after["mean"]
    assert "image_similarity" in capsys.readouterr().out
