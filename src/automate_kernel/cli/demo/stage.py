"""The demonstration's machinery: a project of its own, ``automate serve`` on it, and requests."""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from automate_kernel.cli.database import open_storage
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.kernel import Kernel

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Stage"]

T = TypeVar("T")
_PROJECT = Path(__file__).parent / "project"
_DEADLINE = 300.0
"""How long anything may take: a busy machine needs minutes for what is done in one second else."""
_NEWS = 15.0
_POLL = 0.05
_LOG_LINES = 15


class Stage:
    """
    A copy of the project in a folder of its own, with secrets made for this run alone.

    As a context manager it ends what it started; the folder goes too, unless it is to *keep* it.
    While it waits for long it says so with *note*.
    """

    def __init__(self, *, keep: bool = False, note: Callable[[str], None] = print) -> None:
        self._note: Callable[[str], None] = note
        self.folder: Path = Path(tempfile.mkdtemp(prefix="automate-demo-"))
        self.secrets: dict[str, str] = {
            name: secrets.token_urlsafe(24)
            for name in ("GITHUB_WEBHOOK_SECRET", "SHOP_WEBHOOK", "CHAT_TOKEN")
        }
        self.url: str = ""
        self._keep = keep
        self._serving: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None
        # The machine's proxy settings are for other hosts.
        self._opener = build_opener(ProxyHandler({}))
        ignored = shutil.ignore_patterns("__init__.py", "__pycache__")
        shutil.copytree(_PROJECT, self.folder, dirs_exist_ok=True, ignore=ignored)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._serving is not None and self._serving.poll() is None:
            # Its workers end with it.
            self._serving.kill()
            self._serving.wait()
        if self._log is not None:
            self._log.close()
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- the receiver ----------------------------------------------------------------------------

    def serve(self, services_url: str) -> None:
        """Start ``automate serve`` on a free port, and wait until it is ready."""
        self._log = (self.folder / "serve.log").open("w", encoding="utf-8")
        # Settings of whoever runs this must not change what is shown.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
        environment |= {f"AUTOMATE_SECRET_{key}": value for key, value in self.secrets.items()}
        environment["SERVICES_URL"] = services_url
        self._serving = subprocess.Popen(
            [sys.executable, "-m", "automate_kernel.cli", "serve", "--port", "0"],
            cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.url = self._address(self._serving)
        self.until("the receiver to be ready", lambda: self.get("/readyz") == 200 or None)

    def _address(self, process: subprocess.Popen[str]) -> str:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line)
            lines.put("")

        threading.Thread(target=read, daemon=True).start()

        def found() -> str | None:
            try:
                return lines.get_nowait()
            except queue.Empty:
                return None

        while True:
            line = self.until("the receiver to start", found)
            if not line:
                raise self._broken("the receiver did not start")
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()

    def stop(self) -> int:
        """Send SIGTERM, as a deployment does, and return the exit code."""
        if self._serving is None:
            return 0
        self._serving.send_signal(signal.SIGTERM)
        try:
            return self._serving.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            raise self._broken("the receiver did not stop") from None

    def pid_of(self, worker_id: str) -> int:
        """The process of a worker, which must be one of ours."""
        log = (self.folder / "serve.log").read_text("utf-8")
        parts = worker_id.rsplit("-", 2)
        if f"worker {worker_id} started" not in log or not parts[1].isdecimal():
            raise self._broken(f"the worker {worker_id} is not ours")
        return int(parts[1])

    # -- requests --------------------------------------------------------------------------------

    def payload(self, name: str) -> bytes:
        """The bytes of a payload file."""
        return (self.folder / "payloads" / f"{name}.json").read_bytes()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """POST *body* to the receiver; the status and the JSON that came back."""
        request = Request(self.url + path, body, method="POST")  # noqa: S310 - http, and ours
        for name, value in {"Content-Type": "application/json", **headers}.items():
            request.add_header(name, value)
        try:
            with self._opener.open(request, timeout=_DEADLINE) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def get(self, path: str) -> int:
        """GET from the receiver; the status, or 0 if nobody answers."""
        try:
            with self._opener.open(self.url + path, timeout=_DEADLINE) as response:
                return int(response.status)
        except HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    # -- the database ----------------------------------------------------------------------------

    def look(self) -> Kernel:
        """A kernel on the project's database, to read it with."""
        storage = open_storage("sqlite:///automate.sqlite3", folder=self.folder)
        return Kernel(storage, secrets={}, discover=False)

    def leaks(self) -> list[str]:
        """The files below the folder in which the value of a secret stands."""
        values = [value.encode() for value in self.secrets.values()]
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [
            str(path.relative_to(self.folder))
            for path in files
            if any(value in path.read_bytes() for value in values)
        ]

    def until(self, what: str, found: Callable[[], T | None]) -> T:
        """What *found* gives, once it isn't None."""
        begun = time.monotonic()
        news = begun + _NEWS
        while (result := found()) is None:
            if self._serving is not None and self._serving.poll() is not None:
                raise self._broken("the receiver ended")
            now = time.monotonic()
            if now > begun + _DEADLINE:
                raise self._broken(f"waited for {_DEADLINE:.0f} s, in vain, for {what}")
            if now > news:
                news = now + _NEWS
                self._note(f"   {now - begun:.0f} s: still waiting for {what}")
            time.sleep(_POLL)
        return result

    def _broken(self, text: str) -> AutomateError:
        self._keep = True
        log = self.folder / "serve.log"
        lines = log.read_text("utf-8", "replace").strip().split("\n") if log.exists() else [""]
        told = "\n".join(["; its log ends with:", *lines[-_LOG_LINES:]]) if lines[-1] else ""
        return AutomateError(
            ErrorCodes.ABORTED,
            f"the demonstration failed: {text}" + (told or "; its log is empty"),
            hint=f"everything is kept in {self.folder}",
        )
