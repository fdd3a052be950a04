"""Command line of the build: one stage, or all in order."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from tastemaker.nano.build import (
    attribute_networks,
    card,
    contrastive,
    export,
    measure,
    scorers,
    unet,
    vae,
)
from tastemaker.nano.build.art import sprites
from tastemaker.nano.build.resume import resume
from tastemaker.nano.build.subjects import draw_subjects

MINUTES: dict[str, float] = {"vae": 15}
STAGES = (
    *("art", "vae", "clip", "unet", "scorers", "checker", "examiner"),
    *("export", "card", "subjects"),
    *("all", "resume"),
)


def run_scorers(work: Path) -> None:
    """Fit both scorers and measure them."""
    for scorer in measure.SCORERS:
        scorers.fit(work, scorer)
    measure.measure(work)


def run_clip(work: Path) -> None:
    """Train both contrastive models, apart."""
    for scorer in measure.SCORERS:
        contrastive.train(work, scorer)


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
        "clip": lambda work, _: run_clip(work),
        "unet": lambda work, minutes: unet.train(
            work, batch=options.batch, steps=options.steps, minutes=minutes
        ),
        "scorers": lambda work, _: run_scorers(work),
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
