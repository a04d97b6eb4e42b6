"""The invoker of actions and capabilities by name: config, secrets, hooks, time limits, errors."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from automate_kernel.errors import AutomateError, ErrorCodes, did_you_mean, nearest
from automate_kernel.operations.context import Call, calling
from automate_kernel.operations.error_mapping import is_bug, normalize
from automate_kernel.operations.plugin import Plugin, complete_config, construct
from automate_kernel.operations.portal import Portal, contained
from automate_kernel.operations.spec import OperationSpec
from automate_kernel.secrets import Redactor, SecretResolver
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.masking import literal_secrets
from automate_kernel.secrets.tracebacks import log_error, mark
from automate_kernel.templates import areveal, masked, reveal

logger: logging.Logger = get_logger(__name__)
Work = Callable[[Any], Any]


class _Registry(Protocol):
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, key: object) -> bool: ...
    def get(self, key: str) -> type[Plugin]: ...
    def knows(self, key: str) -> bool: ...


class _Hooks(Protocol):
    @property
    def hook(self) -> Any: ...
    def notify(self, name: str, **arguments: Any) -> Any: ...


@dataclass(eq=False, repr=False)
class Invoker:
    """
    The actions and capabilities by name, and their calls.

    *sources* are the registries of plugins by kind, in the order in which a name is looked up.
    *config* holds the configuration of plugins by key; text in it may be ``$secret:KEY``. Instances
    are made once and shared by all threads.
    """

    sources: Mapping[str, _Registry]
    hooks: _Hooks
    secrets: SecretResolver
    config: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    compile_config: Callable[[Any], Any]
    portal: Portal = field(default_factory=Portal, init=False)
    _functions: dict[str, OperationSpec] = field(default_factory=dict, init=False)
    _instances: dict[tuple[str, str], Plugin] = field(default_factory=dict, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __post_init__(self) -> None:
        self.redactor: Redactor = self.secrets.redactor

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
        cls = self.sources[kind].get(key)
        with self._lock:
            found = self._instances.get((kind, key))
            if found is None:
                found = self._instances[kind, key] = self._create(cls, key)
            return found

    def _create(self, cls: type[Plugin], key: str) -> Plugin:
        given = dict(self.config.get(key, {}))
        try:
            schema = cls.config_json_schema() if given else None
        except Exception:  # reported when the config is parsed
            schema = None
        for text in literal_secrets(given, schema):
            self.redactor.add(text)
        config = complete_config(cls, reveal(self.compile_config(given), self.secrets))
        # Last: logging keeps each logger for ever, also that of a plugin which can't start.
        redact = self.redactor.redact
        ctx = cls.context_class(
            key=key, secrets=self.secrets, settings=self.settings, redact=redact
        )
        return construct(cls, config, ctx)

    def spec(self, name: str | OperationSpec) -> OperationSpec:
        """
        Return an operation's spec, without an instance: its config and secrets are not needed.

        A spec is its own. Raises ``NOT_FOUND`` with the names that there are.
        """
        if isinstance(name, OperationSpec):
            return name
        found = self._functions.get(name)
        if found is not None:
            return found
        kind, owner, operation = self._located(name)
        return self.sources[kind].get(owner).find_operation(operation)

    def of_function(self, function: Callable[..., Any]) -> OperationSpec | None:
        """Return the spec of an action that was made from *function*, or None."""
        for spec in self._functions.values():
            if spec.binding is not None and spec.binding.function == function:
                return spec
        return None

    def is_async(self, name: str | OperationSpec) -> bool:
        """Return True if an operation is an ``async def``; False if that can't be known."""
        try:
            return self.spec(name).asynchronous
        except AutomateError:
            return False

    def _work(self, name: str | OperationSpec) -> Work:
        """Return the function that performs an operation on revealed input."""
        if isinstance(name, OperationSpec):
            return functools.partial(_call_function, name)
        spec = self._functions.get(name)
        if spec is not None:
            return functools.partial(_call_function, spec)
        kind, owner, operation = self._located(name)
        return functools.partial(self.instance(kind, owner).call_operation, operation)

    def _located(self, name: str) -> tuple[str, str, str]:
        """Return the kind and key of the plugin that has the operation *name*, and its own name."""
        owner, _, operation = name.partition(".")
        for kind, source in self.sources.items() if operation else ():
            if owner in source:
                return kind, owner, operation
        raise self._unknown(name, owner)

    def _unknown(self, name: str, owner: str) -> AutomateError:
        """Return the error for a name without an operation; raises the fault of a broken plugin."""
        for source in self.sources.values():
            if source.knows(owner):
                source.get(owner)
        owners = sorted({key for source in self.sources.values() for key in source})
        known = [*self._functions, *(f"{key}.…" for key in owners)]
        meant = name if nearest(name, known) else owner
        there_are = ", ".join(known) or "none; register one or install a connector"
        return AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no action {name!r}",
            hint=did_you_mean(meant, known, also=f"there are: {there_are}"),
        )

    # -- calling -----------------------------------------------------------------------------

    def invoke(
        self, name: str | OperationSpec, data: Any, *, call: Call, timeout: float | None = None
    ) -> Any:
        """
        Call an operation and return its output as JSON, secrets taken out.

        It is one that was added, by its *name*, or any other by its spec.

        Secrets in *data* are handles, revealed for the call alone. Raises `AutomateError` only.
        An async operation runs on the portal's loop; *timeout* leaves a plain function running on
        its thread, whose result is dropped.
        """
        with calling(call):
            try:
                self.hooks.hook.automate_before_call(call=call, input=masked(data))
                result = self._invoke(name, data, timeout)
                output = self.redactor.redact_value(result, cut=False)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # SystemExit too: an action must not end its worker, whatever it calls.
                # None: the cause may hold a secret, and a log of this error would print it.
                raise self._failed(name, call, error) from None
            self.hooks.notify("automate_after_call", call=call, output=output, error=None)
            return output

    def _invoke(self, name: str | OperationSpec, data: Any, timeout: float | None) -> Any:
        work = functools.partial(self._perform, self._work(name), data)
        result = work() if timeout is None else _within(work, timeout)
        return self.portal.run(result, timeout) if inspect.isawaitable(result) else result

    def _perform(self, work: Work, data: Any) -> Any:
        with self.secrets.session():
            return work(reveal(data, self.secrets))

    async def ainvoke(
        self, name: str | OperationSpec, data: Any, *, call: Call, timeout: float | None = None
    ) -> Any:
        """`invoke` for asynchronous code; a plain function runs on a thread."""
        try:
            self.hooks.hook.automate_before_call(call=call, input=masked(data))
            work = contained(self._ainvoke(name, data, call))
            result, failure = await asyncio.wait_for(work, timeout)
            if failure is not None:
                raise failure
            output = self.redactor.redact_value(result, cut=False)
        except asyncio.CancelledError:
            cancelled = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            self.hooks.notify("automate_after_call", call=call, output=None, error=cancelled)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._failed(name, call, error) from None
        self.hooks.notify("automate_after_call", call=call, output=output, error=None)
        return output

    async def _ainvoke(self, name: str | OperationSpec, data: Any, call: Call) -> Any:
        # On a thread: it may import a plugin, and read the secrets of its config.
        perform = await asyncio.to_thread(self._work, name)
        with calling(call):
            revealed = await areveal(data, self.secrets)
            if self.is_async(name):
                result = perform(revealed)
            else:
                result = await asyncio.to_thread(perform, revealed)
            return await result if inspect.isawaitable(result) else result

    def _failed(
        self, operation: str | OperationSpec, call: Call, error: BaseException
    ) -> AutomateError:
        name = operation if isinstance(operation, str) else operation.name
        clean = self.clean_error(error, f"action {name!r}")
        if not isinstance(error, AutomateError) or error.__cause__ is not None:
            level, trace = logging.WARNING, None
            if is_bug(error):
                level, trace = logging.ERROR, clean.trace
            log_error(logger, level, "%s failed: %s", name, clean.message, trace=trace)
        self.hooks.notify("automate_after_call", call=call, output=None, error=clean)
        return clean

    def clean_error(self, error: BaseException, what: str) -> AutomateError:
        """Return *error* as an `AutomateError` whose texts are redacted."""
        if isinstance(error, AutomateError):
            known = error
        elif isinstance(error, Exception):
            known = normalize(error, what=what, redact=self.redactor.redact)
        else:
            text = f"{what} raised {type(error).__name__}: {error}"
            known = AutomateError(ErrorCodes.INTERNAL, text)
        clean = AutomateError(
            known.code,
            self.redactor.redact(known.message),
            hint=self.redactor.redact(known.hint) if known.hint else None,
            retryable=known.retryable,
            retry_after=known.retry_after,
        )
        mark(clean, error, self.redactor.redact)
        return clean

    def close(self) -> None:
        """Close every instance and the portal."""
        with self._lock:
            instances, self._instances = list(self._instances.values()), {}
        for instance in instances:
            try:
                result = instance.close()
                if inspect.isawaitable(result):
                    self.portal.run(result, 10)
            except Exception:
                logger.exception("closing %r failed", instance)
        self.portal.close()


def _call_function(spec: OperationSpec, data: Any) -> Any:
    result = spec.call(data)
    return _dumped(spec, result) if inspect.isawaitable(result) else spec.dump(result)


async def _dumped(spec: OperationSpec, result: Any) -> Any:
    return spec.dump(await result)


def _within(work: Callable[[], Any], timeout: float) -> Any:
    """Return the result of *work*, on a thread of its own that is abandoned when time is up."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="automate-timed", daemon=True).start()
    if not wait([future], timeout).done:
        raise AutomateError(
            ErrorCodes.DEADLINE_EXCEEDED, f"it took longer than {timeout:g} seconds"
        )
    return future.result()
