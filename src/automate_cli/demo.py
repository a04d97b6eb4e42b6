"""``automate demo``: the project in ``examples/demo``, run and told as a story."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import typer

from automate_cli.command import Commands, Context
from automate_cli.database import open_storage
from automate_cli.inputs import flag
from automate_cli.output import Output, seconds
from automate_cli.records import execution_data, item_data, show_steps
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.storage.statuses import ExecutionStatus, StepStatus
from automate_kernel.storage.tables import DELIVERY

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.workflows.execution import Execution, StepRun

app: Commands = Commands()
T = TypeVar("T")
_DEADLINE = 300.0
"""The longest wait: a busy machine needs minutes for what takes a second elsewhere."""
_NEWS = 15.0
_ORDER, _SLOW = "order-fulfilment", "invoice"


def project() -> Path:
    """Return the folder of the project: a part of the installed package, or of the repository."""
    installed = Path(__file__).with_name("demo_project")
    return installed if installed.is_dir() else Path(__file__).parents[2] / "examples" / "demo"


@app.called("automate demo", "automate demo --keep", "automate demo --json")
def demo(
    context: Context,
    keep: bool = flag("--keep", "Leave the project and its database where they are."),
) -> None:
    """
    See it work: webhooks come in, a workflow runs, a worker is killed, and nothing is lost.

    Everything is real and on this machine: the receiver, signed requests, two worker processes,
    SQLite, a service that fails. It needs no network and takes some ten seconds.
    """
    if find_spec("automate_http") is None:
        raise ConfigError(
            "the demonstration needs automate-http",
            hint="pip install automate-http (in a copy of the repository: ./plugins/automate-http)",
        )
    with Demonstration.prepared(context.out, keep=keep) as it:
        if not it.run():
            raise typer.Exit(1)


@dataclass
class Demonstration:
    """A copy of the project in a folder of its own, with secrets made for this run alone."""

    out: Output
    folder: Path
    keep: bool = False
    secrets: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    """The document of ``--json``."""

    @classmethod
    @contextmanager
    def prepared(cls, out: Output, *, keep: bool = False) -> Iterator[Demonstration]:
        """Copy the project, and remove the copy after the block, unless it is to *keep* it."""
        own = cls(out, Path(tempfile.mkdtemp(prefix="automate-demo-")), keep)
        for key in ("GITHUB_WEBHOOK_SECRET", "SHOP_WEBHOOK", "CHAT_TOKEN"):
            own.secrets[key] = secrets.token_urlsafe(24)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project(), own.folder, dirs_exist_ok=True, ignore=ignored)
        own.no_paper.touch()
        try:
            yield own
        finally:
            for process in own.processes:
                process.kill()  # workers end with their receiver
                process.wait()
            if not own.keep:
                shutil.rmtree(own.folder, ignore_errors=True)

    @property
    def no_paper(self) -> Path:
        """While it is there the slow step goes on: however late we are, we see who runs it."""
        return self.folder / "printer-has-no-paper"

    def run(self) -> bool:
        """Run the project; return True if everything was as it should be."""
        from automate_kernel.kernel import Kernel

        begun = time.monotonic()
        self._scene(
            "1. A receiver and two workers start: automate serve, on a SQLite file",
            "No broker and no second service: one database holds the events and the results.",
        )
        services = self._start("services", "services.py")
        url = self._start("serve", "-m", "automate_cli", "serve", "--port", "0",
                          SERVICES_URL=services)  # fmt: skip
        self.until("the receiver to be ready", lambda: _ask(f"{url}/readyz")[0] == 200)
        self.out.line(f"   receiver   {url}")
        self.out.line(f"   services   {services}   (a warehouse and a chat)")
        self.out.line(f"   project    {self.folder}")
        storage = open_storage("sqlite:///automate.sqlite3", folder=self.folder)
        try:
            kernel = Kernel(storage, secrets={}, discover=False)
            self._send_webhooks(url)
            self._kill_worker(kernel)
            self._stop(kernel)
            return self._report(kernel, begun)
        finally:
            storage.engine.dispose()

    def _scene(self, title: str, text: str) -> None:
        self.out.line()
        self.out.line(title, "bold")
        for line in wrap(text, 77):
            self.out.line(f"   {line}", "dim")

    def _send_webhooks(self, url: str) -> None:
        from automate_kernel.triggers.webhooks import GitHubSignature, StripeSignature

        self._scene(
            "2. Webhooks come in, over HTTP, signed as GitHub and Stripe sign",
            "A forged webhook is refused. A webhook that is sent again starts nothing.",
        )
        payloads = self.folder / "payloads"
        push = (payloads / "github-push.json").read_bytes()
        order = (payloads / "order-paid.json").read_bytes()
        headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab"}
        headers |= GitHubSignature().sign(push, self.secrets["GITHUB_WEBHOOK_SECRET"])
        signed = StripeSignature("SHOP_WEBHOOK").sign(order, self.secrets["SHOP_WEBHOOK"])
        forged = order.replace(b'"unit_amount": 4990', b'"unit_amount": 1')
        self.found["responses"] = []
        for what, path, body, given, expected in (
            ("a push to GitHub", "github/push", push, headers, 202),
            ("a paid order", "shop/order_paid", order, signed, 202),
            ("the order, its price changed", "shop/order_paid", forged, signed, 401),
            ("the order, sent again", "shop/order_paid", order, signed, 200),
        ):
            status, answer = _ask(f"{url}/webhooks/{path}", body, **given)
            right = status == expected
            self.found["responses"].append(
                {"what": what, "path": path, "status": status, "body": answer, "as_expected": right}
            )
            id_ = f"{'again' if answer.get('duplicate') else 'event'} {answer.get('id')}"
            text = answer.get("error", id_)
            self.out.line(f"   {status}  {what:<28}  {text}", None if right else "red")

    def _kill_worker(self, kernel: Kernel) -> None:
        self._scene(
            f"3. The worker is killed with SIGKILL in the middle of the step {_SLOW!r}",
            "Finished steps stay done. Another worker takes over once the lease ends (1.5 s).",
        )
        first = self.until(f"the step {_SLOW!r} to run", lambda: _worker_of_slow(kernel))
        (order,) = kernel.executions.find(workflow=_ORDER)
        pid = int(first.rsplit("-", 2)[1])
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        self.out.line(f"   process {pid} held the execution; it is gone, and replaced")

        second = self.until(
            "another worker to take over",
            lambda: found if (found := _worker_of_slow(kernel)) != first else None,
        )
        self.no_paper.unlink()
        taken = time.monotonic() - killed_at
        self.out.line(f"   process {second.rsplit('-', 2)[1]} took it over after {seconds(taken)}")
        self.found["killed"] = {
            "pid": pid, "worker": first, "taken_over_by": second, "takeover_seconds": taken,
            "attempts_before": _attempts(order),
        }  # fmt: skip

    def _stop(self, kernel: Kernel) -> None:
        def ended() -> bool:
            found = kernel.executions.find()
            return len(found) == 2 and all(each.status.finished for each in found)

        self.until("both executions to end", ended)
        receiver = self.processes[-1]
        receiver.terminate()  # as a deployment does
        self.found["exit_code"] = receiver.wait(_DEADLINE)
        code = self.found["exit_code"]
        self.out.line(f"   both executions ended; SIGTERM stopped everything, exit code {code}")

    def _report(self, kernel: Kernel, begun: float) -> bool:
        executions = sorted(kernel.executions.find(), key=lambda each: each.name)
        items = kernel.outbox.find(limit=100)
        with kernel.storage.begin() as rows:
            # GitHub's has two ids: its own, and what it signed.
            deliveries = len(rows.count(DELIVERY, ("item_id",)))
        checks = self._checks(executions, deliveries)
        self.out.data(
            {
                "ok": all(checks.values()),
                "checks": checks,
                **self.found,
                "executions": [execution_data(each) for each in executions],
                "items": [item_data(each) for each in items],
                "deliveries": deliveries,
                "seconds": time.monotonic() - begun,
                "folder": str(self.folder) if self.keep else None,
            }
        )
        self._scene(
            "4. The database has all of it",
            "Each step was saved before the next began, with its attempts and its output.",
        )
        for each in executions:
            took = seconds(each.duration_seconds)
            self.out.line()
            self.out.line(f"{each.name}  {each.status.value} in {took}  {each.id}", "bold")
            show_steps(self.out, map(_brief, each.steps), length=38)
        self.out.line()
        self.out.line(f"outbox: {len(items)} items; webhook deliveries: {deliveries}\n")
        for text, right in checks.items():
            self.out.line(f"{'✓' if right else '✗'} {text}", "green" if right else "red")
        self.out.line(f"\nThat took {seconds(time.monotonic() - begun)}. Next:")
        order = next(each for each in executions if each.name == _ORDER)
        kept = f"cd {self.folder}\nautomate executions show {order.id}"
        self.out.line(kept if self.keep else "automate demo --keep   # leaves you the project")
        return all(checks.values())

    def _checks(self, executions: list[Execution], deliveries: int) -> dict[str, bool]:
        order = next(each for each in executions if each.name == _ORDER)
        attempts = _attempts(order)
        killed = self.found["killed"]
        values = [value.encode() for value in self.secrets.values()]
        contents = [path.read_bytes() for path in self.folder.rglob("*") if path.is_file()]
        return {
            "webhooks were answered as they should be": all(
                each["as_expected"] for each in self.found["responses"]
            ),
            "each delivery started one execution": deliveries == len(executions) == 2,
            "both executions completed": all(
                e.status is ExecutionStatus.COMPLETED for e in executions
            ),
            # More of them on a machine so busy that a worker lost its lease.
            "the warehouse failed 2 times and was asked again": attempts["reserve"] >= 3,
            "the killed step ran again, on another worker": attempts[_SLOW]
            > killed["attempts_before"][_SLOW]
            and killed["taken_over_by"] != killed["worker"],
            "the steps before it did not run again": all(
                attempts[step] == killed["attempts_before"][step] for step in ("total", "reserve")
            ),
            "no secret is in the database, the log or any other file": not any(
                value in content for value in values for content in contents
            ),
            "everything stopped cleanly": self.found["exit_code"] == 0,
        }

    def _start(self, name: str, *arguments: str, **variables: str) -> str:
        """Start a Python program, and return the URL that it prints."""
        # Settings of the user must not change the demonstration.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
        environment |= {f"AUTOMATE_SECRET_{key}": value for key, value in self.secrets.items()}
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments], cwd=self.folder, env=environment | variables,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.processes.append(process)

        def url() -> str | None:
            found = re.search(r"listening on (\S+)\n", path.read_text("utf-8"))
            return found and found[1]

        return self.until(f"{name} to start", url)

    def until(self, what: str, found: Callable[[], T | None]) -> T:
        """Return the result of *found*, once it is true."""
        begun = time.monotonic()
        news = begun + _NEWS
        while not (result := found()):
            waited = time.monotonic() - begun
            if any(each.poll() is not None for each in self.processes):
                raise self._broken("a process has ended")
            if waited > _DEADLINE:
                raise self._broken(f"waited for {_DEADLINE:.0f} s, in vain, for {what}")
            if begun + waited > news:
                news += _NEWS
                self.out.note(f"   {waited:.0f} s: still waiting for {what}")
            time.sleep(0.05)
        return result

    def _broken(self, text: str) -> AutomateError:
        self.keep = True
        log = self.folder / "serve.log"
        lines = log.read_text("utf-8", "replace").splitlines()[-15:] if log.exists() else []
        end = "\n".join(["; its log ends with:", *lines]) if lines else "; its log is empty"
        return AutomateError(
            ErrorCodes.ABORTED,
            f"the demonstration failed: {text}{end}",
            hint=f"everything is kept in {self.folder}",
        )


def _ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Send a request; return the status, 0 if nobody answers, and the JSON of the response."""
    # The machine's proxy settings are for other hosts.
    opener = build_opener(ProxyHandler({}))
    given = {"Content-Type": "application/json", **headers}
    try:
        with opener.open(Request(url, body, given), timeout=_DEADLINE) as response:  # noqa: S310
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError:
        return 0, {}


def _worker_of_slow(kernel: Kernel) -> str | None:
    """Return the worker that runs the slow step of the order's execution now, if any."""
    found = kernel.executions.find(workflow=_ORDER, limit=1)
    step = found[0].step(_SLOW) if found else None
    if step is None or step.status is not StepStatus.RUNNING:
        return None
    item = kernel.outbox.get(found[0].item_id or "")
    return item.lease_owner if item is not None else None


def _attempts(execution: Execution) -> dict[str, int]:
    return {run.step_id: run.attempts for run in execution.steps}


def _brief(run: StepRun) -> StepRun:
    """Show only the body of an HTTP response: the headers would fill the line."""
    whole = isinstance(run.output, dict) and "headers" in run.output
    return replace(run, output=run.output["json"]) if whole else run
