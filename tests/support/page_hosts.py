"""Hosts of the operators' pages: each serves them for one shop, in a way that a user would."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn
from dev_process import ENVIRONMENT, Dev
from paged_shop import Shop
from processes import PIPE, running
from waiting import until

from automate_kernel.workflows.execution import Execution
from automate_pages import User, pages
from automate_sqlalchemy import SqlAlchemyStorage

ROOT = "/shop/ops"
"""The path at which an application has the pages."""
_SUPPORT = Path(__file__).parent


@dataclass(frozen=True)
class PageHost:
    """
    The pages at *url*, of a *shop* that the test changes from outside.

    *context* opens a browser that is logged in: the options of Playwright's ``new_context``.
    *lacks* are the screens that the host has in a way of its own.
    """

    url: str
    shop: Shop
    context: Mapping[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()

    def settled(self, execution_id: str, status: str, *steps: str) -> Execution:
        """Return the execution once it has this status, and waits or has ended in these *steps*."""

        def look() -> Execution | None:
            # A worker of the host may be at it too.
            self.shop.kernel.run_until_idle()
            found = self.shop.kernel.executions.get(execution_id)
            if found is None or found.status.value != status:
                return None
            begun = {each.step_id for each in found.steps}
            return found if begun.issuperset(steps) else None

        return until(look)  # type: ignore[return-value]

    def order(self, amount: int = 5, *, number: int = 4711, **payload: Any) -> Execution:
        """Return an order that waits for its approval, or failed because it costs too much."""
        begun = self.shop.kernel.start(
            "order",
            {"amount": amount, "name": "tea", **payload},
            labels={"order": number, "by": "test"},
        )
        if amount > self.shop.limit:
            return self.settled(begun, "FAILED")
        return self.settled(begun, "RUNNING", "ok")


@contextlib.contextmanager
def on_uvicorn(app: Any) -> Iterator[str]:
    """Serve an ASGI application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@contextlib.contextmanager
def on_waitress(app: Any) -> Iterator[str]:
    """Serve a WSGI application on four threads."""
    from waitress.server import create_server

    server = create_server(app, host="127.0.0.1", port=0, threads=4)

    def run() -> None:
        with contextlib.suppress(OSError):  # of the sockets that are closed below
            server.run()

    threading.Thread(target=run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


def in_starlette(app: Any) -> Any:
    """Return a Starlette application that has the pages."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(ROOT, app)])


def in_fastapi(app: Any) -> Any:
    """Return a FastAPI application that has the pages."""
    from fastapi import FastAPI

    host = FastAPI()
    host.mount(ROOT, app)
    return host


def in_litestar(app: Any) -> Any:
    """Return a Litestar application that has the pages."""
    from litestar import Litestar, asgi

    return Litestar([asgi(ROOT, is_mount=True, copy_scope=True)(app)])


def in_flask(app: Any) -> Any:
    """Return a Flask application that has the pages."""
    from a2wsgi import ASGIMiddleware
    from flask import Flask
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    host = Flask(__name__)
    host.wsgi_app = DispatcherMiddleware(host.wsgi_app, {ROOT: ASGIMiddleware(app)})
    return host


def who(request: Any) -> User | None:
    """Return the user of a request, by the application's own log-in: a header here."""
    name = request.headers.get("x-user")
    return None if name is None else User(name, ["admin"], None)


@contextlib.contextmanager
def _mounted(
    storage: SqlAlchemyStorage, mount: Callable[[Any], Any], serve: Callable[[Any], Any]
) -> Iterator[PageHost]:
    storage.create_tables()
    shop = Shop(storage)
    app = mount(pages(shop.kernel, auth=who, operations=["charge"]))
    with serve(app) as url:
        yield PageHost(f"{url}{ROOT}", shop, {"extra_http_headers": {"X-User": "ada"}})
    shop.kernel.close()


@contextlib.contextmanager
def fastapi_on_postgresql(folder: Path, postgresql: Callable[[], str]) -> Iterator[PageHost]:
    """FastAPI with the pages mounted by one line, on PostgreSQL."""
    storage = SqlAlchemyStorage(sa.create_engine(postgresql()))
    with _mounted(storage, in_fastapi, on_uvicorn) as host:
        yield host


@contextlib.contextmanager
def flask(folder: Path, postgresql: Callable[[], str]) -> Iterator[PageHost]:
    """Flask with the pages by a2wsgi, on SQLite."""
    storage = SqlAlchemyStorage(f"sqlite:///{folder}/shop.sqlite3")
    with _mounted(storage, in_flask, on_waitress) as host:
        yield host


_APP = """
from automate_sqlalchemy import SqlAlchemyStorage
from paged_shop import Shop

storage = SqlAlchemyStorage("sqlite:///shop.sqlite3")
storage.create_tables()
kernel = Shop(storage).kernel
"""


@contextlib.contextmanager
def automate_dev(folder: Path, postgresql: Callable[[], str]) -> Iterator[PageHost]:
    """The process of ``automate dev`` with a kernel of the user's own, and its worker."""
    (folder / "hosted.py").write_text(_APP)
    path = os.pathsep.join([str(_SUPPORT), os.environ.get("PYTHONPATH", "")])
    with Dev(folder, "--app", "hosted:kernel", "--port", "0", PYTHONPATH=path) as dev:
        dev.says("loaded in .* order")
        shop = Shop(SqlAlchemyStorage(f"sqlite:///{folder}/shop.sqlite3"))
        yield PageHost(f"{dev.url}/ui", shop)
        shop.kernel.close()


@contextlib.contextmanager
def django_admin(folder: Path, postgresql: Callable[[], str]) -> Iterator[PageHost]:
    """The process of a Django project, with the pages in the frame of its admin, on SQLite."""
    path = os.pathsep.join([str(_SUPPORT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, _SUPPORT / "django_host.py"]
    log = folder / "log"
    with (
        log.open("w") as errors,
        running(command, cwd=folder, env={**ENVIRONMENT, "PYTHONPATH": path}, stdout=PIPE,
                stderr=errors, text=True) as process,
    ):  # fmt: skip
        line = process.stdout.readline()
        assert line, log.read_text()
        port, session = json.loads(line)
        cookie = {"name": "sessionid", "value": session, "domain": "127.0.0.1", "path": "/",
                  "expires": -1, "httpOnly": True, "secure": False, "sameSite": "Lax"}  # fmt: skip
        shop = Shop(SqlAlchemyStorage(f"sqlite:///{folder}/shop.sqlite3"))
        url = f"http://127.0.0.1:{port}/admin/automate_django/pages"
        logged_in = {"storage_state": {"cookies": [cookie], "origins": []}}
        yield PageHost(url, shop, logged_in, lacks=("/access",))
        shop.kernel.close()


HOSTS: Mapping[
    str, Callable[[Path, Callable[[], str]], contextlib.AbstractContextManager[PageHost]]
] = {"fastapi": fastapi_on_postgresql, "dev": automate_dev, "flask": flask, "django": django_admin}
"""What serves the pages; each gets an empty folder and a function that gives PostgreSQL's URL."""
