"""The pages in applications of other frameworks: mounted in a line."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from page_hosts import in_fastapi, in_flask, in_litestar, in_starlette, on_uvicorn, on_waitress

from automate_kernel import Kernel
from automate_pages import User, pages
from automate_sqlalchemy import SqlAlchemyStorage

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
