"""The art: pinned emoji sets from the npm registry, rasterised once to sprites."""

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tastemaker.nano.captions import CONCEPTS, JUDGE_STYLES
from tastemaker.storage.files import atomic

SIDE = 128


@dataclass(frozen=True, slots=True)
class ArtSet:
    """One emoji set: npm package, pinned version, licence and author to be credited."""

    package: str
    version: str
    licence: str
    credit: str


SETS: dict[str, ArtSet] = {
    "flat": ArtSet(
        "@iconify-json/twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "Twemoji by Twitter, Inc. and other contributors, https://github.com/jdecked/twemoji",
    ),
    "soft": ArtSet(
        "@iconify-json/noto",
        "1.2.9",
        "Apache-2.0",
        "Noto Emoji by Google Inc., https://github.com/googlefonts/noto-emoji",
    ),
    "bold": ArtSet(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "Fluent Emoji by Microsoft Corporation, https://github.com/microsoft/fluentui-emoji",
    ),
    # Seen by no other network than the checker.
    "early": ArtSet(
        "@iconify-json/noto-v1",
        "1.2.5",
        "Apache-2.0",
        "Noto Emoji, first version, by Google Inc., https://github.com/googlefonts/noto-emoji",
    ),
    "plain": ArtSet(
        "@iconify-json/emojione",
        "1.2.3",
        "CC-BY-4.0",
        "EmojiOne 2 by Emoji One, https://github.com/EmojiTwo/emojitwo",
    ),
}

# Concepts whose icon has another name than the concept.
ICONS: dict[str, str] = {
    "apple": "red-apple",
    "ball": "soccer-ball",
    "beer": "beer-mug",
    "burger": "hamburger",
    "car": "automobile",
    "cat": "cat-face",
    "cherry": "cherries",
    "clock": "alarm-clock",
    "dog": "dog-face",
    "donut": "doughnut",
    "fish": "tropical-fish",
    "flame": "fire",
    "heart": "red-heart",
    "ladybug": "lady-beetle",
    "moon": "crescent-moon",
    "pig": "pig-face",
    "shirt": "t-shirt",
    "smiley": "grinning-face",
    "tree": "deciduous-tree",
}

Sprites = dict[tuple[str, str], Image.Image]


def fetch(style: str, folder: Path) -> dict[str, Any]:
    """The icons of a set, downloaded with `npm pack` where they are not there yet.

    Raises:
        RuntimeError: If the package's licence is not the one recorded in `SETS`.
    """
    art = SETS[style]
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{art.package.removeprefix('@').replace('/', '-')}-{art.version}.tgz"
    if not (folder / name).exists():
        command = ["npm", "pack", "--silent", f"{art.package}@{art.version}"]
        with tempfile.TemporaryDirectory(dir=folder) as fresh:  # or a kill leaves a torn archive
            subprocess.run(command, cwd=fresh, check=True)
            (Path(fresh) / name).replace(folder / name)
    with tarfile.open(folder / name) as archive:
        info = json.load(_member(archive, "package/info.json"))
        icons: dict[str, Any] = json.load(_member(archive, "package/icons.json"))
    if info["license"]["spdx"] != art.licence:
        raise RuntimeError(f"{art.package}: licence is {info['license']}, expected {art.licence}")
    return icons


def rasterise(icons: dict[str, Any], name: str) -> Image.Image:
    """One icon of an Iconify set as an RGBA picture of `SIDE` pixels; needs the `nano` extra."""
    import resvg_py

    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{SIDE}" height="{SIDE}">{icon["body"]}</svg>'
    )
    return Image.open(BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def sprites(work: Path, styles: Sequence[str] = JUDGE_STYLES) -> Sprites:
    """All sprites of some styles by (style, concept), from `work/art`; makes what is missing."""
    found: Sprites = {}
    for style in styles:
        icons: dict[str, Any] = {}
        folder = work / "art" / style
        folder.mkdir(parents=True, exist_ok=True)
        for concept in CONCEPTS:
            path = folder / f"{concept}.png"
            if not path.exists():
                icons = icons or fetch(style, work / "art")
                picture = rasterise(icons, ICONS.get(concept, concept))
                with atomic(path) as temporary:
                    picture.save(temporary, format="PNG")
            found[style, concept] = _cropped(Image.open(path).convert("RGBA"))
    return found


def _cropped(picture: Image.Image) -> Image.Image:
    """Cut the empty border and centre on a square, so that sizes mean the same in every set."""
    box = picture.getchannel("A").getbbox() or (0, 0, SIDE, SIDE)
    inner = picture.crop(box)
    side = max(inner.size)
    square = Image.new("RGBA", (side, side))
    square.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
    return square


def _member(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.extractfile(name)
    if member is None:
        raise RuntimeError(f"no file {name} in the package")
    return member
