"""Calls actions and capabilities by name: config, secrets, hooks, time limits, errors."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from automate_kernel.connectors import Connector
from automate_kernel.errors import AutomateError, ErrorCodes
from automate_kernel.operations.context import Call, ConnectorContext, ProviderContext, calling
from automate_kernel.operations.error_mapping import is_bug, normalize
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.portal import Portal
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.plugins import Plugins
from automate_kernel.providers import BaseProvider
from automate_kernel.secrets import Redactor, SecretResolver
from automate_kernel.secrets.logs import get_logger, get_plugin_logger
from automate_kernel.secrets.masking import literal_secrets
from automate_kernel.secrets.tracebacks import log_error, mark
from automate_kernel.templates import areveal, masked, reveal

__all__ = ["Invoker"]

logger: logging.Logger = get_logger(__name__)
Work = Callable[[Any], Any]


class Invoker:
    """
    Finds operations by name and calls them.

    *config* holds the configuration of connectors and providers by key; text in it may be
    ``$secret:KEY``. Instances are made once and shared by all threads.
    """

    def __init__(
        self,
        plugins: Plugins,
        secrets: SecretResolver,
        *,
        config: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
        compile_config: Callable[[Any], Any],
    ) -> None:
        self._plugins = plugins
        self._secrets = secrets
        self._redactor: Redactor = secrets.redactor
        self._config = config
        self._settings = settings
        self._compile_config = compile_config
        self._functions: dict[str, OperationSpec] = {}
        self._instances: dict[tuple[str, str], Plugin] = {}
        self._lock = threading.RLock()
        self.portal: Portal = Portal()

    def unused_config(self) -> list[str]:
        """Keys of the config that no connector and no provider has, told with the nearest one."""
        return [
            f"config has {key!r}, which is no connector and no provider"
            + (f" (did you mean {near!r}?)" if near else "")
            for key, near in self._plugins.without_plugin(self._config).items()
        ]

    # -- finding -----------------------------------------------------------------------------

    def add(self, spec: OperationSpec) -> None:
        """Add a function of the host as an operation."""
        if spec.name in self._functions:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS, f"there is an action {spec.name!r} already"
            )
        self._functions[spec.name] = spec

    def instance(self, kind: str, key: str) -> Any:
        """The connector or provider *key*, created with its config at the first use."""
        found = self._instances.get((kind, key))
        if found is not None:
            return found
        # Imported before the lock is taken: it may import what waits for the lock.
        cls = self._plugins.get(kind, key)
        with self._lock:
            found = self._instances.get((kind, key))
            if found is None:
                found = self._instances[kind, key] = self._create(cls, kind, key)
            return found

    def _create(self, cls: Any, kind: str, key: str) -> Plugin:
        context = ProviderContext if kind == "provider" else ConnectorContext
        ctx = context(
            key=key,
            secrets=self._secrets,
            logger=get_plugin_logger(key),
            settings=self._settings,
            redact=self._redactor.redact,
        )
        given = dict(self._config.get(key, {}))
        self._redact_literals(cls, given)
        config = reveal(self._compile_config(given), self._secrets)
        instance: Plugin = create(cls, config, ctx)
        return instance

    def _redact_literals(self, cls: Any, config: Mapping[str, Any]) -> None:
        """Let the redactor know the secrets that stand in *config* as they are."""
        if not config:
            return
        try:
            schema = cls.config_json_schema()
        except Exception:  # told when the config is parsed
            schema = None
        for text in literal_secrets(config, schema):
            self._redactor.add(text)

    def spec(self, name: str) -> OperationSpec:
        """
        An operation's spec, without making an instance: its config and secrets are not needed.

        Raises ``NOT_FOUND`` that says what there is.
        """
        found = self._functions.get(name)
        if found is not None:
            return found
        owner, _, operation = name.partition(".")
        connectors, providers = self._plugins.keys("connector"), self._plugins.keys("provider")
        if operation and owner in connectors:
            return self._plugins.connectors.get(owner).find_action(operation)
        if operation and owner in providers:
            return self._plugins.providers.get(owner).find_capability(operation)
        raise self._unknown(name)

    def find(self, name: str) -> tuple[OperationSpec, Work]:
        """
        An operation's spec, and the function that performs it on revealed input.

        Raises ``NOT_FOUND`` that says what there is.
        """
        spec = self._functions.get(name)
        if spec is not None:
            function = spec
            return spec, lambda data: self._call_function(function, data)
        owner, _, operation = name.partition(".")
        connectors, providers = self._plugins.connectors.keys(), self._plugins.providers.keys()
        if operation and owner in connectors:
            connector: Connector = self.instance("connector", owner)
            return connector.find_action(operation), lambda data: connector.call_action(
                operation, data
            )
        if operation and owner in providers:
            provider: BaseProvider = self.instance("provider", owner)
            return provider.find_capability(operation), lambda data: provider.call_capability(
                operation, data
            )
        raise self._unknown(name)

    def _unknown(self, name: str) -> AutomateError:
        """What to raise about a name that no operation has; raises what is wrong with a plugin."""
        owner = name.partition(".")[0]
        self._raise_if_known(owner)
        owners = {*self._plugins.connectors.keys(), *self._plugins.providers.keys()}
        known = [*self._functions, *(f"{key}.…" for key in sorted(owners))]
        close = get_close_matches(name, known, n=1) or get_close_matches(owner, known, n=1)
        return AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no action {name!r}",
            hint=(f"did you mean {close[0]!r}? " if close else "")
            + f"there are: {', '.join(known) or 'none; register one or install a connector'}",
        )

    def _raise_if_known(self, owner: str) -> None:
        """Raise what is wrong with the plugin *owner*, if there is one that can't be used."""
        for kind in ("connector", "provider"):
            if any(record.key == owner for record in self._plugins.records(kind)):
                self._plugins.get(kind, owner)

    def _call_function(self, spec: OperationSpec, data: Any) -> Any:
        result = spec.call(data)
        if inspect.isawaitable(result):
            return self._dumped(spec, result)
        return spec.dump(result)

    async def _dumped(self, spec: OperationSpec, result: Any) -> Any:
        return spec.dump(await result)

    # -- calling -----------------------------------------------------------------------------

    def invoke(self, name: str, data: Any, *, call: Call, timeout: float | None = None) -> Any:
        """
        Call an operation and return its output as JSON, secrets taken out.

        Secrets in *data* are handles, revealed for the call alone. Raises `AutomateError` only.
        An async operation runs on the portal's loop; *timeout* leaves a plain function running on
        its thread, whose result is dropped.
        """
        return self._guarded(name, data, call, lambda: self._invoke(name, data, call, timeout))

    def _invoke(self, name: str, data: Any, call: Call, timeout: float | None) -> Any:
        _, perform = self.find(name)
        work = functools.partial(self._perform, perform, data, call)
        result = work() if timeout is None else _within(work, timeout)
        if inspect.isawaitable(result):
            return self.portal.run(self._await(result, call), timeout)
        return result

    def _perform(self, perform: Work, data: Any, call: Call) -> Any:
        with self._secrets.session(), calling(call):
            return perform(reveal(data, self._secrets))

    async def _await(self, result: Any, call: Call) -> Any:
        with calling(call):
            return await result

    async def ainvoke(
        self, name: str, data: Any, *, call: Call, timeout: float | None = None
    ) -> Any:
        """`invoke` for asynchronous code; a plain function runs on a thread."""
        try:
            self._before(call, data)
            work = self._contained(name, data, call)
            result, failure = await asyncio.wait_for(work, timeout)
            if failure is not None:
                raise failure
            output = self._clean(result)
        except asyncio.CancelledError:
            cancelled = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            self._plugins.notify("automate_after_call", call=call, output=None, error=cancelled)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._failed(name, call, error) from None
        self._plugins.notify("automate_after_call", call=call, output=output, error=None)
        return output

    async def _contained(self, name: str, data: Any, call: Call) -> tuple[Any, Exception | None]:
        """
        The result of a call, or what it raised.

        A task with a result has nothing that the loop would print if nobody is there to ask for
        it: what is cancelled, by a time limit say, may still raise.
        """
        try:
            return await self._ainvoke(name, data, call), None
        except Exception as error:
            return None, error

    async def _ainvoke(self, name: str, data: Any, call: Call) -> Any:
        _, perform = await asyncio.to_thread(self.find, name)
        with calling(call):
            revealed = await areveal(data, self._secrets)
            result = await asyncio.to_thread(perform, revealed)
            return await result if inspect.isawaitable(result) else result

    def _guarded(self, name: str, data: Any, call: Call, work: Callable[[], Any]) -> Any:
        with calling(call):
            return self._made(name, data, call, work)

    def _made(self, name: str, data: Any, call: Call, work: Callable[[], Any]) -> Any:
        try:
            self._before(call, data)
            output = self._clean(work())
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # SystemExit too: an action must not end its worker, whatever it calls.
            # None: what caused it may hold a secret, and whoever logs this would print it.
            raise self._failed(name, call, error) from None
        self._plugins.notify("automate_after_call", call=call, output=output, error=None)
        return output

    def _before(self, call: Call, data: Any) -> None:
        self._plugins.hook.automate_before_call(call=call, input=masked(data))

    def _clean(self, output: Any) -> Any:
        return self._redactor.redact_value(output, cut=False)

    def _failed(self, name: str, call: Call, error: BaseException) -> AutomateError:
        clean = self.clean_error(error, f"action {name!r}")
        if not isinstance(error, AutomateError) or error.__cause__ is not None:
            level, trace = logging.WARNING, None
            if is_bug(error):
                level, trace = logging.ERROR, clean.trace
            log_error(logger, level, "%s failed: %s", name, clean.message, trace=trace)
        self._plugins.notify("automate_after_call", call=call, output=None, error=clean)
        return clean

    def clean_error(self, error: BaseException, what: str) -> AutomateError:
        """*error* as an `AutomateError` whose texts are redacted."""
        if isinstance(error, AutomateError):
            known = error
        elif isinstance(error, Exception):
            known = normalize(error, what=what, redact=self._redactor.redact)
        else:
            text = f"{what} raised {type(error).__name__}: {error}"
            known = AutomateError(ErrorCodes.INTERNAL, text)
        clean = AutomateError(
            known.code,
            self._redactor.redact(known.message),
            hint=self._redactor.redact(known.hint) if known.hint else None,
            retryable=known.retryable,
            retry_after=known.retry_after,
        )
        mark(clean, error, self._redactor.redact)
        return clean

    def close(self) -> None:
        """Close every instance and the portal."""
        with self._lock:
            instances, self._instances = list(self._instances.values()), {}
        for instance in instances:
            try:
                result = instance.close()
                if inspect.isawaitable(result):
                    self.portal.run(_awaited(result), 10)
            except Exception:
                logger.exception("closing %r failed", instance)
        self.portal.close()


async def _awaited(result: Any) -> Any:
    return await result


def _within(work: Callable[[], Any], timeout: float) -> Any:
    """The result of *work*, on a thread of its own that is left alone when time is up."""
    box: list[Any] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            box.append(context.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="automate-timed", daemon=True)
    thread.start()
    thread.join(timeout)
    if failure:
        raise failure[0]
    if not box:
        raise AutomateError(
            ErrorCodes.DEADLINE_EXCEEDED, f"it took longer than {timeout:g} seconds"
        )
    return box[0]
