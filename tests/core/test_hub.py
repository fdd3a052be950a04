"""Hub ids: without a network they are refused at once, with the remedy."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("offline", [False, True])
def test_an_unreachable_hub_is_said_in_seconds(tmp_path: Path, offline: bool) -> None:
    code = """
from tastemaker.core.errors import TastemakerError
from tastemaker.core.hub import hub_file
try:
    hub_file("acme/none", "acme/none", "model_index.json")
except TastemakerError as error:
    print(error)
"""
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}  # nobody listens there
    away["HF_HUB_OFFLINE"] = str(int(offline))
    begun = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **away}, capture_output=True, text=True
    )
    # The client's own retries would take half a minute.
    assert time.monotonic() - begun < 20
    assert result.stdout == (
        "'acme/none' is not here, and the hub cannot be reached (no network, or HF_HUB_OFFLINE is"
        " set): download it where there is a network, by `hf download acme/none`, or give the path"
        " of a copy.\n"
    )
    assert "Retrying" not in result.stderr
