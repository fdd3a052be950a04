"""Publish a run: a folder for others, on request uploaded to the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from tastemaker.backbones.lora.exchange import export_lora
from tastemaker.backbones.places import MODEL_FILE, is_adapter
from tastemaker.config.commands import takes_options
from tastemaker.config.exchange import ExportConfig, PublishConfig
from tastemaker.config.loading import load
from tastemaker.core.errors import TastemakerError
from tastemaker.reporting.judges import training_scorers
from tastemaker.reporting.model_card import card
from tastemaker.storage.artifact import CHECKPOINTS, ENCODED, finished_key
from tastemaker.storage.files import atomic, read_json, read_record, write_json, write_text
from tastemaker.storage.locks import exclusive
from tastemaker.storage.results import read_report
from tastemaker.storage.run_dir import RunDir, refuse_claimed
from tastemaker.storage.trained_prompts import FILE

PICTURE = "before_after.png"

NOT_PUBLISHED = (CHECKPOINTS, ENCODED, "artifact.json", "done.json", FILE, ".*")
"""Files of a trained pipeline's folder that are left out."""


@takes_options(PublishConfig)
def publish(config: PublishConfig, run: RunDir, output: Path) -> Path:
    """Write a folder with the weights of a finished run in both layouts, card, report and pictures.

    Nothing leaves this machine unless `push_to_hub` names a repository.

    Args:
        config: Licence, data, and whether to upload.
        run: The run.
        output: Folder to write.

    Returns:
        `output`.

    Raises:
        TastemakerError: The run is not finished or damaged, or the hub refuses.
    """
    if not run.report_json.is_file():
        raise TastemakerError(
            f"{run.folder} is not a finished run; run its recipe to the end first."
        )
    if config.push_to_hub is not None:
        _check_repository(config.push_to_hub)
    refuse_claimed(output)
    finished_key(run.policy, whole=True)
    report, environment = read_report(run.report_json), read_record(run.environment)
    settings = load(str(run.config))
    shared = without_places(settings.model_dump(mode="json"))
    with exclusive(output):
        _fill_weights(run, output)
        write_json(output / run.environment.name, without_places(environment))
        write_json(output / run.report_json.name, without_places(report))
        write_text(output / run.config.name, yaml.safe_dump(shared, sort_keys=False))
        write_text(
            output / "README.md",
            card(config, run, output, shared, report, training_scorers(settings)),
        )
    if config.push_to_hub is not None:
        _push(config, output)
    return output


def without_places(data: Any) -> Any:
    """Shorten every absolute path, or path in the user's home, to its last name.

    Args:
        data: JSON-like.

    Returns:
        The same with shorter texts; keys are texts too.

    Example:
        >>> without_places({"model": "/home/me/models/sd15", "prompts": "~/cats.txt", "seed": 3})
        {'model': 'sd15', 'prompts': 'cats.txt', 'seed': 3}
    """
    if isinstance(data, dict):
        return {without_places(key): without_places(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_places(value) for value in data]
    if isinstance(data, str) and (data.startswith("~") or Path(data).is_absolute()):
        return Path(data).name
    return data


def _fill_weights(run: RunDir, output: Path) -> None:
    if is_adapter(run.policy):
        export_lora(ExportConfig(layout="diffusers"), run.policy, output)
        export_lora(ExportConfig(name=run.folder.name), run.policy, output)
    else:
        shutil.copytree(
            run.policy,
            output,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(*NOT_PUBLISHED),
        )
    if (run.folder / PICTURE).is_file():
        with atomic(output / PICTURE) as temporary:
            shutil.copyfile(run.folder / PICTURE, temporary)
    if (output / MODEL_FILE).is_file():
        write_json(output / MODEL_FILE, without_places(read_json(output / MODEL_FILE)))


def _check_repository(name: str) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(name, MODEL_FILE)  # of the client, which asks nobody for it
    except HFValidationError as error:
        raise TastemakerError(f"push_to_hub: {error}") from None


def _push(config: PublishConfig, folder: Path) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    repository = str(config.push_to_hub)
    try:
        api.create_repo(repository, private=config.private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Tastemaker run")
    except Exception as error:  # those of whichever library the hub's client speaks HTTP with
        first = str(error).strip().splitlines()[0]
        raise TastemakerError(
            f"{repository} could not be uploaded: {first} The folder {folder} is complete; log in"
            " with `hf auth login`, or upload it by hand."
        ) from error
