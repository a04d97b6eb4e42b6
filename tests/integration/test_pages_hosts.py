"""The pages in applications of other frameworks: mounted in a line, and in a browser."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from waiting import until

from automate_kernel import Kernel
from automate_pages import User, pages
from automate_sqlalchemy import SqlAlchemyStorage

CHROMIUM = Path("/usr/bin/chromium")


def in_starlette(app: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount("/shop/ops", app)])


def in_fastapi(app: Any) -> Any:
    from fastapi import FastAPI

    host = FastAPI()
    host.mount("/shop/ops", app)
    return host


def in_litestar(app: Any) -> Any:
    from litestar import Litestar, asgi

    return Litestar([asgi("/shop/ops", is_mount=True, copy_scope=True)(app)])


def in_flask(app: Any) -> Any:
    from a2wsgi import ASGIMiddleware
    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    host = Flask(__name__)
    host.wsgi_app = DispatcherMiddleware(host.wsgi_app, {"/shop/ops": ASGIMiddleware(app)})
    return host


@contextmanager
def on_uvicorn(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@contextmanager
def on_waitress(app: Any) -> Iterator[str]:
    from waitress.server import create_server

    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


HOSTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "starlette": (in_starlette, on_uvicorn),
    "fastapi": (in_fastapi, on_uvicorn),
    "litestar": (in_litestar, on_uvicorn),
    "flask": (in_flask, on_waitress),
}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    storage = SqlAlchemyStorage(f"sqlite:///{tmp_path}/shop.sqlite3")
    storage.create_tables()
    made = Kernel(storage, discover=False)
    made.action("pay")(lambda: "paid")
    wait = {"id": "go", "wait_for": {"event": "go"}}
    steps = [wait, {"id": "pay", "needs": ["go"], "action": "pay"}]
    made.add_workflow({"name": "order", "trigger": {"type": "manual"}, "steps": steps})
    yield made
    made.close()


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, kernel: Kernel) -> Iterator[str]:
    """The address of a server with an application that has the pages below /shop/ops."""
    mounted, served = HOSTS[request.param]
    app = pages(kernel, auth=lambda asked: User("ada", ["admin"], None))
    with served(mounted(app)) as url:
        yield url


def test_pages_work_wherever_they_are_mounted(host: str, kernel: Kernel) -> None:
    """Links, styles, orders with their cookies and notices, parts, and a refused foreign order."""
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def ask(path: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
        body = None if form is None else urllib.parse.urlencode(form).encode()
        try:
            with browser.open(urllib.request.Request(host + path, body, headers)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    begun = kernel.start("order")
    kernel.run_until_idle()
    status, home = ask("/shop/ops/")
    assert status == 200
    addresses = {each for each in re.findall(r'(?:href|src)="([^"#]+)"', home)}
    assert all(each.startswith("/shop/ops/") for each in addresses)
    for each in sorted(addresses):
        assert ask(each.replace("&amp;", "&"))[0] == 200, each
    its = f"/shop/ops/executions/{begun}"
    csrf = re.findall(r'name="csrf" value="([^"]+)"', ask(its)[1])[0]
    assert ask(its, {"csrf": csrf, "order": "pause"}, Origin="http://evil.example")[0] == 403
    assert "It is paused" in ask(its, {"csrf": csrf, "order": "pause"}, Origin=host)[1]
    status, part = ask(its, **{"X-Automate-Part": "1"})
    assert "PAUSED" in part
    assert "<html" not in part


@pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")
@pytest.mark.parametrize("host", ["fastapi", "flask"], indirect=True)
def test_a_browser_sees_what_changes(host: str, kernel: Kernel) -> None:
    """By a stream, or by polls where a stream would hold one of few threads."""
    from playwright.sync_api import sync_playwright

    begun = kernel.start("order")
    kernel.run_until_idle()
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tabs = [chrome.new_page() for _ in range(6)]  # more than the server has threads
        problems: list[str] = []
        for tab in tabs:
            tab.on("console", lambda told: problems.append(told.text))
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.goto(f"{host}/shop/ops/executions/{begun}")
            tab.get_by_text("RUNNING").first.wait_for()
        kernel.emit("go")
        kernel.run_until_idle()
        for tab in tabs:
            tab.bring_to_front()
            tab.get_by_role("heading", name="COMPLETED").wait_for(timeout=60_000)
        assert problems == []
        chrome.close()
