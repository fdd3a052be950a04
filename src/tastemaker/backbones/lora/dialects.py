"""LoRA files of other tools: their names of a model's layers.

Read are sd-scripts, OneTrainer, LyCORIS' LoCon, ComfyUI, PEFT and diffusers, old and new, by one
table: every path that some tool gives a layer, with `_` for `.`. Of what is not in it, diffusers'
own converter is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tastemaker.backbones.lora.diffusers_file import METADATA, part_of
from tastemaker.backbones.lora.factors import Factors, read_factors
from tastemaker.backbones.lora.kohya import is_clip
from tastemaker.backbones.lora.layers import Layer, Layers, effective_alpha, read_options
from tastemaker.backbones.lora.originals import Fused, adaptable, original_layers, text_layers
from tastemaker.backbones.tokens import TEXT
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.files import read_json

if TYPE_CHECKING:
    from tastemaker.backbones.base import Backbone

PEFT = "base_model.model."
"""Key prefix of PEFT's own files."""

DENOISER = (
    "",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "diffusion_model_",
    "model_diffusion_model_",
    "base_model_model_",
)
"""Key prefixes of a denoiser's layers in other tools' files."""

PROCESSORS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"}
PROCESSORS |= {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
"""Attention layer names of diffusers before 0.22."""

FIRST_FACTOR = re.compile(r"(_lora|\.lora_linear_layer)\.down\.weight\.alpha$")

SHIFTED = ("pissa", "olora", "corda", "loftq")
"""Starts of PEFT's that change the base too: the factors alone are not the update."""

SD, SDXL, SD3, FLUX = "Stable Diffusion 1 or 2", "Stable Diffusion XL", "SD3", "FLUX.1"

SIGNS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((r"transformer_blocks_\d+_(img|txt)_(mlp|mod)",), ("Qwen-Image",)),
    ((r"single_transformer_blocks_\d", r"single_stream_modulation"), ("FLUX.2",)),
    ((r"single_transformer_blocks_\d|(double|single)_blocks_\d",), (FLUX,)),
    ((r"joint_blocks_\d",), (SD3,)),
    ((r"(^|_)transformer_blocks_\d", r"^(text_encoder|lora_te)_?2_text_model"), (SD3,)),
    ((r"^(lora_unet_|diffusion_model_)?blocks_\d+_(self|cross)_attn",), ("Wan",)),
    ((r"(down|up)_blocks_\d_attentions_\d_transformer_blocks_[1-9]",), (SDXL,)),
    ((r"(input|output|down|up)_blocks_\d", r"^(text_encoder|lora_te)_?2_"), (SDXL,)),
    ((r"(down_blocks_0|up_blocks_3)_attentions",), (SD,)),
    ((r"(input|output|down|up)_blocks_\d|mid(dle)?_block",), (SD, SDXL)),
    ((r"^(base_model_)?(model_)*layers_\d+_(self_attn|mlp)_",), ("a language model",)),
)
"""Names that a file has, all of these patterns, and the families that have them; surest first."""


def read_foreign(
    tensors: Mapping[str, torch.Tensor], header: Mapping[str, str], file: Path, model: Backbone
) -> Layers:
    """Find the layers of a model that a LoRA file of any tool adapts.

    A layer that the original code fuses (query, key and value of SD3 and FLUX) falls into its
    parts: each has its rows of `up` and the whole `down`, or of a block-diagonal `up` its own rows
    of `down`.

    Args:
        tensors: Of the file.
        header: Of the file.
        file: For messages; PEFT's `adapter_config.json` is looked for beside it.
        model: On any device, also without weights.

    Returns:
        Layers by part and module; every tensor of the file is in them, but additions that are zero.

    Raises:
        TastemakerError: The file is another kind of adapter, belongs to another family or size, or
            has names that are not known.
    """
    known = aliases(model)
    factors, unknown = read_factors(tensors, file)
    unknown += [name for name in factors if _plain(name) not in known]
    if unknown:
        factors, left = read_factors(_by_diffusers(tensors, model.pipeline), file)
        if left or not factors or any(_plain(name) not in known for name in factors):
            raise TastemakerError(_stranger(unknown, model.title, file))
    options = _options(header, file, model.networks)
    layers: Layers = {}
    for name, found in factors.items():
        fused = known[_plain(name)]
        for part, layer in _parts(name, found, fused, options, file):
            if part in layers:
                raise TastemakerError(f"{file} has two updates of {part}, one of them {name}.")
            layers[part] = layer
    return layers


def aliases(model: Backbone) -> dict[str, Fused]:
    """Return a model's layers by all names that tools give them, with `_` for `.`."""
    part, denoiser = model.part, model.denoiser
    paths = {**original_layers(part, denoiser), **adaptable(part, denoiser)}
    known = _named((*DENOISER, f"{part}_"), paths)
    texts = {name: each for name, each in model.networks.items() if name.startswith(TEXT)}
    clips = sum(is_clip(encoder) for encoder in texts.values())
    for number, (name, encoder) in enumerate(texts.items(), 1):
        prefixes = [f"{name}_", f"lora_te{number}_"]
        if is_clip(encoder):
            prefixes.append(f"text_encoders_clip_{'lg'[number - 1]}_transformer_")
            prefixes += ["lora_te_"] * (number == 1) + ["", "base_model_model_"] * (clips == 1)
        else:
            prefixes += ["lora_te3_", "text_encoders_t5xxl_transformer_"]
        known = _named(prefixes, text_layers(name, encoder)) | known
    return known


def _named(prefixes: Iterable[str], paths: Mapping[str, Fused]) -> dict[str, Fused]:
    return {
        prefix + _plain(path): layer
        for name, layer in paths.items()
        for path in _spellings(name)
        for prefix in prefixes
    }


def _spellings(path: str) -> Iterator[str]:
    """A path, as transformers 5 has it, and as attention processors had it."""
    yield path
    yield path.removeprefix("text_model.")
    for end, old in PROCESSORS.items():
        if path.endswith(f".{end}"):
            above = path.removesuffix(end)
            yield above + old
            yield f"{above}processor.{old}"


def _plain(path: str) -> str:
    return path.replace(".", "_")


def _by_diffusers(tensors: Mapping[str, torch.Tensor], pipeline: Any) -> dict[str, torch.Tensor]:
    """Convert a file by diffusers' converter; empty if it fails or leaves tensors out."""
    try:
        read = type(pipeline).lora_state_dict(dict(tensors), return_alphas=True)
    except Exception:  # its converters meet the unknown with errors of every kind
        return {}
    state, alphas = read[:2] if isinstance(read, tuple) else (read, None)
    numbers = [
        sum(value.numel() for value in each.values() if value.ndim > 1) for each in (tensors, state)
    ]
    if numbers[0] > numbers[1]:
        return {}
    # It names an alpha by its layer, or by the layer's first factor.
    scales = {FIRST_FACTOR.sub(".alpha", key): value for key, value in (alphas or {}).items()}
    return {**state, **{key: torch.as_tensor(value) for key, value in scales.items()}}


def _options(header: Mapping[str, str], file: Path, networks: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's options by part: of diffusers' header, or of the file that PEFT writes beside."""
    beside = file.with_name("adapter_config.json")
    options = read_options(header, file)
    if METADATA not in header and beside.is_file():
        given = read_json(beside)
        if not isinstance(given, dict):
            raise TastemakerError(f"{beside} is not a JSON object; it is damaged.")
        options = {f"{part}.{key}": value for part in networks for key, value in given.items()}
    for key, value in options.items():
        if key.endswith(".init_lora_weights") and str(value).lower().startswith(SHIFTED):
            raise TastemakerError(
                f"{file} was begun by {value}, which changed its base too: the file alone is not"
                " the update. Save it with PEFT's path_initial_model_for_weight_conversion."
            )
    return options


def _parts(
    name: str, found: Factors, fused: Fused, options: Mapping[str, Any], file: Path
) -> Iterator[tuple[str, Layer]]:
    part = fused.parts[0].partition(".")[0]
    down, up = _fitted(name, *found.product(), fused, file)
    alpha = found.alpha
    if alpha is None:
        path = name.removeprefix(PEFT).removeprefix(f"{part}.")
        alpha = effective_alpha(part_of(options, part), path, len(down))
    if alpha == 0:
        raise TastemakerError(
            f"{file}: {name} has alpha 0, which some tools read as no update, others as the rank;"
            " leave alpha out, or set it."
        )
    yield from _split(Layer(down, up, alpha), fused)


def _fitted(
    name: str, down: torch.Tensor, up: torch.Tensor, fused: Fused, file: Path
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors in one precision and in the shape of the layer, linear or convolution."""
    rank, outputs = len(down), sum(fused.rows)
    inputs = torch.Size(fused.inputs).numel()
    if down.numel() != rank * inputs or up.numel() != rank * outputs or len(up) != outputs:
        raise TastemakerError(
            f"{file}: {name} has up {tuple(up.shape)} and down {tuple(down.shape)}, which do not"
            f" fit a layer of {inputs} inputs and {outputs} outputs; the LoRA belongs to a model of"
            " another size."
        )
    dtype = torch.promote_types(down.dtype, up.dtype)
    ends = [1] * (len(fused.inputs) - 1)
    shaped = up.to(dtype).reshape(outputs, rank, *ends)
    return down.to(dtype).reshape(rank, *fused.inputs), fused.ordered(shaped)


def _split(layer: Layer, fused: Fused) -> Iterator[tuple[str, Layer]]:
    if len(fused.parts) == 1:
        yield fused.parts[0], layer
        return
    blocks = layer.up.split(list(fused.rows))
    used = [torch.nonzero(block.abs().sum(0))[:, 0] for block in blocks]
    together = torch.cat(used)
    disjoint = len(together) == len(torch.unique(together))
    for part, block, columns in zip(fused.parts, blocks, used, strict=True):
        if not len(columns):
            continue
        if disjoint:
            own = layer.scale * len(columns)
            yield part, Layer(layer.down[columns], block[:, columns], own)
        else:
            yield part, Layer(layer.down, block, layer.alpha)


def _stranger(unknown: list[str], ours: str, file: Path) -> str:
    """Build the error message for a file with unknown layer names."""
    theirs = origins_of(map(_plain, unknown))
    if theirs and ours not in theirs:
        return (
            f"{file} is a LoRA of {' or '.join(theirs)} ({unknown[0]}), the model is {ours}: the"
            " LoRA belongs to another family. Give model= the one that it was trained on."
        )
    return (
        f"{file}: {unknown[0]}, one of {len(unknown)} names that are not known, is not a layer of"
        f" this {ours}. Read are the files of sd-scripts, OneTrainer, ComfyUI, PEFT and diffusers:"
        " convert it to one of these forms, or give the model that it was trained on."
    )


def origins_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the families that a file's names point to; empty if they are ambiguous.

    Args:
        names: Of layers, with `_` for `.`.

    Example:
        >>> origins_of(["lora_unet_double_blocks_0_img_attn_proj"])
        ('FLUX.1',)
        >>> origins_of(["lora_unet_down_blocks_1_attentions_0_proj_in"])
        ('Stable Diffusion 1 or 2', 'Stable Diffusion XL')
        >>> origins_of(["style"])
        ()
    """
    given = list(names)
    for patterns, families in SIGNS:
        if all(any(re.search(pattern, name) for name in given) for pattern in patterns):
            return families
    return ()
