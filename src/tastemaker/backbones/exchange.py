"""LoRAs to other tools and back: kohya's layout, one file in diffusers' form, or merged weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tastemaker.backbones.kohya import DOWN, Names, from_kohya, names_of, to_kohya
from tastemaker.backbones.layers import Layers, read_layers, read_tensors, summed, write_layers
from tastemaker.backbones.loading import base_of, is_adapter, load_backbone, resolve
from tastemaker.backbones.lora import LORA_FILE, METADATA, MODEL_FILE, name_base
from tastemaker.backbones.skeleton import networks
from tastemaker.backbones.tokens import TOKEN_FILE, refuse_token
from tastemaker.contents import file_content
from tastemaker.errors import TastemakerError
from tastemaker.files import read_json, write_tensors
from tastemaker.records import Stage
from tastemaker.sections import ExportConfig, LoraImportConfig

KEPT = "tastemaker_adapter_metadata"
"""In kohya's files, diffusers' header under another name: beside `alpha` it refuses its own."""

PEFT = "base_model.model."
"""What PEFT's own files begin every key with."""


def export_lora(config: ExportConfig, lora: Path, output: Path) -> Path:
    """Write a trained LoRA, with those that it lies on, in the form that another tool reads.

    The updates of LoRAs on one another add, so that one file of the sum of their ranks holds all of
    them exactly.

    Args:
        config: The layout.
        lora: Folder of a LoRA, as `train` writes it.
        output: Folder to write: one safetensors file, or a whole pipeline (`merged`).

    Returns:
        The file, or the pipeline's folder.

    Raises:
        TastemakerError: There is no LoRA, or a learned word would be lost.
    """
    if config.layout == "merged":
        model = load_backbone(str(lora), device="cpu")
        model.fuse_adapters()
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
    write_tensors(file, to_kohya(layers, names(root)), about)
    return file


def import_lora(config: LoraImportConfig, output: Path) -> Path:
    """Turn a LoRA file of another tool into a folder that is usable as `model` anywhere.

    Args:
        config: The file, in kohya's layout or diffusers' form, and the model that it belongs to.
        output: Folder to write.

    Returns:
        `output`.

    Raises:
        TastemakerError: The file is missing or torn, or belongs to another family or size.
    """
    file = Path(config.lora)
    tensors, header = read_tensors(file)
    inputs = {"lora": {"path": config.lora, "content": file_content(file)}}
    stage = Stage(output, "import lora", {**config.model_dump(mode="json"), "inputs": inputs})
    with stage.claimed() as unfinished:
        if unfinished:
            known = names(config.model)
            if any(key.endswith(DOWN) for key in tensors):
                layers = from_kohya(tensors, known)
            else:
                layers = _of_the_denoiser(read_layers(file), known, file)
                _refuse_others(layers, known, file)
            write_layers(layers, output, header.get(METADATA) or header.get(KEPT))
            name_base(config.model, output)
            stage.finish(layers=len(layers))
    return output


def names(model: str) -> Names:
    """Kohya's names of a model's layers, from its configuration alone: no weights are read.

    Args:
        model: Name, hub id or pipeline folder.

    Returns:
        The names.
    """
    parts = networks(resolve(model))
    clips = {name: each for name, each in parts.items() if type(each).__name__.startswith("CLIP")}
    return names_of(parts.get("unet", parts.get("transformer")), clips)


def _chain(lora: Path) -> tuple[list[Path], str]:
    """A LoRA's folder and those below it, from the lowest up, and the pipeline under all."""
    if not (lora / LORA_FILE).is_file() and not (lora / MODEL_FILE).is_file():
        raise TastemakerError(f"{lora} holds no LoRA; give the folder that `train` wrote.")
    folders: list[Path] = []
    place = str(lora)
    while is_adapter(Path(place)):
        if (Path(place) / TOKEN_FILE).is_file():
            refuse_token(Path(place))
        folders.insert(0, Path(place))
        place = base_of(Path(place))
    return folders, place


def _of_the_denoiser(layers: Layers, known: Names, file: Path) -> Layers:
    """Layers that name no part of a pipeline, as PEFT saves a network's own: the denoiser's.

    PEFT keeps alpha in a file of its own.
    """
    modules = {part for fused in known.values() for part in fused.parts}
    denoiser = next(each for each in modules if not each.startswith("text_encoder")).split(".")[0]
    options = file.with_name("adapter_config.json")
    alpha = read_json(options).get("lora_alpha") if options.is_file() else None
    found: Layers = {}
    for name, layer in layers.items():
        bare = f"{denoiser}.{name.removeprefix(PEFT)}"
        if name in modules or bare not in modules:
            found[name] = layer
        else:
            found[bare] = layer if alpha is None else replace(layer, alpha=float(alpha))
    return found


def _refuse_others(layers: Layers, known: Names, file: Path) -> None:
    modules = {part for fused in known.values() for part in fused.parts}
    foreign = sorted(set(layers) - modules)
    if foreign:
        raise TastemakerError(
            f"{file}: {foreign[0]} is no layer of this model; the LoRA belongs to another family."
        )
