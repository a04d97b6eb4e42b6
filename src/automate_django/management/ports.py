"""The options of commands that answer probes and metrics over HTTP."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from automate_kernel.http.worker_ports import Ports

__all__ = ["add_port_arguments", "ports_of"]

_HIGHEST = 65_535


def add_port_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--health-port", type=_port, metavar="PORT", help="where to answer /healthz and /readyz"
    )
    parser.add_argument(
        "--metrics-port", type=_port, metavar="PORT", help="where to answer /metrics"
    )
    parser.add_argument(
        "--probe-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address of these ports (default: %(default)s)",
    )


def ports_of(options: dict[str, Any]) -> Ports:
    """The ports that the options name."""
    return Ports(options["health_port"], options["metrics_port"], options["probe_host"])


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _HIGHEST:
        raise ArgumentTypeError(f"a port is a number up to {_HIGHEST}")
    return int(text)
