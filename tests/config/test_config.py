"""From YAML and `key=value` to a checked run: what is wrong is named with its path and a remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.config.loading import dump, load, parse, read_yaml, section, shipped_runs
from tastemaker.config.runs import PreferenceRun
from tastemaker.config.training import LoraConfig, TrainConfig
from tastemaker.core.errors import TastemakerError

RUN: dict[str, Any] = {
    "model": "some/model",
    "seed": 7,
    "generate": {"prompts": "prompts.txt"},
    "score": {"scorers": [{"name": "clip", "model": "some/clip"}]},
    "pair": {"rule": {"name": "best_worst", "scorer": "clip"}},
    "train": {"loss": "dpo", "max_steps": 3},
    "evaluate": {
        "prompts": {"name": "file", "path": "test.txt"},
        "scorers": [
            {"name": "clip", "model": "some/clip"},
            {"name": "clip", "model": "another/clip", "label": "judge"},
        ],
    },
}


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(RUN), encoding="utf-8")
    return str(file)


class TestLoad:
    def test_names_stand_for_choices_and_files_for_prompts(self, run_file: str) -> None:
        run = load(run_file)
        assert run.name == "mine"
        assert (run.train.loss.name, run.train.loss.options["beta"]) == ("dpo", 5000.0)
        assert run.generate.prompts.name == "file"
        assert run.generate.prompts.options["path"] == "prompts.txt"
        assert [scorer.column for scorer in run.evaluate.scorers] == ["clip", "judge"]

    def test_model_and_seed_are_inherited_unless_a_section_sets_its_own(
        self, run_file: str
    ) -> None:
        run = load(run_file, ("train.model=other/model", "evaluate.seed=99", "evaluate.base=b/c"))
        assert (run.generate.model, run.train.model, run.evaluate.base) == (
            "some/model",
            "other/model",
            "b/c",
        )
        assert (run.generate.seed, run.train.seed, run.evaluate.seed) == (7, 7, 99)
        assert load(run_file).evaluate.base == "some/model"

    def test_an_unknown_run_suggests_a_shipped_one(self) -> None:
        assert "demo" in shipped_runs()
        with pytest.raises(TastemakerError, match=r"no run named 'dmo'.*Did you mean demo\?"):
            load("dmo")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(TastemakerError, match=r"run\.yaml does not exist"):
            load(str(tmp_path / "run.yaml"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: [1, 2", "is not readable as YAML"),
            ("- a\n- b\n", "must hold `key: value` lines, not a list"),
            ("!!python/object/apply:os.getcwd []", "is not readable as YAML"),
            ("1: 2\n", "1"),
        ],
    )
    def test_a_file_that_is_no_mapping_is_refused(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        file = tmp_path / "run.yaml"
        file.write_text(text)
        with pytest.raises(TastemakerError, match=message):
            load(str(file))

    def test_an_empty_file_is_an_empty_mapping(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.touch()
        assert read_yaml(file) == {}

    @pytest.mark.parametrize("name", sorted(shipped_runs()))
    def test_every_shipped_run_loads(self, name: str) -> None:
        assert load(name).name == name

    def test_one_plugin_may_be_written_without_a_list(self, run_file: str) -> None:
        with pytest.raises(TastemakerError, match=r"my_rules\.py"):
            load(run_file, ("plugins=my_rules.py",))


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("train.max_steps=12", "train.max_steps", 12),
            ("train.lora.r=4", "train.lora.r", 4),
            (
                "train.lora.target_modules=[to_q, to_v]",
                "train.lora.target_modules",
                ["to_q", "to_v"],
            ),
            ("train.report_to=null", "train.report_to", None),
            ("train.loss.beta=200", "train.loss", {"name": "dpo", "beta": 200.0}),
            ("pair.rule.name=best_worst", "pair.rule.scorer", "clip"),
            ("evaluate.negative_prompt=", "evaluate.negative_prompt", ""),
            ("evaluate.negative_prompt=a=b", "evaluate.negative_prompt", "a=b"),
            ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),
        ],
    )
    def test_a_dotted_path_sets_one_value(
        self, run_file: str, override: str, path: str, value: Any
    ) -> None:
        found: Any = yaml.safe_load(dump(load(run_file, (override,))))
        for part in path.split("."):
            found = found[part]
        if isinstance(value, dict):
            found = {key: found[key] for key in value}
        assert found == value

    def test_everything_else_stays(self, run_file: str) -> None:
        before, after = load(run_file), load(run_file, ("train.loss.beta=200",))
        assert after.train.loss.options["beta"] == 200
        changed = before.train.loss.model_copy(update={"beta": 200.0})
        assert after == before.model_copy(
            update={"train": before.train.model_copy(update={"loss": changed})}
        )

    def test_the_last_one_wins(self, run_file: str) -> None:
        assert load(run_file, ("train.max_steps=1", "train.max_steps=2")).train.max_steps == 2

    def test_a_file_of_prompts_keeps_its_path_when_an_option_is_set(self, run_file: str) -> None:
        prompts = load(run_file, ("generate.prompts.number=5",)).generate.prompts
        assert (prompts.options["path"], prompts.options["number"]) == ("prompts.txt", 5)

    @pytest.mark.parametrize("override", ["train.max_steps", "=3", ""])
    def test_what_is_no_assignment_is_refused(self, run_file: str, override: str) -> None:
        with pytest.raises(TastemakerError, match=f"override {override!r} is not key=value"):
            load(run_file, (override,))

    def test_a_value_that_is_no_yaml_is_refused(self, run_file: str) -> None:
        with pytest.raises(
            TastemakerError, match="override 'train.max_steps=.*is not readable as YAML"
        ):
            load(run_file, ("train.max_steps=[1",))


class TestMistakes:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("trian.max_steps=1", r"unknown key 'trian'\. Did you mean train\?"),
            ("train.max_step=1", r"unknown key 'train\.max_step'\. Did you mean max_steps\?"),
            ("train.lora.alpa=1", r"unknown key 'train\.lora\.alpa'\. Did you mean alpha\?"),
            ("train.loss.beeta=1", r"train\.loss: .*unknown option 'beeta'\. Did you mean beta\?"),
            ("train.loss=dop", r"train\.loss: unknown loss 'dop'\. Did you mean dpo\?"),
            (
                "pair.rule={name: best_wrost, scorer: clip}",
                r"pair\.rule: unknown pair rule 'best_wrost'\. Did you mean best_worst\?",
            ),
            ("pair.rule=best_worst", r"pair\.rule: .*option 'scorer' is required"),
            ("train.loss.beta=-1", r"train\.loss: .*'beta' = -1: .*greater than 0"),
            ("train.max_steps=0", r"'train\.max_steps' = 0: .*greater than or equal to 1"),
            ("train.max_steps=many", r"'train\.max_steps' = 'many': .*integer"),
            ("train.method=full", "set reference=frozen_copy"),
            ("train.validation.steps=10", "validation.prompts is empty"),
            ("score.scorers=[]", r"score\.scorers"),
            ("score.scorers=[{name: clip, model: a}, {name: clip, model: b}]", "named twice"),
            ("evaluate.scorers=[{name: clpi}]", r"evaluate\.scorers\.0: unknown scorer 'clpi'"),
            ("recipe=difusion_dpo", r"unknown recipe 'difusion_dpo'\. Did you mean diffusion_dpo"),
            ("seed=-1", "'seed' = -1"),
        ],
    )
    def test_a_mistake_is_named_with_its_path(
        self, run_file: str, override: str, message: str
    ) -> None:
        with pytest.raises(TastemakerError, match=message) as caught:
            load(run_file, (override,))
        assert str(caught.value).startswith(run_file)

    def test_every_mistake_is_named_at_once(self, run_file: str) -> None:
        with pytest.raises(TastemakerError, match="'train.max_steps'") as caught:
            load(run_file, ("train.max_steps=0", "generate.shard_size=0"))
        assert "'generate.shard_size'" in str(caught.value)

    def test_a_mistaken_item_is_named_alone(self) -> None:
        with pytest.raises(TastemakerError, match="unknown option 'beeta'") as error:
            load("demo", ("score.scorers=[{name: nano_judge, beeta: 1}]",))
        assert "\n" not in str(error.value)

    def test_what_is_required_is_named(self) -> None:
        with pytest.raises(TastemakerError, match="train.yaml: 'model' is required"):
            parse(TrainConfig, {}, "train.yaml")

    def test_a_config_cannot_be_changed_after_loading(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            LoraConfig().rank = 3  # type: ignore[misc]


class TestNumbers:
    """PyYAML reads `1e-5` as text; typed sections and options must turn it into a number."""

    @pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1E-5", "0.00001"])
    def test_every_spelling_of_a_number_is_one(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "train.yaml"
        file.write_text(f"model: m\nlearning_rate: {text}\nloss: {{name: dpo, beta: {text}}}\n")
        train = section(TrainConfig, str(file), (f"weight_decay={text}",))
        assert train.learning_rate == train.weight_decay == train.loss.options["beta"] == 1e-5

    def test_spellings_do_not_change_the_dump(self) -> None:
        spelt = [
            dump(section(TrainConfig, None, ("model=m", f"loss.beta={beta}")))
            for beta in ("500", "5e2", "500.0")
        ]
        assert spelt[0] == spelt[1] == spelt[2]


class TestDump:
    def test_a_run_loads_back_equal(self, run_file: str, tmp_path: Path) -> None:
        run = load(run_file, ("train.learning_rate=1e-5", "train.loss.label_smoothing=0.1"))
        copy = tmp_path / "copy.yaml"
        copy.write_text(dump(run), encoding="utf-8")
        assert load(str(copy)) == run
        assert dump(load(str(copy))) == dump(run)

    # A busy machine is no slow strategy.
    @given(
        data=st.fixed_dictionaries(
            {"model": TEXT.filter(len)},
            optional={
                "max_steps": st.integers(1, 10**9),
                "learning_rate": st.floats(0, 1, exclude_min=True),
                "adam_beta1": st.floats(0, 1, exclude_max=True),
                "ema_decay": st.none() | st.floats(0.1, 0.999),
                "dtype": st.sampled_from(["fp32", "bf16", "fp16"]),
                "report_to": st.none() | TEXT,
                "gradient_checkpointing": st.booleans(),
                "lora": st.fixed_dictionaries(
                    {"r": st.integers(1, 1024)},
                    optional={
                        "target_modules": st.lists(TEXT.filter(str.strip), min_size=1, max_size=3)
                    },
                ),
                "loss": st.fixed_dictionaries(
                    {"name": st.just("dpo"), "beta": st.floats(1e-3, 1e6)}
                ),
                "validation": st.fixed_dictionaries(
                    {"steps": st.just(5), "prompts": st.lists(TEXT, min_size=1, max_size=3)}
                ),
            },
        )
    )
    def test_any_section_loads_back_equal(
        self, tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]
    ) -> None:
        train = parse(TrainConfig, data, "test")
        file = tmp_path_factory.mktemp("dump") / "train.yaml"
        file.write_text(dump(train), encoding="utf-8")
        assert section(TrainConfig, str(file), ()) == train

    def test_a_dump_holds_every_default(self, run_file: str) -> None:
        held = yaml.safe_load(dump(load(run_file)))
        assert set(held) == set(PreferenceRun.model_fields)
        assert set(held["train"]) == set(TrainConfig.model_fields)


@pytest.mark.parametrize("plugins", ["5", "{a: b}", "[5]", "true"])
def test_plugins_are_files(plugins: str) -> None:
    with pytest.raises(TastemakerError, match=r"plugins = .*name Python files"):
        load("demo", (f"plugins={plugins}",))


def test_keys_are_names(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("1: x\n", encoding="utf-8")
    with pytest.raises(TastemakerError, match=r"run\.yaml: the key 1 is not a name"):
        load(str(file))
