"""The commands of the command line: each calls a function with its section and folders."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tastemaker.config import loading as config
from tastemaker.config.datasets import (
    DataExportConfig,
    ImagesConfig,
    ImportConfig,
    JoinConfig,
    PairConfig,
    ShowConfig,
)
from tastemaker.config.evaluation import EvaluateConfig
from tastemaker.config.exchange import ExportConfig, LoraImportConfig, PublishConfig
from tastemaker.config.personalization import PersonalizeConfig
from tastemaker.config.sections import (
    BlendConfig,
    GenerateConfig,
    ReconstructConfig,
    ScoreConfig,
    Section,
)
from tastemaker.config.training import TrainConfig
from tastemaker.config.votes import VotesConfig
from tastemaker.core.errors import TastemakerError

Command = Callable[[argparse.Namespace], int | None]


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Attributes:
        name: The word.
        text: What it does, for the list of all.
        places: Names of its folders, in order.
        command: Does it; the exit status, None for 0.
        kinds: The sections that its `key=value` words may be of.
    """

    name: str
    text: str
    places: str
    command: Command
    kinds: tuple[type[Section], ...]


def _section(kind: type[config.AnySection], parsed: argparse.Namespace) -> config.AnySection:
    from tastemaker.core.hardware import agree

    section = config.section(kind, parsed.config, tuple(parsed.overrides))
    agree(config.dump(section))
    return section


def _generate(parsed: argparse.Namespace) -> None:
    from tastemaker.sampling.generate import generate

    generate(_section(GenerateConfig, parsed), Path(parsed.output))


def _import(parsed: argparse.Namespace) -> int | None:
    given = {word.partition("=")[0].partition(".")[0] for word in parsed.overrides}
    if parsed.config:
        given |= set(config.read_yaml(Path(parsed.config)))
    if len(given & {"images", "comparisons", "lora"}) != 1:
        raise TastemakerError(
            "import takes photographs (images=FOLDER resolution=512), compared images"
            " (comparisons.path=FOLDER) or a LoRA (lora=FILE model=NAME): give one of them."
        )
    if parsed.check:
        from tastemaker.datasets.validation import check

        if "lora" in given:
            raise TastemakerError("--check reads images; a LoRA is checked when it is imported.")
        if "images" in given:
            return int(check(_section(ImagesConfig, parsed)) > 0)
        return int(check(_section(ImportConfig, parsed)) > 0)
    if "lora" in given:
        from tastemaker.backbones.lora.exchange import import_lora

        print(import_lora(_section(LoraImportConfig, parsed), Path(parsed.output)))
        return None
    from tastemaker.datasets.importing import import_comparisons, import_images

    if "images" in given:
        import_images(_section(ImagesConfig, parsed), Path(parsed.output))
    else:
        import_comparisons(_section(ImportConfig, parsed), Path(parsed.output))
    return None


def _reconstruct(parsed: argparse.Namespace) -> None:
    from tastemaker.sampling.generate import reconstruct

    reconstruct(_section(ReconstructConfig, parsed), Path(parsed.real), Path(parsed.output))


def _blend(parsed: argparse.Namespace) -> None:
    from tastemaker.sampling.blend import blend

    places = (Path(each) for each in (parsed.real, parsed.pool, parsed.output))
    blend(_section(BlendConfig, parsed), *places)


def _join(parsed: argparse.Namespace) -> None:
    from tastemaker.pairing.join import join

    places = (Path(each) for each in (parsed.chosen, parsed.rejected, parsed.output))
    join(_section(JoinConfig, parsed), *places)


def _score(parsed: argparse.Namespace) -> None:
    from tastemaker.evaluation.score import score

    score(_section(ScoreConfig, parsed), Path(parsed.pool))


def _pair(parsed: argparse.Namespace) -> None:
    from tastemaker.pairing.pair import pair

    pair(_section(PairConfig, parsed), Path(parsed.pool), Path(parsed.output))


def _train(parsed: argparse.Namespace) -> None:
    from tastemaker.training.preference.train import train

    train(_section(TrainConfig, parsed), Path(parsed.pairs), Path(parsed.output))


def _personalize(parsed: argparse.Namespace) -> None:
    from tastemaker.training.personalization.personalize import personalize

    personalize(_section(PersonalizeConfig, parsed), Path(parsed.output))


def _evaluate(parsed: argparse.Namespace) -> None:
    from tastemaker.evaluation.evaluate import evaluate
    from tastemaker.evaluation.report_text import summary

    output = Path(parsed.output)
    section = _section(EvaluateConfig, parsed)
    report = output / "report.json"
    evaluate(section, {"policy": parsed.policy}, output, report)
    print(summary(report))


def _export(parsed: argparse.Namespace) -> None:
    from tastemaker.datasets.exporting import export_comparisons, is_data
    from tastemaker.storage.run_dir import refuse_claimed

    source, output = Path(parsed.source), Path(parsed.output)
    if is_data(source):
        print(export_comparisons(_section(DataExportConfig, parsed), source, output))
        return
    from tastemaker.backbones.lora.exchange import export_lora
    from tastemaker.storage.locks import exclusive

    section = _section(ExportConfig, parsed)
    refuse_claimed(output)
    with exclusive(output):
        print(export_lora(section, source, output))


def _show(parsed: argparse.Namespace) -> None:
    from tastemaker.reporting.pool.show import show
    from tastemaker.storage.run_dir import RunDir

    section, shown = _section(ShowConfig, parsed), Path(parsed.shown)
    if not RunDir(shown).config.is_file():
        print(show(section, shown))
    elif section == ShowConfig():
        from tastemaker.recipes.listing import listing  # recipes need torch, pools do not

        print(listing(RunDir(shown)))
    else:
        raise TastemakerError(f"{shown} is a run, which is listed without options; leave them out.")


def _votes(parsed: argparse.Namespace) -> None:
    from tastemaker.reporting.votes.votes import votes

    print(votes(_section(VotesConfig, parsed), parsed.studies))


def _publish(parsed: argparse.Namespace) -> None:
    from tastemaker.reporting.publish import publish
    from tastemaker.storage.run_dir import RunDir

    run = RunDir(Path(parsed.run))
    print(publish(_section(PublishConfig, parsed), run, Path(parsed.output)) / "README.md")


def run_command(parsed: argparse.Namespace) -> None:
    """A recipe from start to report."""
    from tastemaker.evaluation.report_text import summary
    from tastemaker.recipes.run import run

    folder = run(config.load(parsed.source, tuple(parsed.overrides)))
    print(summary(folder.report_json))
    print(f"\n{folder.report_json}\n{folder.report_html}")


def config_command(parsed: argparse.Namespace) -> None:
    """A run with every option explained."""
    from tastemaker.config.comments import commented

    print(commented(config.load(parsed.source, tuple(parsed.overrides))), end="")


def stack_command(parsed: argparse.Namespace) -> None:
    """A LoRA on top of another model."""
    from tastemaker.backbones import stack_adapter

    stack_adapter(Path(parsed.lora), Path(parsed.on), Path(parsed.output))


def report_command(parsed: argparse.Namespace) -> None:
    """A finished run's page again."""
    from tastemaker.recipes.run import report_again
    from tastemaker.storage.run_dir import RunDir

    print(report_again(RunDir(Path(parsed.run))))


def profile_command(parsed: argparse.Namespace) -> None:
    """Speed of a run's training step and drawing."""
    from tastemaker.profiling.profile import profile, text
    from tastemaker.storage.files import write_json

    found = profile(config.load(parsed.source, tuple(parsed.overrides)), parsed.rounds)
    print(text(found))
    if parsed.json is not None:
        write_json(Path(parsed.json), found)


COMMANDS = (
    Verb("generate", "prompts to candidates", "output", _generate, (GenerateConfig,)),
    Verb(
        "import",
        "compared images, or captioned photographs, to candidates; or a LoRA's file",
        "output",
        _import,
        (ImportConfig, ImagesConfig, LoraImportConfig),
    ),
    Verb(
        "reconstruct",
        "real images, noised and denoised by a model, to candidates",
        "real output",
        _reconstruct,
        (ReconstructConfig,),
    ),
    Verb(
        "blend",
        "real images mixed with their best candidates",
        "real pool output",
        _blend,
        (BlendConfig,),
    ),
    Verb("score", "candidates to scores", "pool", _score, (ScoreConfig,)),
    Verb("pair", "scores to pairs", "pool output", _pair, (PairConfig,)),
    Verb("join", "pairs across two pools", "chosen rejected output", _join, (JoinConfig,)),
    Verb("train", "pairs to a model", "pairs output", _train, (TrainConfig,)),
    Verb(
        "personalize",
        "photographs of one subject to a model that knows it",
        "output",
        _personalize,
        (PersonalizeConfig,),
    ),
    Verb("evaluate", "judge a policy", "policy output", _evaluate, (EvaluateConfig,)),
    Verb(
        "export",
        "a LoRA to ComfyUI, kohya or merged; pairs, a pool or votes to other formats",
        "source output",
        _export,
        (ExportConfig, DataExportConfig),
    ),
    Verb("show", "what is in a pool, in pairs or in a run", "shown", _show, (ShowConfig,)),
    Verb("votes", "people's votes to results and scores", "studies...", _votes, (VotesConfig,)),
    Verb("publish", "a finished run with a card", "run output", _publish, (PublishConfig,)),
)
"""All commands on a section, in the order of a run."""
