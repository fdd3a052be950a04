"""Command line of the build: one stage, or all in order."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from tastemaker.nano.build import (
    attribute_networks,
    card,
    clip,
    export,
    measure,
    scorers,
    unet,
    vae,
)
from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.generated import generated
from tastemaker.nano.build.resume import resume
from tastemaker.nano.build.subjects import draw_subjects

MINUTES: dict[str, float] = {"vae": 15, "clip": 7, "scorers": 6}
STAGES = (
    *("art", "vae", "clip", "unet", "scorers", "checker", "examiner"),
    *("export", "card", "subjects"),
    *("all", "resume"),
)
# Snapshots whose pictures the scorers are fitted against, and how many of each.
OPPONENTS: dict[str, int] = {"050": 192, "080": 384, "100": 1440}


def run_scorers(work: Path, minutes: float) -> None:
    """Draw the opponents, fit both scorers and measure them."""
    for number, scorer in enumerate(measure.SCORERS):
        for name, pictures in OPPONENTS.items():
            generated(work, scorer, name, pictures)
        scorers.fit(work, scorer, minutes, seed=10 + number)
    measure.measure(work)


def run_clip(work: Path, minutes: float) -> None:
    """Train both contrastive models, apart."""
    for number, scorer in enumerate(measure.SCORERS):
        clip.train(work, scorer, minutes, seed=1 + number)


def main() -> None:
    """Parse the arguments and run the stages asked for."""
    parser = argparse.ArgumentParser(prog="python -m tastemaker.nano.build", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is built")
    parser.add_argument("--stage", choices=STAGES, default="all")
    parser.add_argument("--minutes", type=float, default=0, help="training minutes of the stage")
    parser.add_argument("--steps", type=int, default=unet.STEPS, help="steps of the U-Net")
    parser.add_argument("--batch", type=int, default=unet.BATCH, help="scenes per step of it")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    stages: dict[str, Callable[[Path, float], object]] = {
        "art": lambda work, _: sprites(work),
        "vae": vae.train,
        "clip": run_clip,
        "unet": lambda work, minutes: unet.train(
            work, batch=options.batch, steps=options.steps, minutes=minutes
        ),
        "scorers": run_scorers,
        "checker": lambda work, _: attribute_networks.train(work, "checker"),
        "examiner": lambda work, _: attribute_networks.train(work, "examiner"),
        "export": lambda work, _: export.export(work),
        "card": lambda work, _: card.card(work),
        "subjects": lambda work, _: draw_subjects(work),
    }
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "resume":
        resume(options.work)
    for name, stage in stages.items():
        if options.stage in (name, "all"):
            stage(options.work, options.minutes or MINUTES.get(name, 0))


if __name__ == "__main__":
    main()
