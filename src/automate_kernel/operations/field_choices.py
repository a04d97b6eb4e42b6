"""The look-up of a field's choices: in its schema, or by the plugin's method, kept for a moment."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypedDict

from automate_kernel.base import runtime
from automate_kernel.base.arguments import check_limit, check_timeout
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.base.forks import new_lock
from automate_kernel.operations.context import Call, calling
from automate_kernel.operations.error_mapping import normalizing
from automate_kernel.operations.field_options import (
    MOST_OPTIONS,
    MOST_SEARCH,
    FieldOption,
    OptionsMethod,
    acollected,
    as_options,
    collected,
    find_options,
    options_methods,
    require_field,
    searched,
)
from automate_kernel.operations.interruption import is_interruption
from automate_kernel.operations.invoker import Invoker
from automate_kernel.operations.plugin import Plugin
from automate_kernel.operations.schemas.fields import input_fields

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ChoiceOptions", "FieldChoices", "OptionsCache"]

_KEPT_SECONDS = 30.0
_MOST_KEPT = 256


class ChoiceOptions(TypedDict, total=False):
    """
    The options of a question for choices, as `Kernel.options` explains them.

    By default there is no text and no other field, at most 100 choices come, and within 10 seconds.
    """

    search: str
    values: Mapping[str, Any] | None
    limit: int
    tenant_id: str | None
    timeout: float


class OptionsCache:
    """
    The choices that were looked up in the last 30 seconds, at most 256 lists of them.

    A form asks for the same again with each letter and each reload.
    """

    def __init__(self, clock: Callable[[], float] = runtime.clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, list[FieldOption]]] = OrderedDict()
        self._lock = new_lock()

    def find(self, key: str) -> list[FieldOption] | None:
        """Return the list that is kept under *key*, or None."""
        with self._lock:
            at, found = self._kept.get(key, (0.0, None))
            if found is None or self._clock() - at >= _KEPT_SECONDS:
                self._kept.pop(key, None)
                return None
            return list(found)

    def keep(self, key: str, found: list[FieldOption]) -> None:
        """Keep a list for a while."""
        with self._lock:
            self._kept[key] = (self._clock(), list(found))
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all lists."""
        with self._lock:
            self._kept.clear()


class FieldChoices:
    """
    The choices of the fields of *operations*.

    A field has them from its schema (an enumeration, a boolean), or from a method of the plugin
    that `automate_kernel.options` marked. Those of a method are kept for a moment.
    """

    def __init__(self, operations: Invoker) -> None:
        self._operations = operations
        self.cache: OptionsCache = OptionsCache()
        """The choices that were looked up a moment ago."""

    def dynamic_fields(self, operation: str) -> list[str]:
        """Return the fields of *operation* whose choices a method gives; makes no plugin."""
        cls = self._operations.plugin_class(operation)
        name = operation.partition(".")[2]
        if cls is None:
            return []
        given = {each.field for each in options_methods(cls) if each.serves(name)}
        fields = input_fields(self._operations.spec(operation).json_schema()) if given else ()
        return [each.name for each in fields if each.name in given]

    def find(
        self, operation: str, field: str, **options: Unpack[ChoiceOptions]
    ) -> list[FieldOption]:
        """Return the choices; see `Kernel.options`."""
        question = self._asked(operation, field, **options)
        if isinstance(question, list):
            return question
        with self._asking(question) as work:
            found, itself = self._operations.timed_calls.run(work, question.timeout)
            if not isinstance(found, list):
                gathering = question.gathered(found)
                found = self._operations.portal.run(gathering, question.timeout)
        return self._kept(question, found, itself=itself)

    async def afind(
        self, operation: str, field: str, **options: Unpack[ChoiceOptions]
    ) -> list[FieldOption]:
        """Do the same as `find`, without blocking the event loop."""
        asked = partial(self._asked, operation, field, **options)
        question = await asyncio.to_thread(asked)  # it may import the plugin
        if isinstance(question, list):
            return question
        with self._asking(question) as work:
            found, itself = await self._operations.timed_calls.arun(work, question.timeout)
            if not isinstance(found, list):
                found = await asyncio.wait_for(question.gathered(found), question.timeout)
        return self._kept(question, found, itself=itself)

    @contextmanager
    def _asking(self, question: OptionsQuestion) -> Iterator[Callable[[], tuple[Any, bool]]]:
        """Yield the call of the plugin's method; an error of the block comes out redacted."""
        try:
            with calling(question.call), self._operations.secrets.session():
                yield partial(question.perform, self._operations.plugin_of)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit too: a plugin must not end its process
            if is_interruption(error):
                raise
            raise self._operations.clean_error(error, question.about) from None

    def _asked(
        self,
        operation: str,
        field: str,
        *,
        search: str = "",
        values: Mapping[str, Any] | None = None,
        limit: int = 100,
        tenant_id: str | None = None,
        timeout: float | None = 10.0,
    ) -> OptionsQuestion | list[FieldOption]:
        """Return the question for a plugin, or its answer where that is known already."""
        if not isinstance(search, str) or len(search) > MOST_SEARCH:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, f"search is no text of up to {MOST_SEARCH} characters"
            )
        limit, timeout = min(check_limit(limit), MOST_OPTIONS), check_timeout(timeout)
        fixed = require_field(self._operations.spec(operation, tenant_id=tenant_id), field)
        cls = self._operations.plugin_class(operation)
        name = operation.partition(".")[2]
        method = None if cls is None else find_options(cls, name, field)
        if cls is None or method is None:
            if not fixed:
                raise AutomateError(
                    ErrorCodes.NOT_FOUND,
                    f"the field {field!r} of {operation!r} has no choices",
                    hint=f'mark a method that gives them with @options("{field}")',
                )
            return list(islice(searched(fixed, search), limit))
        needed = method.fields_needed(cls)
        given = (values or {}).items()
        taken = {k: v for k, v in given if k in needed and v not in (None, "")}
        question = OptionsQuestion(operation, method, taken, search, limit, tenant_id, timeout)
        known = self.cache.find(question.key)
        return question if known is None else known

    def _kept(
        self, question: OptionsQuestion, found: list[Any], *, itself: bool
    ) -> list[FieldOption]:
        listed = list(as_options(found))
        if not itself:
            listed = list(searched(listed, question.search))
        redact = self._operations.redactor.redact
        shown = [
            # A value that is a secret is no choice: with the secret taken out it would be another.
            FieldOption(each.value, redact(each.label))
            for each in listed[: question.limit]
            if not isinstance(each.value, str) or redact(each.value) == each.value
        ]
        self.cache.keep(question.key, shown)
        return shown


class OptionsQuestion:
    """One question for a plugin's method: with which values, and for what text."""

    def __init__(
        self,
        operation: str,
        method: OptionsMethod,
        values: Mapping[str, Any],
        search: str,
        limit: int,
        tenant_id: str | None,
        timeout: float | None,
    ) -> None:
        self.operation = operation
        self.method = method
        self.values = values
        self.search = search
        self.limit = limit
        self.timeout = timeout
        self.call = Call(operation, tenant_id)
        self.about = f"options of {operation!r}"
        asked = [operation, method.field, sorted(values.items()), search, limit, tenant_id]
        text = json.dumps(asked, default=str, sort_keys=True)
        # A digest: the values of fields may be long, or secret.
        self.key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        self._plugin: Plugin | None = None

    @property
    def most(self) -> int:
        """The number to take from the method: more, where the kernel looks for the text."""
        return MOST_OPTIONS if self.search else self.limit

    def perform(self, plugin_of: Callable[[str], Plugin]) -> tuple[Any, bool]:
        """Call the method; return its list, or what has to be awaited, and if it has searched."""
        self._plugin = plugin = plugin_of(self.operation)
        with normalizing(plugin):
            found, itself = self.method.call(plugin, self.values, self.search, self.limit)
            if not (inspect.isawaitable(found) or isinstance(found, AsyncIterable)):
                found = collected(found, self.most)
        return found, itself

    async def gathered(self, found: Any) -> list[Any]:
        """Return the list of a method that is asynchronous."""
        with normalizing(self._plugin):
            return await acollected(found, self.most)
