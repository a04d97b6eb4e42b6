"""Trials of a plugin's connection test, `Plugin.check`, with a config that can't work."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.operations.error_mapping import normalizing
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.secrets.masking import literal_secrets

# The port "discard": nothing answers there, and no network is needed to find out.
_NOBODY = "http://127.0.0.1:9"


def unreachable_configs(config: Any) -> Iterator[dict[str, Any]]:
    """Yield *config* once for each address in it, with one where nothing answers."""
    if not isinstance(config, Mapping):
        return
    for name, value in config.items():
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            yield {**config, name: _NOBODY}


def require_refusal(plugin: Plugin, config: Mapping[str, Any], *, seconds: float) -> None:
    """
    Fail unless `check` of a plugin like *plugin*, with a bad *config*, raises an error in time.

    The config itself may be refused. The error has a code that isn't ``INTERNAL``, and shows no
    secret of the config.
    """
    cls, found = type(plugin), _attempt(plugin, config, seconds)
    what = f"check() of {cls.__name__} with config {sorted(config)}"
    if found is None:
        pytest.fail(f"{what} still runs after {seconds:g} s: give its request a timeout", False)
    if not isinstance(found, AutomateError):
        pytest.fail(f"{what} raised nothing: it must raise if the service can't be used", False)
    if found.code is ErrorCodes.INTERNAL:
        pytest.fail(f"{what} raised an error without a code: {found}; see normalize_error()", False)
    for secret in literal_secrets(config, cls.config_json_schema()):
        assert secret not in str(found), f"the error of {what} shows a secret"


def _attempt(plugin: Plugin, config: Mapping[str, Any], seconds: float) -> Any:
    """Return the error that was raised, what `check` returned in a tuple, or None: no end yet."""
    outcome: list[Any] = []
    thread = threading.Thread(target=_check, args=(plugin, config, outcome), daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else None


def _check(plugin: Plugin, config: Mapping[str, Any], outcome: list[Any]) -> None:
    try:
        other = create(type(plugin), config, plugin.ctx)
        with normalizing(other):
            result = other.check()
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result))
    except AutomateError as error:
        outcome.append(error)
    except BaseException as error:
        outcome.append(AutomateError(ErrorCodes.INTERNAL, f"{type(error).__name__}: {error}"))
    else:
        outcome.append((result,))


async def _awaited(result: Any) -> Any:
    return await result
