"""Run a study: index its images, claim its folder, serve the page until Ctrl-C."""

from __future__ import annotations

import importlib
import json
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tastemaker.config.commands import takes_options
from tastemaker.config.studio import StudioConfig
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.artifact import first_difference
from tastemaker.storage.files import disk_errors, read_json, temporary_of, write_json
from tastemaker.storage.locks import exclusive
from tastemaker.storage.run_dir import refuse_claimed
from tastemaker.storage.votes import FOLDER
from tastemaker.studio.hosts import is_loopback
from tastemaker.studio.items import Items
from tastemaker.studio.queue import Plan
from tastemaker.studio.sources import add_gold, add_photographs, kind_of, read_sources, source_key
from tastemaker.studio.study import Study
from tastemaker.studio.units import Units

STUDY_FILE = "study.json"
KEY_FILE = ".studio.json"
"""Secret, token and port, for the owner alone: the page's address is the same after a restart."""

VIEW = {"output", "title", "host", "port", "browser"}
"""Options that do not make another study."""


@takes_options(StudioConfig)
def open_studio(config: StudioConfig, sources: Sequence[Path]) -> Path:
    """Serve a page on which people judge images, until Ctrl-C.

    Every vote is on disk, in `output/votes`, before the page is answered. The same command goes on
    where it was stopped, with the same address where its port is free.

    Args:
        config: Options.
        sources: A pool, pairs or a folder of images; or several models' pools of equal prompts.

    Returns:
        `output`.

    Raises:
        TastemakerError: The extra `studio` is missing, a source cannot be used, or `output` is of
            another study.
    """
    server = _server_module()
    sources = [Path(each) for each in ([sources] if isinstance(sources, Path) else sources)]
    output = Path(config.output)
    items = read_sources(sources, config.labels)
    if config.gold is not None:
        add_gold(items, Path(config.gold))
    references = {
        key: add_photographs(items, Path(place)) for key, place in config.references.items()
    }
    plan = make_plan(config, items, sources)
    about = description(config, items, sources, plan)
    refuse_claimed(output)
    with exclusive(output):
        _claim(output / STUDY_FILE, about)
        keys = _keys(output / KEY_FILE)
        study = Study(config, items, plan, references, bytes.fromhex(keys["secret"]), output)
        listener = _listener(config, keys)
        port = listener.getsockname()[1]
        _write_keys(output / KEY_FILE, {**keys, "port": port})
        print(f"{len(items.ids)} images, {plan.units.total} tasks, {study.votes()} votes so far.")
        _announce(config, f"http://{_named(config.host)}:{port}/{keys['token']}/")
        try:
            hosts = server.Hosts(config.host, port)
            server.serve(server.application(study, keys["token"], hosts), listener)
        except KeyboardInterrupt:
            print(f"{study.votes()} votes in {output / FOLDER}")
    return output


def _server_module() -> ModuleType:
    """Import the server.

    Raises:
        TastemakerError: The extra that it needs is missing.
    """
    try:
        return importlib.import_module("tastemaker.studio.server")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"starlette", "uvicorn"}:
            raise
        raise TastemakerError(
            "the studio needs the extra 'studio': pip install 'tastemaker[studio]'."
        ) from None


def _announce(config: StudioConfig, address: str) -> None:
    """Say where the page is, warn of an open host, and open the browser."""
    if not is_loopback(config.host):
        print(
            f"warning: host={config.host} lets other machines in, without encryption: whoever has"
            " the address can vote and see the images. Leave host out for this one alone."
        )
    print(f"{address}\nCtrl-C ends; every vote is kept in {Path(config.output) / FOLDER}.")
    if config.browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def make_plan(config: StudioConfig, items: Items, sources: Sequence[Path]) -> Plan:
    """Number what can be judged.

    Raises:
        TastemakerError: There is nothing, or pairs are to be judged otherwise than in pairs.
    """
    if config.kind != "pair" and kind_of(sources[0]) == "pairs":
        raise TastemakerError(f"{sources[0]} has pairs, which are judged by kind=pair.")
    images, fewest = {"pair": (2, 2), "best_worst": (config.images, 3), "rating": (1, 1)}[
        config.kind
    ]
    units = Units([group.shape for group in items.groups], images, fewest)
    if not units.total:
        raise TastemakerError(
            f"no prompt of {', '.join(map(str, sources))} has {fewest} images to compare; judge"
            " them one at a time (kind=rating), or draw more per prompt."
        )
    return Plan(
        items,
        units,
        questions=len(config.asked),
        seed=config.seed,
        active=config.choose == "active",
        explore=config.explore,
        num_tasks=config.num_tasks,
        repeats=config.repeats,
        by_model=len(items.labels) > 1,
    )


def description(
    config: StudioConfig, items: Items, sources: Sequence[Path], plan: Plan
) -> dict[str, Any]:
    """Describe a study as `study.json` keeps it: what its votes mean depends on all of it."""
    options = config.model_dump(mode="json", exclude=VIEW | {"questions", "labels", "gold"})

    def described(source: Path) -> dict[str, str]:
        place = os.path.relpath(source, config.output)
        return {"folder": place, "kind": kind_of(source), "key": source_key(source)}

    return {
        "sources": [described(source) for source in sources],
        "labels": list(items.labels),
        "questions": config.asked,
        "gold": config.gold and described(Path(config.gold)),
        **options,
        "tasks": plan.units.total,
    }


def _claim(file: Path, about: Mapping[str, Any]) -> None:
    """Write what the folder is a study of, or compare.

    Raises:
        TastemakerError: It is of another study.
    """
    if not file.is_file():
        write_json(file, about)
        return
    there, here = _placeless(read_json(file)), _placeless(dict(about))
    if there != here:
        raise TastemakerError(
            f"{file.parent} is another study ({first_difference(there, here)}), whose votes do not"
            " mix with these; choose another output."
        )


def _placeless(about: Any) -> Any:
    """Drop folders: sources are compared by content, not by path."""
    if isinstance(about, dict):
        return {name: _placeless(value) for name, value in about.items() if name != "folder"}
    return [_placeless(each) for each in about] if isinstance(about, list) else about


def _keys(file: Path) -> dict[str, Any]:
    """Return the study's secrets, made where there are none."""
    if file.is_file():
        keys = read_json(file)
        if isinstance(keys, dict) and all(isinstance(keys.get(k), str) for k in _SECRETS):
            return keys
    return {name: secrets.token_hex(32) for name in _SECRETS}


_SECRETS = ("secret", "token")


def _write_keys(file: Path, keys: Mapping[str, Any]) -> None:
    """Write the study's secrets for the owner alone."""
    temporary = temporary_of(file)
    with disk_errors(file):
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="utf-8") as opened:
            json.dump(keys, opened)
        temporary.replace(file)


def _listener(config: StudioConfig, keys: Mapping[str, Any]) -> socket.socket:
    """Listen: on the port that is given, or on that of the last time if it is free.

    Raises:
        TastemakerError: It cannot.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    last = keys.get("port")
    ports = [config.port] if config.port else [last, 0] if isinstance(last, int) else [0]
    for port in ports:
        try:
            return socket.create_server((config.host, port), family=family)
        except (OSError, OverflowError) as error:
            why = error
    raise TastemakerError(
        f"cannot listen on host={config.host} port={config.port} ({why}); choose another port."
    )


def _named(host: str) -> str:
    """An address as URLs write it."""
    return f"[{host}]" if ":" in host else host
