"""`automate executor` as a process: it takes tasks without a database, answers probes, and drains."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError
from automate_nats import NatsExecutor
from nats_support import NatsServer
from ports import free_ports
from waiting import until

CODE = """
import asyncio
from automate_kernel import current_call

async def slow(seconds: float, token: str = "") -> dict:
    open("begun", "w").close()
    await asyncio.sleep(0 if current_call().repeated else seconds)
    return {"token": token, "tenant": current_call().tenant_id}
"""


@contextmanager
def executing(
    folder: Path, server: NatsServer, port: int, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command for the block."""
    (folder / "remote.py").write_text(CODE)
    (folder / "automate.toml").write_text(
        f'app = "remote"\n[executors.gpu]\ntype = "nats"\nservers = ["{server.url}"]\n'
        "ack_seconds = 2.0\n"
    )
    command = [
        sys.executable, "-m", "automate_cli", "executor", "--queue", "gpu",
        "--health-port", str(port), "--metrics-port", str(port), *options,
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)  # noqa: S603
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answered(port: int, path: str) -> str:
    """Return what a probe answers; "" while it does not, or not well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:  # noqa: S310
            return str(answer.read().decode())
    except OSError:
        return ""


@pytest.fixture
def host(server: NatsServer) -> Iterator[Kernel]:
    """Return a host on the server."""
    executors = {"gpu": {"type": NatsExecutor(server.url, queue="gpu", ack_seconds=2.0)}}
    with Kernel(discover=False, executors=executors) as kernel:
        yield kernel


def test_the_command_makes_calls_and_drains(
    tmp_path: Path, server: NatsServer, host: Kernel
) -> None:
    """The call that runs at SIGTERM ends well, the process ends with 0, and no database is made."""
    (port,) = free_ports(1)
    options = ["--slots", "3", "--grace-seconds", "60", "--probe-host", "127.0.0.1"]
    with executing(tmp_path, server, port, *options) as process:
        until(lambda: answered(port, "/readyz"), 60, process=process)
        found = host.invoke("remote.slow", {"seconds": 0}, runs_on="gpu", tenant_id="acme")
        assert found == {"token": "", "tenant": "acme"}
        assert 'automate_executor_tasks_total{queue="gpu"} 1' in answered(port, "/metrics")
        (tmp_path / "begun").unlink()
        results: list[object] = []

        def call() -> None:
            results.append(host.invoke("remote.slow", {"seconds": 1.5}, runs_on="gpu"))

        calling = threading.Thread(target=call)
        calling.start()
        until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)
        calling.join(60)
        assert results == [{"token": "", "tenant": None}]
        assert process.wait(60) == 0
    assert not list(tmp_path.glob("*.sqlite3"))


def test_a_second_signal_leaves_the_call_to_others(
    tmp_path: Path, server: NatsServer, host: Kernel
) -> None:
    """The process ends at once, and another executor makes the call."""
    (port, other) = free_ports(2)
    results: list[object] = []
    with executing(tmp_path, server, port) as process:
        until(lambda: answered(port, "/readyz"), 60, process=process)

        def call() -> None:
            results.append(host.invoke("remote.slow", {"seconds": 600}, runs_on="gpu"))

        calling = threading.Thread(target=call)
        calling.start()
        until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" not in answered(port, "/readyz"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not results
    with executing(tmp_path, server, other):
        calling.join(60)
    assert results == [{"token": "", "tenant": None}]


def test_a_queue_without_settings_is_refused_with_what_to_write(tmp_path: Path) -> None:
    """The command names the table of the settings."""
    (tmp_path / "automate.toml").write_text('[executors.gpu]\ntype = "nats"\n')
    command = [sys.executable, "-m", "automate_cli", "executor", "--queue", "gpus"]
    ended = subprocess.run(  # noqa: S603
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "did you mean 'gpu'" in ended.stderr
    assert "[executors.gpus]" in ended.stderr


def test_an_operation_that_nobody_has_waits(
    tmp_path: Path, server: NatsServer, host: Kernel
) -> None:
    """It does not fail: the caller's own time ends."""
    (port,) = free_ports(1)
    with executing(tmp_path, server, port) as process:
        until(lambda: answered(port, "/readyz"), 60, process=process)
        with pytest.raises(AutomateError, match="took longer"):
            host.invoke("remote.other", runs_on="gpu", timeout=1.0)
        until(lambda: "declined_total" in answered(port, "/metrics"))
