"""Stages `export` and `measure`: the committed weights, their figures and their card."""

import json
import shutil
from pathlib import Path

import torch
from autoencoder import decoded
from base import drawn
from diffusers import StableDiffusionPipeline
from portraits import SCORERS, Portraits, pictures
from scoring import load_scorer, report
from torch import Tensor
from transformers import CLIPModel

from tastemaker.metrics.frechet import frechet_distance
from tastemaker.nano.build.averaging import psnr
from tastemaker.nano.build.clip import image_features
from tastemaker.nano.build.export import export_scorer
from tastemaker.nano.build.journal import Journal
from tastemaker.nano.build.pipeline import snapshot
from tastemaker.nano.build.vae import load
from tastemaker.storage.files import write_json
from training import to_float

LIMIT = 12_000_000
TOKENIZER = ("vocab.json", "merges.txt")


def export(work: Path, folder: Path) -> int:
    """Write pipeline and scorers in fp16, check that they load, and return their bytes.

    Raises:
        RuntimeError: If they are larger than `LIMIT`.
    """
    pipe = snapshot(work, "100")
    pipe.to(dtype=torch.float16)
    shutil.rmtree(folder / "pipeline", ignore_errors=True)
    pipe.save_pretrained(folder / "pipeline", safe_serialization=True)
    # Older transformers read these two where newer ones read tokenizer.json.
    for name in TOKENIZER:
        shutil.copy(work / "tokenizer" / name, folder / "pipeline" / "tokenizer" / name)
    _without_origin(folder / "pipeline" / "vae" / "config.json")
    StableDiffusionPipeline.from_pretrained(folder / "pipeline", dtype=torch.float32)
    for scorer in SCORERS:
        export_scorer(work, scorer, work / f"scorer-{scorer}.pt", folder / scorer)
        CLIPModel.from_pretrained(folder / scorer, dtype=torch.float32)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB")
    if size > LIMIT:
        raise RuntimeError(f"the weights take {size} bytes, more than {LIMIT}")
    return size


def measure(work: Path, data: Portraits, folder: Path) -> None:
    """Write `card.json` and `README.md` beside the weights."""
    vae, judge = load(work), load_scorer(work, "judge")
    held_out = to_float(pictures(data.held_out))
    # The judge was trained on the other half: these pictures are as new to it as those held out.
    others = to_float(pictures(data.part("preference")[: len(held_out)]))
    shown, base = decoded(vae, held_out), drawn(work, "held_out", "100")
    real = features(judge, held_out)
    distances = {
        "base": frechet_distance(features(judge, base), real),
        "through_vae": frechet_distance(features(judge, decoded(vae, others)), real),
        "real_to_real": frechet_distance(features(judge, others), real),
    }
    steps = {
        "vae": _last(work / "vae.jsonl"),
        "unet": _last(work / "unet.jsonl"),
        **{name: _last(work / f"clip-{name}.jsonl") for name in SCORERS},
    }
    card = {
        "pictures": {"train": len(data.train), "held_out": len(held_out)},
        "psnr": psnr(shown, held_out),
        "scaling_factor": float(vae.config.scaling_factor),
        "frechet_judge": distances,
        "scorers": report(work, data),
        "steps": steps,
    }
    write_json(folder / "card.json", card)
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")
    print(json.dumps(card, indent=2))


@torch.no_grad()
def features(judge: CLIPModel, images: Tensor) -> Tensor:
    """The judge's features, of length 100 so that the distances read well."""
    parts = [image_features(judge, part) for part in images.split(64)]
    return 100 * torch.cat(parts).double()


def _last(path: Path) -> int:
    return int(Journal(path).lines()[-1]["step"])


def _without_origin(config: Path) -> None:
    """Drop the folder that a part was built in from its configuration."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _readme(card: dict) -> str:
    distances, number = card["frechet_judge"], card["pictures"]
    rows = [
        f"| {name.replace('_', ' ')} | "
        + " | ".join(f"{100 * card['scorers'][s][name]:.1f} %" for s in SCORERS)
        + " |"
        for name in card["scorers"]["judge"]
        if not name.startswith("mean_")
    ]
    return README.format(
        **distances,
        psnr=card["psnr"],
        train=number["train"],
        held_out=number["held_out"],
        steps=card["steps"]["unet"],
        rows="\n".join(rows),
    )


README = """\
# Portraits at 64x64: a small base model and two scorers

The world in which the stages of HG-DPO are compared. `pipeline/` is a `StableDiffusionPipeline`
(AutoencoderKL, CLIP text encoder, U-Net, prediction of v), `preference/` and `judge/` are two
`CLIPModel`s, trained on two halves of the pictures that share none. All are fp16 safetensors, made
by `benchmarks/hg_dpo/build.py`.

## Data

{train:,} pictures for training and {held_out} held out, face crops of official parliamentary
portraits (CC BY 3.0, UK Parliament) and congressional portraits (public domain). The pictures are
not part of this repository. Captions name gender, background, hair and clothes; most gender words
come from a classifier, colours from pixels.

**Use.** For experiments on a population of pictures, reported as aggregates. The people portrayed
have nothing to do with this work: never present a generated face as a person.

## Figures

The autoencoder brings {held_out} held-out pictures back with {psnr:.1f} dB. The U-Net took
{steps:,} steps of 32 pictures. Frechet distance to the held-out pictures, in the judge's features
(of length 100), {held_out} pictures a set:

| drawn by the base model | real, through the autoencoder | real |
|---|---|---|
| {base:.1f} | {through_vae:.1f} | {real_to_real:.1f} |

How often each scorer prefers what it should, on held-out pictures, which it sees through the
autoencoder:

| | preference | judge |
|---|---|---|
{rows}

`raw over decoded` is no aim: near 50 % it says that the autoencoder's texture hardly counts.
"""
