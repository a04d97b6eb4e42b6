"""The connection tests of an application's plugins: each asks its service."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

from automate_kernel.base.errors import AutomateError
from automate_kernel.monitoring.diagnosis import Finding
from automate_kernel.operations.plugin import Plugin

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel


def connection_answer(kernel: Kernel, kind: str, key: str) -> str:
    """Return what the connection test of a plugin says; raises `AutomateError` if it fails."""
    try:
        answer = kernel.operations.instance(kind, key).check()
        if inspect.isawaitable(answer):  # on the loop where the plugin is closed, too
            answer = kernel.operations.portal.run(answer)
    except Exception as error:
        raise kernel.operations.clean_error(error, f"{kind} {key!r}") from None
    return "it has no connection test" if answer is None else kernel.redactor.redact(str(answer))


def connection_findings(kernel: Kernel) -> list[Finding]:
    """Return what the connection tests of the plugins with config say. They ask their services."""
    found = list(_findings(kernel))
    return found or [Finding("connections", "ok", "no plugin with config has a connection test")]


def _findings(kernel: Kernel) -> Iterator[Finding]:
    for kind in ("connector", "provider"):
        for key in kernel.plugins.keys(kind):
            if key not in kernel.operations.config:
                continue
            try:
                if type(kernel.operations.instance(kind, key)).check is Plugin.check:
                    continue
                said = connection_answer(kernel, kind, key)
            except AutomateError as error:
                text = f"{kind} {key}: {error.code}: {error.message}"
                remedy = error.hint or f"correct [config.{key}], or its secrets"
                yield Finding("connections", "fail", text, remedy)
            else:
                yield Finding("connections", "ok", f"{kind} {key}: {said}")
