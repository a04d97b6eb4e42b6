"""An operator's walk over the pages on a bad day: the clicks and the seconds of each task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.shop import APPROVER, ORDER, SHARES, TeaShop

_CHROMIUM = Path("/usr/bin/chromium")
_PATIENCE_MS = 600_000


@dataclass
class WalkedTask:
    """A task: what the operator does to it, and how long that takes with pages to be waited for."""

    name: str
    clicks: int = 0
    typed: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        typed = f" and {self.typed} field{'s' * (self.typed > 1)}" if self.typed else ""
        return f"{self.seconds:7.1f} s  {self.clicks:3} clicks{typed}  {self.name}"


@dataclass
class Walk:
    """The tasks of a walk, in their order."""

    tasks: list[WalkedTask] = field(default_factory=list)

    def __str__(self) -> str:
        clicks, seconds = (
            sum(getattr(each, name) for each in self.tasks) for name in ("clicks", "seconds")
        )
        total = f"{seconds:7.1f} s  {clicks:3} clicks  altogether"
        return "\n".join([*map(str, self.tasks), total])


class Operator:
    """Somebody at *page*, a browser's of Playwright, whose clicks are counted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.walk = Walk()

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Count and time what the block does as a task of this name."""
        self.walk.tasks.append(WalkedTask(name))
        began = time.perf_counter()
        yield
        self.walk.tasks[-1].seconds = time.perf_counter() - began

    def click(self, target: Any, sign: str = "") -> None:
        """Click on something that leads to a page, and wait for that, and for *sign* on it."""
        self.walk.tasks[-1].clicks += 1
        with self.page.expect_navigation():
            target.click()
        if sign:
            self.page.get_by_text(sign).first.wait_for()

    def link(self, name: str, within: str = "") -> None:
        """Click on a link, or the first in the row that has the text *within*."""
        place = self.page.locator("tr", has_text=within) if within else self.page
        self.click(place.get_by_role("link", name=name).first)

    def button(self, name: str, sign: str = "", within: str = "") -> None:
        """Press a button, or that in the row that has the text *within*."""
        place = self.page.locator("tr", has_text=within).first if within else self.page
        self.click(place.get_by_role("button", name=name, exact=True).first, sign)

    def type(self, label: str, text: str) -> None:
        """Fill in a field."""
        self.walk.tasks[-1].typed += 1
        fields = self.page.locator("input:not([type=hidden]), textarea")
        self.page.get_by_label(label).and_(fields).first.fill(text)


def walk(page: Any, url: str, shop: TeaShop) -> Walk:
    """Mend a *shop* that `TeaShop.fill` has filled, by its pages at *url*; return the walk."""
    operator = Operator(page)
    with operator.task("find what failed, grouped by cause"):
        page.goto(f"{url}/")
        causes = page.get_by_role("region", name="Failed items by cause")
        for kind in SHARES:
            assert causes.get_by_role("row", name=kind).count() == 1, kind
    with operator.task("read a traceback"):
        operator.link("KeyError in")
        operator.link("stock.sync", within="FAILED")
        assert "prices[item.payload" in page.locator("main").inner_text()
    for place, kind in enumerate(SHARES):
        shop.mend(kind)  # the cause is gone, by a deployment for example
        with operator.task(f"mend {kind}: all of its cause are tried again"):
            if place == 0:
                operator.link("Outbox")
            operator.button("Retry all…", within=kind)
            operator.button("Retry", "put back to wait")
    with operator.task(f"find order {ORDER}, and why it failed"):
        operator.link("Executions")
        operator.type("Search", str(ORDER))
        operator.button("Filter")
        operator.link("order", within="FAILED")
        assert "refuses our certificate" in page.locator("main").inner_text()
    with operator.task("approve an order that waits for it"):
        operator.link("Approvals")
        operator.link("Accept order")
        operator.button("Approve", "Approved.")
    shop.mend("payments")
    for error in ("TimeoutError", "PermissionError"):
        with operator.task(f"resume all executions that failed with {error}"):
            if error == "TimeoutError":
                operator.link("Executions")
            operator.button("Resume all…", within=error)
            operator.button("Resume", "resumed.")
    with operator.task("see that nothing is left"):
        operator.link("Home")
        assert page.get_by_role("heading", name="by cause").count() == 0
    return operator.walk


@contextmanager
def operated(shop: TeaShop) -> Iterator[tuple[Any, str]]:
    """Give a page of a browser, and the address of the pages of *shop*."""
    import uvicorn
    from playwright.sync_api import sync_playwright
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from automate_pages import User, loopback, pages

    user = User("ada", ["admin", APPROVER.removeprefix("role:")], None)
    app = Starlette(routes=[Mount("/ops", pages(shop.kernel, auth=loopback(user)))])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(_CHROMIUM), args=["--no-sandbox"]
            )
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            context.set_default_timeout(_PATIENCE_MS)
            yield context.new_page(), f"http://127.0.0.1:{port}/ops"
            browser.close()
    finally:
        server.should_exit = True
        thread.join()


def operators_walk(
    items: int = 40_000,
    executions: int = 5_000,
    server: str | None = None,
    say: Callable[[str], object] = print,
) -> Walk:
    """Have so many items and executions fail on PostgreSQL, and walk through the pages."""
    import sqlalchemy

    from automate_sqlalchemy import SqlAlchemyStorage
    from benchmarks.pages import database, settle

    with database(server) as url:
        storage = SqlAlchemyStorage(sqlalchemy.create_engine(url))
        storage.create_tables()
        shop = TeaShop(storage)
        shop.fill(items, executions, say)
        settle(shop.kernel)
        with operated(shop) as (page, address):
            found = walk(page, address, shop)
        shop.kernel.close()
        return found
