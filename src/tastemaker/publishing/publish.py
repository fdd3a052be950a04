"""Fill the folder, and on request put it on the hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from tastemaker.backbones.exchange import export_lora
from tastemaker.backbones.loading import is_adapter
from tastemaker.backbones.lora import MODEL_FILE
from tastemaker.claims import exclusive
from tastemaker.errors import TastemakerError
from tastemaker.files import atomic, read_json, write_json, write_text
from tastemaker.publishing.card import card
from tastemaker.publishing.places import without_places
from tastemaker.records import RunDir
from tastemaker.sections import ExportConfig, PublishConfig
from tastemaker.trained_prompts import FILE

PICTURE = "before_after.png"

NOT_PUBLISHED = ("checkpoints", "cache.safetensors", "stage.json", "done.json", FILE, ".*")
"""Of a trained pipeline's folder: what a training keeps for itself."""


def publish(config: PublishConfig, run: RunDir, output: Path) -> Path:
    """Make what others need of a finished run: weights in both layouts, card, figures, pictures.

    Nothing leaves this machine unless `push_to_hub` names a repository.

    Args:
        config: Licence, data, and whether to upload.
        run: The run.
        output: Folder to write.

    Returns:
        `output`.

    Raises:
        TastemakerError: The run is not finished, or the hub refuses.
    """
    if not run.report_json.is_file():
        raise TastemakerError(f"{run.folder} is no finished run; run its recipe to the end first.")
    with exclusive(output):
        _fill(config, run, output)
    if config.push_to_hub is not None:
        _push(config, output)
    return output


def _fill(config: PublishConfig, run: RunDir, output: Path) -> None:
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
    for file in (run.environment, run.report_json):
        write_json(output / file.name, without_places(read_json(file)))
    if (output / MODEL_FILE).is_file():
        write_json(output / MODEL_FILE, without_places(read_json(output / MODEL_FILE)))
    settings = without_places(yaml.safe_load(run.config.read_text(encoding="utf-8")))
    write_text(output / run.config.name, yaml.safe_dump(settings, sort_keys=False))
    write_text(output / "README.md", card(config, run, output))


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
