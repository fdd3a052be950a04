"""Give bad inputs to the command line; count tracebacks, hangs and what refused commands leave.

    python benchmarks/reliability/hostile.py [KIND ...]

Every case is a process of its own, forked from one that has imported everything, with a limit of
time and of memory. It calls the command line as a user does. An input is refused well where the
status is 2, or 1 of a check, no traceback is shown or kept in a log (status 70), and nothing is
left that was not there before. Some inputs are odd and yet right; they may also be accepted.

Results go to `hostile.json` beside this file: counts by kind, and every case that did not end well.
Nothing is drawn at random but a few pixels, from fixed seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import math
import os
import resource
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

from tastemaker.cli import command_line

HERE = Path(__file__).parent
SECONDS = 60
BYTES = 4 << 30
"""Of memory beyond what the process has when it starts."""

DRAW = ("model=nano", "device=cpu", "num_inference_steps=1", "num_candidates=2")
TRAIN = ("model=nano", "device=cpu", "max_steps=1", "batch_size=1", "report_to=null", "lora.r=2")
REDRAW = (*DRAW[:3], "timesteps=[400]")
BLEND = ("model=nano", "device=cpu", "scorer=sharpness")
JUDGE = ("base=nano", *DRAW[1:3], "prompts=p.txt", "scorers=[sharpness]")
RUN = """\
recipe: diffusion_dpo
name: small
output: runs
model: nano
device: cpu
generate: {prompts: p.txt, num_candidates: 2, num_inference_steps: 1}
score: {scorers: [sharpness]}
pair: {rule: {name: best_worst, scorer: sharpness}}
train: {lora: {r: 2}, max_steps: 1, batch_size: 1, report_to: null}
evaluate: {prompts: p.txt, num_inference_steps: 1, scorers: [sharpness]}
"""
WORLD = ("pool", "pairs", "lora", "real", "drawn", "judged", "runs")
DIGITS = "9" * 5000
DEEP = "[" * 100_000

Build = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A bad input.

    Args:
        kind: For the counts.
        name: For the list of those that did not end well.
        words: The command line; it runs in a folder of its own, where `world` is `../world`.
        build: Makes the input there.
    """

    kind: str
    name: str
    words: tuple[str, ...]
    build: Build = lambda folder: None


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Bytes of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(seed: int, side: int = 32) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    )


def put(path: Path, content: bytes | str) -> Path:
    """Write a file and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    )
    return path


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))


NO_FILES: dict[str, Build] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "below a file": lambda path: put(path, "x"),
    "300 characters": lambda path: None,
    "NUL": lambda path: None,
}
"""What may stand where a file is meant; the path's name says the rest."""

READ = {
    "config": ("a.yaml", ("generate", "out", "--config", "{}", *DRAW, "prompts=p.txt")),
    "run": ("a.yaml", ("run", "{}", "output=out")),
    "prompts.txt": ("a.txt", ("generate", "out", *DRAW, "prompts={}")),
    "prompts.jsonl": ("a.jsonl", ("generate", "out", *DRAW, "prompts={}")),
    "prompts.csv": ("a.csv", ("generate", "out", *DRAW, "prompts={}")),
    "prompts.parquet": ("a.parquet", ("generate", "out", *DRAW, "prompts={}")),
    "templates": (
        "a.txt",
        ("generate", "out", *DRAW, "prompts={{name: templates, subject: dog, set: {}}}"),
    ),
    "word list": (
        "a.txt",
        ("import", "out", "images=photos", "resolution=32", "filters.without={}"),
    ),
    "parquet": ("a.parquet", ("import", "out", "images={}", "resolution=32")),
    "comparisons.json": ("a.json", ("import", "out", "comparisons={}")),
    "comparisons.tar": ("a.tar", ("import", "out", "comparisons={}")),
    "comparisons.parquet": ("a.parquet", ("import", "out", "comparisons={}")),
    "plugin": ("a.py", ("generate", "out", *DRAW, "prompts=p.txt", "plugins=[{}]")),
    "LoRA": ("a.safetensors", ("import", "out", "lora={}", "model=nano")),
    "pool": ("a", ("pair", "{}", "out", "rule.scorer=human")),
    "pairs": ("a", ("train", "{}", "out", *TRAIN)),
    "start": ("a", ("train", "../world/pairs", "out", *TRAIN, "start={}")),
    "model": ("a", ("generate", "out", *DRAW, "model={}", "prompts=p.txt")),
    "photographs": ("a", ("personalize", "out", *TRAIN[:4], "photographs={}", "class_name=cat")),
    "exported": ("a", ("export", "{}", "out")),
    "shown": ("a", ("show", "{}")),
    "check": ("a.jsonl", ("import", "out", "comparisons={}", "--check")),
    "items": ("a", ("generate", "out", *DRAW, "items={}")),
    "scored": ("a", ("score", "{}", "scorers=[sharpness]", "device=cpu")),
    "reconstructed": ("a", ("reconstruct", "{}", "out", *REDRAW)),
    "blended": ("a", ("blend", "{}", "../world/drawn", "out", *BLEND)),
    "blended with": ("a", ("blend", "../world/real", "{}", "out", *BLEND)),
    "joined": ("a", ("join", "{}", "../world/pairs", "out")),
    "joined with": ("a", ("join", "../world/drawn", "{}", "out", "rule.scorer=sharpness")),
    "judged": ("a", ("evaluate", "{}", "out", *JUDGE)),
    "base": ("a", ("evaluate", "../world/lora", "out", *JUDGE[1:], "base={}")),
    "stacked": ("a", ("stack", "{}", "../world/lora", "out")),
    "stacked on": ("a", ("stack", "../world/lora", "{}", "out")),
    "published": ("a", ("publish", "{}", "out")),
    "reported": ("a", ("report", "{}")),
    "shown against": ("a", ("show", "../world/pool", "against={}")),
    "doctor": ("a.yaml", ("doctor", "{}")),
}
"""Where a path is read: its name and the command line around it."""


def no_files() -> Iterator[Case]:
    """Every kind of what is no file, wherever a file or folder is read."""
    for place, (name, words) in READ.items():
        for kind, make in NO_FILES.items():
            path = {"below a file": f"{name}/{name}", "300 characters": "x" * 300 + name}.get(
                kind, f"a\0{name}" if kind == "NUL" else name
            )

            def build(folder: Path, make: Build = make, name: str = name) -> None:
                make(folder / name)

            given = tuple(word.format(path) if "{}" in word else word for word in words)
            if not (kind == "folder" and place in {"photographs", "model"}):
                yield Case("a path that is no file", f"{place}: {kind}", given, build)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
YAML = {
    "deep": f"prompts: {DEEP}",
    "deep and closed": f"prompts: {'[' * 900}{']' * 900}",
    "aliases": BOMB,
    "merges": "m0: &m0 {k: v, j: v}\n"
    + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 40)),
    "itself": "prompts: &a [*a]",
    "digits": f"num_candidates: {DIGITS}",
    "a date that is none": "prompts: 2026-99-99",
    "a key twice": "prompts: p.txt\nprompts: p.txt",
    "half a character": 'prompts: "\\ud83d"',
    "an object": "prompts: !!python/object/apply:os.system [false]",
    "a timestamp that is none": "prompts: !!timestamp x",
    "a list": "[a]",
    "a number": "5",
    "keys that are no names": "{1: x, null: y}",
    "an unhashable key": "{[a]: b, {c: d}: e}",
    "plugins: 5": "plugins: 5",
    "plugins: {}": "plugins: {a: b}",
    "nothing closed": "prompts: [1",
    "UTF-16": "prompts: p.txt".encode("utf-16"),
    "latin-1": "prompts: caf\xe9".encode("latin-1"),
    "NUL": "prompts: a\0b",
    "two documents": "a: 1\n---\nb: 2",
    "large": "#" * (2 << 20),
    "tabs": "\tprompts: x",
}
TEXT = {
    "UTF-16": "a cat {}\n".encode("utf-16"),
    "UTF-16 without a mark": "a cat {}\n".encode("utf-16-le"),
    "latin-1": "caf\xe9 {}\n".encode("latin-1"),
    "NUL": b"a cat\0 {}\n",
    "empty": b"",
    "blank": b" \n\n",
    "surrogates": b"a \xed\xa0\xbd cat {}\n",
    "binary": bytes(range(256)),
}
ROW = '{{"prompt": {0}, "text": {0}, "chosen": "0.png", "rejected": "1.png", "file_name": "0.png"}}'
JSON = {
    "deep": DEEP,
    "deep and closed": ROW.format("[" * 900 + "]" * 900),
    "digits": ROW.format(DIGITS),
    "a list": "[1]",
    "null": "null",
    "a number": "5",
    "half a character": ROW.format('"\\ud83d"'),
    "another kind": ROW.format("{}"),
    "NaN": ROW.format("NaN"),
    "torn": '{"prompt": "a',
    "UTF-16": ROW.format('"a"').encode("utf-16"),
    "NUL in a name": '{"prompt": "a", "text": "a", "chosen": "a\\u0000", "rejected": "1.png", '
    '"file_name": "a\\u0000"}',
    "half a character in a name": '{"prompt": "a", "text": "a", "chosen": "\\ud83d", '
    '"rejected": "1.png", "file_name": "\\ud83d"}',
    "a name that leads out": ROW.format('"a"').replace("0.png", "../../0.png"),
    "an absolute name": ROW.format('"a"').replace("0.png", "/etc/passwd"),
    "a name that is a number": ROW.format('"a"').replace('"0.png"', "5"),
    "a line without end": '"' + "x" * (17 << 20),
}
TABLES = {
    "an open quote": 'id,prompt\n1,"a cat\n2,a dog\n',
    "a comma": "id,prompt\n1,a cat, asleep\n",
    "a column twice": "prompt,prompt\na,b\n",
    "no header": "a cat\na dog\n",
    "a short row": "id,prompt\n1\n",
    "UTF-16": "prompt\na cat\n".encode("utf-16"),
    "NUL": "prompt\na\0b\n",
    "a field without end": f'prompt\n"{"x" * (17 << 20)}"\n',
}


def contents() -> Iterator[Case]:
    """Files of the right name and the wrong content."""
    generate = ("generate", "out", *DRAW)

    def case(kind: str, name: str, file: str, content: bytes | str, *words: str) -> Case:
        return Case(kind, f"{file}: {name}", words, lambda folder: put(folder / file, content))

    for name, content in YAML.items():
        yield case("YAML", name, "a.yaml", content, *generate, "--config", "a.yaml")
        yield case("YAML", f"run, {name}", "a.yaml", content, "run", "a.yaml", "output=out")
        if isinstance(content, str) and len(content) < 100_000:
            value = content.partition(": ")[2] or content
            yield Case("YAML", f"override, {name}", (*generate, f"prompts={value}"))
    for name, content in TEXT.items():
        yield case("text", name, "a.txt", content, *generate, "prompts=a.txt")
        words = "prompts={name: templates, subject: dog, set: a.txt}"
        if b"{}" in content or b"cat" not in content:
            yield case("text", f"templates, {name}", "a.txt", content, *generate, words)
        words = "filters.without=a.txt"
        photos = ("import", "out", "resolution=32")
        yield case("text", f"words, {name}", "a.txt", content, *photos, "images=photos", words)
        yield case("text", f"caption, {name}", "in/0.txt", content, *photos, "images=in")
    for name, content in JSON.items():
        if name not in {"half a character in a name", "NUL in a name"} and "name" not in name:
            yield case("JSON", name, "a.jsonl", content, *generate, "prompts=a.jsonl")
        images = ("import", "out", "images=in", "resolution=32")
        yield case("JSON", f"photographs, {name}", "in/metadata.jsonl", content, *images)
        compared = ("import", "out", "comparisons=in")
        yield case("JSON", f"compared, {name}", "in/metadata.jsonl", content, *compared)
        yield case("JSON", f"check, {name}", "in/metadata.jsonl", content, *compared, "--check")
        ranked = content if isinstance(content, bytes) else f"[{content}]"
        yield case("JSON", f"rankings, {name}", "in/rankings.json", ranked, *compared)
    for name, content in TABLES.items():
        yield case("tables", name, "a.csv", content, *generate, "prompts=a.csv")
        tabbed = content.replace(",", "\t") if isinstance(content, str) else content
        yield case("tables", name, "a.tsv", tabbed, *generate, "prompts=a.tsv")


def _png_of(width: int, height: int) -> bytes:
    """A PNG that says to be larger than it is."""
    data = bytearray(encoded(noise(0)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


IMAGES: dict[str, Callable[[], bytes]] = {
    "cut off": lambda: encoded(noise(0))[:200],
    "empty": lambda: b"",
    "text": lambda: b"no picture",
    "a bomb": lambda: _png_of(60_000, 60_000),
    "no size": lambda: _png_of(0, 0),
    "2^31 wide": lambda: _png_of(2**31 - 1, 1),
    "a program": lambda: encoded(noise(0), "EPS"),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "floats": lambda: encoded(Image.new("F", (32, 32)), "TIFF"),
    "a torn profile": lambda: encoded(noise(0), icc_profile=b"x" * 200),
    "a profile of zeros": lambda: encoded(noise(0), icc_profile=bytes(200)),
    "frames": lambda: encoded(noise(0), "GIF", save_all=True, append_images=[noise(1)]),
    "a torn frame": lambda: encoded(noise(0), "GIF", save_all=True, append_images=[noise(1)])[
        :-900
    ],
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1))),
    "lab": lambda: encoded(Image.new("LAB", (32, 32)), "TIFF"),
    "turned beyond sense": lambda: encoded(
        noise(0),
        "JPEG",
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
    ),
    "torn EXIF": lambda: encoded(noise(0), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "CMYK": lambda: encoded(noise(0).convert("CMYK"), "JPEG"),
    "sixteen bits": lambda: encoded(Image.fromarray(np.zeros((32, 32), np.uint16))),
}


def pictures() -> Iterator[Case]:
    """Images that are broken or odd, among photographs, compared images and those of a subject."""
    for name, make in IMAGES.items():

        def build(folder: Path, make: Callable[[], bytes] = make) -> None:
            for place in ("in/0", "both/chosen/0", "both/rejected/0", "both/captions/0"):
                put(folder / f"{place}.png", make() if "captions" not in place else b"")
                put(folder / f"{place}.txt", "a cat")
            put(folder / "both/rejected/0.png", encoded(noise(7)))

        size = "resolution=32"
        yield Case("images", f"photographs, {name}", ("import", "out", "images=in", size), build)
        yield Case("images", f"compared, {name}", ("import", "out", "comparisons=both"), build)
        words = ("import", "out", "images=in", size, "--check")
        yield Case("images", f"check, {name}", words, build)
    for kind in ("FIFO", "folder", "loop", "device", "socket"):

        def among(folder: Path, kind: str = kind) -> None:
            put(folder / "photos" / "metadata.md", "x")
            NO_FILES[kind](folder / "photos" / "z.png")

        words = ("import", "out", "images=photos", "resolution=32")
        yield Case("images", f"a {kind} among photographs", words, among)
        words = ("personalize", "out", *TRAIN[:3], "photographs=photos", "class_name=cat")
        if kind != "folder":
            yield Case("images", f"a {kind} among a subject's", words, among)


def tarred(*members: tuple[str, bytes]) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _sample(**texts: str | bytes) -> bytes:
    members = {"jpg_0.jpg": encoded(noise(0)), "jpg_1.jpg": encoded(noise(1)), "label_0.txt": b"1"}
    members |= {"caption.txt": b"a cat"}
    members |= {
        name.replace("__", "."): text if isinstance(text, bytes) else text.encode()
        for name, text in texts.items()
    }
    return tarred(*((f"0.{name}", content) for name, content in members.items()))


def _expanding() -> bytes:
    """A small file that becomes half a gigabyte of text members."""
    member = tarred(("0.caption.txt", b"a" * (1 << 16)))[: 512 + (1 << 16)]
    packed = gzip.compress(member * 256)
    return packed * 32


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "digits.tar": lambda: _sample(json=f'{{"a": {DIGITS}}}'),
    "deep.tar": lambda: _sample(json=DEEP),
    "list.tar": lambda: _sample(json="[1]"),
    "text.tar": lambda: _sample(caption__txt=b"\xff\xfe\0"),
    "label.tar": lambda: _sample(label_0__txt="five"),
    "out.tar": lambda: tarred(("../0.jpg_0.jpg", b"x"), ("/etc/0.jpg_1.jpg", b"x")),
    "torn.tar": lambda: _sample()[:3000],
    "empty.tar": lambda: b"",
    "zeros.tar": lambda: bytes(10240),
    "expanding.tar.gz": _expanding,
    "torn.tar.gz": lambda: gzip.compress(_sample())[:-20],
    "none.tar.gz": lambda: b"none",
    "twice.tar": lambda: tarred(*(("0.jpg_0.jpg", encoded(noise(i))) for i in range(3))),
}
PLUGINS = {
    "exits with 0": "import sys; sys.exit(0)",
    "exits with words": "raise SystemExit('bye')",
    "raises": "1 / 0",
    "recurses": "def f(): f()\nf()",
    "is no Python": "def f(: pass",
    "is binary": "\0\1\2",
    "imports nothing": "import no_such_module",
    "asserts": "assert False",
    "registers twice": "from tastemaker.core.registry import LOSSES\n"
    "for i in range(2):\n  LOSSES.register('x')(type(str(i), (), {}))",
    "raises an interrupt of its own": "class Odd(BaseException): pass\nraise Odd",
}
RULES = {
    "raises": "raise ValueError('mine')",
    "exits": "raise SystemExit(0)",
    "gives nonsense": "return 5",
}


def programs() -> Iterator[Case]:
    """Archives that are bombs or torn; plugins that exit, raise, or give nonsense."""
    for name, make in ARCHIVES.items():
        for more in ((), ("--check",)):
            yield Case(
                "archives",
                " ".join((name, *more)),
                ("import", "out", f"comparisons={name}", *more),
                lambda folder, name=name, make=make: put(folder / name, make()),
            )
    for name, code in PLUGINS.items():
        for words in (
            ("generate", "out", *DRAW, "prompts=p.txt"),
            ("run", "demo", "output=out"),
        ):
            yield Case(
                "plugins",
                f"{words[0]}: {name}",
                (*words, "plugins=[a.py]"),
                lambda folder, code=code: put(folder / "a.py", code),
            )
    for name, code in RULES.items():
        text = (
            "from tastemaker.core.registry import RULES\n@RULES.register('mine')\n"
            f"def mine(group):\n  '''Mine.'''\n  {code}\n"
        )
        yield Case(
            "plugins",
            f"a rule that {name}",
            ("pair", "../world/pool", "out", "rule=mine", "plugins=[a.py]"),
            lambda folder, text=text: put(folder / "a.py", text),
        )


COMMANDS = {
    "generate": ("generate", "{}", *DRAW, "prompts=p.txt"),
    "import images": ("import", "{}", "images=photos", "resolution=32"),
    "import comparisons": ("import", "{}", "comparisons=../world/compared"),
    "pair": ("pair", "../world/pool", "{}", "rule.scorer=human"),
    "train": ("train", "../world/pairs", "{}", *TRAIN),
    "personalize": ("personalize", "{}", *TRAIN[:4], "photographs=photos", "class_name=cat"),
    "export pairs": ("export", "../world/pairs", "{}"),
    "show html": ("show", "../world/pool", "html={}"),
    "run": ("run", "demo", "output={}"),
    "reconstruct": ("reconstruct", "../world/real", "{}", *REDRAW),
    "blend": ("blend", "../world/real", "../world/drawn", "{}", *BLEND),
    "join": ("join", "../world/drawn", "../world/drawn", "{}", "rule.scorer=sharpness"),
    "evaluate": ("evaluate", "../world/lora", "{}", *JUDGE),
    "stack": ("stack", "../world/lora", "../world/lora", "{}"),
    "publish": ("publish", "../world/runs/small", "{}"),
    "import lora": ("import", "{}", "lora=../world/kohya/lora.safetensors", "model=nano"),
    "export kohya": ("export", "../world/lora", "{}"),
    "export merged": ("export", "../world/lora", "{}", "layout=merged"),
}
INTO_MADE = (
    ("publish", "runs/small", "runs/small"),
    ("publish", "runs/small", "runs/small/policy"),
    ("export", "lora", "lora"),
    ("export", "lora", "runs/small", "layout=merged"),
    ("stack", "lora", "lora", "lora"),
    ("evaluate", "lora", "out", *JUDGE, "base=out"),
)
REFUSE_OTHERS = {"show html", "export pairs"}
OUTPUTS: dict[str, tuple[str, Build]] = {
    "a file": ("a", lambda folder: put(folder / "a", "x")),
    "below a file": ("a/b", lambda folder: put(folder / "a", "x")),
    "a loop": ("a", lambda folder: (folder / "a").symlink_to("a")),
    "a device": ("/dev/null", lambda folder: None),
    "below a device": ("/dev/null/a", lambda folder: None),
    "in /proc": ("/proc/a", lambda folder: None),
    "300 characters": ("x" * 300, lambda folder: None),
    "NUL": ("a\0b", lambda folder: None),
    "a FIFO": ("a", lambda folder: os.mkfifo(folder / "a")),
    "a folder of others": ("a", lambda folder: put(folder / "a" / "thesis.tex", "x")),
}


def outputs() -> Iterator[Case]:
    """Places where nothing can be written, for commands that write."""
    for command, words in COMMANDS.items():
        for name, (place, build) in OUTPUTS.items():
            given = tuple(word.format(place) if "{}" in word else word for word in words)
            if not (command == "show html" and name == "a file") and (
                name != "a folder of others" or command in REFUSE_OTHERS
            ):
                yield Case("places to write", f"{command}: {name}", given, build)
    for words in INTO_MADE:
        name = f"{words[0]} into what was made: {' '.join(words[2:])}"
        yield Case("places to write", name, words, lambda folder: copied(folder, "lora", "runs"))


SCORE = ("score", "../world/pool", "device=cpu")
OPTIONS = {
    "generate": (
        (
            "guidance_scale=.inf",
            "guidance_scale=.nan",
            "height=1048576",
            "height=7",
            "batch_size=0",
        ),
        ("num_candidates=-1", "device=mars", "model=..", "prompts=[]", 'prompts="\\ud83d"'),
        ("seed=99999999999999999999999", "num_inference_steps=1.5", "=", "a.b.c=1", "height=[1]"),
    ),
    "train": (
        ("learning_rate=.nan", "adam_beta2=-1", "lora.target_modules=['']", "start=/no/where"),
        ("lora.alpha=.inf", "adam_epsilon=.nan", "loss={name: [dpo]}", "loss=5", "max_steps=0"),
        ("loss={name: dpo, beta: .inf}", "lora=5", "lora.r=0", "report_to=nowhere"),
    ),
    "pair": (
        ("rule.scorer=''", "rule.scorer=../x", "rule=5", "rule={}", "filters.min_score={a: .nan}"),
        ("split.of=[0, 0]", "filters.without=[]", "rule={name: best_worst, scorer: [a]}"),
    ),
    "import comparisons": (
        (
            "resolution=-1",
            "buckets=[[8]]",
            "limit=0",
            "max_pixels=0",
            "comparisons=5",
            "split.take=9",
        ),
        ("comparisons={name: nowhere}", "comparisons={name: folder}", "shard_size=1.0e+30"),
    ),
    "reconstruct": (
        ("timesteps=[]", "timesteps=[-1]", "timesteps=[1000]", "timesteps=[.nan]", "timesteps=5"),
        ("timesteps=[1.0e+400]", "guidance_scale=.inf", "shard_size=0", "height=64"),
    ),
    "blend": (
        ("alpha=.nan", "alpha=-1", "alpha=2", "alpha=.inf", "space=mars", "shard_size=0"),
        ("scorer=''", "scorer=../x", "scorer=nowhere", "scorer=[sharpness]", "model=.."),
    ),
    "join": (
        ("rule.scorer=nowhere", "rule.scorer=../x", "rule.keep_if=.nan", "rule.keep_if=.inf"),
        ("rule=5", "rule={name: nowhere}", "rule.keep_if=1.0e+300", "rule.scorer=''"),
    ),
    "evaluate": (
        ("base=nowhere", "base=..", "prompts=[]", "num_images=0", "num_images=99999999999999"),
        ("scorers=[]", "scorers=[nowhere]", "scorers=5", "scorers=[sharpness, sharpness]"),
        ("features=nowhere", "adapters=5", "adapter.scale=.nan", "seed=-1", "guidance_scale=.nan"),
        ("scorers=[{name: sharpness, label: ../x}]", "scorers=[{name: sharpness, label: 'a/b'}]"),
        ("prompts=[a, a]", "height=1048576", "device=mars", "dtype=float3"),
    ),
    "score": (
        ("scorers=[]", "scorers=[nowhere]", "scorers=[{label: x}]", "batch_size=0", "device=mars"),
        ("scorers=[{name: sharpness, label: human}]", "scorers={name: sharpness}", "scorers=[[]]"),
        ("scorers=[{name: mean, label: a, of: [a]}]", "scorers=[{name: sharpness, label: ../x}]"),
    ),
    "publish": (
        ("license=5", "license=[mit]", "push_to_hub=5", "push_to_hub=../x", "private=5"),
        ("push_to_hub='a b/c'", 'license="\\ud83d"', "data={a: b}", "nothing=1"),
    ),
    "export kohya": (("layout=nowhere", "layout=5", "name=../x", "name=''", "name=a/b"),),
    "import lora": (("model=nowhere", "model=[]", "nothing=1", "lora=5"),),
}


def options() -> Iterator[Case]:
    """Values that no option takes."""
    for command, given in OPTIONS.items():
        words = SCORE if command == "score" else COMMANDS[command]
        words = tuple(word.format("out") if "{}" in word else word for word in words)
        for option in (each for group in given for each in group):
            yield Case("options", f"{command} {option}", (*words, option))


def flipped(held: bytes) -> bytes:
    """The same with one bit in the middle turned."""
    middle = len(held) // 2
    return held[:middle] + bytes([held[middle] ^ 4]) + held[middle + 1 :]


SHAPES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda held: None,
    "empty": lambda held: b"",
    "torn": lambda held: held[: len(held) // 2],
    "binary": lambda held: b"\0\xff",
}
TEXTS: dict[str, Callable[[bytes], bytes | None]] = {
    "a list": lambda held: b"[1]",
    "null": lambda held: b"null",
    "{}": lambda held: b"{}",
    "deep": lambda held: DEEP.encode(),
}
IN_ITS_PLACE = {kind: NO_FILES[kind] for kind in ("folder", "FIFO")}
SMALL = "runs/small"
REPORT, PUBLISH = ("report", SMALL), ("publish", SMALL, "out")
RECONSTRUCT = ("reconstruct", "real", "out", *REDRAW)
MIX = ("blend", "real", "drawn", "out", *BLEND)
JOIN = ("join", "drawn", "drawn", "out", "rule.scorer=sharpness")
EVALUATE = ("evaluate", "lora", "out", *JUDGE)
STACK = ("stack", "lora", "lora", "out")
LORA = "pytorch_lora_weights.safetensors"
OWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pool/done.json", ("pair", "pool", "out", "rule.scorer=human")),
    ("pool/artifact.json", ("score", "pool", "scorers=[sharpness]", "device=cpu")),
    ("pool/candidates-00000.parquet", ("pair", "pool", "out", "rule.scorer=human")),
    ("pairs/done.json", ("train", "pairs", "out", *TRAIN)),
    ("pairs/pools.json", ("show", "pairs")),
    ("pairs/pairs.parquet", ("export", "pairs", "out")),
    ("lora/model.json", ("export", "lora", "out")),
    ("lora/done.json", ("train", "pairs", "lora", *TRAIN)),
    (f"lora/{LORA}", ("export", "lora", "out")),
    ("real/done.json", RECONSTRUCT),
    ("real/candidates-00000.parquet", RECONSTRUCT),
    ("real/candidates-00000.parquet", MIX),
    ("drawn/done.json", MIX),
    ("drawn/candidates-00000.parquet", MIX),
    ("drawn/scores/sharpness/done.json", MIX),
    ("drawn/scores/sharpness/scores-00000.parquet", MIX),
    ("drawn/scores/sharpness/scores-00000.parquet", JOIN),
    ("drawn/candidates-00000.parquet", JOIN),
    ("pairs/pools.json", ("join", "pool", "pairs", "out", "rule.scorer=human")),
    ("pairs/pairs.parquet", ("join", "pool", "pairs", "out", "rule.scorer=human")),
    ("lora/model.json", EVALUATE),
    (f"lora/{LORA}", EVALUATE),
    ("lora/done.json", EVALUATE),
    ("lora/model.json", STACK),
    (f"lora/{LORA}", STACK),
    ("lora/done.json", STACK),
    (f"{SMALL}/report.json", REPORT),
    (f"{SMALL}/config.yaml", REPORT),
    (f"{SMALL}/environment.json", REPORT),
    (f"{SMALL}/policy/metrics.jsonl", REPORT),
    (f"{SMALL}/pairs/pairs.parquet", REPORT),
    (f"{SMALL}/evaluation/policy/candidates-00000.parquet", REPORT),
    (f"{SMALL}/evaluation/policy/scores/sharpness/scores-00000.parquet", REPORT),
    (f"{SMALL}/report.json", PUBLISH),
    (f"{SMALL}/config.yaml", PUBLISH),
    (f"{SMALL}/environment.json", PUBLISH),
    (f"{SMALL}/before_after.png", PUBLISH),
    (f"{SMALL}/policy/model.json", PUBLISH),
    (f"{SMALL}/policy/done.json", PUBLISH),
    (f"{SMALL}/policy/{LORA}", PUBLISH),
    (f"{SMALL}/config.yaml", ("run", "run.yaml")),
    (f"{SMALL}/candidates/artifact.json", ("run", "run.yaml")),
    (f"{SMALL}/policy/model.json", ("run", "run.yaml")),
    ("judged/base/artifact.json", ("evaluate", "lora", "judged", *JUDGE)),
    ("judged/policy/candidates-00000.parquet", ("evaluate", "lora", "judged", *JUDGE)),
)
"""Files that a command reads from another's folder, and the command."""


def copied(folder: Path, *names: str) -> None:
    """Copy folders of the world, so that they can be damaged."""
    for name in names:
        if not (folder / name).exists():
            shutil.copytree(folder.parent / "world" / name, folder / name, symlinks=True)


def _changed(change: Callable[[bytes], bytes | None]) -> Build:
    def build(path: Path) -> None:
        content = change(path.read_bytes())
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    return build


def _replaced(make: Build) -> Build:
    def build(path: Path) -> None:
        path.unlink()
        make(path)

    return build


def own_files() -> Iterator[Case]:
    """Files that a command reads from another, in another shape or no files any more."""
    for file, words in OWN:
        text = Path(file).suffix in {".json", ".jsonl", ".yaml"}
        changes = SHAPES | (TEXTS if text else {"a bit": flipped})
        damages = {name: _changed(change) for name, change in changes.items()}
        damages |= {name: _replaced(make) for name, make in IN_ITS_PLACE.items()}
        named = {word.partition("/")[0] for word in (file, *words)} & {*WORLD}
        named |= {"pool"} if "pairs" in named else set()  # their images lie there
        for name, damage in damages.items():

            def build(
                folder: Path, file: str = file, damage: Build = damage, named: set[str] = named
            ) -> None:
                copied(folder, *named)
                damage(folder / file)

            yield Case("damaged folders", f"{words[0]}, {file}: {name}", words, build)

    def itself(folder: Path) -> None:
        copied(folder, "lora")
        put(folder / "lora/model.json", json.dumps({"base": str(folder / "lora")}))

    for words in (("export", "lora", "out"), EVALUATE, STACK):
        yield Case("damaged folders", f"{words[0]}: a LoRA on itself", words, itself)
    tensors: dict[str, dict[str, torch.Tensor]] = {
        "empty": {},
        "of no LoRA": {"x": torch.ones(2)},
        "not finite": {
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.full(
                (2, 2), float("nan")
            )
        },
    }
    for name, held in tensors.items():
        yield Case(
            "damaged folders",
            f"a LoRA that is {name}",
            ("import", "out", "lora=a.safetensors", "model=nano"),
            lambda folder, held=held: save_file(held, folder / "a.safetensors"),
        )


VALUES = {"text": "x", "null": None, "NaN": math.nan, "huge": 10**400, "missing": ...}
FIELDS = {
    "prompts": ("prompts",),
    "images": ("images",),
    "models": ("models",),
    "a model": ("models", "policy"),
    "the base": ("models", "base"),
    "scores": ("models", "policy", "scores"),
    "a scorer": ("models", "policy", "scores", "sharpness"),
    "a mean": ("models", "policy", "scores", "sharpness", "mean"),
    "an error": ("models", "policy", "scores", "sharpness", "stderr"),
    "a win rate": ("models", "policy", "scores", "sharpness", "win_rate"),
    "an end": ("models", "policy", "scores", "sharpness", "win_rate_low"),
    "a difference": ("models", "policy", "scores", "sharpness", "difference"),
}


def reports() -> Iterator[Case]:
    """A run's `report.json` with fields of other types, or without them."""
    for words in (REPORT, PUBLISH):
        for field, path in FIELDS.items():
            for name, value in VALUES.items():

                def build(folder: Path, path: tuple[str, ...] = path, value: Any = value) -> None:
                    copied(folder, "runs")
                    file = folder / SMALL / "report.json"
                    whole = json.loads(file.read_bytes())
                    inner = whole
                    for key in path[:-1]:
                        inner = inner[key]
                    if value is ...:
                        del inner[path[-1]]
                    else:
                        inner[path[-1]] = value
                    put(file, json.dumps(whole))

                yield Case("reports", f"{words[0]}, {field}: {name}", words, build)


def _without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def _with(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array([value] * table.num_rows)
        return table.set_column(table.column_names.index(name), name, column)

    return change


COLUMNS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no rows": lambda table: table.slice(0, 0),
    "no id": _without("candidate_id"),
    "a number for id": _with("candidate_id", 5),
    "null for id": _with("candidate_id", None),
}
PICTURES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no image": _without("image"),
    "null for image": _with("image", None),
    "a number for image": _with("image", 5),
    "no bytes": _with("image", {"bytes": None, "path": None}),
    "torn bytes": _with("image", {"bytes": b"\x89PNG", "path": None}),
    "no prompt": _without("prompt"),
    "null for prompt": _with("prompt", None),
    "a number for prompt": _with("prompt", 5),
}
SCORES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "text": _with("sharpness", "x"),
    "NaN": _with("sharpness", math.nan),
    "null": _with("sharpness", None),
    "infinite": _with("sharpness", math.inf),
}
READERS: dict[str, tuple[str, ...]] = {
    "reconstruct": RECONSTRUCT,
    "blend": MIX,
    "join": JOIN,
    "pair": ("pair", "drawn", "out", "rule.scorer=sharpness"),
    "show": ("show", "drawn"),
    "export": ("export", "drawn", "out", "layout=rankings"),
    "score": ("score", "drawn", "scorers=[mean_luminance]", "device=cpu"),
    "generate": ("generate", "out", *DRAW, "items=real"),
}


def tables() -> Iterator[Case]:
    """Shards whose columns are not what they should be, in folders that count as finished."""
    for reader, words in READERS.items():
        pool = "real" if reader in {"reconstruct", "generate"} else "drawn"
        for name, change in {**COLUMNS, **PICTURES}.items():
            file = f"{pool}/candidates-00000.parquet"
            yield Case("shards", f"{reader}, {name}", words, _rewritten(pool, file, change))
        if reader in {"blend", "join", "pair", "show", "export"}:
            for name, change in {**COLUMNS, **SCORES}.items():
                file = "drawn/scores/sharpness/scores-00000.parquet"
                build = _rewritten("drawn/scores/sharpness", file, change)
                yield Case("shards", f"{reader}, scores, {name}", words, build)


def _rewritten(stage: str, file: str, change: Callable[[pa.Table], pa.Table]) -> Build:
    def build(folder: Path) -> None:
        copied(folder, "real", "drawn")
        pq.write_table(change(pq.read_table(folder / file)), folder / file)
        put(folder / stage / "done.json", json.dumps({"key": "0"}))

    return build


def prepare(world: Path) -> None:
    """Make small true folders: photographs, compared images, a pool, pairs and a LoRA."""
    photos, compared = world / "photos", world / "compared"
    for number in range(4):
        put(photos / f"{number}.png", encoded(noise(number)))
        put(photos / f"{number}.txt", f"a cat, number {number}")
        put(compared / f"{number}.png", encoded(noise(number)))
    rows = [
        {"prompt": f"a cat {i}", "chosen": f"{i}.png", "rejected": f"{i + 1}.png"} for i in (0, 2)
    ]
    put(compared / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    put(world / "p.txt", "a cat\n")
    put(world / "run.yaml", RUN)
    os.chdir(world)
    place = os.fspath
    pool, pairs = world / "pool", world / "pairs"
    for words in (
        ("import", place(pool), f"comparisons={compared}", "resolution=64"),
        ("pair", place(pool), place(pairs), "rule.scorer=human"),
        ("train", place(pairs), place(world / "lora"), *TRAIN),
        ("import", "real", "images=photos", "resolution=64", "min_crop_side=32"),
        ("generate", "drawn", *DRAW, "items=real"),
        ("score", "drawn", "scorers=[sharpness]", "device=cpu"),
        ("export", "lora", "kohya"),
        ("evaluate", "lora", "judged", *JUDGE),
        ("run", "run.yaml"),
    ):
        if command_line.main(words):
            sys.exit(f"the world is not whole: {words}")


def listing(folder: Path) -> set[str]:
    """All paths below a folder."""
    return {
        os.path.join(place, name)
        for place, below, names in os.walk(folder)
        for name in (*below, *names)
    }


def outcome(case: Case, folder: Path) -> tuple[str, str]:
    """Run a case, and say in a word how it ended, and in a line what it said."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copytree(folder.parent / "world" / "photos", folder / "photos")
    for name in ("p.txt", "run.yaml"):
        shutil.copy(folder.parent / "world" / name, folder)
    os.chdir(folder)
    case.build(folder)
    before, said = listing(folder), folder.parent / "said.txt"
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _child(case, said)
    limit = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang", said.read_text(errors="replace")[-300:]
        time.sleep(0.01)
    status = os.waitstatus_to_exitcode(ended[1])
    text = said.read_text(errors="replace")
    line = next(
        (each for each in reversed(text.splitlines()) if "tastemaker: " in each), text[-300:]
    )
    if "Traceback (most recent call last)" in text or status not in {0, 1, 2}:
        return "traceback", f"status {status}: {line}"
    left = sorted(os.path.relpath(path, folder) for path in listing(folder) - before)
    if status and left:
        return "left behind", f"{', '.join(left[:5])}: {line}"
    return ("refused" if status else "accepted"), line[:300]


def _child(case: Case, said: Path) -> None:
    """Run the command line in this process and end it."""
    status = 99
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = command_line.main(case.words)
    except SystemExit as stop:  # of argparse alone
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def hostile(kinds: list[str]) -> int:
    """Run all cases, or those of some kinds, and write the counts."""
    makers = (
        *(no_files, contents, pictures, programs, outputs, options),
        *(own_files, reports, tables),
    )
    cases = [case for make in makers for case in make()]
    cases = [case for case in cases if not kinds or case.kind in kinds]
    counts: dict[str, Counter[str]] = {}
    bad = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        root = Path(place)
        for folder in ("world", "logs"):
            (root / folder).mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(root / "logs")
        prepare(root / "world")
        for case in cases:
            word, line = outcome(case, root / "case")
            counts.setdefault(case.kind, Counter())[word] += 1
            if word not in {"refused", "accepted"}:
                bad.append(
                    {
                        "kind": case.kind,
                        "case": case.name,
                        "ended": word,
                        "said": line.replace(place, ""),
                    }
                )
                print(f"{word}: {case.kind}, {case.name}: {line}"[:400], flush=True)
        os.chdir(HERE)
    words = ("refused", "accepted", "traceback", "hang", "left behind")
    rows = {
        kind: {"inputs": found.total(), **{word: found[word] for word in words}}
        for kind, found in counts.items()
    }
    for kind, row in rows.items():
        print(kind, row)
    if not kinds:
        text = json.dumps({"inputs": len(cases), "kinds": rows, "not well": bad}, indent=1)
        (HERE / "hostile.json").write_text(text + "\n", encoding="utf-8")
    return int(bool(bad))


def main() -> int:
    """Run the cases of the kinds that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", help="kinds of cases; default: all, written to a file")
    return hostile(parser.parse_args().kinds)


if __name__ == "__main__":
    sys.exit(main())
