"""Kill every command at random points, run it again, compare every byte with an undisturbed run.

    python benchmarks/reliability/kills.py --kills 200 --seed 0

Each trial starts a command on the embedded model in a process of its own, sends SIGKILL to it, runs
the same command again, and compares the output folder with that of a run that nobody disturbed:
files that are missing, that differ, and that should not be there (temporary files, locks).
Half of the kills come right before a change of the file system (an open for writing, a rename, a
removal, a new folder: counted by an audit hook), half after a random share of the command's time;
every fourth trial is killed twice. Points are drawn from the seed, the command and the trial.

Results go to `kills.json` beside this file: a row per command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

HERE = Path(__file__).parent
MODEL = ("model=nano", "device=cpu")
DRAW = (*MODEL, "num_inference_steps=1", "guidance_scale=1", "batch_size=2", "shard_size=2")
TRAIN = (*MODEL, "max_steps=4", "batch_size=2", "save_steps=1", "report_to=null", "lora.r=2")
RUN = """\
recipe: {recipe}
name: killed
output: runs
model: nano
device: cpu
{stages}
evaluate: {{prompts: test.txt, num_inference_steps: 1, guidance_scale: 1, scorers: [sharpness]}}
"""
DPO = """\
generate: {prompts: train.txt, num_candidates: 2, num_inference_steps: 1, shard_size: 2}
score: {scorers: [sharpness]}
pair: {rule: {name: best_worst, scorer: sharpness}}
train: {lora: {r: 2}, max_steps: 2, batch_size: 2, save_steps: 1, report_to: null}"""
ALIGN = """\
train: {prompts: train.txt, scorer: nano_preference, lora: {r: 2}, max_steps: 2, batch_size: 1,
  num_inference_steps: 1, keep: 1, save_steps: 1}"""


@dataclass(frozen=True)
class Command:
    """A command line, the folder or file that it writes, and what lies there before it starts."""

    words: tuple[str, ...]
    output: str
    before: str | None = None


COMMANDS = {
    "generate": Command(("generate", "pool", *DRAW, "prompts=train.txt"), "pool"),
    "import images": Command(
        ("import", "real", "images=photos", "shard_size=2", "resolution=64"), "real"
    ),
    "import comparisons": Command(
        ("import", "compared", "comparisons=compared_files", "shard_size=2"), "compared"
    ),
    "reconstruct": Command(("reconstruct", "real", "redrawn", *DRAW, "timesteps=[400]"), "redrawn"),
    "score": Command(
        ("score", "pool", "scorers=[sharpness, nano_preference]", "device=cpu"), "pool", "unscored"
    ),
    "blend": Command(
        ("blend", "real", "captioned", "mixed", *MODEL, "scorer=sharpness", "shard_size=2"), "mixed"
    ),
    "pair": Command(("pair", "pool", "pairs", "rule.scorer=sharpness"), "pairs"),
    "join": Command(
        (
            "join",
            "captioned",
            "captioned",
            "joined",
            "rule.name=best_worst",
            "rule.scorer=sharpness",
        ),
        "joined",
    ),
    "train": Command(("train", "pairs", "lora", *TRAIN), "lora"),
    "train dde": Command(("train", "pairs", "dde", *TRAIN, "credit=dde", "ema_decay=0.5"), "dde"),
    "train on": Command(
        (
            *("train", "pairs", "on", *TRAIN, "start=lora", "reference=frozen_adapter"),
            *("text_lora.r=2", "validation.steps=2", "validation.prompts=[a cat]"),
            "validation.num_inference_steps=1",
        ),
        "on",
    ),
    "train full": Command(
        ("train", "pairs", "full", *TRAIN[:-1], "method=full", "reference=frozen_copy"), "full"
    ),
    "personalize": Command(
        (
            *(
                "personalize",
                "subject",
                *MODEL,
                "photographs=photos",
                "class_name=cat",
                "max_steps=3",
            ),
            *("save_steps=1", "batch_size=2"),
        ),
        "subject",
    ),
    "evaluate": Command(
        (
            *("evaluate", "lora", "judged", "base=nano", "device=cpu", "prompts=test.txt"),
            *("num_inference_steps=1", "guidance_scale=1", "scorers=[sharpness, nano_judge]"),
        ),
        "judged",
    ),
    "export kohya": Command(("export", "lora", "kohya"), "kohya"),
    "export merged": Command(("export", "lora", "merged", "layout=merged"), "merged"),
    "export pairs": Command(("export", "pairs", "exported", "layout=webdataset"), "exported"),
    "import lora": Command(
        ("import", "again", "lora=kohya/lora.safetensors", "model=nano"), "again"
    ),
    "stack": Command(("stack", "lora", "subject", "stacked"), "stacked"),
    "show": Command(("show", "pool", "html=page/show.html"), "page"),
    "run": Command(("run", "diffusion_dpo.yaml"), "runs"),
    "run align_prop": Command(("run", "align_prop.yaml"), "runs"),
    "report": Command(("report", "runs/killed"), "runs", "run_done"),
    "publish": Command(("publish", "run_done/killed", "card", "license=mit"), "card"),
}


def prepare() -> None:
    """Write the inputs that no command makes: prompts, photographs, compared images, runs."""
    import numpy as np
    from PIL import Image

    Path("train.txt").write_text("a cat\na dog\na pig\na rose\n", encoding="utf-8")
    Path("test.txt").write_text("a bird\na fish\n", encoding="utf-8")
    for recipe, stages in (("diffusion_dpo", DPO), ("align_prop", ALIGN)):
        text = RUN.format(recipe=recipe, stages=stages)
        Path(f"{recipe}.yaml").write_text(text, encoding="utf-8")
    generator = np.random.default_rng(0)
    for folder in ("photos", "compared_files"):
        Path(folder).mkdir()
        for number in range(6):
            pixels = generator.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{number}.png")
    for number in range(6):
        Path(f"photos/{number}.txt").write_text("a cat" if number % 2 else "a dog", "utf-8")
    lines = [
        {"prompt": f"prompt {i}", "chosen": f"{i}.png", "rejected": f"{(i + 1) % 6}.png"}
        for i in range(6)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    Path("compared_files/metadata.jsonl").write_text(text, encoding="utf-8")


def between(name: str) -> None:
    """Keep what later commands need of the output of an earlier one."""
    if name == "generate":
        shutil.copytree("pool", "unscored")
    if name == "import images":
        words = ("generate", "captioned", *DRAW, "items=real", "num_candidates=2")
        assert start(words) == 0
        assert start(("score", "captioned", "scorers=[sharpness]", "device=cpu")) == 0
    if name == "run":
        shutil.copytree("runs", "run_done")


CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link"}


def changes(event: str, arguments: Sequence[object]) -> bool:
    """Whether an audit event is a change of the file system."""
    if event != "open":
        return event in CHANGES
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@dataclass
class Run:
    """An undisturbed run of a command: how long it takes, its changes, and what it writes."""

    seconds: float
    changes: int
    files: dict[str, str]


@dataclass
class Row:
    """What the kills of one command did.

    Attributes:
        kills: SIGKILLs that came before the command had ended.
        failed: Runs afterwards that did not end with status 0.
        missing: Files that the undisturbed run has and the killed one lacks.
        differing: Files with other bytes.
        stray: Files that the undisturbed run does not have.
    """

    kills: int = 0
    failed: int = 0
    missing: int = 0
    differing: int = 0
    stray: int = 0
    names: list[str] = field(default_factory=list)


def start(words: Sequence[str], *, at_change: int | None = None, after: float | None = None) -> int:
    """Run a command in a fork; return its exit status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        _child(words, at_change)
    if after is not None:
        limit = time.monotonic() + after
        while time.monotonic() < limit:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(words: Sequence[str], at_change: int | None) -> None:
    from tastemaker.cli.command_line import main

    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seen = 0

    def count(event: str, arguments: Sequence[object]) -> None:
        nonlocal seen
        if changes(event, arguments):
            seen += 1
            if seen == at_change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        status = main(list(words))
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 99
    if at_change == 0:
        Path("changes.txt").write_text(str(seen), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def digests(place: Path) -> dict[str, str]:
    """Hash every file below a folder."""
    return {
        str(file.relative_to(place)): hashlib.blake2b(file.read_bytes()).hexdigest()
        for file in sorted(place.rglob("*"))
        if file.is_file()
    }


def reset(command: Command) -> None:
    shutil.rmtree(command.output, ignore_errors=True)
    if command.before:
        shutil.copytree(command.before, command.output)


def undisturbed(name: str, command: Command) -> Run:
    """Run a command twice: what differs between the two is no matter of kills."""
    found: list[dict[str, str]] = []
    for _ in range(2):
        reset(command)
        began = time.monotonic()
        status = start(command.words, at_change=0)
        if status:
            raise SystemExit(f"{name}: status {status}\n{Path('log.txt').read_text()[-2000:]}")
        seconds = time.monotonic() - began
        found.append(digests(Path(command.output)))
    same = {file: value for file, value in found[0].items() if found[1].get(file) == value}
    if other := sorted(found[0].keys() ^ same.keys()):
        print(f"  {name}: two undisturbed runs differ in {other}")
    return Run(seconds, int(Path("changes.txt").read_text()), same)


def kill(command: Command, whole: Run, draw: random.Random, row: Row, *, times: int) -> str:
    """Kill a command so many times, end it, and count what is not as in the undisturbed run."""
    reset(command)
    points = []
    for _ in range(times):
        if draw.random() < 0.5:
            at = draw.randint(1, whole.changes)
            points.append(f"change {at}")
            status = start(command.words, at_change=at)
        else:
            after = draw.random() * whole.seconds
            points.append(f"{after:.3f} s")
            status = start(command.words, after=after)
        row.kills += status == -signal.SIGKILL
    row.failed += start(command.words) != 0
    now = digests(Path(command.output))
    wrong = [f"missing {file}" for file in whole.files if file not in now]
    row.missing += len(wrong)
    differing = [file for file, value in whole.files.items() if now.get(file, value) != value]
    row.differing += len(differing)
    stray = [file for file in now if file not in whole.files]
    row.stray += len(stray)
    wrong += [f"differs {file}" for file in differing] + [f"stray {file}" for file in stray]
    row.names += wrong
    return f"{', '.join(points)}: {wrong}" if wrong else ""


def measure(
    kills: int, seed: int, names: Sequence[str], show: Callable[[str], None]
) -> dict[str, Row]:
    rows = {name: Row() for name in names}
    for name, command in COMMANDS.items():
        whole = undisturbed(name, command)
        trials = range(names.index(name), kills, len(names)) if name in rows else ()
        for number in trials:
            draw = random.Random(f"{seed} {name} {number}")
            wrong = kill(command, whole, draw, rows[name], times=2 if number % 4 == 3 else 1)
            if wrong:
                show(f"  {name}, trial {number}: {wrong}")
        if name in rows:
            show(f"{name}: {whole.seconds:.1f} s, {whole.changes} changes; {rows[name]}")
        between(name)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="trials in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--output", type=Path, default=HERE / "kills.json")
    options = parser.parse_args()
    output = options.output.resolve()

    # Imported before the forks, so that each of them starts at once.
    import tastemaker.backbones.base
    import tastemaker.evaluation.evaluate
    import tastemaker.recipes
    import tastemaker.training.preference.trainer  # noqa: F401

    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
        prepare()
        rows = measure(
            options.kills, options.seed, options.commands, lambda s: print(s, flush=True)
        )
    result = {
        "command": f"kills.py --kills {options.kills} --seed {options.seed}",
        "kills": sum(row.kills for row in rows.values()),
        **{
            what: sum(getattr(row, what) for row in rows.values())
            for what in ("failed", "missing", "differing", "stray")
        },
        "commands": {name: vars(row) for name, row in rows.items()},
    }
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({key: value for key, value in result.items() if key != "commands"})


if __name__ == "__main__":
    main()
