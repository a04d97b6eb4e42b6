"""The example in ``examples/shop``: its one command, as a newcomer runs it, in a copy of its own."""

from __future__ import annotations

import contextlib
import hmac
import http.cookiejar
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
from waiting import until

EXAMPLE = Path(__file__).parents[3] / "examples" / "shop"
SOURCE = Path(__file__).parents[3] / "src"
PATIENCE_SECONDS = 120.0
SECRET = "secret-for-the-example-only"
pytestmark = pytest.mark.slow


class Shop:
    """A copy of the example and the process of ``manage.py demo`` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)
        self.printed = ""
        self.start()

    def start(self) -> None:
        """Start it, and wait until it tells that it runs."""
        self.printed = ""
        self.process = processes.start(
            [sys.executable, "manage.py", "demo"], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=[self.process], daemon=True)
        self._reader.start()
        try:
            self.until(lambda: "Ctrl-C stops" in self.printed)
        except BaseException:
            processes.end(self.process)
            raise
        self.site = re.search(r"Shop +(\S+)/\n", self.printed)[1]
        self.tokens = dict(re.findall(r"token of (\w+): (\S+)", self.printed))

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout:
            self.printed += line
        process.stdout.close()

    def until(self, condition: Callable[[], bool]) -> None:
        until(condition, PATIENCE_SECONDS, process=self.process, why=lambda: self.printed)

    def stop(self) -> int:
        """Stop it as Ctrl-C does; returns how it ended."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_SECONDS)
        # It ends when nobody is left who could write: the server and the worker neither.
        self._reader.join(PATIENCE_SECONDS)
        assert not self._reader.is_alive()
        return code

    def pay(self, store: str, order: int) -> str:
        """What the command says that plays the payment provider."""
        command = re.search(r"(\S+ manage.py pay) north 4 (--port \d+)", self.printed)
        return subprocess.check_output(
            [*command[1].split(), store, str(order), *command[2].split()],
            cwd=self.folder, env=self.environment, text=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip

    def webhook(self, store: str, order: int, secret: str | None) -> int:
        """How a payment is answered that is signed with *secret*."""
        body = json.dumps({"merchant": store, "order": order}).encode()
        headers = {"X-Payments-Delivery": f"{store}-{order}"}
        if secret is not None:
            digest = hmac.new(secret.encode(), body, "sha256").hexdigest()
            headers["X-Payments-Signature"] = f"sha256={digest}"
        request = urllib.request.Request(f"{self.site}/webhooks/payments/received", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def api(
        self, path: str, body: Any = None, *, store: str = "north", **headers: str
    ) -> tuple[int, Any]:
        """What a program with the token of *store* is answered."""
        headers = {"Authorization": f"Bearer {self.tokens[store]}", **headers}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.site}/api/{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def order(self, number: int) -> Any:
        return self.api(f"orders/{number}")[1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The running example, stopped at the end however that may be."""
    folder = tmp_path_factory.mktemp("example") / "shop"
    shutil.copytree(
        EXAMPLE, folder, ignore=shutil.ignore_patterns("*.sqlite3*", "mail", "__pycache__")
    )
    with (folder / "config" / "settings.py").open("a") as settings:
        settings.write("\nSHOP_REMIND_AFTER_SECONDS = 1\n")  # else the tests would take that long
    shop = Shop(folder)
    yield shop
    try:
        if shop.process.poll() is None:
            shop.stop()
    finally:
        processes.end(shop.process)


class Browser:
    """A browser of somebody who has signed in."""

    def __init__(self, shop: Shop, user: str) -> None:
        self.site, self.cookies = shop.site, http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        self.get("/admin/login/")
        self.post("/admin/login/", username=user, password="demo", next="/admin/")

    def get(self, path: str) -> str:
        with self._opener.open(self.site + path, timeout=PATIENCE_SECONDS) as response:
            return response.read().decode()

    def post(self, path: str, **values: Any) -> str:
        token = next(cookie.value for cookie in self.cookies if cookie.name == "csrftoken")
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **values}, doseq=True)
        request = urllib.request.Request(
            self.site + path, data.encode(), {"Referer": self.site + path}
        )
        with self._opener.open(request, timeout=PATIENCE_SECONDS) as response:
            return response.read().decode()


NEW = {"customer": 1, "card": "card_flaky", "lines": [{"product": "TEA", "quantity": 2}]}


def test_an_order_becomes_an_invoice(shop: Shop) -> None:
    """An order by the API, twice with one key, is one order; its charge is retried, its invoice sent."""
    key = {"Idempotency-Key": "k-1"}
    status, order = shop.api("orders", NEW, **key)
    assert (status, order["status"], order["total"]) == (201, "placed", "9.00")
    assert shop.api("orders", NEW, **key) == (201, order)

    shop.until(lambda: shop.order(order["id"])["status"] == "sent")
    assert "2 x Black tea, 4.50 EUR each" in shop.order(order["id"])["invoice"]["text"]
    attempts = {step["id"]: step["attempts"] for step in _execution_of(shop, order)["steps"]}
    assert (attempts["reserve"], attempts["charge"]) == (1, 3)
    shop.until(lambda: f"Your invoice {order['number']}" in _mails(shop))
    assert _mails(shop).count(f"Your invoice {order['number']}") == 1


def _execution_of(shop: Shop, order: Any, store: str = "north") -> Any:
    path = "automate/executions"
    found = shop.api(f"{path}?workflow=order-placed", store=store)[1]["results"]
    whole = (shop.api(f"{path}/{one['id']}", store=store)[1] for one in found)
    mine = (one for one in whole if one["payload"] == {"order": order["id"]})
    return next(mine, {"status": "not begun"})


def _mails(shop: Shop) -> str:
    return "".join(file.read_text() for file in (shop.folder / "mail").glob("*"))


def test_each_branch_comes_to_its_end(shop: Shop) -> None:
    """The orders of the demo data: paid, declined, out of stock, and reminded of the money."""
    shop.until(lambda: shop.order(1)["status"] == "sent")
    shop.until(lambda: shop.order(3)["status"] == "failed")
    shop.until(lambda: shop.api("orders/5", store="south")[1]["status"] == "backorder")
    shop.until(lambda: shop.order(2)["status"] == "sent")
    shop.until(lambda: "Reminder of order north-4" in _mails(shop))
    assert shop.order(4)["status"] == "reserved"
    assert shop.api("products/SAFFRON", store="south")[1]["stock"] == 2
    # The order fails first, then its customer is told, and only then the execution ends.
    failed = "automate/executions?status=FAILED"
    shop.until(lambda: shop.api(failed)[1]["results"] != [])
    errors = [one["error"] for one in shop.api(failed)[1]["results"]]
    assert errors == ["step 'charge' failed: the card was declined"]


def test_a_backorder_goes_on_once_there_is_stock(shop: Shop) -> None:
    """Its execution is started again, in the admin, after the stock was raised there."""
    order = shop.api("orders/5", store="south")[1]
    shop.until(lambda: _execution_of(shop, order, store="south")["status"] == "COMPLETED")
    sofia = Browser(shop, "sofia")
    saffron = {"sku": "SAFFRON", "name": "Saffron", "price": "89.00", "stock": "10"}
    sofia.post("/admin/shop/product/4/change/", **saffron)
    execution = _execution_of(shop, order, store="south")["id"]
    sofia.post(f"/admin/automate_django/pages/executions/{execution}", order="again")
    shop.until(lambda: shop.api("orders/5", store="south")[1]["status"] == "sent")
    assert shop.api("products/SAFFRON", store="south")[1]["stock"] == 7


def test_the_webhook_counts_if_it_is_signed(shop: Shop) -> None:
    """Unsigned it is refused; signed for another store it finds no order; signed it pays, once."""
    shop.until(lambda: shop.order(4)["status"] == "reserved")
    assert shop.webhook("north", 4, None) == 401
    assert shop.webhook("north", 4, "another secret") == 401
    assert shop.webhook("south", 4, SECRET) == 202
    shop.until(lambda: "store south has no order 4" in shop.printed)
    assert shop.order(4)["status"] == "reserved"

    assert shop.pay("north", 4).startswith("202")
    shop.until(lambda: shop.order(4)["status"] == "sent")
    assert shop.webhook("north", 4, SECRET) == 202
    assert shop.webhook("north", 4, SECRET) == 200
    assert "Total: 22.50 EUR" in shop.order(4)["invoice"]["text"]


def test_a_program_stays_in_its_store(shop: Shop) -> None:
    """The token of one store reads, names and starts nothing of the other."""
    assert shop.api("orders/1", store="south")[0] == 404
    assert shop.api("products/TEA", store="south")[0] == 404
    status, problem = shop.api("orders", NEW, store="south")
    assert status == 400
    assert {error["pointer"] for error in problem["errors"]} == {"#/customer", "#/lines/0/product"}
    event = {"name": "order.paid", "payload": {"order": 3}}
    assert shop.api("automate/events", event, store="south")[0] == 202
    shop.until(lambda: "store south has no order 3" in shop.printed)
    assert shop.order(3)["invoice"] is None
    executions = shop.api("automate/executions", store="south")[1]["results"]
    assert {one["tenant_id"] for one in executions} == {"south"}


def test_people_stay_in_their_store(shop: Shop) -> None:
    """In the admin and by the session in the API: the own rows alone, and what the role allows."""
    shop.until(lambda: shop.order(1)["status"] == "sent")
    shop.until(lambda: shop.api("automate/executions", store="south")[1]["results"] != [])
    nora, sofia, nils = (Browser(shop, name) for name in ("nora", "sofia", "nils"))
    for path, ours, theirs in (
        ("order/", "north-1", "south-5"),
        ("product/", "Black tea", "Saffron"),
        ("customer/", "Ada Aalto", "Cora Cruz"),
        ("invoice/", "north-1", "south-"),
    ):
        page = nora.get(f"/admin/shop/{path}")
        assert ours in page
        assert theirs not in page
        assert ours not in sofia.get(f"/admin/shop/{path}")
    # Django's admin leads back to its index, as for a row that never was.
    assert "doesn’t exist" in sofia.get("/admin/shop/order/1/change/")
    assert "north-1" not in sofia.get("/api/orders")
    assert "Add product" in nora.get("/admin/shop/product/")
    assert "Add product" not in nils.get("/admin/shop/product/")
    executions = sofia.get("/admin/automate_django/workflowexecution/")
    assert "order-placed" in executions
    assert "north" not in executions
    assert "Attempts per minute" in Browser(shop, "olga").get("/admin/automate_django/pages/")


def test_the_admin_remembers(shop: Shop) -> None:
    """A product that is deleted is gone for the API, in the trail, and can be brought back."""
    nora = Browser(shop, "nora")
    nora.post("/admin/shop/product/2/delete/", post="yes")
    assert shop.api("products/POT")[0] == 404
    assert "Tea pot" in nora.get("/admin/automate_django/auditentry/")
    chosen = {"action": "restore_selected", "_selected_action": ["2"], "index": "0"}
    nora.post("/admin/shop/product/?deleted=only", **chosen)
    assert shop.api("products/POT")[0] == 200


def test_the_admin_enqueues_a_task(shop: Shop) -> None:
    """The action on customers sends a mail from the worker."""
    chosen = {"action": "mail_statement", "_selected_action": ["1"], "index": "0"}
    page = Browser(shop, "nils").post("/admin/shop/customer/", **chosen)
    assert "1 mails are on their way" in page
    shop.until(lambda: "Subject: Your orders" in _mails(shop))


def test_the_schema_is_there(shop: Shop) -> None:
    """OpenAPI, for the shop's own views as for those of the automation."""
    with urllib.request.urlopen(f"{shop.site}/api/schema", timeout=PATIENCE_SECONDS) as response:
        schema = response.read().decode()
    assert "/api/orders:" in schema
    assert "/api/automate/executions:" in schema
    assert "apiToken" in schema


def test_it_stops_and_starts_again(shop: Shop) -> None:
    """Ctrl-C ends all of its processes; the next start finds everything as it was."""
    shop.until(lambda: shop.order(1)["status"] == "sent")
    before = shop.order(1)
    site = shop.site
    assert shop.stop() == 0
    # The server's own log of a request may come late.
    told = [line for line in shop.printed.splitlines() if not line.startswith("[")]
    assert told[-2:] == ["Stopping …", "Stopped."]
    assert "Traceback" not in shop.printed
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{site}/", timeout=PATIENCE_SECONDS)
    shop.start()
    assert shop.order(1) == before
    assert shop.api("orders/7")[0] == 404  # the demo data are there once


def test_an_order_whose_commit_fails_is_not_accepted(shop: Shop) -> None:
    """Neither it nor its event is there, nobody is locked out, and it may be sent again."""
    count = "SELECT (SELECT count(*) FROM shop_order), (SELECT count(*) FROM automate_outbox"
    count += " WHERE json_extract(payload, '$.name') = 'order.placed')"
    with contextlib.closing(sqlite3.connect(shop.folder / "shop.sqlite3", timeout=30)) as other:
        before = other.execute(count).fetchone()
        # What only COMMIT refuses.
        other.executescript("""
            CREATE TABLE parent (id INTEGER PRIMARY KEY);
            CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER refuses AFTER INSERT ON shop_order
            BEGIN INSERT INTO child VALUES (1); END;
        """)
        request = urllib.request.Request(
            f"{shop.site}/api/orders", json.dumps(NEW).encode(),
            {"Authorization": f"Bearer {shop.tokens['north']}", "Content-Type": "application/json"},
        )  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
        assert refused.value.code >= 400
        other.executescript("DROP TRIGGER refuses")
        assert other.execute(count).fetchone() == before
        assert shop.api("orders", NEW)[0] == 201
        assert other.execute(count).fetchone() == (before[0] + 1, before[1] + 1)
