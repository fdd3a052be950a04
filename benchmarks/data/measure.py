"""Memory and speed of import, scoring, pairing and export, on generated rows with tiny images.

    python benchmarks/data/measure.py import --rows 1000 10000 100000 1000000
    python benchmarks/data/measure.py pool --images 100000

Each import runs in a process of its own, so that its peak is its own. `--work` names a folder for
the generated data (default: a temporary one, which is removed). Results are printed as tables, and
kept as JSON lines in `--results`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SIDE = 16
PROMPTS = 1000
CANDIDATES = 4
FORMATS = ("pick_a_pic", "webdataset", "folder", "twins", "rankings", "images")


def png(seed: int) -> bytes:
    """Two random colours, of as many kinds as there are rows."""
    from PIL import Image

    from tastemaker.storage.images import encode_png

    colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return encode_png(
        Image.fromarray(np.kron(colours, np.ones((SIDE // 2, SIDE // 2, 1), np.uint8)))
    )


def comparisons(rows: int) -> Iterator[Any]:
    from tastemaker.datasets.comparisons import Comparison

    for row in range(rows):
        first = (1.0, 0.0, 0.5)[row % 3]
        images = png(2 * row), png(2 * row + 1)
        yield Comparison("", f"prompt {row % PROMPTS}", images, (first, 1 - first), ("a", "b"))


def resident() -> float:
    """Megabytes now."""
    return _status("VmRSS")


def peak() -> float:
    """Megabytes at the peak of this process (`ru_maxrss` would count what started it as well)."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def imported(layout: str, source: Path, output: Path) -> dict[str, float]:
    """Import in this process."""
    from tastemaker.config.datasets import ImagesConfig, ImportConfig
    from tastemaker.config.loading import section
    from tastemaker.datasets.importing import import_comparisons, import_images

    began = time.monotonic()
    if layout == "images":
        config = section(ImagesConfig, None, (f"images={source}", f"resolution={SIDE}"))
        import_images(config, output)
    else:
        import_comparisons(section(ImportConfig, None, (f"comparisons={source}",)), output)
    return {"seconds": time.monotonic() - began, "peak": peak()}


def in_a_process(*words: str) -> dict[str, float]:
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def measure_imports(parsed: argparse.Namespace, work: Path) -> None:
    from tastemaker.core.registry import LAYOUTS

    print("| format | rows | seconds | rows/s | MB at the peak |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for layout in parsed.formats:
        for rows in parsed.rows:
            source, output = work / "source", work / "pool"
            LAYOUTS.bind("captions" if layout == "images" else layout, {})(
                comparisons(rows), source
            )
            found = in_a_process("one", layout, str(source), str(output))
            for folder in (source, output):
                shutil.rmtree(folder)
            keep(parsed.results, {"import": layout, "rows": rows, **found})
            seconds = found["seconds"]
            print(
                f"| {layout} | {rows} | {seconds:.1f} | {rows / seconds:.0f}"
                f" | {found['peak']:.0f} |",
                flush=True,
            )


def make_pool(folder: Path, images: int) -> None:
    """Candidates as `generate` writes them, four a prompt."""
    from tastemaker.storage.artifact import Artifact
    from tastemaker.storage.candidates import candidate_table
    from tastemaker.storage.parquet import write_table
    from tastemaker.storage.pool import Pool

    artifact = Artifact(folder, "generate", {"images": images})
    with artifact.claimed():
        shard = 256
        for start in range(0, images, shard):
            rows = [
                {
                    "candidate_id": f"{number:08d}",
                    "prompt_id": f"p{number // CANDIDATES}",
                    "prompt": f"prompt {number // CANDIDATES}",
                    "seed": number % CANDIDATES,
                    "source": "generated",
                    "source_id": "",
                    "timestep": None,
                    "model": "none",
                    "image": {"bytes": png(number), "path": None},
                }
                for number in range(start, min(start + shard, images))
            ]
            write_table(Pool(folder).shard(start // shard), candidate_table(rows))
        artifact.finish(candidates=images)


def rules(scorers: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """Options of every registered rule."""
    from tastemaker.core.registry import RULES

    first, second = scorers
    options: dict[str, dict[str, Any]] = {
        "best_worst": {"scorer": first},
        "threshold": {"scorer": first, "gap": 0.0},
        "weighted": {"weights": {first: 1.0, second: 1.0}, "zscored": True},
        "angle": {"fidelity": first, "prompt": second, "zscored": True},
    }
    lacking = set(RULES.names()) - set(options)
    assert not lacking, f"no options here for {lacking}"
    return options


def measure_pool(parsed: argparse.Namespace, work: Path) -> None:
    """Score, pair by every rule and export, all in this process."""
    from tastemaker.config.datasets import DataExportConfig, PairConfig
    from tastemaker.config.sections import ScoreConfig
    from tastemaker.core.registry import LAYOUTS
    from tastemaker.datasets.exporting import export_comparisons
    from tastemaker.evaluation.score import score
    from tastemaker.pairing.pair import pair

    pool, images = work / "pool", parsed.images
    make_pool(pool, images)
    print("| step | seconds | images/s | MB after | MB at the peak so far |")
    print("| --- | ---: | ---: | ---: | ---: |")

    def step(name: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        found = {"seconds": seconds, "resident": resident(), "peak": peak()}
        keep(parsed.results, {"step": name, "images": images, **found})
        print(
            f"| {name} | {seconds:.1f} | {images / seconds:.0f} | {found['resident']:.0f}"
            f" | {found['peak']:.0f} |",
            flush=True,
        )

    words = [yaml.safe_load(scorer) for scorer in parsed.scorers]
    scorers = ScoreConfig.model_validate({"scorers": words}).scorers
    for scorer in scorers:
        config = ScoreConfig(scorers=(scorer,), device="cpu")
        step(f"score {scorer.column}", lambda config=config: score(config, pool))
    for rule, options in rules((scorers[0].column, scorers[1].column)).items():
        config = PairConfig.model_validate({"rule": {"name": rule, **options}})
        step(f"pair {rule}", lambda config=config, rule=rule: pair(config, pool, work / rule))
    for layout in LAYOUTS.names():
        source = pool if layout in {"rankings", "captions"} else work / "best_worst"
        config = DataExportConfig.model_validate(
            {"layout": layout, "scorer": scorers[0].column if source is pool else None}
        )
        place = work / f"out-{layout}"
        step(
            f"export {layout}",
            lambda config=config, source=source, place=place: export_comparisons(
                config, source, place
            ),
        )


def keep(file: Path | None, row: dict[str, Any]) -> None:
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    imports = verbs.add_parser("import")
    imports.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    imports.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    pool = verbs.add_parser("pool")
    pool.add_argument("--images", type=int, default=100_000)
    # A network takes its own time, whatever the pool: nano_preference scores 40 images a second.
    pool.add_argument(
        "--scorers", nargs="+", default=["sharpness", "{name: hue, target: 120}"], help="YAML"
    )
    for verb in (imports, pool):
        verb.add_argument("--work", type=Path)
        verb.add_argument("--results", type=Path)
    one = verbs.add_parser("one")
    for name in ("layout", "source", "output"):
        one.add_argument(name)
    parsed = parser.parse_args()
    if parsed.verb == "one":
        found = imported(parsed.layout, Path(parsed.source), Path(parsed.output))
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(dir=parsed.work) as work:
        measure = measure_imports if parsed.verb == "import" else measure_pool
        measure(parsed, Path(work))


if __name__ == "__main__":
    main()
