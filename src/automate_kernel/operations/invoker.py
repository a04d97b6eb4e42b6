"""The invoker of actions and capabilities by name: config, secrets, hooks, time limits, errors."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from automate_kernel.errors import AutomateError, ErrorCodes, did_you_mean, nearest
from automate_kernel.operations.context import Call, calling
from automate_kernel.operations.error_mapping import is_bug, normalize
from automate_kernel.operations.plugin import Plugin, complete_config, construct
from automate_kernel.operations.portal import Portal, contained
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets import Redactor, SecretResolver
from automate_kernel.secrets.logs import get_logger, get_plugin_logger
from automate_kernel.secrets.masking import literal_secrets
from automate_kernel.secrets.tracebacks import log_error, mark
from automate_kernel.templates import areveal, masked, reveal

logger: logging.Logger = get_logger(__name__)
Work = Callable[[Any], Any]


class PluginSource(Protocol):
    """A registry of connectors or of providers, as the invoker needs it."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the usable keys."""

    def __contains__(self, key: object) -> bool:
        """Return True if there is a usable plugin *key*."""

    def get(self, key: str) -> type[Plugin]:
        """Return the class *key*, or raise what is wrong with it."""

    def knows(self, key: str) -> bool:
        """Return True if there is a plugin *key*, usable or not."""


class CallHooks(Protocol):
    """The hooks around a call, as the invoker needs them."""

    @property
    def hook(self) -> Any:
        """The relay whose ``automate_before_call`` may refuse a call."""

    def notify(self, name: str, **arguments: Any) -> Any:
        """Call the receivers of the hook *name*, which can't change anything any more."""


class Invoker:
    """
    The actions and capabilities by name, and their calls.

    *sources* are the registries of plugins by kind, in the order in which a name is looked up.
    *config* holds the configuration of plugins by key; text in it may be ``$secret:KEY``. Instances
    are made once and shared by all threads.
    """

    def __init__(
        self,
        sources: Mapping[str, PluginSource],
        hooks: CallHooks,
        secrets: SecretResolver,
        *,
        config: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
        compile_config: Callable[[Any], Any],
    ) -> None:
        self._sources = sources
        self._hooks = hooks
        self._secrets = secrets
        self._redactor: Redactor = secrets.redactor
        self._config = config
        self._settings = settings
        self._compile_config = compile_config
        self._functions: dict[str, OperationSpec] = {}
        self._instances: dict[tuple[str, str], Plugin] = {}
        self._lock = threading.RLock()
        self.portal: Portal = Portal()

    # -- finding -----------------------------------------------------------------------------

    def add(self, spec: OperationSpec) -> None:
        """Add a function of the host as an operation."""
        if spec.name in self._functions:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS, f"there is an action {spec.name!r} already"
            )
        self._functions[spec.name] = spec

    def instance(self, kind: str, key: str) -> Any:
        """Return the plugin *key* of *kind*, created with its config at the first use."""
        found = self._instances.get((kind, key))
        if found is not None:
            return found
        # Imported before the lock is taken: it may import what waits for the lock.
        cls = self._sources[kind].get(key)
        with self._lock:
            found = self._instances.get((kind, key))
            if found is None:
                found = self._instances[kind, key] = self._create(cls, key)
            return found

    def _create(self, cls: type[Plugin], key: str) -> Plugin:
        given = dict(self._config.get(key, {}))
        self._redact_literals(cls, given)
        config = complete_config(cls, reveal(self._compile_config(given), self._secrets))
        # Last: logging keeps each logger for ever, also that of a plugin which can't start.
        ctx = cls.context_class(
            key=key,
            secrets=self._secrets,
            logger=get_plugin_logger(key),
            settings=self._settings,
            redact=self._redactor.redact,
        )
        return construct(cls, config, ctx)

    def _redact_literals(self, cls: type[Plugin], config: Mapping[str, Any]) -> None:
        """Add the secrets that stand in *config* as they are to the redactor."""
        if not config:
            return
        try:
            schema = cls.config_json_schema()
        except Exception:  # reported when the config is parsed
            schema = None
        for text in literal_secrets(config, schema):
            self._redactor.add(text)

    def spec(self, name: str) -> OperationSpec:
        """
        Return an operation's spec, without an instance: its config and secrets are not needed.

        Raises ``NOT_FOUND`` with the names that there are.
        """
        found = self._functions.get(name)
        if found is not None:
            return found
        kind, owner, operation = self._located(name)
        return self._sources[kind].get(owner).find_operation(operation)

    def is_async(self, name: str) -> bool:
        """Return True if the operation *name* is an ``async def``; False if that can't be known."""
        try:
            return self.spec(name).asynchronous
        except AutomateError:
            return False

    def find(self, name: str) -> tuple[OperationSpec, Work]:
        """
        Return an operation's spec, and the function that performs it on revealed input.

        Raises ``NOT_FOUND`` with the names that there are.
        """
        spec = self._functions.get(name)
        if spec is not None:
            return spec, functools.partial(self._call_function, spec)
        kind, owner, operation = self._located(name)
        plugin: Plugin = self.instance(kind, owner)
        return plugin.find_operation(operation), functools.partial(plugin.call_operation, operation)

    def _located(self, name: str) -> tuple[str, str, str]:
        """Return the kind and key of the plugin that has the operation *name*, and its own name."""
        owner, _, operation = name.partition(".")
        for kind, source in self._sources.items() if operation else ():
            if owner in source:
                return kind, owner, operation
        raise self._unknown(name, owner)

    def _unknown(self, name: str, owner: str) -> AutomateError:
        """Return the error for a name without an operation; raises the fault of a broken plugin."""
        for source in self._sources.values():
            if source.knows(owner):
                source.get(owner)
        owners = sorted({key for source in self._sources.values() for key in source})
        known = [*self._functions, *(f"{key}.…" for key in owners)]
        meant = name if nearest(name, known) else owner
        there_are = ", ".join(known) or "none; register one or install a connector"
        return AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no action {name!r}",
            hint=did_you_mean(meant, known, also=f"there are: {there_are}"),
        )

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
        with calling(call):
            try:
                self._before(call, data)
                output = self._clean(self._invoke(name, data, call, timeout))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # SystemExit too: an action must not end its worker, whatever it calls.
                # None: the cause may hold a secret, and a log of this error would print it.
                raise self._failed(name, call, error) from None
            self._hooks.notify("automate_after_call", call=call, output=output, error=None)
            return output

    def _invoke(self, name: str, data: Any, call: Call, timeout: float | None) -> Any:
        _, perform = self.find(name)
        work = functools.partial(self._perform, perform, data)
        result = work() if timeout is None else _within(work, timeout)
        if inspect.isawaitable(result):
            return self.portal.run(self._await(result, call), timeout)
        return result

    def _perform(self, perform: Work, data: Any) -> Any:
        with self._secrets.session():
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
            work = contained(self._ainvoke(name, data, call))
            result, failure = await asyncio.wait_for(work, timeout)
            if failure is not None:
                raise failure
            output = self._clean(result)
        except asyncio.CancelledError:
            cancelled = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            self._hooks.notify("automate_after_call", call=call, output=None, error=cancelled)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._failed(name, call, error) from None
        self._hooks.notify("automate_after_call", call=call, output=output, error=None)
        return output

    async def _ainvoke(self, name: str, data: Any, call: Call) -> Any:
        # On a thread: it may import a plugin, and read the secrets of its config.
        spec, perform = await asyncio.to_thread(self.find, name)
        with calling(call):
            revealed = await areveal(data, self._secrets)
            if spec.asynchronous:
                result = perform(revealed)
            else:
                result = await asyncio.to_thread(perform, revealed)
            return await result if inspect.isawaitable(result) else result

    def _before(self, call: Call, data: Any) -> None:
        self._hooks.hook.automate_before_call(call=call, input=masked(data))

    def _clean(self, output: Any) -> Any:
        return self._redactor.redact_value(output, cut=False)

    def _failed(self, name: str, call: Call, error: BaseException) -> AutomateError:
        clean = self.clean_error(error, f"action {name!r}")
        if not isinstance(error, AutomateError) or error.__cause__ is not None:
            level, trace = logging.WARNING, None
            if is_bug(error):
                level, trace = logging.ERROR, clean.trace
            log_error(logger, level, "%s failed: %s", name, clean.message, trace=trace)
        self._hooks.notify("automate_after_call", call=call, output=None, error=clean)
        return clean

    def clean_error(self, error: BaseException, what: str) -> AutomateError:
        """Return *error* as an `AutomateError` whose texts are redacted."""
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
    """Return the result of *work*, on a thread of its own that is abandoned when time is up."""
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
