"""Live pages: what a hundred viewers cost, who shares what, and streams that end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from anyio import CapacityLimiter
from processes import PIPE, running
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from automate_kernel import Kernel
from automate_kernel.access.sessions import SessionStore
from automate_pages import User
from automate_pages.asgi import pages_of
from automate_pages.exchange import PageRequest, SentFields
from automate_pages.live import LiveParts, Lookers
from automate_pages.log_in import LogIn, LogInPages
from automate_pages.site import Site
from automate_sqlalchemy import SqlAlchemyStorage

SECONDS, VIEWERS = 60, 100


class Timeline:
    """A clock, and the coroutines that sleep by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self.now + seconds, next(self._number), woken))
        await woken

    async def pass_(self, until: float, each: Callable[[float], None]) -> None:
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, woken = heappop(self._sleepers)
            if at > self.now:
                self.now = at
                each(at)
            woken.set_result(None)
            await self._settle()
        self.now = until

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Kernel, list[str]]]:
    storage = SqlAlchemyStorage(f"sqlite:///{tmp_path}/shop.sqlite3")
    storage.create_tables()
    kernel = Kernel(storage, discover=False)
    kernel.action("pay")(lambda: None)
    kernel.add_workflow(
        {"name": "order", "trigger": {"type": "manual"}, "steps": [{"id": "pay", "action": "pay"}]}
    )
    sent: list[str] = []
    sa.event.listen(storage.engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    yield kernel, sent
    kernel.close()


@pytest.mark.parametrize("path", ["", "executions", "outbox", "workers"])
@pytest.mark.parametrize("names", [1, VIEWERS])
def test_a_hundred_viewers_cost_five_statements_a_second(
    shop: tuple[Kernel, list[str]], path: str, names: int
) -> None:
    """Also while something changes all the time, and though each viewer is a user of its own."""
    kernel, sent = shop
    time = Timeline()
    live = LiveParts(Site(kernel), time.clock, time.sleep)
    told: list[int] = []
    changes: list[str] = []

    async def view(number: int) -> None:
        user = User(f"viewer-{number % names}", ["viewer"], None)
        request = PageRequest(kernel, user, path, part=True)

        async def look() -> Any:
            return live.part(request, "token")

        async for message in live.stream(request, look):
            if message == "data: changed\n\n":
                told.append(number)
                live.part(request, "token")  # as the page does then

    def change(at: float) -> None:
        before = len(sent)
        changes.append(kernel.start("order"))
        del sent[before:]

    async def run() -> None:
        viewers = [asyncio.ensure_future(view(number)) for number in range(VIEWERS)]
        await time.pass_(SECONDS, change)
        for each in viewers:
            each.cancel()

    # Each page is rendered at once for whoever has just come.
    site = Site(kernel)
    site.answer(PageRequest(kernel, User("first", ["viewer"], None), path, part=True))
    first_look = len(sent) * names
    sent.clear()
    asyncio.run(run())
    assert len(sent) <= 5 * SECONDS + first_look, len(sent) / SECONDS
    if path in ("executions", "outbox"):
        assert set(told) == set(range(VIEWERS))


def test_who_may_see_the_same_shares_a_rendering_and_nobody_else(
    shop: tuple[Kernel, list[str]],
) -> None:
    """With a token of each viewer's own in the forms, and a user's own things for that user."""
    kernel, sent = shop
    asked: list[User] = []
    site = Site(kernel)
    render, now = site.answer, [0.0]
    site.answer = lambda request: asked.append(request.user) or render(request)  # type: ignore[method-assign,func-returns-value]
    live = LiveParts(site, lambda: now[0])

    def see(path: str, user: User, **query: str) -> str:
        return live.part(
            PageRequest(kernel, user, path, query=SentFields(query.items())), f"token-{user.name}"
        ).html

    ada, bob = User("ada", ["admin"], None), User("bob", ["admin"], None)
    its = f"executions/{kernel.start('order')}"
    assert "token-ada" in see(its, ada)
    assert "token-bob" in see(its, bob)
    assert "token-ada" not in see(its, bob)
    assert len(asked) == 1
    for other in (User("eve", ["viewer"], None), User("eve", ["admin"], "alpha")):
        see(its, other)
    see(its, ada, x="1")
    assert len(asked) == 4
    now[0] += 10
    see(its, bob)
    assert len(asked) == 5
    live.forget()  # an order was carried out
    see(its, ada)
    assert len(asked) == 6
    for user in (ada, bob, ada, bob):
        see("approvals", user)  # those for the user
    assert len(asked) == 6 + 3  # the first look finds out that it is personal


def test_those_who_look_are_found_together(shop: tuple[Kernel, list[str]]) -> None:
    """Each minute their use is noted; a session that is ended counts no more after 4 seconds."""
    kernel, sent = shop
    site, now = Site(kernel), [0.0]
    log_in = LogInPages(site, LogIn(), CapacityLimiter(1))
    sessions = SessionStore(kernel.storage)
    token, _ = kernel.tokens.new("ada", roles=["viewer"])
    secrets = [
        sessions.begin(f"viewer-{number}", roles=["viewer"], tenant_id=None, method="token",
                       token=token if number == 7 else None)
        for number in range(VIEWERS)
    ]  # fmt: skip
    lookers = Lookers(log_in._users, lambda: now[0])
    assert all(lookers.find(each) is not None for each in secrets)
    sent.clear()
    for second in range(SECONDS):
        now[0] = second
        for secret in secrets:
            lookers.find(secret)
    assert len(sent) <= SECONDS + 1
    assert lookers.find("nobody's") is None
    kernel.tokens.revoke(token.prefix)
    sessions.end(lookers.find(secrets[3])[1])
    now[0] += 4
    gone = [number for number, each in enumerate(secrets) if lookers.find(each) is None]
    assert gone == [3, 7]


def test_a_stream_ends_with_its_page_and_with_its_server(shop: tuple[Kernel, list[str]]) -> None:
    kernel, _ = shop
    app = pages_of(Site(kernel), auth=lambda _: User("ada", ["admin"], None))
    browser = TestClient(Starlette(routes=[Mount("/ops", app)]))
    begun = kernel.start("order")
    kernel.run_until_idle()
    asked = {"Accept": "text/event-stream"}
    answer = browser.get(f"/ops/executions/{begun}", headers=asked)
    assert answer.text == "retry: 2000\n\n"
    assert answer.headers["content-type"].startswith("text/event-stream")
    app.state.live.stopped = True
    assert browser.get("/ops/", headers=asked).text == "retry: 2000\n\n"


def test_what_cannot_have_a_stream_polls(shop: tuple[Kernel, list[str]], monkeypatch: Any) -> None:
    """Status 204 says so to a browser: it doesn't connect again."""
    kernel, _ = shop
    app = pages_of(Site(kernel), auth=lambda _: User("ada", ["admin"], None))
    asked = {"Accept": "text/event-stream"}

    async def below_wsgi(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "wsgi_environ": {}}, receive, send)

    assert TestClient(below_wsgi).get("/", headers=asked).status_code == 204
    monkeypatch.setattr("automate_pages.live._MOST_STREAMS", 0)
    assert TestClient(app).get("/", headers=asked).status_code == 204
    stranger = pages_of(Site(kernel), auth=lambda _: None)
    assert TestClient(stranger).get("/", headers=asked).status_code == 401


_SERVER = """
import asyncio, socket, sys, uvicorn
from automate_kernel import Kernel
from automate_kernel.access.sessions import SessionStore
from automate_pages import User, pages
app = pages(Kernel(), auth=lambda request: User("ada", ["admin"], None))
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
"""


@pytest.mark.slow
def test_an_open_stream_keeps_no_plain_server_from_stopping() -> None:
    """uvicorn itself would wait for it, and tell nobody."""
    import socket

    with running([sys.executable, "-c", _SERVER], stdout=PIPE, text=True) as server:
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as viewer:
            viewer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
            received = b""
            while b"retry" not in received:
                received += viewer.recv(4096)
            server.send_signal(signal.SIGTERM)
            assert server.wait(10) in (0, -signal.SIGTERM)
