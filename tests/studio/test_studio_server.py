"""The studio's server as a process: votes survive it, and nobody but the page is let in."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from folders import put
from pictures import encoded, noise
from studies import pairs_of, pool_of
from tastemaker.core.errors import TastemakerError
from tastemaker.storage.images import decode
from tastemaker.storage.votes import read_votes, task_id

pytest.importorskip("starlette", reason="needs the extra 'studio'")
pytest.importorskip("uvicorn", reason="needs the extra 'studio'")

NASTY = "<script>alert(1)</script>"


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    token: str
    output: Path
    said: str

    def raw(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request with just these headers; names with _ for -, None leaves one out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}"}
        if method == "POST":
            given |= {"X_Tastemaker": "1", "Content_Type": "application/json"}
            given["Content_Length"] = str(len(data))
        for name, value in {**given, **headers}.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(data if method == "POST" else None)
        with contextlib.closing(connection):
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def get(self, path: str) -> Any:
        status, _, data = self.raw("GET", f"/{self.token}/{path}")
        assert status == 200, data
        return json.loads(data)

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        status, _, data = self.raw("POST", f"/{self.token}/{path}", body)
        return status, json.loads(data)

    def tasks(self, voter: str, count: int = 1) -> list[dict[str, Any]]:
        from urllib.parse import quote

        return self.get(f"api/tasks?voter={quote(voter)}&count={count}")["tasks"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()  # type: ignore[union-attr]


def start(*words: object, output: Path) -> Server:
    command = [sys.executable, "-m", "tastemaker", "studio", *map(str, words)]
    command += [f"output={output}", "browser=false"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if line.startswith("http://"):
            _, _, place, token, _ = line.split("/", 4)
            return Server(process, int(place.rsplit(":", 1)[1]), token, output, said)
    raise AssertionError(said)


@contextlib.contextmanager
def served(*words: object, output: Path) -> Iterator[Server]:
    server = start(*words, output=output)
    try:
        yield server
    finally:
        server.kill()


def ballot(task: dict[str, Any], voter: str, answer: Any = "left", **more: Any) -> dict[str, Any]:
    vote = {"vote_id": str(uuid.uuid4()), "voter": voter, "answer": answer, "seconds": 1.25}
    same = {each: task[each] for each in ("task_id", "shown", "ticket")}
    return {**vote, **same, "question": task["question"]["key"], **more}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("studio")
    pool = pool_of(place / "pool", (f"{NASTY} “quoted” & <img src=x>", "../../etc/passwd"), each=6)
    photograph = put(place / "subject" / "a.jpg", encoded(noise(1), "JPEG"))
    words = (pool, "questions.overall=Which?", "questions.fidelity=Which shows it?")
    with served(
        *words, f"references.fidelity={photograph.parent}", output=place / "study"
    ) as running:
        yield running


def test_a_vote_is_recorded_whole(server: Server) -> None:
    status, entered = server.post("api/voters", name="  Ada ")
    assert (status, entered["voter"], entered["done"]) == (200, "Ada", 0)
    assert entered["total"] == 2 * (30 + 2)  # 15 pairs of each prompt in blocks of 9
    first, second, third = server.tasks("Ada", 3)
    assert [each["question"]["key"] for each in (first, second)] == ["overall", "fidelity"]
    assert first["shown"] == second["shown"] != third["shown"]
    assert len(second["question"]["references"]) == 1
    body = ballot(first, "Ada", "right")
    assert server.post("api/votes", **body) == (200, {"done": 1, "total": entered["total"]})
    assert server.post("api/votes", **body)[1]["done"] == 1  # the reply was lost: sent again
    again = {**body, "vote_id": "another"}
    assert server.post("api/votes", **again)[0] == 409
    (vote,) = read_votes(server.output)
    pool = set(vote.shown)
    assert pool <= {f"{prompt}-{draw}-m" for prompt in (0, 1) for draw in range(6)}
    assert (vote.vote_id, vote.answer, vote.seconds) == (body["vote_id"], "right", 1.25)
    assert (vote.chosen_by, vote.probability) == ("random", 1 / 30)
    assert vote.task_id == first["task_id"] == task_id("overall", "pair", vote.shown)
    assert vote.prompt == first["prompt"]
    assert vote.models == ("", "")
    assert server.tasks("Ada", 2) == [second, third]
    undone = server.post("api/undo", vote_id="undo-1", voter="Ada")
    assert undone == (200, {"task": first, "done": 0, "total": entered["total"]})
    assert server.post("api/undo", vote_id="undo-1", voter="Ada") == undone
    assert server.post("api/undo", vote_id="undo-2", voter="Ada")[0] == 404
    assert server.post("api/votes", **body)[1]["done"] == 0  # what was undone stays so
    assert read_votes(server.output) == []
    assert server.tasks("Ada", 3) == [first, second, third]


def test_pictures_are_the_candidates_and_tell_nothing(server: Server) -> None:
    task = server.tasks("Bo")[0]
    assert not re.search(r"[01]-[0-5]-m", json.dumps(task))
    for image in task["images"]:
        status, headers, data = server.raw("GET", f"/{server.token}/{image['url']}")
        assert (status, headers["content-type"]) == (200, "image/png")
        assert headers["cache-control"] == "private, max-age=31536000, immutable"
        assert decode(data, "it").size == (image["width"], image["height"])
    vote = ballot(task, "Bo")
    assert server.post("api/votes", **vote)[0] == 200
    recorded = next(each for each in read_votes(server.output) if each.voter == "Bo")
    for name, image in zip(recorded.shown, task["images"], strict=True):
        prompt, draw = map(int, name.split("-")[:2])
        _, _, data = server.raw("GET", f"/{server.token}/{image['url']}")
        expected = noise(100 * prompt + draw, 8 + prompt, 8 + draw)
        assert decode(data, name).tobytes() == expected.tobytes()
    assert server.raw("GET", f"/{server.token}/images/{'0' * 16}")[0] == 404


def test_scripts_and_paths_in_names_are_text(server: Server) -> None:
    before = {path for path in server.output.parent.rglob("*") if path.is_file()}
    names = [NASTY, "../../../evil", "..\\evil", "a\u00e9\u4e2d", "con", "x" * 40, "%2e%2e%2fz"]
    for name in names:
        status, entered = server.post("api/voters", name=name)
        assert (status, entered["voter"]) == (200, name)
        assert server.post("api/votes", **ballot(server.tasks(name)[0], name))[0] == 200
    voters = {each["name"]: each["votes"] for each in server.get("api/study")["voters"]}
    assert all(voters[name] == 1 for name in names)
    after = {path for path in server.output.parent.rglob("*") if path.is_file()} - before
    assert len(after) == len(names)
    assert {path.parent for path in after} == {server.output / "votes"}
    _, headers, _ = server.raw("GET", f"/{server.token}/api/study")
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["content-security-policy"]
    for bad in ("", " ", "x" * 41, "a\0b", "\ud800", 3, None, ["a"]):
        assert server.post("api/voters", name=bad)[0] == 400


def test_other_hosts_and_origins_are_refused(server: Server) -> None:
    path, ours = f"/{server.token}/api/study", f"127.0.0.1:{server.port}"
    assert server.raw("GET", path)[0] == 200
    assert server.raw("GET", path, Host=f"LOCALHOST:{server.port}")[0] == 200
    assert server.raw("GET", path, Origin=f"http://{ours}")[0] == 200
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", "127.0.0.1:1", None):
        assert server.raw("GET", path, Host=host)[0] in (400, 403), host
    rebound = f"127.0.0.1.evil.example:{server.port}", f"10.0.0.1:{server.port}", f"@{ours}"
    for host in rebound:
        assert server.raw("GET", path, Host=host)[0] == 403, host
    for origin in ("https://evil.example", "null", f"https://{ours}", f"http://{ours}.evil", ""):
        assert server.raw("GET", path, Origin=origin)[0] == 403, origin


def test_requests_of_other_sites_are_refused(server: Server) -> None:
    path, body = f"/{server.token}/api/voters", {"name": "Eve"}
    for headers in (
        {"X_Tastemaker": None},
        {"X_Tastemaker": "0"},
        {"Origin": "https://evil.example"},
    ):
        assert server.raw("POST", path, body, **headers)[0] == 403, headers
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        assert server.raw("POST", path, body, Content_Type=kind)[0] == 415, kind
    assert server.raw("GET", path)[0] == 405
    assert server.raw("OPTIONS", path, Origin="https://evil.example")[0] == 403
    assert server.raw("PUT", path)[0] == 403
    assert "Eve" not in str(server.get("api/study"))


def test_nothing_is_outside_the_secret_path(server: Server) -> None:
    token = server.token
    for path in (
        "/",
        "/api/study",
        f"/{token}",
        f"/{token[:-1]}/api/study",
        f"/{token}x/api/study",
        f"//{token}/api/study",
        f"/x/../{token}/api/study",
        f"/{token}/",  # 200 with the page
        f"/{token}/static/../server.py",
        f"/{token}/static/..%2fserver.py",
        f"/{token}/static/%2e%2e/server.py",
        f"/{token}/static//etc/passwd",
        f"/{token}/static/..%5cserver.py",
        f"/{token}/static/%00",
        f"/{token}/images/../../.studio.json",
        f"/{token}/images/..%2f..%2f.studio.json",
        f"/{token}/.studio.json",
        f"/{token}/study.json",
        f"/{token}/%c3%a9",
        f"/{token}/%ff",
    ):
        status, _, data = server.raw("GET", path)
        assert status == 404 or (path == f"/{token}/" and b"<html" in data), path
        assert b"secret" not in data
    secret = (server.output / ".studio.json").read_text(encoding="utf-8")
    assert os.stat(server.output / ".studio.json").st_mode & 0o077 == 0
    assert json.loads(secret)["token"] == token


def test_forged_and_broken_votes_are_refused(server: Server) -> None:
    task, other = server.tasks("Cy", 1)[0], server.tasks("Di", 1)[0]
    before = len(read_votes(server.output))
    for status, change in (
        (403, {"ticket": other["ticket"]}),
        (403, {"ticket": "x"}),
        (403, {"ticket": None}),
        (403, {"task_id": "0" * 64}),
        (403, {"shown": task["shown"][::-1]}),
        (403, {"question": "fidelity"}),
        (403, {"voter": "Di"}),
        (400, {"voter": "a\0"}),
        (400, {"vote_id": "../x"}),
        (400, {"vote_id": None}),
        (400, {"answer": "best"}),
        (400, {"answer": {"best": 0, "worst": 1}}),
        (400, {"seconds": -1}),
        (400, {"seconds": "1"}),
        (400, {"seconds": 1e300}),
    ):
        assert server.post("api/votes", **(ballot(task, "Cy") | change))[0] == status, change
    path = f"/{server.token}/api/votes"
    for status, data in (
        (400, b"[1]"),
        (400, b"{"),
        (400, b"\xff"),
        (400, b"[" * 50_000),
        (400, b'{"vote_id": NaN}'),
        (413, b" " * 100_000),
    ):
        assert server.raw("POST", path, data)[0] == status, data[:20]
    assert len(read_votes(server.output)) == before


def voting(server: Server, voter: str, sent: list[dict[str, Any]], known: set[str]) -> None:
    """Vote until the server is gone; `sent` ends with the vote that had no answer."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        while tasks := server.tasks(voter, 2):
            sent.append(ballot(tasks[0], voter, random.choice(("left", "right", "tie"))))
            status, _ = server.post("api/votes", **sent[-1])
            assert status == 200
            known.add(sent[-1]["vote_id"])


def test_killed_at_any_moment_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    """Two voters at once; SIGKILL while they vote, four times; what got no answer is sent again."""
    pool = pool_of(tmp_path / "pool", map(str, range(9)), each=6)
    output = tmp_path / "study"
    names = ("Ada", "Bo")
    sent: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    known: set[str] = set()
    tokens = set()
    for number, delay in enumerate((0.0, 0.011, 0.023, 0.037), 1):
        server = start(pool, output=output)
        tokens.add(server.token)
        for name in names:
            if sent[name]:  # the page's retry, with the ticket of the dead server
                status, _ = server.post("api/votes", **sent[name][-1])
                assert status == 200
                known.add(sent[name][-1]["vote_id"])
        threads = [
            threading.Thread(target=voting, args=(server, name, sent[name], known))
            for name in names
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while len(known) < 5 * number and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        server.kill()
        for thread in threads:
            thread.join(60)
        votes = read_votes(output)
        assert known <= {vote.vote_id for vote in votes}
    assert len(tokens) == 1  # a bookmark, or a page that is open, goes on
    assert len(known) >= 20
    with served(pool, output=output) as server:
        for name in names:
            own = [vote for vote in votes if vote.voter == name]
            meetings = [(vote.task_id, vote.chosen_by == "repeat") for vote in own]
            assert len(set(meetings)) == len(meetings)
            assert server.post("api/voters", name=name)[1]["done"] == len(own)
            (task,) = server.tasks(name)
            fresh = (task["task_id"], False), (task["task_id"], True)
            assert not set(fresh) <= set(meetings)


def test_ctrl_c_ends_well_and_another_study_is_refused(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool")
    output = tmp_path / "study"
    server = start(pool, "kind=best_worst", "images=3", output=output)
    (task,) = server.tasks("Ada")
    assert len(task["images"]) == 3
    assert server.post("api/votes", **ballot(task, "Ada", {"best": 2, "worst": 0}))[0] == 200
    server.process.send_signal(signal.SIGINT)
    text, _ = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert "1 votes in" in text
    (vote,) = read_votes(output)
    assert vote.answer == {"best": 2, "worst": 0}
    with pytest.raises(AssertionError, match=r"is another study \(kind: "):
        start(pool, "images=3", output=output)
    with pytest.raises(AssertionError, match=r"is another study \(seed: "):
        start(pool, "kind=best_worst", "images=3", "seed=1", output=output)
    (study,) = json.loads((output / "study.json").read_text())["sources"]
    assert (study["kind"], study["folder"]) == ("pool", "../pool")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    pool.rename(moved / "pool")  # the same images in another place are the same study
    server = start(moved / "pool", "kind=best_worst", "images=3", output=output)
    assert server.get("api/study")["voters"] == [{"name": "Ada", "votes": 1}]
    server.kill()


def test_models_ratings_and_gold(tmp_path: Path) -> None:
    pools = [pool_of(tmp_path / name, model=name) for name in ("one", "two")]
    gold = pairs_of(tmp_path / "gold", pools[0], [("0-0-one", "0-1-one")])
    with served(*pools, f"gold={gold}", "choose=active", output=tmp_path / "study") as server:
        while tasks := server.tasks("Ada"):
            assert server.post("api/votes", **ballot(tasks[0], "Ada"))[0] == 200
        votes = read_votes(tmp_path / "study")
    assert {tuple(sorted(vote.models)) for vote in votes if vote.chosen_by == "active"} == {
        ("one", "two")
    }
    assert sum(vote.chosen_by == "active" for vote in votes) == 8
    assert all(0 < vote.probability <= 1 for vote in votes)
    with served(pools[0], "kind=rating", output=tmp_path / "ratings") as server:
        (task,) = server.tasks("Ada")
        assert server.post("api/votes", **ballot(task, "Ada", 6))[0] == 400
        assert server.post("api/votes", **ballot(task, "Ada", 5))[0] == 200


def test_an_open_host_is_warned_of(tmp_path: Path) -> None:
    pool = pool_of(tmp_path / "pool")
    with served(pool, "host=0.0.0.0", output=tmp_path / "study") as server:
        assert "warning: host=0.0.0.0 lets other machines in" in server.said
        path = f"/{server.token}/api/study"
        assert server.raw("GET", path, Host=f"192.168.0.7:{server.port}")[0] == 200
        assert server.raw("GET", path, Host=f"evil.example:{server.port}")[0] == 403
    with served(pool, output=tmp_path / "study") as server:
        assert "warning" not in server.said


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tastemaker import open_studio

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "tastemaker.studio.server", raising=False)
    with pytest.raises(TastemakerError, match=r"pip install 'tastemaker\[studio\]'"):
        open_studio(sources=[pool_of(tmp_path / "pool")], output=str(tmp_path / "study"))
    assert not (tmp_path / "study").exists()


def test_neither_torch_nor_diffusers_is_imported() -> None:
    code = (
        "import sys, tastemaker.studio.run, tastemaker.studio.server, tastemaker.cli.studio\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
def test_a_hundred_thousand_candidates(tmp_path: Path) -> None:
    """The next task in under 50 ms, by chance and by information; memory does not grow."""
    image = encoded(noise(1, 16, 16))
    prompts = (f"prompt {number}" for number in range(12_500))
    pool = pool_of(tmp_path / "pool", prompts, each=8, image=image, shard=5000)
    for choose in ("random", "active"):
        with served(pool, f"choose={choose}", output=tmp_path / choose) as server:
            times, held = [], []
            for _ in range(150):
                begin = time.perf_counter()
                (task,) = server.tasks("Ada")
                times.append(time.perf_counter() - begin)
                assert server.post("api/votes", **ballot(task, "Ada"))[0] == 200
                status = Path(f"/proc/{server.process.pid}/status")
                if status.is_file():
                    line = next(each for each in status.open() if each.startswith("VmRSS"))
                    held.append(int(line.split()[1]))
        assert sorted(times)[len(times) // 2] < 0.05, (choose, sorted(times))
        if held:
            assert held[-1] - held[49] < 40_000, (choose, held)  # KiB; of shards 25 MB each
