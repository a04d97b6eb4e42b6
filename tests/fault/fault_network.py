"""Networks of their own for workers, as if each ran on another machine."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

_numbers = itertools.count(1)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def why_no_machines() -> str | None:
    """What keeps this process from making networks, or None."""
    if shutil.which("ip") is None:
        return "the command ip is not installed"
    name = f"flt{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    if made.returncode:
        return f"no network namespaces: {made.stderr.decode().strip()}"
    paired = subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", "netns", name],
        check=False, capture_output=True,
    )  # fmt: skip
    _ip("netns", "delete", name)  # and its link with it
    return f"no links: {paired.stderr.decode().strip()}" if paired.returncode else None


class Machine:
    """A network namespace with one cable, to *server_address* on the side of the tests."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.name = f"flt{os.getpid()}-{number}"
        self._cable = f"flt{os.getpid() % 100_000}n{number}"
        # A private network for each, of four addresses.
        net = f"10.{200 + os.getpid() % 50}.{number}"
        self.server_address = f"{net}.1"
        _ip("netns", "add", self.name)
        inside = ("-n", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _ip("address", "add", f"{self.server_address}/30", "dev", self._cable)
        _ip(*inside, "address", "add", f"{net}.2/30", "dev", "cable")
        _ip(*inside, "link", "set", "cable", "up")
        self.plug()

    def plug(self) -> None:
        _ip("link", "set", self._cable, "up")

    def unplug(self) -> None:
        """Nothing gets through, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def close(self) -> None:
        _ip("link", "delete", self._cable)
        _ip("netns", "delete", self.name)
