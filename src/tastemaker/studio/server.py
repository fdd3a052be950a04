"""Web server of the studio: one secret path, loopback hosts alone, and no other origin."""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tastemaker.core.errors import TastemakerError
from tastemaker.studio.hosts import Hosts
from tastemaker.studio.study import Study
from tastemaker.studio.wire import Refused

MOST_BODY = 1 << 16
"""Bytes of a request: a vote has two thousand."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

IMMUTABLE = "private, max-age=31536000, immutable"


def application(study: Study, token: str, hosts: Hosts) -> ASGIApp:
    """Build the server of a study.

    Args:
        study: Its state.
        token: Secret part of every path.
        hosts: Names under which it answers.

    Returns:
        The application.
    """
    pages = Pages(study, static_files())
    routes = [
        Route("/", pages.index),
        Route("/static/{name:path}", pages.static),
        Route("/images/{name}", pages.image),
        Route("/api/study", pages.study),
        Route("/api/tasks", pages.tasks),
        Route("/api/voters", pages.enter, methods=["POST"]),
        Route("/api/votes", pages.vote, methods=["POST"]),
        Route("/api/undo", pages.undo, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        HTTPException: _refusal,
        Refused: _refusal,
        TastemakerError: _unusable,
    }
    inside = Starlette(routes=routes, exception_handlers=handlers)
    inside.router.redirect_slashes = False
    return Gate(inside, token, hosts)


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM, which act as ever when the last answers are out.

    Args:
        app: From `application`.
        listener: A socket that listens; it is closed.
    """
    config = uvicorn.Config(
        app,
        interface="asgi3",
        log_level="warning",
        access_log=False,  # its lines would hold the token
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])


class Gate:
    """Refuses what does not come from the page, and adds headers to what is answered.

    Args:
        inside: The application, whose paths are without the token.
        token: First part of every path.
        hosts: Names under which the server answers.
    """

    def __init__(self, inside: ASGIApp, token: str, hosts: Hosts) -> None:
        self._inside = inside
        self._token = token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        refused = self._refusal(scope)
        if refused is not None:
            await JSONResponse({"error": refused[1]}, refused[0], HEADERS)(scope, receive, send)
            return
        path = "/" + scope["path"].split("/", 2)[2]
        inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [
                    (name.lower().encode(), value.encode())
                    for name, value in {**HEADERS, "Cache-Control": "no-store"}.items()
                    if name.lower().encode() not in given
                ]
            await send(message)

        await self._inside(inner, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1"))
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._hosts.knows(hosts[0]):
            return 403, "this host is not the studio's"
        if any(origin != f"http://{hosts[0]}" for origin in headers.get(b"origin", [])):
            return 403, "this origin is not the studio's"
        parts = scope["path"].split("/", 2)
        if len(parts) < 3 or not hmac.compare_digest(parts[1].encode(), self._token):
            return 404, "there is nothing here"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get(b"x-tastemaker") != ["1"]:
            return 403, "the request is not the page's"
        kind = headers.get(b"content-type", [""])[0].partition(";")[0].strip().lower()
        return None if kind == "application/json" else (415, "the request is not JSON")


class Pages:
    """Answers to the page; what reads or writes a disk runs in a thread.

    Args:
        study: The study.
        files: The page's own files by name.
    """

    def __init__(self, study: Study, files: Mapping[str, bytes]) -> None:
        self._study = study
        self._files = files

    async def index(self, request: Request) -> Response:
        """The page."""
        return self._file("index.html")

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        return self._file(request.path_params["name"])

    async def image(self, request: Request) -> Response:
        """A picture."""
        number = self._study.pictures.image(request.path_params["name"])
        if number is None:
            raise Refused(404, "image not found")
        data = await run_in_threadpool(self._study.pictures.png, number)
        return Response(data, media_type="image/png", headers={"Cache-Control": IMMUTABLE})

    async def study(self, request: Request) -> Response:
        """Questions and voters of the study."""
        return JSONResponse(await run_in_threadpool(self._study.about))

    async def tasks(self, request: Request) -> Response:
        """The next tasks of a voter."""
        count = request.query_params.get("count", "1")
        if not count.isascii() or not count.isdigit() or len(count) > 4:
            raise Refused(400, "count is not a number")
        voter = request.query_params.get("voter")
        return JSONResponse(await run_in_threadpool(self._study.tasks, voter, int(count)))

    async def enter(self, request: Request) -> Response:
        """Begin, or go on, as a voter."""
        return await _answered(request, lambda body: self._study.enter(body.get("name")))

    async def vote(self, request: Request) -> Response:
        """A vote."""
        return await _answered(request, self._study.vote)

    async def undo(self, request: Request) -> Response:
        """The last vote taken back."""
        return await _answered(request, self._study.undo)

    def _file(self, name: str) -> Response:
        if name not in self._files:
            raise Refused(404, "file not found")
        return Response(self._files[name], media_type=TYPES[name[name.rindex(".") :]])


def static_files() -> dict[str, bytes]:
    """Read the page's own files, by their path in `static`."""
    folder = resources.files("tastemaker.studio") / "static"
    if not folder.is_dir():
        return {}
    return {
        each.name: each.read_bytes()
        for each in folder.iterdir()
        if any(each.name.endswith(suffix) for suffix in TYPES)
    }


async def _answered(request: Request, work: Callable[[dict[str, Any]], Any]) -> Response:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MOST_BODY:
            raise Refused(413, f"the request has more than {MOST_BODY} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "the request is not a JSON object")
    return JSONResponse(await run_in_threadpool(work, body))


async def _refusal(request: Request, error: Any) -> Response:
    status = error.status if isinstance(error, Refused) else error.status_code
    why = str(error) if isinstance(error, Refused) else error.detail
    return JSONResponse({"error": why}, status)


async def _unusable(request: Request, error: Exception) -> Response:
    print(error)
    return JSONResponse({"error": str(error)}, 500)
