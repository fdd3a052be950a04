"""A run as a folder for others: weights that load, a card that says what was measured, the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import write_run
from tastemaker.cli.command_line import main
from tastemaker.config.loading import load
from tastemaker.recipes.run import run
from tastemaker.storage.files import UMASK, write_json
from tastemaker.storage.run_dir import RunDir


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> RunDir:
    return run(load(str(write_run(tmp_path_factory.mktemp("run"), tiny_model, tiny_clip))))


def header(folder: Path) -> dict[str, Any]:
    """What the hub reads of a card."""
    _, text, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return dict(yaml.safe_load(text))


def test_folder_loads_and_says_what_was_measured(
    finished: RunDir, tiny_model: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    place = tmp_path / "published"
    words = ["license=openrail", "data=Four prompts of a test."]
    assert main(["publish", str(finished.folder), str(place), *words]) == 0
    names = {file.name for file in place.iterdir()}
    weights = {"pytorch_lora_weights.safetensors", "small.safetensors", "model.json"}
    assert names >= weights | {"README.md", "config.yaml", "report.json", "before_after.png"}
    found = header(place)
    assert found["license"] == "openrail"
    assert "base_model" not in found  # a folder of this machine is nobody else's base
    text = (place / "README.md").read_text(encoding="utf-8")
    rate = json.loads(finished.report_json.read_text())["models"]["policy"]["scores"]["tiny"]
    assert f"{100 * rate['win_rate']:.1f} %" in text
    assert "Four prompts of a test." in text
    assert "None of the prompts is among those of training." in text
    assert "decided in training" in text
    assert "| policy | tiny* |" in text
    assert "A LoRA for `pipeline`" in text  # the base's folder, without the way to it
    assert (place / "config.yaml").read_text().rstrip() in text
    for file in place.glob("*.[jmy]*"):
        for folder in (finished.folder.parents[1], tmp_path):
            assert str(folder) not in file.read_text(encoding="utf-8"), file
    settings = yaml.safe_load(finished.config.read_text())
    published = yaml.safe_load((place / "config.yaml").read_text())
    assert published == {**settings, **published}
    assert published["train"] == {**settings["train"], "model": tiny_model.name}
    modes = {oct(file.stat().st_mode & 0o777) for file in place.glob("*.safetensors")}
    assert modes == {oct(0o666 & ~UMASK)}
    pipeline = StableDiffusionPipeline.from_pretrained(str(tiny_model))
    pipeline.load_lora_weights(str(place), weight_name="pytorch_lora_weights.safetensors")
    assert pipeline.get_active_adapters()


def test_card_says_how_many_prompts_were_trained_on(run_file: Path, tmp_path: Path) -> None:
    held_out = run_file.parent / "held_out.txt"
    held_out.write_text("A  cat.\na moon\n", encoding="utf-8")
    finished = run(load(str(run_file)))
    assert json.loads(finished.report_json.read_text())["prompts_trained_on"] == 1
    assert "1 of 2 prompts of the evaluation are trained on" in finished.report_html.read_text()
    assert main(["publish", str(finished.folder), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "1 of the prompts were trained on" in card
    assert "None of the prompts" not in card


def test_unfinished_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "is not a finished run" in capsys.readouterr().err


def test_what_cannot_be_published_leaves_nothing(
    finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = RunDir(shutil.copytree(finished.folder, tmp_path / "run"))
    held = own.config.read_bytes()

    def refused(says: str, place: Path, *words: str) -> None:
        assert main(["publish", str(own.folder), str(place), *words]) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert own.config.read_bytes() == held

    refused("was made by another command", own.folder)
    refused("was made by another command", own.policy)
    refused("push_to_hub: ", tmp_path / "out", "push_to_hub=../taste")
    write_json(own.environment, [1])
    refused("environment.json is damaged", tmp_path / "out")
    weights = own.policy / "pytorch_lora_weights.safetensors"
    held_weights = weights.read_bytes()
    weights.write_bytes(held_weights[:-1] + bytes([held_weights[-1] ^ 1]))
    refused("pytorch_lora_weights.safetensors is damaged", tmp_path / "out")
    assert main(["export", str(own.policy), str(tmp_path / "out")]) == 2
    assert "pytorch_lora_weights.safetensors is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub's that an upload asks for; what was sent is kept."""

    seen: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, body))
        answer: dict[str, Any] = {"url": f"http://{self.headers['Host']}/somebody/taste"}
        if "preupload" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": each["path"], "uploadMode": "regular"} for each in files]
            answer = {"files": [{**each, "shouldIgnore": False} for each in modes]}
        elif "/commit/" in self.path:
            answer = {
                "commitUrl": f"http://{self.headers['Host']}/somebody/taste/commit/0",
                "commitOid": "0",
                "success": True,
            }
        self._say(answer)

    def do_GET(self) -> None:
        self._say({"id": "somebody/taste", "sha": "0", "siblings": []})

    def _say(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A hub on loopback: its address and what it was sent."""
    Hub.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Hub.seen
    server.shutdown()
    server.server_close()


def published(run: RunDir, place: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Upload in a process of its own, which reads the hub's address when it starts."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
    words = ["publish", str(run.folder), str(place), "push_to_hub=somebody/taste"]
    return subprocess.run(
        [sys.executable, "-m", "tastemaker", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_upload_sends_every_file(
    finished: RunDir, tmp_path: Path, hub: tuple[str, list[tuple[str, bytes]]]
) -> None:
    endpoint, seen = hub
    place = tmp_path / "published"
    done = published(finished, place, endpoint)
    assert done.returncode == 0, done.stderr[-2000:]
    made = next(json.loads(body) for path, body in seen if path.endswith("/repos/create"))
    assert made["name"] == "taste"
    assert made.get("private") is True or made.get("visibility") == "private"
    commit = next(body for path, body in seen if "/commit/" in path)
    lines = [json.loads(line) for line in commit.splitlines()]
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert sent == {file.name for file in place.iterdir()}


@pytest.mark.slow
def test_hub_that_is_not_there_leaves_the_folder(finished: RunDir, tmp_path: Path) -> None:
    place = tmp_path / "published"
    done = published(finished, place, "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "could not be uploaded" in done.stderr
    assert (place / "README.md").is_file()
