# ruff: noqa: T201  (a script)
"""
Takes the pictures of the operators' pages.

``uv run --with pillow python docs/_generate/pictures.py``; it needs chromium at /usr/bin. The shop
in them is that of the benchmark's walk, on an ordinary day: its data are the same each time, and so
are the pictures but for times and ids.
"""

from __future__ import annotations

import linecache
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import shop as teashop  # noqa: E402
from benchmarks.walk import operated  # noqa: E402

from automate_kernel.storage import MemoryStorage  # noqa: E402
from automate_testing.clock import FakeClock  # noqa: E402

FOLDER = ROOT / "docs" / "images" / "pages"
MOST_BYTES = 1_500_000
_FILE = "/srv/shop/shop.py"
_WIDTH, _HEIGHT = 1280, 800


def main() -> None:
    """Write each picture, light and dark."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ordinary_day() as shop, operated(shop) as (page, address):
        shown = page.context.browser.new_context(
            viewport={"width": _WIDTH, "height": _HEIGHT}, device_scale_factor=2
        ).new_page()
        for name, path in screens(shop).items():
            for scheme in ("light", "dark"):
                shown.emulate_media(color_scheme=scheme)
                shown.goto(f"{address}{path}")
                file = FOLDER / f"{name}-{scheme}.webp"
                picture = Image.open(BytesIO(shown.screenshot(clip=_clip(shown))))
                picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).convert("RGB").save(
                    file, lossless=True, quality=100, method=4
                )
                print(f"{file.stat().st_size / 1000:6.0f} kB  {file.name}")
    size = sum(each.stat().st_size for each in FOLDER.glob("*.webp"))
    print(f"{size / 1000:6.0f} kB  altogether")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 1000:,.0f} kB")


def _clip(page: Any) -> dict[str, float]:
    whole = page.evaluate("document.documentElement.scrollHeight")
    return {"x": 0, "y": 0, "width": _WIDTH, "height": min(whole, _HEIGHT)}


def _elsewhere() -> Any:
    """Return the shop's module as if it were an application's own, on the application's machine."""
    socket.gethostname = lambda: "shop-1"
    source = Path(teashop.__file__).read_text(encoding="utf-8")
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    module = ModuleType("shop")
    sys.modules["shop"] = module
    exec(compile(source, _FILE, "exec"), module.__dict__)  # noqa: S102
    return module


@contextmanager
def ordinary_day() -> Iterator[teashop.TeaShop]:
    """Give a shop after six hours: most is done, some waits, and some has failed."""
    logging.disable(logging.CRITICAL)
    clock = FakeClock(datetime.now(timezone.utc) - timedelta(hours=6))
    shop: teashop.TeaShop = _elsewhere().TeaShop(MemoryStorage(clock=clock))
    shop.broken = {"payments"}
    number = 4_590
    for quarter in range(24):
        for _ in range(5 + quarter % 4):
            number += 1
            if number % 10 in (4, 7):
                number += 1  # they fail by another cause
            shop.place_order(number)
            shop.kernel.outbox.enqueue("mail.send", {"order": number, "name": "Sencha"},
                                       labels={"order": number})  # fmt: skip
        shop.kernel.run_until_idle()
        clock.advance(timedelta(minutes=15) - timedelta(seconds=quarter))
    shop.broken |= {"mail.send", "label.print", "invoice.print"}
    shop.fill(90, 0, report=len)
    for each in (4_707, 4_711, 4_714, 4_725):
        shop.place_order(each)
    shop.kernel.run_until_idle()
    shop.kernel.outbox.pause("customer.update", "the CRM moves to another address")
    shop.kernel.outbox.limit("label.print", concurrency=2)
    shop.kernel.outbox.enqueue("customer.update", {"order": 4_711}, labels={"order": 4_711})
    for actor, action, model, what in (
        ("ada", "log-in", "session", ""), ("ada", "approve", "approval", "order 4685"),
        ("ben", "pause", "kind", "customer.update"), ("ada", "resume", "execution", "order 4704"),
        ("cem", "limit", "kind", "label.print"), ("ben", "start", "workflow", "daily-report"),
    ):  # fmt: skip
        shop.kernel.audit.write(action, actor=actor, model=model, object_id=what or None)
    clock.advance(datetime.now(timezone.utc) - clock())
    worker = shop.kernel.worker(kinds=["mail.send"], poll_seconds=0.2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(1)  # until it is listed
    yield shop
    worker.stop()
    thread.join()
    shop.kernel.close()


def screens(shop: teashop.TeaShop) -> dict[str, str]:
    """Return an address of each screen that is shown."""
    find = shop.kernel.executions.page
    (failed, *_) = find(label="order=4711", status="FAILED").executions
    (waiting, *_) = find(status="RUNNING").executions
    (item, *_) = shop.kernel.outbox.page(status="FAILED", kind="invoice.print").items
    return {
        "home": "/",
        "executions": "/executions",
        "grid": "/executions/grid?workflow=order",
        "execution": f"/executions/{failed.id}",
        "workflow": "/workflows/order",
        "approval": f"/approvals/{waiting.id}/approve/whole",
        "outbox": "/outbox?status=FAILED",
        "item": f"/outbox/{item.id}",
        "kinds": "/kinds",
        "audit": "/audit",
    }


if __name__ == "__main__":
    main()
