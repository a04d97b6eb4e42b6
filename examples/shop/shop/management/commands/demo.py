"""``manage.py demo``: everything that the example needs, in one terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from shop import demo_data

FIRST_PORT = 8000
PORTS = 100
# A busy machine needs minutes for what takes a second elsewhere.
START_SECONDS = 300.0
# The worker itself waits 30 seconds for what runs (AUTOMATE_WORKER["GRACE_SECONDS"]).
STOP_SECONDS = 40.0


class Command(BaseCommand):
    """Sets the shop up and runs its web server and a worker until Ctrl-C."""

    help = "Make the database, load demo data, run the web server and a worker until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the port."""
        parser.add_argument("--port", type=int, help="left out: the first free one from 8000 on")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        port = _port(options["port"])
        self.stdout.write("Making the database …")
        call_command("migrate", verbosity=0)
        demo_data.load()
        # Ctrl-C and SIGTERM, which a process manager sends, stop it in the same way.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        running: list[subprocess.Popen[bytes]] = []
        try:
            running.append(_start("runserver", "--noreload", f"127.0.0.1:{port}"))
            _wait_for_answer(port, running)
            self._tell(port)
            running.append(_start("automate_worker"))
            _wait_for_end(running)
        except KeyboardInterrupt:
            self.stdout.write("Stopping …")
        finally:
            _stop(running)
        self.stdout.write("Stopped.")

    def _tell(self, port: int) -> None:
        site = f"http://127.0.0.1:{port}"
        tokens = {store: demo_data.issue_token(store) for store in demo_data.STORES}
        self.stdout.write(
            f"\nShop   {site}/\nAdmin  {site}/admin/   password: {demo_data.PASSWORD}"
        )
        for name, (_, _, purpose) in demo_data.PEOPLE.items():
            self.stdout.write(f"         {name:6} {purpose}")
        self.stdout.write(f"API    {site}/api/orders   its schema: {site}/api/schema")
        for store, token in tokens.items():
            self.stdout.write(f"         token of {store}: {token}")
        self.stdout.write(
            f"\nOrder tea, with a card that works at the third attempt:\n\n"
            f"  curl {site}/api/orders -H 'Authorization: Bearer {tokens['north']}'"
            f" -H 'Content-Type: application/json' -d '"
            '{"customer": 1, "card": "card_flaky", "lines": [{"product": "TEA", "quantity": 2}]}'
            "'\n\nMoney comes in for an order without a card (a signed webhook):\n\n"
            f"  {_command()} pay north 4 --port {port}\n\nCtrl-C stops the server and the worker."
        )
        self.stdout.flush()


def _command() -> str:
    python = min(sys.executable, os.path.relpath(sys.executable), key=len)
    return f"{python} {sys.argv[0]}"


def _port(wanted: int | None) -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS) if wanted is None else [wanted]:
        with socket.socket() as probe:
            # As the server does: a port that a server has just left counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise CommandError("The port is in use. Leave out --port to have a free one chosen.")


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (our own command)
        [sys.executable, sys.argv[0], *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Ctrl-C reaches this process alone, which then stops each of them once.
        start_new_session=True,
    )


def _wait_for_answer(port: int, running: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _check(running)
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30).close()
            return
        time.sleep(0.1)
    raise CommandError("The web server does not answer.")


def _wait_for_end(running: list[subprocess.Popen[bytes]]) -> None:
    while True:
        _check(running)
        time.sleep(0.5)


def _check(running: list[subprocess.Popen[bytes]]) -> None:
    if any(process.poll() is not None for process in running):
        raise CommandError("The web server or the worker ended; what it said is above.")


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()  # the worker ends what runs, and takes nothing new
    for process in running:
        try:
            process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
