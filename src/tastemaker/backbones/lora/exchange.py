"""LoRAs to other tools and back: kohya's layout, one file in diffusers' form, or merged weights."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from tastemaker.backbones.base import Backbone
from tastemaker.backbones.identity import adapter_identity
from tastemaker.backbones.loading import load_backbone
from tastemaker.backbones.lora.dialects import read_foreign
from tastemaker.backbones.lora.diffusers_file import METADATA, part_of
from tastemaker.backbones.lora.kohya import names_of, to_kohya
from tastemaker.backbones.lora.layers import (
    Layers,
    effective_alpha,
    read_layers,
    read_options,
    read_tensors,
    summed,
    write_layers,
)
from tastemaker.backbones.lora.weights import attach_lora, attached_layers, fuse_attached
from tastemaker.backbones.meta_device import load_skeleton
from tastemaker.backbones.places import LORA_FILE, adapter_chain, name_base
from tastemaker.backbones.textual_inversion import refuse_token
from tastemaker.config.exchange import ExportConfig, LoraImportConfig
from tastemaker.core.content_hash import file_content
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import Artifact
from tastemaker.storage.tensors import write_tensors

KEPT = "tastemaker_adapter_metadata"
"""In kohya's files, diffusers' header under another name: beside `alpha` it refuses its own."""


def export_lora(config: ExportConfig, lora: Path, output: Path) -> Path:
    """Write a trained LoRA, with those below it, in the form that another tool reads.

    The updates of LoRAs on one another add, so that one file of the sum of their ranks is
    exactly all of them.

    Args:
        config: The layout.
        lora: Folder of a LoRA, as `train` writes it.
        output: Folder to write: one safetensors file, or a whole pipeline (`merged`).

    Returns:
        The file, or the pipeline's folder.

    Raises:
        TastemakerError: It is not a LoRA, one is damaged, or a learned word would be lost.
    """
    for folder in adapter_chain(str(lora))[0]:
        adapter_identity(str(folder))  # refuses a damaged one
    if config.layout == "merged":
        model = load_backbone(str(lora), device="cpu")
        fuse_attached(model)
        model.save_pipeline(output)
        return output
    chain, root = _chain(lora)
    layers = summed(read_layers(folder / LORA_FILE) for folder in chain)
    header = read_tensors(lora / LORA_FILE)[1].get(METADATA) if len(chain) == 1 else None
    if config.layout == "diffusers":
        write_layers(layers, output, header)
        name_base(root, output)
        return output / LORA_FILE
    file = output / f"{config.name or lora.name}.safetensors"
    first = next(iter(layers.values()))
    about = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(first.rank),
        "ss_network_alpha": f"{first.alpha:g}",
        **({KEPT: header} if header else {}),
    }
    write_tensors(file, to_kohya(layers, names_of(load_skeleton(root))), about)
    return file


def import_lora(config: LoraImportConfig, output: Path) -> Path:
    """Turn a LoRA file of another tool into a folder that is usable as `model` anywhere.

    Args:
        config: The file, of any tool that `dialects.py` reads, and the model that it belongs to.
        output: Folder to write.

    Returns:
        `output`.

    Raises:
        TastemakerError: The file is missing or torn, is another kind of adapter, or belongs to
            another family or size; or what was written does not load as it was read.
    """
    file = Path(config.lora)
    tensors, header = read_tensors(file)
    skeleton = load_skeleton(config.model)
    layers = read_foreign(tensors, header, file, skeleton)
    refuse_parts(layers, skeleton, file)
    inputs = {"lora": {"path": config.lora, "content": file_content(file)}}
    artifact = Artifact(output, "import lora", {**config.model_dump(mode="json"), "inputs": inputs})
    with artifact.claimed() as unfinished:
        if unfinished:
            write_layers(layers, output, _kept(header, layers, file))
            name_base(config.model, output)
            prove(layers, output, skeleton)
            artifact.finish(layers=len(layers), tensors=len(tensors))
    return output


def refuse_parts(layers: Layers, model: Backbone, file: Path) -> None:
    """Refuse a LoRA of a part that no LoRA may adapt; drop such layers where they are zero.

    Raises:
        TastemakerError: One acts on T5, to which diffusers puts no LoRA.
    """
    for module in list(layers):
        part = module.partition(".")[0]
        if part in model.adaptable_parts:
            continue
        if layers[module].up.any():
            raise TastemakerError(
                f"{file} adapts T5, the {part} ({module}), to which neither diffusers nor this"
                " package puts a LoRA; without it the rest is another update. Train it without T5"
                " (sd-scripts: no train_t5xxl), or remove these tensors from the file if you want"
                " the rest alone."
            )
        del layers[module]
    if not layers:
        raise TastemakerError(f"{file} adapts nothing: all its updates are zero.")


def prove(layers: Layers, folder: Path, model: Backbone) -> None:
    """Load a written LoRA as any later command does, and compare what acts with what was read.

    Args:
        layers: The layers that were read.
        folder: The LoRA's.
        model: Its model, on `meta`; it carries the LoRA afterwards.

    Raises:
        TastemakerError: A factor, a scale or the set of layers differs.
    """
    attach_lora(model, folder)
    attached = attached_layers(model)
    wrong = sorted(set(attached) ^ set(layers))
    for module, got in attached.items():
        want = layers.get(module)
        if want is not None and not (
            _same(got.down, want.down)
            and _same(got.up, want.up)
            and math.isclose(got.scale, want.scale, rel_tol=1e-6)
        ):
            wrong.append(module)
    if wrong:
        raise TastemakerError(
            f"{folder} does not load as it was read: {wrong[0]} and {len(wrong) - 1} more differ."
            " Please report it with the file's keys."
        )


def _same(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Compare factors; on `meta`, where text encoders keep theirs, by shape."""
    return got.shape == want.shape and (got.is_meta or torch.equal(got, want.to(got.dtype)))


def _kept(header: dict[str, str], layers: Layers, file: Path) -> str | None:
    """The header of an earlier file of ours, where it still says what the tensors say."""
    kept = header.get(KEPT)
    if kept is None:
        return None
    options = read_options({METADATA: kept}, file)
    for module, layer in layers.items():
        part, _, path = module.partition(".")
        own = part_of(options, part)
        if (own.get("rank_pattern") or {}).get(path, own.get("r")) != layer.rank:
            return None
        if not math.isclose(effective_alpha(own, path, layer.rank), layer.alpha, rel_tol=1e-6):
            return None
    return kept


def _chain(lora: Path) -> tuple[list[Path], str]:
    """A LoRA's folder and those below it, from the lowest up, and the pipeline under all."""
    folders, root = adapter_chain(str(lora))
    if not folders:
        raise TastemakerError(f"{lora} has no LoRA; give the folder that `train` wrote.")
    for folder in folders:
        refuse_token(folder)
    return folders, root
