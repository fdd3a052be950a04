"""Build the portrait world: a base model, a preference scorer and a judge.

    python benchmarks/hg_dpo/build.py --work DIR --data FOLDER

FOLDER holds `metadata.jsonl` (a line a picture: file_name, text, series) and the pictures it names:
face crops of official parliamentary portraits (CC BY 3.0, UK Parliament) and congressional
portraits (public domain), with captions like "a portrait of a man, grey background, dark hair,
blue clothes". Every stage goes on where it was stopped. The two scorers can be trained at the same
time, each by a process of its own (`--scorer`).
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import autoencoder
import base
import card
import clips
import scoring
import torch
from portraits import SCORERS, Portraits

MINUTES = {"vae": 14.0, "clip": 4.0, "unet": 28.0, "scorers": 4.0}
WEIGHTS = Path(__file__).parent / "weights"


def main() -> None:
    """Parse the arguments and run the stages asked for."""
    names = ("folders", "vae", "clip", "unet", "draw", "scorers", "export", "measure")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is built")
    parser.add_argument("--data", type=Path, required=True, help="folder of the portraits")
    parser.add_argument("--stage", choices=[*names, "all"], default="all")
    parser.add_argument("--minutes", type=float, help="training minutes of the stage (a scorer)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--scorer", choices=SCORERS, help="only this one in clip, draw, scorers")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where export writes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    options.work.mkdir(parents=True, exist_ok=True)
    work, data = options.work, Portraits(options.data)
    scorers = (options.scorer,) if options.scorer else SCORERS
    stages: dict[str, Callable[[float], object]] = {
        "folders": lambda _: data.write(work / "portraits"),
        "vae": partial(autoencoder.train, work, data),
        "clip": lambda minutes: [clips.train(work, data, name, minutes) for name in scorers],
        "unet": partial(base.train, work, data),
        "draw": lambda _: base.draw_all(work, data, options.scorer),
        "scorers": lambda minutes: [scoring.fit(work, data, name, minutes) for name in scorers],
        "export": lambda _: card.export(work, options.weights),
        "measure": lambda _: card.measure(work, data, options.weights),
    }
    for name in names:
        if options.stage in (name, "all"):
            stages[name](options.minutes or MINUTES.get(name, 0.0))


if __name__ == "__main__":
    main()
