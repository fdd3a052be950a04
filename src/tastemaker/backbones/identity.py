"""Identity of a model by its weights, for the keys of artifacts made with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tastemaker.backbones.places import (
    INDEX,
    LORA_FILE,
    TOKEN_FILE,
    adapter_chain,
    base_of,
    ip_adapter_parts,
    is_adapter,
    resolve,
)
from tastemaker.config.sections import IPAdapterConfig
from tastemaker.core.content_hash import file_content, folder_content, weights_content
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import DONE_FILE, MADE_ALONG, finished_key
from tastemaker.storage.files import config_key


def model_identity(model: str) -> dict[str, Any]:
    """Describe a model for the key of a stage: another one in its place is another input.

    Args:
        model: Name, hub id, pipeline folder or adapter's folder.

    Returns:
        Its name; the hash of its content, or the commit of a hub id; and below an adapter `base`.
        JSON-like.

    Raises:
        TastemakerError: The model is of a command that did not end, or a file of it is damaged or
            missing.
    """
    folder = Path(resolve(model))
    if not folder.is_dir():
        return {"model": model, **weights_content(model, INDEX)}
    if is_adapter(folder):
        adapter_chain(model)  # refuses one that is below itself
        return {**adapter_identity(model), "base": model_identity(base_of(folder))}
    _require_whole(folder)
    # A pipeline's parts are folders; what lies beside them is not read.
    parts = {each.name for each in folder.iterdir() if each.is_dir()} - MADE_ALONG
    names = sorted({*parts, INDEX} - {"logs"})
    return {"model": model, "content": folder_content(folder, names)}


def adapter_identity(folder: str) -> dict[str, Any]:
    """Describe a LoRA or a learned word alone, without the models below it.

    Args:
        folder: Its folder.

    Returns:
        Its name and the hash of its content.

    Raises:
        TastemakerError: As for `model_identity`, or there is none in it.
    """
    place = Path(folder)
    _require_whole(place)
    files = [name for name in (LORA_FILE, TOKEN_FILE) if (place / name).is_file()]
    if not files:
        raise TastemakerError(
            f"{folder!r} has no LoRA ({LORA_FILE}); give the folder of one, from `train`."
        )
    return {"model": folder, "content": folder_content(place, files)}


def ip_adapter_identity(config: IPAdapterConfig, pictures: Iterable[Path]) -> dict[str, Any]:
    """Describe an IP-Adapter and its pictures.

    Args:
        config: Weights and image encoder.
        pictures: Files, in the order in which prompts take them.

    Returns:
        The hash of weights and encoder, or their commit on the hub, and one of all pictures.

    Raises:
        TastemakerError: A file cannot be read.
    """
    parts, place = ip_adapter_parts(config), Path(config.model).expanduser()
    if place.is_dir():
        identity = {"content": folder_content(place, parts)}
    else:
        identity = weights_content(config.model, parts[0])
    seen = config_key(*map(file_content, dict.fromkeys(pictures)))
    return {"model": config.model, **identity, "pictures": seen}


def encoder_identity(model: str) -> dict[str, Any]:
    """Describe a model's VAE, text encoders and tokenizers, whatever its denoiser.

    Args:
        model: As for `model_identity`.

    Returns:
        Equal for models that encode images and prompts alike. JSON-like.
    """
    folders, base = adapter_chain(model)
    place = Path(resolve(base))
    if place.is_dir():
        names = ("vae", "text_encoder", "tokenizer")
        parts = [each.name for each in place.iterdir() if each.name.startswith(names)]
        identity: dict[str, Any] = {"content": folder_content(place, sorted(parts))}
    else:
        identity = {"model": base, **weights_content(base, INDEX)}
    changing = [adapter_identity(str(each))["content"] for each in folders if _changes_text(each)]
    return {**identity, "adapters": changing}


def _changes_text(adapter: Path) -> bool:
    """True for a learned word, or a LoRA on a text encoder."""
    from tastemaker.backbones.lora.layers import read_layers

    lora = adapter / LORA_FILE
    return (adapter / TOKEN_FILE).is_file() or (
        lora.is_file() and any(each.startswith("text_encoder") for each in read_layers(lora))
    )


def _require_whole(folder: Path) -> None:
    if (folder / DONE_FILE).is_file():
        finished_key(folder, whole=True)
