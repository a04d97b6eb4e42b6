"""
Hooks: the points at which any number of plugins, and the application, may join in.

Keyed plugins live in registries; pluggy is for what has many receivers. A hook plugin is a module
or an object with functions marked `hookimpl`::

    @hookimpl
    def automate_before_call(call, input):
        if call.operation == "slack.post_message" and quiet_hours():
            raise AutomateError(ErrorCodes.UNAVAILABLE, "quiet hours", retry_after=3600)
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from automate_kernel.base.errors import AutomateError, PluginError, did_you_mean
from automate_kernel.base.forks import new_rlock
from automate_kernel.plugins.targets import describe_failure
from automate_kernel.secrets.logs import get_logger

if TYPE_CHECKING:
    from pluggy import HookImpl, PluginManager

    from automate_kernel.operations.context import Call
    from automate_kernel.operations.tasks import RemoteTask
    from automate_kernel.outbox.item import NewItem, OutboxItem
    from automate_kernel.plugins.registry import Registry

PROJECT = "automate"
# A receiver's SystemExit would end a thread that others need.
_FAILURES = (Exception, SystemExit)
logger: logging.Logger = get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


@overload
def hookimpl(function: F) -> F: ...


@overload
def hookimpl(
    function: None = None, *, tryfirst: bool = False, trylast: bool = False, wrapper: bool = False
) -> Callable[[F], F]: ...


def hookimpl(function: Any = None, **options: bool) -> Any:
    """
    Mark a function as the implementation of the hook that it is named after.

    A *wrapper* is for ``automate_configure`` and ``automate_before_call``: the other hooks call
    each receiver by itself, so that none can fail or hide another.
    """
    # A function, so that importing this module does not import pluggy.
    from pluggy import HookimplMarker

    mark: Any = HookimplMarker(PROJECT)
    return mark(function, **options)


class HookSpecs:
    """The hooks. An implementation takes the arguments that it needs."""

    def automate_configure(self, kernel: Any) -> None:
        """A kernel was set up and runs nothing yet: register plugins, connect to signals."""

    def automate_before_call(self, call: Call, input: Any) -> None:
        """
        An action or a capability is about to be called.

        *input* is redacted: secrets are still references. Raising an `AutomateError` refuses the
        call, and its code decides whether the step is tried again.
        """

    def automate_before_dispatch(self, call: Call, executor: str, headers: dict[str, str]) -> None:
        """
        A call is about to be handed to an executor: add texts to *headers*, which travel with it.

        A trace context, say: the remote has it in `automate_performing`, as the task's headers. No
        secret belongs there. What a receiver raises is logged.
        """

    def automate_performing(self, task: RemoteTask) -> AbstractContextManager[Any] | None:
        """
        The call of a task that another process has handed over is about to be made.

        See `automate_handling` for the context manager.
        """

    def automate_after_call(self, call: Call, output: Any, error: AutomateError | None) -> None:
        """An action or a capability was called. What a receiver raises is logged."""

    def automate_before_enqueue(self, items: Sequence[NewItem]) -> None:
        """
        Items are about to be accepted: add to their headers, nothing else.

        What a receiver raises is logged.
        """

    def automate_handling(self, item: OutboxItem) -> AbstractContextManager[Any] | None:
        """
        An item is about to be handled.

        The context manager that a receiver returns is entered before, on the thread or task of the
        handler. It is left after, with the exception if there was any. What a receiver raises is
        logged.
        """

    # Any: plugins and workflows stand side by side, and neither imports the other.
    def automate_executing(self, execution: Any) -> AbstractContextManager[Any] | None:
        """
        An `Execution` is about to go on, after its start, a wait or a crash.

        It belongs to the item that is handled. See `automate_handling`.
        """

    def automate_item_failed(self, item: OutboxItem, error: AutomateError) -> None:
        """An outbox item failed for good. What a receiver raises is logged."""


class Hooks:
    """The receivers of the hooks: the plugins in *registry*, loaded at first use."""

    def __init__(self, registry: Registry[Any]) -> None:
        self._registry = registry
        # Re-entrant: a hook plugin that calls hooks as it is imported gets the manager so far.
        self._lock = new_rlock()
        self._manager: PluginManager | None = None
        self._ready = self._unused = False
        # The implementations of each hook that was called, in the order of their calls.
        self._receivers: dict[str, Sequence[HookImpl]] = {}

    @property
    def manager(self) -> PluginManager:
        """The pluggy manager, with every hook plugin that works."""
        manager = self._manager
        if manager is not None and self._ready:
            return manager
        with self._lock:
            if self._manager is None:
                self._manager = manager = _new_manager()
                # One by one: pluggy's own loader imports all and dies with the first bad plugin.
                for key, plugin in self._registry.load_all().items():
                    self._admit(manager, key, plugin)
                self._ready = True
            return self._manager

    @property
    def hook(self) -> Any:
        """Pluggy's relay: ``hooks.hook.automate_configure(kernel=…)`` calls every receiver."""
        return self.manager.hook

    def add(self, plugin: Any, key: str) -> None:
        """Let *plugin* receive hooks from now on."""
        with self._lock:
            if self._unused:
                # As `configure` would have left it: a receiver that is broken is reported here.
                self._manager, self._ready, self._unused = _new_manager(), True, False
            try:
                if self._manager is not None:
                    self._admit(self._manager, key, plugin)
            finally:  # it has taken the place of another even if it is broken
                self._receivers.clear()

    def configure(self, kernel: Any) -> None:
        """
        Call ``automate_configure`` of every receiver, and name the receiver that fails.

        A kernel that is set up in part must not run, so what it raises goes on; ``SystemExit``
        becomes a `PluginError`, or the application would end without a word.
        """
        # Most applications have no hooks: without pluggy a kernel is made in less time.
        self._unused = not self._registry.keys() and self._manager is None
        if self._unused:
            return
        try:
            self.hook.automate_configure(kernel=kernel)
        except (KeyboardInterrupt, AutomateError):
            raise
        except BaseException as error:
            name = self._failed_in(error)
            text = f"hook {name!r} failed in automate_configure: {describe_failure(error)[0]}"
            remedy = f"correct it, or switch it off with disabled=['hook:{name}']"
            if isinstance(error, Exception):
                logger.error("%s; %s", text, remedy)
                raise
            raise PluginError(text, hint=remedy) from error

    def _failed_in(self, error: BaseException) -> str:
        """Return the key of the receiver of ``automate_configure`` that raised *error*."""
        codes = {
            getattr(each.function, "__code__", None): each.plugin_name
            for each in self.hook.automate_configure.get_hookimpls()
        }
        frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
        return next((codes[code] for code in frames if code in codes), "of a plugin")

    def notify(self, name: str, **arguments: Any) -> list[BaseException]:
        """
        Call every receiver of the hook *name*, and return the errors of those that failed.

        A failing receiver is logged and the next is called, for such a hook reports what has
        happened.
        """
        return [] if self._unused else self._call(name, arguments)[1]

    def receives(self, name: str) -> bool:
        """Return True if the hook *name* has a receiver."""
        return not self._unused and bool(self._receivers_of(name))

    def _receivers_of(self, name: str) -> Sequence[HookImpl]:
        known = self._receivers.get(name)
        if known is not None:
            return known
        with self._lock:
            found = tuple(reversed(getattr(self.hook, name).get_hookimpls()))
            if self._ready:
                self._receivers[name] = found
            return found

    @contextmanager
    def around(self, name: str, **arguments: Any) -> Iterator[None]:
        """Enter the context managers that the receivers of the hook *name* return."""
        entered: list[AbstractContextManager[Any]] = []
        for manager in self._call(name, arguments)[0]:
            try:
                manager.__enter__()
                entered.append(manager)
            except _FAILURES:
                logger.exception("a hook plugin failed in %s", name)
        try:
            yield
        except BaseException as error:
            _leave(entered, name, (type(error), error, error.__traceback__))
            raise
        else:
            _leave(entered, name, (None, None, None))

    def _call(self, name: str, arguments: dict[str, Any]) -> tuple[list[Any], list[BaseException]]:
        results: list[Any] = []
        errors: list[BaseException] = []
        for receiver in () if self._unused else self._receivers_of(name):
            try:
                found = receiver.function(*(arguments[each] for each in receiver.argnames))
                if found is not None:
                    results.append(found)
            except _FAILURES as error:
                logger.exception("hook plugin %r failed in %s", receiver.plugin_name, name)
                errors.append(error)
        return results, errors

    def _admit(self, manager: PluginManager, key: str, plugin: Any) -> None:
        if manager.has_plugin(key):
            manager.unregister(name=key)
        try:
            receiver = plugin() if isinstance(plugin, type) else plugin
            require_known_hooks(receiver)
            manager.register(receiver, name=key)
            if not manager.get_hookcallers(receiver):
                manager.unregister(name=key)
                hint = "mark its functions with automate_kernel.hookimpl"
                raise PluginError("it implements no hook", hint=hint)
        except Exception as error:
            problem = self._registry.mark_broken(key, error)
            if self._registry.policy.strict:
                raise problem from error


def _leave(entered: list[AbstractContextManager[Any]], name: str, error: tuple[Any, ...]) -> None:
    """Leave all, the last entered first. None of them can hide the error, or fail the work."""
    for manager in reversed(entered):
        try:
            manager.__exit__(*error)
        except _FAILURES as its_own:
            if its_own is not error[1]:
                logger.exception("a hook plugin failed in %s", name)


def _new_manager() -> PluginManager:
    from pluggy import HookspecMarker, PluginManager

    marker = HookspecMarker(PROJECT)
    for function in _HOOKS.values():
        marker(function)
    manager = PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    return manager


_HOOKS = {name: each for name, each in vars(HookSpecs).items() if name.startswith(f"{PROJECT}_")}
# The hooks that pluggy itself calls; a wrapper needs that.
_WRAPPABLE = ("automate_configure", "automate_before_call")


def require_known_hooks(plugin: Any) -> None:
    """
    Raise `PluginError` if *plugin* marks a function as an unknown hook, or with wrong arguments.

    Pluggy accepts a misspelt hook, and never calls it. A hook to refuse calls would refuse none.
    """
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name, None)
        function = getattr(function, "__func__", function)
        if not inspect.isfunction(function) or not hasattr(function, f"{PROJECT}_impl"):
            continue
        if name not in _HOOKS:
            raise PluginError(f"there is no hook {name!r}", hint=_near(name, list(_HOOKS)))
        options = getattr(function, f"{PROJECT}_impl")
        if (options.get("wrapper") or options.get("hookwrapper")) and name not in _WRAPPABLE:
            raise PluginError(
                f"the hook {name!r} can't have a wrapper, which would never be called",
                hint=f"write a plain function; wrappers are for {' and '.join(_WRAPPABLE)}",
            )
        known = list(inspect.signature(_HOOKS[name]).parameters)
        for argument in inspect.signature(function).parameters:
            if argument not in known:
                raise PluginError(
                    f"the hook {name!r} has no argument {argument!r}",
                    hint=_near(argument, known[1:]),
                )


def _near(word: str, known: list[str]) -> str:
    return did_you_mean(word, known) or "there are: " + ", ".join(known)
