"""HG-DPO as a user runs it, on tiny models: stages, skips, resume, baselines, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from tastemaker.cli.command_line import main
from tastemaker.config.loading import load
from tastemaker.core.errors import TastemakerError
from tastemaker.evaluation.evaluate import evaluate
from tastemaker.evaluation.report_text import summary
from tastemaker.recipes.real_images import Images
from tastemaker.recipes.run import check_run, run
from tastemaker.storage.pairs import PairSet
from tastemaker.storage.pool import Pool
from tastemaker.storage.run_dir import RunDir

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(1)
    for i in range(6):
        low = generator.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(low).resize((40, 40)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"person {i % 4}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def file(
    tmp_path_factory: pytest.TempPathFactory, photographs: Path, tiny_model: Path, tiny_clip: Path
) -> Path:
    """A run of three stages and the text encoder's own."""
    folder = tmp_path_factory.mktemp("hg")
    prompts = folder / "held_out.txt"
    prompts.write_text("person 7\nperson 8\n", encoding="utf-8")
    sampling = {"num_inference_steps": 3, "guidance_scale": 2.0}
    scorer = {"name": "clip", "label": "tiny", "model": str(tiny_clip)}
    images = {"images": str(photographs), "resolution": 32}
    data = {
        "recipe": "hg_dpo",
        "name": "hg",
        "output": str(folder / "runs"),
        "model": str(tiny_model),
        "device": "cpu",
        "real": images,
        "held_out": images,
        "candidates": {"num_candidates": 3, **sampling},
        "score": {"scorers": [scorer]},
        "scorer": "tiny",
        "train": {
            "max_steps": 2,
            "batch_size": 2,
            "learning_rate": 0.02,
            "report_to": None,
            "save_steps": 1,
        },
        "easy": {
            "chosen": "candidates",
            "rejected": "candidates",
            "train": {"statistics": {"weight": 100.0}},
        },
        "normal": {
            "chosen": "reconstruction",
            "reconstruct": {"timesteps": [300, 600]},
            "rejected": "easy",
        },
        "hard": {"chosen": "real", "rejected": "normal", "train": {"loss": {"beta": 77}}},
        "text_encoder": {"train": {"method": "frozen", "text_lora": {"r": 2}}},
        "evaluate": {
            "prompts": str(prompts),
            "num_images": 2,
            "scorers": [scorer],
            "features": [str(tiny_clip)],
            **sampling,
        },
    }
    (folder / "hg.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return folder / "hg.yaml"


@pytest.fixture(scope="module")
def finished(file: Path) -> RunDir:
    return run(load(str(file)))


def test_a_warm_up_is_sft_that_the_first_stage_goes_on_from(file: Path) -> None:
    options = (
        "name=warm",
        "normal=null",
        "hard=null",
        "text_encoder=null",
        "held_out=null",
        "warm_up={chosen: real, rejected: candidates}",
    )
    folder = run(load(str(file), options))
    rows = PairSet(folder.stage_pairs("warm_up")).table().to_pylist()
    assert len(rows) == 6
    first = (folder.model("warm_up") / "metrics.jsonl").read_text().splitlines()[0]
    # An error of noise near 1; of a pair it would be ln 2.
    assert json.loads(first)["loss"] > 0.8
    begun = json.loads((folder.policy / "metrics.jsonl").read_text().splitlines()[0])
    assert begun["rewards/margins"] == pytest.approx(0, abs=1e-4)


class TestConfiguration:
    def test_stages_take_what_they_do_not_say_themselves(self, file: Path) -> None:
        config = load(str(file))
        assert config.hard.train.loss.options["beta"] == 77
        assert config.easy.train.loss.options["beta"] != 77
        assert config.hard.train.max_steps == 2
        assert config.normal.reconstruct.num_inference_steps == 3
        assert config.normal.train.statistics is None

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("easy.rejected=normal", "easy.rejected: stage 'normal' does not come before easy"),
            ("{easy: null, normal: null, hard: null}", "all stages are skipped"),
            ("normal=null", "hard.rejected: stage 'normal' does not come before hard"),
            ("hard.choosen=real", r"unknown key 'hard.choosen'. Did you mean chosen"),
            ("easy.train.max_stepps=3", r"'easy.train.max_stepps'. Did you mean max_steps"),
            (
                "evaluate.adapters.eazy.scale=0.5",
                r"no model 'eazy' is judged; those .* are easy, normal, hard, policy",
            ),
        ],
    )
    def test_mistakes_are_named(self, file: Path, override: str, message: str) -> None:
        given = yaml.safe_load(override) if override.startswith("{") else None
        overrides = [f"{key}=null" for key in given] if given else [override]
        with pytest.raises(TastemakerError, match=message):
            load(str(file), tuple(overrides))

    def test_photographs_of_a_size_that_the_model_cannot_take_are_refused_first(
        self, file: Path
    ) -> None:
        """Held-out ones are only looked at."""
        check_run(load(str(file), ("held_out.resolution=33",)))
        for options in (
            ("real.resolution=33",),
            ("real.resolution=null", "real.buckets=[[32, 33]]"),
        ):
            with pytest.raises(TastemakerError, match="real: .*33"):
                check_run(load(str(file), options))


class TestSwitches:
    """Where a LoRA acts is said for each judged model; `adapter` is the final one's."""

    @pytest.mark.parametrize("switched", ["policy", "easy"])
    def test_each_model_has_its_own(
        self, file: Path, finished: RunDir, tmp_path: Path, switched: str
    ) -> None:
        option = {"policy": "evaluate.adapter.scale=0", "easy": "evaluate.adapters.easy.scale=0"}
        config = load(str(file), (option[switched],)).evaluate
        models = {name: finished.model(name) for name in ("easy", "policy")}
        report = tmp_path / "report.json"
        evaluate(config, models, tmp_path, report)
        drawn = {
            name: [row["image"]["bytes"] for row in Pool(tmp_path / name).candidates().to_pylist()]
            for name in ("base", *models)
        }
        found = json.loads(report.read_text())["models"]
        for name in models:
            assert (drawn[name] == drawn["base"]) == (name == switched)
            assert found[name].get("drawn_with") == ("its LoRA at 0" if name == switched else None)
        assert f"{switched} was drawn with its LoRA at 0" in summary(report)

    def test_the_key_of_a_model_holds_its_own_switches_alone(
        self, file: Path, finished: RunDir, tmp_path: Path
    ) -> None:
        """Judged again with another model switched, base and policy stay as they are."""
        for options in ((), ("evaluate.adapters.easy.scale=0",)):
            config = load(str(file), options).evaluate
            models = {"policy": finished.policy}
            if options:
                models["easy"] = finished.model("easy")
            evaluate(config, models, tmp_path, tmp_path / "report.json")

    def test_a_model_without_a_lora_has_none_to_switch(
        self, file: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        config = load(str(file), ("evaluate.adapter.scale=0.5",)).evaluate
        with pytest.raises(TastemakerError, match="has no LoRA that could be switched"):
            evaluate(config, {"policy": tiny_model}, tmp_path, tmp_path / "report.json")


class TestRun:
    def test_held_out_photographs_that_are_trained_on_are_told(
        self, finished: RunDir, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Images(load(str(file)), finished).held_out()
        assert "warning: 6 of the held-out photographs are trained on" in capsys.readouterr().out
        Image.new("RGB", (40, 40)).save(tmp_path / "0.png")
        (tmp_path / "0.txt").write_text("person 0", encoding="utf-8")
        Images(
            load(str(file), (f"held_out.images={tmp_path}", f"output={tmp_path}")),
            RunDir(tmp_path / "run"),
        ).held_out()
        assert "warning" not in capsys.readouterr().out

    def test_each_stage_rejects_what_the_last_one_chose(self, finished: RunDir) -> None:
        easy, normal, hard = (
            PairSet(finished.stage_pairs(name)).table().to_pylist()
            for name in ("easy", "normal", "hard")
        )
        assert len(easy) == len(normal) == len(hard) == 6
        assert {row["rejected_id"] for row in normal} == {row["chosen_id"] for row in easy}
        assert {row["rejected_id"] for row in hard} == {row["chosen_id"] for row in normal}

    def test_every_stage_begins_at_its_own_reference(self, finished: RunDir) -> None:
        for stage in ("easy", "normal", "hard", "text_encoder"):
            lines = (finished.model(stage) / "metrics.jsonl").read_text().splitlines()
            first = json.loads(lines[0])
            assert first["rewards/margins"] == pytest.approx(0, abs=1e-4), stage

    def test_the_policy_holds_both_parts(self, finished: RunDir) -> None:
        policy = load_file(finished.policy / FILE)
        hard = load_file(finished.model("hard") / FILE)
        text = load_file(finished.model("text_encoder") / FILE)
        assert policy.keys() == hard.keys() | text.keys()
        assert all((policy[key] == value).all() for key, value in {**hard, **text}.items())

    def test_the_report_shows_all_stages(self, finished: RunDir) -> None:
        held = json.loads(finished.report_json.read_text())
        assert list(held["models"]) == ["base", "easy", "normal", "hard", "policy"]
        for name, model in held["models"].items():
            (distance,) = model["frechet"].values()
            assert distance["value"] > 0
            assert distance["real_to_real"] > 0
            assert distance["captions"] == "any"
            assert distance["name"] == "Frechet distance"
            assert set(model["kernel"]) == set(model["frechet"])
            assert ("hue_distance" in model) == (name != "base")
        assert held["win_rates"]["tiny"]["hard"]["easy"]["value"] >= 0
        page = finished.report_html.read_text()
        for word in ("normal", "hard", "Frechet distance", "Training curves"):
            assert word in page

    @pytest.mark.slow
    def test_killed_between_and_within_stages_it_ends_with_the_same_bytes(
        self, file: Path, finished: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tastemaker.training.preference.trainer import PreferenceTrainer

        again = load(str(file), ("name=killed",))
        batch = PreferenceTrainer.batch
        calls = []

        def dies(self: PreferenceTrainer, step: int, part: int) -> Any:
            calls.append(step)
            if len(calls) in (2, 4, 7):
                raise KeyboardInterrupt
            return batch(self, step, part)

        monkeypatch.setattr(PreferenceTrainer, "batch", dies)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                run(again)
        ended = run(again)
        assert (ended.policy / FILE).read_bytes() == (finished.policy / FILE).read_bytes()


def test_skipped_stages_and_the_naive_baseline(file: Path) -> None:
    overrides = ("name=naive", "easy=null", "normal=null", "text_encoder=null")
    ended = run(load(str(file), (*overrides, "hard.rejected=candidates")))
    rows = PairSet(ended.stage_pairs("hard")).table().to_pylist()
    assert len(rows) == 6
    assert list(json.loads(ended.report_json.read_text())["models"]) == ["base", "policy"]


@pytest.mark.slow
def test_mixed_trains_once_on_all_pairs(file: Path) -> None:
    overrides = ("name=mixed", "recipe=hg_dpo_mixed", "text_encoder=null")
    ended = run(load(str(file), overrides))
    assert len(PairSet(ended.stage_pairs("mixed")).table()) == 18
    assert (ended.policy / FILE).is_file()


@pytest.mark.slow
def test_blend_as_the_middle_stage(file: Path) -> None:
    overrides = ("name=blend", "normal.chosen=blend", "hard=null", "text_encoder=null")
    ended = run(load(str(file), (*overrides, "normal.blend.alpha=0.3")))
    assert load_file(ended.policy / FILE)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("real.limit=50", "fewer|limit"),
        ("real.resolution=4096", "crop|small|pixels"),
        ("real.images=/nowhere", "/nowhere"),
    ],
)
def test_real_images_that_do_not_do(
    file: Path, override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["run", str(file), "name=bad", override, f"output={file.parent / override[:9]}"]) == 2
    )
    assert __import__("re").search(message, capsys.readouterr().err)


def test_without_captions(file: Path, photographs: Path, tmp_path: Path) -> None:
    Image.open(photographs / "0.png").save(tmp_path / "0.png")
    with pytest.raises(TastemakerError, match="caption"):
        run(load(str(file), ("name=none", f"real.images={tmp_path}", f"output={tmp_path}/runs")))
