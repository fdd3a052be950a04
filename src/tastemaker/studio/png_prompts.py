"""Prompts that ComfyUI and A1111 write into the PNG files that they save."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tastemaker.storage.images import BROKEN, FORMATS

LONGEST = 10_000
"""Characters of a prompt that are kept."""

MOST_NODES = 1000
"""Nodes of a graph that are looked at."""

_NEGATIVE = "\nNegative prompt:"
_STEPS = "\nSteps: "
_TEXTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "prompt", "string", "value")
"""Inputs of ComfyUI's nodes that hold a prompt, or lead to it."""


def prompt_of(file: Path) -> str:
    """Read the prompt of an image; its pixels are not decoded.

    Args:
        file: An image.

    Returns:
        The positive prompt; "" where the file has none, or cannot be read.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            texts = {key: text for key, text in image.info.items() if isinstance(text, str)}
    except BROKEN:
        return ""
    found = a1111_prompt(texts.get("parameters", "")) or comfy_prompt(texts.get("prompt", ""))
    return found.encode("utf-8", "replace").decode()[:LONGEST].strip()


def a1111_prompt(parameters: str) -> str:
    r"""Return the positive prompt of A1111's text: what precedes its negative prompt and settings.

    Example:
        >>> a1111_prompt("a cat,\non a mat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a")
        'a cat,\non a mat'
        >>> a1111_prompt("a cat\nSteps: 20")
        'a cat'
    """
    text = "\n" + parameters.replace("\r\n", "\n")
    settings = text.rfind(_STEPS)
    text = text if settings < 0 else text[:settings]
    negative = text.find(_NEGATIVE)
    return (text if negative < 0 else text[:negative]).strip()


def comfy_prompt(graph: str) -> str:
    """Return the prompt of a ComfyUI graph in its API form: the text behind the positive input.

    From a node with an input `positive`, or a guider's `conditioning`, links are followed to the
    first text: through samplers, guidance, ControlNets and primitive strings.

    Args:
        graph: JSON of node id to class_type and inputs.

    Returns:
        The text; "" where there is none.

    Example:
        >>> comfy_prompt('{"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0]}},'
        ...     ' "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}}}')
        'a cat'
    """
    try:
        nodes = json.loads(graph) if graph else None
    except (ValueError, RecursionError):
        return ""
    if not isinstance(nodes, dict):
        return ""
    inputs = {
        key: node["inputs"]
        for key, node in nodes.items()
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    for name in ("positive", "conditioning"):
        for start in inputs.values():
            found = next(_texts(inputs, start.get(name)), "")
            if found:
                return found
    return ""


def _texts(inputs: dict[str, dict[str, Any]], link: Any) -> Iterator[str]:
    """Texts behind a link, nearest first."""
    waiting, seen = [link], set[str]()
    while waiting and len(seen) < MOST_NODES:
        each = waiting.pop(0)
        if not isinstance(each, list) or not each or str(each[0]) in seen:
            continue
        node = str(each[0])
        seen.add(node)
        given = inputs.get(node, {})
        yield from (
            text.strip()
            for name in _TEXTS
            if isinstance(text := given.get(name), str) and text.strip()
        )
        for name in (*_TEXTS, "positive", "conditioning"):
            waiting.append(given.get(name))
        waiting += [value for key, value in given.items() if key.startswith("conditioning_")]
