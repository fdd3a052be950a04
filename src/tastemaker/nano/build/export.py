"""Stage `export`: fp16 safetensors of the pipeline and of the scorers, as package data."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessorPil, CLIPModel

from tastemaker.nano import JUDGE, MODEL, PREFERENCE
from tastemaker.nano.attributes import NETWORKS, shipped
from tastemaker.nano.build.clip import MEAN, STD, clip_model
from tastemaker.nano.build.pipeline import LAST, snapshot
from tastemaker.nano.build.text import tokenizer

LIMIT = 20 * 1024 * 1024


def export_pipeline(work: Path, name: str = LAST, folder: Path = MODEL) -> None:
    """Write a snapshot as a `StableDiffusionPipeline` folder in fp16."""
    pipe = snapshot(work, name)
    pipe.to(dtype=torch.float16)
    _emptied(folder)
    pipe.save_pretrained(folder, safe_serialization=True)
    _without_origin(folder / "vae" / "config.json")
    _same_tokenizer(work, folder / "tokenizer")


def export_scorer(work: Path, scorer: str, weights: Path, folder: Path) -> None:
    """Write one scorer as a `CLIPModel` folder in fp16, with tokenizer and image processor.

    Args:
        work: Folder of the build.
        scorer: "preference" or "judge"; for the messages of a failed load.
        weights: State of the model, `scorer-<name>.pt` or, before the fit, `clip-<name>.pt`.
        folder: Where to write.
    """
    if not weights.exists():
        raise FileNotFoundError(f"{scorer}: no weights at {weights}")
    model = clip_model(tokenizer(work))
    model.load_state_dict(torch.load(weights, weights_only=True))
    _emptied(folder)
    model.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    processor.save_pretrained(folder)
    tokenizer(work).save_pretrained(folder)
    _same_tokenizer(work, folder)


def export(work: Path) -> None:
    """Write all parts and check that they load and stay within `LIMIT` bytes.

    Raises:
        RuntimeError: If the weights are larger than `LIMIT`.
    """
    export_pipeline(work)
    for scorer, folder in (("preference", PREFERENCE), ("judge", JUDGE)):
        export_scorer(work, scorer, work / f"scorer-{scorer}.pt", folder)
        CLIPModel.from_pretrained(folder, dtype=torch.float32)
    for name, (_, file) in NETWORKS.items():
        shutil.copyfile(work / f"{name}.safetensors", file)
        shipped(name)
    StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    size = sum(path.stat().st_size for path in MODEL.parent.rglob("*") if path.is_file())
    if size > LIMIT:
        raise RuntimeError(f"the weights take {size} bytes, more than {LIMIT}")


def _emptied(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _without_origin(config: Path) -> None:
    """Drop the folder that a part was built in from its configuration."""
    data = json.loads(config.read_text(encoding="utf-8"))
    data.pop("_name_or_path", None)
    config.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _same_tokenizer(work: Path, folder: Path) -> None:
    """Older transformers read vocab.json and merges.txt where newer ones read tokenizer.json."""
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((work / "tokenizer" / name).read_bytes())
