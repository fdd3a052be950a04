"""Model card: training, evaluation and use of a published model."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from tastemaker.backbones.places import LORA_FILE, MODEL_FILE
from tastemaker.config.exchange import PublishConfig
from tastemaker.core import __version__
from tastemaker.core.registry import MODELS
from tastemaker.storage.files import read_record
from tastemaker.storage.run_dir import RunDir


def card(
    config: PublishConfig,
    run: RunDir,
    folder: Path,
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    learned: Collection[str],
) -> str:
    """Write the card of a finished run.

    Args:
        config: Licence and data.
        run: The run.
        folder: Folder of the weights, which gets the card.
        settings: The run's configuration, without folders of this machine.
        report: The run's `report.json`.
        learned: Scorers that training learned from.

    Returns:
        Markdown with the hub's header.
    """
    adapter = (folder / LORA_FILE).is_file()
    base = read_record(folder / MODEL_FILE, base=str)["base"] if adapter else str(settings["model"])
    environment = Environment(
        loader=PackageLoader("tastemaker.reporting", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page: str = environment.get_template("card.md").render(
        header=yaml.safe_dump(_header(config, base, adapter), sort_keys=False).rstrip(),
        name=plain(run.folder.name),
        recipe=settings["recipe"],
        base=base,
        named=base in MODELS,
        adapter=adapter,
        file=f"{run.folder.name}.safetensors".replace("`", "'"),
        results=_results(report, learned),
        learned=learned,
        prompts=report["prompts"],
        shared=report.get("prompts_trained_on"),
        drawn_with=[
            (plain(name), found["drawn_with"])
            for name, found in report["models"].items()
            if "drawn_with" in found
        ],
        pictures=(folder / "before_after.png").is_file(),
        data=config.data or "Not described.",
        license=config.license or "Not given.",
        settings=yaml.safe_dump(dict(settings), sort_keys=False).rstrip(),
        machine=json.dumps(read_record(run.environment), indent=2),
        version=__version__,
    )
    return page


def plain(text: str) -> str:
    """Escape a name for Markdown and HTML.

    Example:
        >>> plain("<b>name</b>")
        '&lt;b&gt;name&lt;/b&gt;'
    """
    return re.sub(r"([\\|`\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _header(config: PublishConfig, base: str, adapter: bool) -> dict[str, Any]:
    """Return the hub's header; a local folder is not a base model of the hub."""
    header: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["tastemaker", "preference-optimization", *(["lora"] if adapter else [])],
    }
    if config.license:
        header["license"] = config.license
    if base.count("/") == 1:
        header["base_model"] = base
        header["base_model_relation"] = "adapter" if adapter else "finetune"
    return header


def _results(report: Mapping[str, Any], learned: Collection[str]) -> list[str]:
    """Rows of the table: every model under every scorer; a star marks those of training."""
    rows = []
    for model, found in report["models"].items():
        for scorer, score in found["scores"].items():
            wins = difference = ""
            if "win_rate" in score:
                difference = _with_error(score["difference"], score["difference_stderr"], "+")
                low, high = (100 * score[f"win_rate_{end}"] for end in ("low", "high"))
                wins = f"{100 * score['win_rate']:.1f} % [{low:.1f}, {high:.1f}]"
            mean = _with_error(score["mean"], score["stderr"])
            mark = "*" if scorer in learned else ""
            rows.append(
                f"| {plain(model)} | {plain(scorer)}{mark} | {mean} | {difference} | {wins} |"
            )
        for metric in report.get("metrics", ()):
            for label, distance in found.get(metric, {}).items():
                value = _with_error(distance["value"], distance["stderr"])
                if "real_to_real" in distance:
                    value += f" (real to real {distance['real_to_real']:.4g})"
                name = f"{distance['name']}, {label}, {distance['images']} images"
                rows.append(f"| {plain(model)} | {plain(name)} | {value} | | |")
    return rows


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    number = f"{value:{sign}.4g}"
    return number if error is None else f"{number} ± {error:.2g}"
