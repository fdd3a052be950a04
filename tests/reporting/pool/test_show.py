"""`tastemaker show`: what a user learns of a pool or of pairs, in the terminal and as a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tastemaker.cli.command_line import main
from tastemaker.reporting.pool.overview import read
from tastemaker.reporting.pool.text import blocks
from tastemaker.storage.images import encode_png


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pools that share a prompt and a picture, and the pairs of the first."""
    root = tmp_path_factory.mktemp("shown")
    for name, start in (("a", 0), ("b", 11)):
        rows = [
            {
                "caption": f"prompt <{(start + number) // 2}>",
                "jpg_0": encode_png(Image.new("RGB", (12, 8), (7 * (start + number), 0, 0))),
                "jpg_1": encode_png(Image.new("RGB", (12, 8), (0, 7 * (start + number), 9))),
                "label_0": (1.0, 0.0, 0.5)[number % 3],
                "model_0": "one",
            }
            for number in range(12)
        ]
        (root / f"{name}.in").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), root / f"{name}.in" / "x.parquet")
        command = ["import", str(root / name), f"comparisons={root / f'{name}.in'}", "shard_size=6"]
        assert main([*command, "filters.without=[zebra]", "ties=labelled"]) == 0
    assert main(["pair", str(root / "a"), str(root / "pairs"), "rule.scorer=human"]) == 0
    return root


def test_a_pool_in_the_terminal(folders: Path, capsys: Any) -> None:
    assert main(["show", str(folders / "a")]) == 0
    told = capsys.readouterr().out
    for line in (
        "Images  24",
        "Prompts  12",
        "Images per prompt  2",
        "Sources  imported: 24",
        "Models  one: 12",
        "Sizes  12 x 8: 24",
        "human  mean 0.5, standard deviation 0.408, from 0 to 1",
    ):
        assert line in told
    assert "\x1b" not in told  # a pipe shows no colours


def test_pairs_and_what_two_folders_share(folders: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.html"
    words = ["show", str(folders / "pairs"), f"against={folders / 'b'}", f"html={page}", "images=3"]
    assert main(words) == 0
    told = capsys.readouterr().out
    for line in (
        "Pairs  8",
        "Images  16",
        "Rules  best_worst: 8",
        "Dropped  4: all candidates tie",
        "margin  mean 1",
        "human, chosen  mean 1,",
        "human, rejected  mean 0,",
        "Prompts also in b  1; the first is 'prompt <5>'",
    ):
        assert line in told
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 3
    assert text.count("data:image/png") == 6
    assert "prompt &lt;" in text
    assert "prompt <" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert main(words) == 0
    assert page.read_text(encoding="utf-8") == text


def test_pictures_in_two_pools_are_counted(folders: Path, capsys: Any) -> None:
    assert main(["show", str(folders / "a"), f"against={folders / 'b'}"]) == 0
    told = capsys.readouterr().out
    assert "Pictures also in b  2; the first is" in told  # both images of the last comparison
    assert main(["show", str(folders / "a"), f"against={folders / 'a'}"]) == 0
    assert "Pictures also in a  24;" in capsys.readouterr().out


def test_a_terminal_with_colours_shows_the_images(folders: Path) -> None:
    contents = read(folders / "a", 5)
    assert len(contents.cards) == 5
    lines = blocks(contents).split("\n")
    assert sum("▀" in line for line in lines) == 18  # two rows of cells, nine lines each
    assert "\x1b[38;2;0;0;0" in lines[2]


def test_the_page_of_a_pool(folders: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["show", str(folders / "a"), f"html={page}"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 24
    assert text.count("<svg") == 2
    assert "human 1, tie 0" in text


def test_what_is_neither_is_named(tmp_path: Path, capsys: Any) -> None:
    assert main(["show", str(tmp_path)]) == 2
    assert "has no candidates" in capsys.readouterr().err


def test_show_imports_no_torch(folders: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tastemaker.cli.command_line import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    words = ["show", str(folders / "pairs"), f"html={tmp_path / 'page.html'}"]
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def test_cards_are_spread_evenly(folders: Path) -> None:
    cards = read(folders / "pairs", 100).cards
    assert len(cards) == 8
    widths = [image.width for card in cards for image in card.images.values() if image]
    assert np.array_equal(widths, [12] * 16)
