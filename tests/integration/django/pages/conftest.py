"""Staff of several sorts, a live server under a strict policy, and a browser."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

CHROMIUM = Path("/usr/bin/chromium")
POLICY = "default-src 'self'; frame-ancestors 'none'; object-src 'none'"
BASE = "/admin/automate_django/outboxitem/"


@pytest.fixture(autouse=True)
def fresh_figures() -> None:
    """No count of a test before."""
    from django.core.cache import cache

    cache.clear()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """The alias of the test's database: each in turn if it asks for `alias`, else SQLite."""
    wanted = "alias" if "alias" in request.fixturenames else "sqlite"
    return str(request.getfixturevalue(wanted))


@pytest.fixture
def kernel(database: str) -> Any:
    """The project's kernel."""
    from automate_django import get_kernel

    return get_kernel()


@pytest.fixture
def staff(database: str) -> Callable[..., Any]:
    """Makes a staff user with these permissions of the app, and signs a client in."""
    return _staff


def _staff(*permissions: str, superuser: bool = False, name: str = "", **options: Any) -> Any:
    from django.contrib.auth.models import Permission, User
    from django.test import Client

    name = name or f"user-{uuid4().hex[:8]}"
    User.objects.filter(username=name).delete()
    user = User.objects.create(
        username=name, is_staff=True, is_superuser=superuser, email=f"{name}@example.org"
    )
    found = Permission.objects.filter(
        codename__in=permissions, content_type__app_label="automate_django"
    )
    assert found.count() == len(permissions), permissions
    user.user_permissions.set(found)
    client = Client(**options)
    client.force_login(user)
    client.user = user
    return client


@pytest.fixture
def root(staff: Callable[..., Any]) -> Any:
    """A client of a superuser."""
    return staff(superuser=True)


@pytest.fixture
def fail(kernel: Any) -> Callable[..., list[str]]:
    """Enqueues items and has them fail for good."""

    def fail(
        kind: str = "slack.post",
        n: int = 1,
        *,
        code: str = "TIMEOUT",
        error: str = "no answer within 30 s",
        payload: Any = None,
        tenant_id: str | None = None,
    ) -> list[str]:
        from automate_kernel.outbox import NewItem, Outcome, ItemStatus

        new = [NewItem(kind, payload, tenant_id=tenant_id, max_attempts=1) for _ in range(n)]
        ids = kernel.outbox.enqueue_many(new)
        left = set(ids)
        while left:
            claimed = kernel.outbox.claim_batch("worker-a", 500, kinds=[kind])
            assert claimed
            outcomes = [
                Outcome(item.id, ItemStatus.FAILED, error_code=code, error=error)
                for item in claimed
            ]
            kernel.outbox.acknowledge("worker-a", outcomes)
            left -= {item.id for item in claimed}
        return ids

    return fail


@pytest.fixture
def alive(kernel: Any) -> Callable[..., None]:
    """Writes down a worker and what it did, as a worker does itself."""

    def alive(
        worker: str = "web-1:4711:a3",
        *,
        minutes: int = 0,
        seen_seconds_ago: float = 0,
        **about: Any,
    ) -> None:
        from automate_django.models import OutboxActivity, OutboxWorker

        now = kernel.outbox.now()
        seen = now - timedelta(seconds=seen_seconds_ago)
        values = {
            "host": worker.partition(":")[0],
            "pid": 4711,
            "slots": 10,
            "in_flight": 0,
            "stopping": 0,
            "kinds": [],
        }
        OutboxWorker.objects.create(
            id=worker,
            started_at=now - timedelta(hours=5),
            seen_at=seen,
            **{**values, **about},
        )
        minute = now.replace(second=0, microsecond=0)
        rows = []
        for i in range(minutes):
            swing = 6 + (i * 5 % 7) + (9 if i < 12 else 0)
            for n, kind in enumerate(("slack.post", "orders.total", "mail.send")):
                busy = 40 + 25 * ((i * 7 + n * 11) % 13) / (n + 1)
                bad = busy * (0.4 if kind == "slack.post" and i < 12 else 0.02)
                rows.append(
                    OutboxActivity(
                        id=uuid4(),
                        at=minute - timedelta(minutes=i),
                        worker_id=worker,
                        kind=kind,
                        completed=int(busy),
                        retried=int(bad),
                        failed=int(bad / 3),
                        lost=0,
                        run_times={
                            "seconds": busy * 0.2,
                            "buckets": {str(-20 + swing // 2): int(busy), str(swing // 2 - 6): 9},
                        },
                        wait_times={
                            "seconds": busy * 0.02,
                            "buckets": {str(-26 + swing // 3): int(busy), str(swing // 2 - 20): 7},
                        },
                    )
                )
        OutboxActivity.objects.bulk_create(rows)

    return alive


# -- a browser -------------------------------------------------------------------------------------


@pytest.fixture
def live(database: str) -> Iterator[str]:
    """The URL of the project, served by threads of this process under a strict policy."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.servers.basehttp import WSGIRequestHandler, ThreadedWSGIServer
    from django.db import connections

    inner = StaticFilesHandler(WSGIHandler())

    def application(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Content-Security-Policy", POLICY)], exc_info)

        if environ["PATH_INFO"] == "/favicon.ico":  # every browser asks; a project has its own
            start("204 No Content", [])
            return []
        try:
            return inner(environ, start)
        finally:
            connections.close_all()

    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.daemon_threads = True
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


# Playwright runs a loop in this thread for as long as it is there, and other tests have their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium here")
    # Django would refuse to touch the database in that loop.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    logging.getLogger("django.server").setLevel(logging.CRITICAL)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


class Operator:
    """Somebody in front of a browser, who writes down whatever the page complains about."""

    def __init__(self, browser: Any, base: str, **options: Any) -> None:
        self.base = base
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def sign_in(self, name: str) -> None:
        """By the form, which hashes a password: slow, and one test's matter."""
        from django.contrib.auth.models import User

        user = User.objects.get(username=name)
        user.set_password("pass-8f2c")
        user.save()
        self.page.goto(f"{self.base}{BASE}")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", "pass-8f2c")
        self.press("input[type=submit]")

    def be(self, name: str) -> None:
        """Signed in, as if by the form."""
        from django.conf import settings
        from django.contrib.auth.models import User
        from django.test import Client

        client = Client()
        client.force_login(User.objects.get(username=name))
        value = client.cookies[settings.SESSION_COOKIE_NAME].value
        self.context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": value, "url": self.base}]
        )

    def open(self, path: str) -> Any:
        self.page.goto(f"{self.base}{path}")
        return self.page

    # A click returns once another page begins to arrive, with the first rows of a table.
    def press(self, what: Any) -> None:
        """Clicks *what*, a selector or locator, and returns when the page that follows is whole."""
        (self.page.locator(what).first if isinstance(what, str) else what).click()
        self.page.wait_for_load_state()

    def waits_for(self, selector: str) -> None:
        """Returns when *selector* is on a page that is whole."""
        self.page.wait_for_selector(selector)
        self.page.wait_for_load_state()


@pytest.fixture
def operator(
    chromium: Any, live: str, staff: Callable[..., Any]
) -> Iterator[Callable[..., Operator]]:
    """Makes an `Operator` who has signed in as a superuser, or as *name*."""
    made: list[Operator] = []

    def operator(name: str = "", *, form: bool = False, **options: Any) -> Operator:
        name = name or staff(superuser=True, name=f"root-{uuid4().hex[:6]}").user.username
        one = Operator(chromium, live, **options)
        made.append(one)
        one.sign_in(name) if form else one.be(name)
        return one

    operator.made = made
    yield operator
    for one in made:
        one.context.close()
