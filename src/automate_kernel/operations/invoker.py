"""The invoker of actions and capabilities by name: config, secrets, hooks, time limits, errors."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from automate_kernel.base import runtime
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    OutputError,
    PluginError,
    SecretError,
    SecretNotFoundError,
    UnknownHereError,
    did_you_mean,
    nearest,
    type_name,
)
from automate_kernel.base.forks import new_rlock, renew_in_children
from automate_kernel.operations.budgets import Budgets
from automate_kernel.operations.call_rates import CallRates
from automate_kernel.operations.context import Call, calling, current_call
from automate_kernel.operations.error_mapping import is_bug, normalize, normalizing
from automate_kernel.operations.executors import HERE, Executors, Placement, TaskLimits, task_of
from automate_kernel.operations.interruption import is_interruption, on_thread
from automate_kernel.operations.plugin import Plugin, complete_config, construct
from automate_kernel.operations.plugin_config import ConfigPlaces
from automate_kernel.operations.portal import Portal, contained
from automate_kernel.operations.replacement import Replacement, Replacements
from automate_kernel.operations.reports import CallReport, while_heard
from automate_kernel.operations.schemas.checks import json_schema_of
from automate_kernel.operations.spec import OperationSpec, step_operation
from automate_kernel.operations.tasks import RemoteTask
from automate_kernel.operations.timed_calls import Key, TimedCalls
from automate_kernel.secrets import Redactor, SecretResolver
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.masking import literal_secrets, secrets_of_input, with_keys
from automate_kernel.secrets.tracebacks import log_error, mark
from automate_kernel.templates import areveal, masked, reveal

logger: logging.Logger = get_logger(__name__)
Work = Callable[[Any], Any]
# Classes that the error of a call keeps.
_KEPT = (ConfigError, SecretError, PluginError, OutputError)
# For a service that lists its operations; it may have to be started first.
_ASK_SECONDS = 60.0


class _Registry(Protocol):
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, key: object) -> bool: ...
    def get(self, key: str) -> type[Plugin]: ...
    def knows(self, key: str) -> bool: ...


class _Hooks(Protocol):
    @property
    def hook(self) -> Any: ...
    def receives(self, name: str) -> bool: ...
    def notify(self, name: str, **arguments: Any) -> Any: ...
    def around(self, name: str, **arguments: Any) -> AbstractContextManager[None]: ...


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
    approvals: Any
    """The approvals that plugins have as ``ctx.approvals``."""
    budgets: Budgets
    """The budgets that plugins have as ``ctx.budgets``."""
    call_rates: CallRates | None
    """The rates that plugins have as ``ctx.call_rates``: none in memory."""
    executors: Executors = field(default_factory=lambda: Executors({}))
    """The other places where operations are called."""
    places: ConfigPlaces = field(default_factory=ConfigPlaces, init=False)
    """The form in which the application writes the config of plugins, for errors about it."""
    portal: Portal = field(default_factory=Portal, init=False)
    replacements: Replacements = field(default_factory=Replacements, init=False)
    timed_calls: TimedCalls = field(default_factory=TimedCalls, init=False)
    _functions: dict[str, OperationSpec] = field(default_factory=dict, init=False)
    _instances: dict[tuple[str, str], Plugin] = field(default_factory=dict, init=False)
    _lock: Any = field(default_factory=new_rlock, init=False)

    def __post_init__(self) -> None:
        self.redactor: Redactor = self.secrets.redactor
        renew_in_children(self)

    # -- finding -----------------------------------------------------------------------------

    def add(self, spec: OperationSpec) -> None:
        """Add a function of the application as an operation."""
        if spec.name in self._functions:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS,
                f"there is an action {spec.name!r} already",
                hint="give one of them another name; a test replaces it by kernel.replace",
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
        try:
            named = with_keys(self.compile_config(given), schema)
            config = complete_config(cls, reveal(named, self.secrets))
        except SecretNotFoundError as error:
            raise self.places.needed(error, f"the config of {key!r}") from None
        except ConfigError as error:
            raise self.places.located(error, key) from None
        # Last: logging keeps each logger for ever, also that of a plugin which can't start.
        redact = self.redactor.redact
        ctx = cls.context_class(
            key=key, secrets=self.secrets, settings=self.settings, redact=redact,
            approvals=self.approvals, budgets=self.budgets, call_rates=self.call_rates,
            perform=self.perform_part,
        )  # fmt: skip
        return construct(cls, config, ctx)

    def spec(self, name: str | OperationSpec, *, tenant_id: str | None = None) -> OperationSpec:
        """
        Return an operation's spec. A spec is its own.

        It needs no instance of a plugin, except for `Plugin.own_operations`. Then the service is
        asked or the document read, with the tenant's account if a tenant is named. Raises
        ``NOT_FOUND`` with the names that there are.
        """
        spec, owner = self._at_hand(name)
        if owner is None:
            return spec
        plugin: Plugin = self.instance(*owner)
        own = self.own_operations(*owner, tenant_id=tenant_id)
        return plugin.find_own(spec.name.partition(".")[2], own)

    def spec_at_hand(self, name: str | OperationSpec) -> OperationSpec:
        """
        Return an operation's spec as far as it is known without an instance.

        An operation of `Plugin.own_operations` comes without schemas, whether or not it exists.
        Raises ``NOT_FOUND`` with the names that there are.
        """
        return self._at_hand(name)[0]

    def own_operations(
        self, kind: str, key: str, *, tenant_id: str | None = None
    ) -> Mapping[str, OperationSpec]:
        """
        Return the operations that follow from a plugin's config, by their names in it.

        A plugin takes its account from the call, so a call is made up for the tenant. Raises
        `AutomateError` if its service can't be asked, or this is the portal's loop.
        """
        plugin: Plugin = self.instance(kind, key)
        asking = nullcontext() if tenant_id is None else calling(Call(key, tenant_id))
        try:
            with asking, normalizing(plugin):
                own = plugin.own_operations()
                own = self.portal.run(own, _ASK_SECONDS) if inspect.isawaitable(own) else own
                plugin.require_own(own)
                return own
        except AutomateError as error:
            # None: the cause may hold a secret, and a log of this error would print it.
            raise self.clean_error(error, f"{kind} {key!r}") from None

    def matching(self, pattern: str) -> dict[str, OperationSpec]:
        """
        Return the specs of the operations that *pattern* names: ``shop.refund``, ``files.*``.

        A plugin whose operations follow from its config is asked for them. A plugin that can't be
        used is left out with a line in the log, unless the pattern names it.
        """
        found = {name: spec for name, spec in self._functions.items() if fnmatchcase(name, pattern)}
        owners = pattern.partition(".")[0]
        for kind, source in self.sources.items():
            for owner in source:
                if fnmatchcase(owner, owners):
                    try:
                        specs = self._specs_of(kind, owner)
                    except AutomateError as error:
                        if owner == owners:
                            raise
                        text = "the operations of %r are left out: %s"
                        logger.warning(text, owner, self.redactor.redact(str(error)))
                        continue
                    fitting = {name: spec for name, spec in specs if fnmatchcase(name, pattern)}
                    found = {**fitting, **found}
        return dict(sorted(found.items()))

    def _specs_of(self, kind: str, key: str) -> list[tuple[str, OperationSpec]]:
        cls = self.sources[kind].get(key)
        own = self.own_operations(kind, key) if cls.is_own_operation("") else {}
        known = {spec.name: spec for spec in cls.operation_specs()}
        return [(f"{key}.{name}", spec) for name, spec in {**own, **known}.items()]

    def _at_hand(self, name: str | OperationSpec) -> tuple[OperationSpec, tuple[str, str] | None]:
        """Return a spec, and the kind and key of the plugin that has more to say about it."""
        if isinstance(name, OperationSpec):
            return name, None
        require_name(name)
        found = self._functions.get(name)
        if found is not None:
            return found, None
        kind, owner, operation = self._located(name)
        cls = self.sources[kind].get(owner)
        if cls.is_own_operation(operation):
            return OperationSpec(name), (kind, owner)
        return cls.find_operation(operation), None

    def function_names(self) -> list[str]:
        """Return the names of the application's own functions, in order."""
        return sorted(self._functions)

    def owners(self) -> list[str]:
        """Return the keys of the plugins that have operations, in order; imports none."""
        return sorted({key for source in self.sources.values() for key in source})

    def plugin_class(self, name: str) -> type[Plugin] | None:
        """Return the class whose operation *name* is, or None for a function of the application."""
        require_name(name)
        if name in self._functions:
            return None
        kind, owner, _ = self._located(name)
        return self.sources[kind].get(owner)

    def plugin_of(self, name: str) -> Plugin:
        """Return the plugin that has the operation *name*, created with its config."""
        kind, owner, _ = self._located(name)
        plugin: Plugin = self.instance(kind, owner)
        return plugin

    def of_function(self, function: Callable[..., Any]) -> OperationSpec | None:
        """Return the spec of an action that was made from *function*, or None."""
        for spec in self._functions.values():
            if spec.binding is not None and spec.binding.function == function:
                return spec
        return None

    def replace(self, operation: str | Callable[..., Any], fake: Any) -> Replacement:
        """
        Call *fake* in the place of an operation: by its name, or the function that it was made of.

        The function may be a step of a workflow in code. Raises ``NOT_FOUND`` if there is no
        operation of that name.
        """
        if isinstance(operation, str):
            return self.replacements.add(operation, self.spec_at_hand(operation), fake)
        spec = self.of_function(operation) or step_operation(operation)
        return self.replacements.add(spec.name, spec, fake)

    def absence(self, name: str | OperationSpec) -> UnknownHereError | None:
        """Return the reason why this process has no operation *name*, or None if it has."""
        try:
            self.spec_at_hand(name)
        except PluginError as error:
            text, reason = f"can't use the action {name!r}: {error}", "UNUSABLE_PLUGIN"
        except AutomateError as error:
            text, reason = f"doesn't know the action {name!r}: {error}", "UNKNOWN_ACTION"
        else:
            return None
        return UnknownHereError(self.redactor.redact(text), reason=reason)

    def is_async(self, name: str | OperationSpec) -> bool:
        """Return True if an operation is an ``async def``; False if that can't be known."""
        replacement = self.replacements.find(name)
        if replacement is not None:
            return replacement.asynchronous
        try:
            spec, owner = self._at_hand(name)
            if owner is not None:
                cls = self.sources[owner[0]].get(owner[1])
                return inspect.iscoroutinefunction(cls.own_operations)
            return spec.asynchronous
        except AutomateError:
            return False

    def is_transactional(self, name: str | OperationSpec) -> bool:
        """Return True if the operation *name* writes in the application's transaction."""
        try:
            return self.spec_at_hand(name).transactional
        except AutomateError:
            return False

    def _work(self, name: str | OperationSpec) -> Work:
        """Return the function that performs an operation on revealed input."""
        ready = self._ready_work(name)
        if ready is not None:
            return ready
        kind, owner, operation = self._located(name_of(name))
        return functools.partial(self.instance(kind, owner).call_operation, operation)

    def _ready_work(self, name: str | OperationSpec) -> Work | None:
        """Return that function; None if a plugin has to be imported or created for it."""
        spec = name if isinstance(name, OperationSpec) else self._functions.get(name)
        if spec is not None:
            return functools.partial(_call_function, spec)
        owner, _, operation = name_of(name).partition(".")
        kind = next((kind for kind, source in self.sources.items() if owner in source), "")
        plugin = self._instances.get((kind, owner)) if operation else None
        return None if plugin is None else functools.partial(plugin.call_operation, operation)

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
        known = [*self._functions, *(f"{key}.…" for key in self.owners())]
        meant = name if nearest(name, known) else owner
        there_are = ", ".join(known) or "none; register one or install a connector"
        return AutomateError(
            ErrorCodes.NOT_FOUND,
            f"there is no action {name!r}",
            hint=did_you_mean(meant, known, also=f"there are: {there_are}"),
        )

    # -- calling -----------------------------------------------------------------------------

    def invoke(
        self,
        name: str | OperationSpec,
        data: Any,
        *,
        call: Call,
        timeout: float | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """
        Call an operation and return its output as JSON, secrets taken out.

        Operations that were added are called by *name*, all others by their spec.

        Secrets in *data* are handles, revealed for the call alone. Raises `AutomateError` only.
        An async operation runs on the portal's loop; *timeout* leaves a plain function running on
        its thread, whose result is dropped. The next attempt waits for it; see `TimedCalls`. With
        an executor, *runs_on* or one whose patterns fit, the call is made elsewhere.
        """
        elsewhere = runs_on is not None or self.executors.placements
        if elsewhere and self.place_of(name, runs_on, call) is not None:
            work = self.ainvoke(name, data, call=call, timeout=timeout, runs_on=runs_on)
            return self.portal.run(work)
        with calling(call):
            try:
                self._before(call, data)
                result = self._invoke(name, data, call, timeout)
                output = self.redactor.redact_value(result, cut=False)
            except BaseException as error:
                # SystemExit too: an action must not end its worker, whatever it calls.
                if is_interruption(error):
                    raise
                # None: the cause may hold a secret, and a log of this error would print it.
                raise self._failed(name, data, call, error) from None
            self.hooks.notify("automate_after_call", call=call, output=output, error=None)
            return output

    def _invoke(
        self, name: str | OperationSpec, data: Any, call: Call, timeout: float | None
    ) -> Any:
        replacement = self._replacement(name)
        if replacement is None:
            work = functools.partial(self._perform, self._work(name), data)
        else:
            work = functools.partial(replacement.perform, self._shown(data))
        report = _watched(call)
        if timeout is None and report is None:
            result = work()
        else:
            result = self.timed_calls.run(work, timeout, key=_key(call), report=report)
        if not _is_awaitable(result):
            return result
        if _is_in_transaction():
            _close(result)
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"the action {name_of(name)!r} is asynchronous, and can't be transactional",
                hint="perform it with a plain function: its transaction is that of its thread",
            )
        return self.portal.run(result if report is None else while_heard(result, report), timeout)

    def _before(self, call: Call, data: Any) -> None:
        if self.hooks.receives("automate_before_call"):
            self.hooks.hook.automate_before_call(call=call, input=masked(data))

    def _replacement(self, name: str | OperationSpec) -> Replacement | None:
        """Return what is called in the place of an operation; raises if it must not be called."""
        if self.replacements.real is not None:
            self.spec_at_hand(name)  # a misspelt name is no lack of the test
        return self.replacements.called(name)

    def _shown(self, data: Any) -> Any:
        """Return *data* without secrets, for a replacement that needs none."""
        return self.redactor.redact_value(masked(data), cut=False)

    def _perform(self, work: Work, data: Any) -> Any:
        with self.secrets.session():
            return work(reveal(data, self.secrets))

    async def ainvoke(
        self,
        name: str | OperationSpec,
        data: Any,
        *,
        call: Call,
        timeout: float | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """`invoke` for asynchronous code; a plain function runs on a thread."""
        elsewhere = runs_on is not None or self.executors.placements
        placement = self.place_of(name, runs_on, call) if elsewhere else None
        if placement is not None:
            limits = TaskLimits(timeout, timeout)
            # An executor's connection belongs to one loop.
            return await self.portal.hand_over(
                self.dispatch(placement, name, data, call=call, limits=limits)
            )
        try:
            self._before(call, data)
            work, report = contained(self._ainvoke(name, data, call, timeout)), _watched(call)
            if report is not None:
                work = while_heard(work, report)
            result, failure = await asyncio.wait_for(work, timeout)
            if failure is not None:
                raise failure
            output = self.redactor.redact_value(result, cut=False)
        except asyncio.CancelledError:
            cancelled = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            self.hooks.notify("automate_after_call", call=call, output=None, error=cancelled)
            raise
        except BaseException as error:
            if is_interruption(error):
                raise
            raise self._failed(name, data, call, error) from None
        self.hooks.notify("automate_after_call", call=call, output=output, error=None)
        return output

    # -- elsewhere ---------------------------------------------------------------------------

    def place_of(
        self, name: str | OperationSpec, runs_on: str | None = None, call: Call | None = None
    ) -> Placement | None:
        """
        Return the executor on which an operation is called; None for a call in this process.

        What replaces an operation in a test is called here. Raises `UnknownHereError` for a name
        in *runs_on* that is not configured, and ``FAILED_PRECONDITION`` for a *call* that can't
        leave this process.
        """
        if runs_on == HERE or not (self.executors.placements or runs_on):
            return None
        operation = name_of(name)
        placement = self.executors.chosen(operation, runs_on)
        if placement is None or self.replacements.find(name) is not None:
            return None
        transactional = self._is_known(name) and self.is_transactional(name)
        if (transactional or isinstance(name, OperationSpec)) and runs_on is None:
            return None  # a pattern is for those that can
        if transactional or (call is not None and call.transaction is not None):
            raise _stays(operation, placement, "it writes in the application's transaction")
        if isinstance(name, OperationSpec):
            raise _stays(operation, placement, "it is a function without a name of its own")
        return placement

    def _is_known(self, name: str | OperationSpec) -> bool:
        # An unknown name costs a search for the one that is meant, and this is asked for each call.
        if isinstance(name, OperationSpec) or name in self._functions:
            return True
        owner = name.partition(".")[0]
        return any(owner in source for source in self.sources.values())

    def lack_of(self, name: str, runs_on: str | None = None) -> UnknownHereError | None:
        """Return the reason why this process can't have *name* called; None if it can."""
        try:
            placement = self.place_of(name, runs_on)
        except UnknownHereError as lack:
            return lack
        except AutomateError:
            placement = None  # each call fails with it
        return None if placement is not None else self.absence(name)

    async def dispatch(
        self,
        placement: Placement,
        name: str | OperationSpec,
        data: Any,
        *,
        call: Call,
        limits: TaskLimits,
        generation: str = "",
        durable: bool = False,
    ) -> Any:
        """
        Have a call made by an executor, and return its output as JSON, secrets taken out.

        Secrets in *data* stay references. With *durable* the call is only handed over: returns
        `Suspended`.
        """
        try:
            self._before(call, data)
            task = self._task(placement, data, call, limits, generation)
            with calling(call):
                if durable:
                    output: Any = await self.executors.suspend(placement, task, call)
                else:
                    found = await self.executors.run(placement, task, call, limits.until)
                    output = self.redactor.redact_value(found, cut=False)
        except asyncio.CancelledError:
            cancelled = AutomateError(ErrorCodes.CANCELLED, "the call was cancelled")
            self.hooks.notify("automate_after_call", call=call, output=None, error=cancelled)
            raise
        except BaseException as error:
            if is_interruption(error):
                raise
            raise self._failed(name, data, call, error) from None
        # Of a call that is only handed over, the remote's hooks get the output.
        shown = None if durable else output
        self.hooks.notify("automate_after_call", call=call, output=shown, error=None)
        return output

    def _task(
        self, placement: Placement, data: Any, call: Call, limits: TaskLimits, generation: str
    ) -> RemoteTask:
        headers: dict[str, str] = {}
        self.hooks.notify(
            "automate_before_dispatch", call=call, executor=placement.name, headers=headers
        )
        shown = masked(data)
        if self.redactor.redact_value(shown, cut=False) != shown:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                "its input holds the value of a secret, which must not travel",
                hint="write $secret:KEY in its place; the executor reads it by itself",
            )
        ends_at = None if limits.until is None else runtime.time() + limits.until
        texts = {str(key): str(value) for key, value in headers.items()}
        return task_of(
            call, data, generation=generation, timeout=limits.attempt, ends_at=ends_at,
            headers=texts,
        )  # fmt: skip

    async def perform_part(self, name: str, data: Any) -> Any:
        """Make a call of *name* as a part of the current call; return its output."""
        call = (current_call() or Call(name)).part(name, data)
        # The progress is that of the whole; and who wrote the whole did not write this.
        return await self.ainvoke(name, data, call=replace(call, reports=None, written=None))

    async def _ainvoke(
        self, name: str | OperationSpec, data: Any, call: Call, timeout: float | None
    ) -> Any:
        replacement = self._replacement(name)
        if replacement is None:
            perform = self._ready_work(name)
            if perform is None:
                # On a thread: it may import a plugin, and reads the secrets of its config.
                perform = await asyncio.to_thread(on_thread, self._work, name)
        else:
            perform = replacement.perform
        with calling(call):
            if replacement is None:
                revealed = await areveal(data, self.secrets)
            else:
                revealed = self._shown(data)
            report = _watched(call)
            if self.is_async(name):
                result = perform(revealed)
            elif timeout is not None or report is not None:
                work = functools.partial(perform, revealed)
                result = await self.timed_calls.arun(work, timeout, key=_key(call), report=report)
            else:
                result = await asyncio.to_thread(on_thread, perform, revealed)
            return await result if _is_awaitable(result) else result

    def _failed(
        self, operation: str | OperationSpec, data: Any, call: Call, error: BaseException
    ) -> AutomateError:
        name = name_of(operation)
        # An action may quote its input, and the error is logged, stored and shown.
        hidden = Redactor(self._literal_secrets(operation, data))
        clean = self.clean_error(error, f"action {name!r}", hidden)
        if isinstance(clean, OutputError):
            clean.operation = name
        if not isinstance(error, AutomateError) or error.__cause__ is not None:
            level, trace = logging.WARNING, None
            if is_bug(error):
                level, trace = logging.ERROR, clean.trace
            log_error(logger, level, "%s failed: %s", name, clean.message, trace=trace)
        self.hooks.notify("automate_after_call", call=call, output=None, error=clean)
        return clean

    def _literal_secrets(self, operation: str | OperationSpec, data: Any) -> Iterable[str]:
        """Return the secrets that stand in *data* themselves, and not by reference."""
        try:
            spec = self.spec_at_hand(operation) if isinstance(operation, str) else operation
            return list(secrets_of_input(data, spec.json_schema()))
        except Exception:
            return list(secrets_of_input(data, None))  # it failed because there is none

    def plugin_problems(
        self, among: Collection[str] | None = None
    ) -> dict[tuple[str, str], AutomateError]:
        """
        Return the errors that keep connectors and providers from being used, by kind and key.

        With *among* only those keys are looked at. Each is imported and made with its config and
        the secrets in it. Its actions, capabilities and triggers are read; no service is called.
        """
        found: dict[tuple[str, str], AutomateError] = {}
        for kind, registry in self.sources.items():
            for key in registry:
                if among is not None and key not in among:
                    continue
                try:
                    _read_specs(self.instance(kind, key))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # SystemExit too: a plugin must not end its process
                    found[kind, key] = self.clean_error(error, f"{kind} {key!r}")
        return found

    def clean_error(
        self, error: BaseException, what: str, hidden: Redactor | None = None
    ) -> AutomateError:
        """Return *error* as an `AutomateError` whose texts are redacted, by *hidden* too."""

        def redact(text: str) -> str:
            text = self.redactor.redact(text)
            return text if hidden is None else hidden.redact(text)

        if isinstance(error, AutomateError):
            known = error
        elif isinstance(error, Exception):
            known = normalize(error, what=what, redact=redact)
        else:
            text = f"{what} raised {type(error).__name__}: {error}"
            known = AutomateError(ErrorCodes.INTERNAL, text)
        clean = _kept_class(known)(
            code=known.code,
            message=redact(known.message),
            hint=redact(known.hint) if known.hint else None,
            retryable=known.retryable,
            retry_after=known.retry_after,
        )
        problems = known.details.get("problems")
        if problems:
            problems = self.redactor.redact_value(problems, cut=False)
            if hidden is not None:
                problems = hidden.redact_value(problems, cut=False)
            clean.details["problems"] = problems
        mark(clean, error, redact)
        return clean

    def renew(self) -> None:
        """Forget the instances, whose connections are another process's."""
        self._lock = new_rlock()
        self._instances = {}

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
        if self.executors.placements:
            try:
                self.portal.run(self.executors.close(), 10)
            except Exception:
                logger.exception("closing the executors failed")
        self.portal.close()


# The types of most outputs.
_PLAIN = frozenset((type(None), bool, int, float, str, list, dict))


def _kept_class(error: AutomateError) -> type[AutomateError]:
    """Return the class that the clean copy of *error* has: whose fault it is, is in it."""
    if isinstance(error, OutputError) and error.operation is not None:
        return AutomateError  # of a call within this call, whose own work may not be done
    return next((each for each in _KEPT if isinstance(error, each)), AutomateError)


def _key(call: Call) -> Key | None:
    """Return what the attempts of one call have in common; None if that is not known."""
    if call.idempotency_key is None:
        return None
    return call.operation, call.tenant_id, call.idempotency_key


def _watched(call: Call) -> CallReport | None:
    """Return the report of a call that must not be silent for long."""
    report = call.reports
    return report if report is not None and report.heartbeat is not None else None


def _stays(operation: str, placement: Placement, reason: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"{operation!r} can't run on {placement.name!r}: {reason}",
        hint="take runs_on out, or make it an action with @kernel.action that isn't transactional",
    )


def _close(result: object) -> None:
    """Close a coroutine that is not run, and those that it was to await."""
    if inspect.iscoroutine(result):
        for value in inspect.getcoroutinelocals(result).values():
            _close(value)
        result.close()


def _is_in_transaction() -> bool:
    call = current_call()
    return call is not None and call.transaction is not None


def require_name(operation: Any) -> None:
    """Raise ``INVALID_ARGUMENT`` if *operation* can't be the name of an operation."""
    if not isinstance(operation, str):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"an operation is called by its name, not by {type_name(operation)}",
            hint='for example kernel.invoke("orders.total", {"lines": []})',
        )


def name_of(operation: str | OperationSpec) -> str:
    """Return the name of an operation that is given by it, or by its spec."""
    return operation if isinstance(operation, str) else operation.name


def _call_function(spec: OperationSpec, data: Any) -> Any:
    spec.require_written(data, spec.name)
    result = spec.call(data)
    return _dumped(spec, result) if _is_awaitable(result) else spec.dump(result)


def _is_awaitable(result: Any) -> bool:
    # What most operations return is found sooner than what might be awaited.
    return type(result) not in _PLAIN and inspect.isawaitable(result)


async def _dumped(spec: OperationSpec, result: Any) -> Any:
    return spec.dump(await result)


def _read_specs(plugin: Any) -> None:
    # Asked of the instance, where an author's own method may need one.
    for specs in ("actions", "capabilities"):
        for spec in getattr(plugin, specs, list)():
            spec.json_schema()
    for events in ("triggers", "polls"):
        for spec in getattr(plugin, events, list)():
            json_schema_of(spec.payload_schema)
