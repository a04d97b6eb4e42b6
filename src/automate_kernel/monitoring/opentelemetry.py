"""
Traces and metrics for OpenTelemetry: ``pip install automate-kernel[opentelemetry]``.

::

    instrument(kernel)

The context of the trace travels in an item's headers (``traceparent``). So the work that an event
leads to is in the trace of the code that emitted it, whichever process does it:

.. code-block:: text

    POST /orders                            the application's own span
    └─ enqueue automate.event               producer
       └─ process automate.event            consumer, on a worker
          └─ enqueue automate.advance
             └─ process automate.advance    once for each time the execution is woken
                └─ execute order-notify     internal
                   ├─ call shop.total       client
                   └─ call slack.post_message

Names and attributes follow the semantic conventions for messaging. They hold neither payloads nor
error texts, only an error's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from automate_kernel.base import runtime

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace import SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise ImportError(
        "opentelemetry is not installed: pip install 'automate-kernel[opentelemetry]'",
        name="opentelemetry",
    ) from None

from automate_kernel import signals
from automate_kernel.base.errors import AutomateError
from automate_kernel.base.forks import new_lock
from automate_kernel.monitoring.overview import STANDING, ThrottledStats, workers_by_state
from automate_kernel.outbox.item import TRACE_HEADERS, ItemStatus, NewItem, OutboxItem
from automate_kernel.outbox.statistics import MOST_NAMES, OTHERS
from automate_kernel.plugins.hooks import hookimpl
from automate_kernel.storage.statuses import ExecutionStatus
from automate_kernel.workflows.definition.blocks import plain_id
from automate_kernel.workflows.store.statistics import REASONS

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.operations.context import Call
    from automate_kernel.operations.tasks import RemoteTask
    from automate_kernel.workflows.execution import Execution, StepRun

__all__ = ["Instrumentation", "instrument"]

SYSTEM = "automate"
_NAME = "automate_kernel"
# Only the context of the trace. Baggage is the application's own, and may hold what nobody should
# store.
_propagator = TraceContextTextMapPropagator()
Attributes = dict[str, Any]


def instrument(
    kernel: Kernel, tracer_provider: Any = None, meter_provider: Any = None, *, gauges: bool = True
) -> Instrumentation:
    """
    Trace and measure the work of *kernel*, with the global providers unless others are given.

    Call it once in each process, before workers are made. A second call changes nothing. The
    *gauges* are about the whole outbox and read from the database: one process is enough for them.
    """
    found = _INSTRUMENTED.get(kernel)
    if found is None:
        found = Instrumentation(tracer_provider, meter_provider)
        found.listen(kernel)
        if gauges:
            _Gauges(kernel, metrics.get_meter(_NAME, meter_provider=meter_provider))
        kernel.plugins.register(found, "hook", key="opentelemetry")
        _INSTRUMENTED[kernel] = found
    return found


_INSTRUMENTED: WeakKeyDictionary[Kernel, Instrumentation] = WeakKeyDictionary()


class Instrumentation:
    """The hook plugin that `instrument` registers."""

    def __init__(self, tracer_provider: Any, meter_provider: Any) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        self._calls: ContextVar[_OpenCall | None] = ContextVar("automate_open_call", default=None)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        count, measure = meter.create_counter, meter.create_histogram
        text = "Items that were enqueued."
        self._sent = count("messaging.client.sent.messages", "{message}", text)
        text = "Attempts at items."
        self._consumed = count("messaging.client.consumed.messages", "{message}", text)
        self._process = measure("messaging.process.duration", "s", "How long handlers ran.")
        text = "How long actions and capabilities took."
        self._call = measure("automate.call.duration", "s", text)
        text = "How long executions took, from creation to end."
        self._execution = measure("automate.execution.duration", "s", text)
        text = "How long steps took, with their retries."
        self._step = measure("automate.step.duration", "s", text)
        text = "Executions that a worker began, or began again."
        self._started = count("automate.executions.started", "{execution}", text)
        text = "Attempts at steps after their first one."
        self._retried = count("automate.call.retries", "{attempt}", text)
        self._names = BoundedNames()

    def listen(self, kernel: Kernel) -> None:
        """Measure the executions and steps that end in this process."""
        signals.workflow_started.connect(self._execution_started, sender=kernel)
        signals.workflow_cancelled.connect(self._execution_ended, sender=kernel)
        signals.workflow_completed.connect(self._execution_ended, sender=kernel)
        signals.workflow_failed.connect(self._execution_ended, sender=kernel)
        signals.step_completed.connect(self._step_ended, sender=kernel)
        signals.step_failed.connect(self._step_ended, sender=kernel)

    def _execution_started(self, sender: Any, execution: Execution) -> None:
        self._started.add(1, {"automate.workflow": self._names.kept("workflow", execution.name)})

    def _execution_ended(
        self, sender: Any, execution: Execution, error: AutomateError | None = None
    ) -> None:
        seconds = execution.duration_seconds
        if seconds is None and execution.created_at is not None:
            # Cancelled from outside: nobody has read when, by the database's clock.
            seconds = (runtime.utc_now() - execution.created_at).total_seconds()
        if seconds is not None:
            about = self._outcome(execution, execution.status.value, error)
            self._execution.record(seconds, about)

    def _step_ended(
        self, sender: Any, execution: Execution, step: StepRun, error: AutomateError | None = None
    ) -> None:
        seconds = step.duration_seconds
        if seconds is not None:
            about = self._outcome(execution, step.status.value, error)
            # A workflow in code may give its steps any name.
            step_id = self._names.kept(f"step of {execution.name}", plain_id(step.step_id))
            self._step.record(seconds, about | {"automate.step.id": step_id})

    def _outcome(
        self, execution: Execution, status: str, error: AutomateError | None
    ) -> Attributes:
        workflow = self._names.kept("workflow", execution.name)
        about = {"automate.workflow": workflow, "automate.outcome": status.lower()}
        return about | _with_error(error)

    # -- items -------------------------------------------------------------------------------

    @hookimpl
    def automate_before_enqueue(self, items: Sequence[NewItem]) -> None:
        """Put the context of a span for the enqueuing into the headers of *items*."""
        by_kind: dict[str, list[NewItem]] = {}
        for item in items:
            by_kind.setdefault(item.kind, []).append(item)
        for kind, group in by_kind.items():
            attributes = _about(kind, "enqueue") | {"messaging.operation.type": "create"}
            if len(group) > 1:
                attributes["messaging.batch.message_count"] = len(group)
            name, context = f"enqueue {kind}", None
            if not trace.get_current_span().get_span_context().is_valid:
                # Beside the work that led to it, as a sub-workflow is: that is in the headers.
                context = _propagator.extract(_carried(group[0].headers))
            with self._tracer.start_as_current_span(name, context, SpanKind.PRODUCER) as span:
                span.set_attributes(attributes)
                carrier: dict[str, str] = {}
                _propagator.inject(carrier)
            for item in group:
                # What the caller put there itself stays.
                item.headers = {**carrier, **item.headers}
            self._sent.add(len(group), _about(kind, "enqueue"))

    @hookimpl
    @contextmanager
    def automate_handling(self, item: OutboxItem) -> Iterator[None]:
        """Open a span around the handler of *item*, in the trace that enqueued it."""
        about = _about(item.kind, "process")
        attributes = about | {
            "messaging.operation.type": "process",
            "messaging.message.id": item.id,
            "messaging.client.id": item.lease_owner or "",
            "automate.attempt": item.attempt_count,
        }
        name, context = f"process {item.kind}", _propagator.extract(_carried(item.headers))
        begun = runtime.monotonic()
        try:
            with self._span(name, attributes, context, SpanKind.CONSUMER):
                yield
        except BaseException as error:
            about |= _with_error(error)
            raise
        finally:
            self._consumed.add(1, about)
            self._process.record(runtime.monotonic() - begun, about)

    @contextmanager
    def _span(
        self, name: str, attributes: Attributes, context: Any = None, kind: Any = SpanKind.INTERNAL
    ) -> Iterator[trace.Span]:
        span = self._tracer.start_as_current_span(
            name,
            context,
            kind,
            attributes,
            # Not by itself: it would record the error's text, and its traceback.
            record_exception=False,
            set_status_on_exception=False,
        )
        with span as current:
            try:
                yield current
            except BaseException as error:
                _fail(current, _error_type(error))
                raise

    # -- calls that travel -------------------------------------------------------------------

    @hookimpl
    def automate_before_dispatch(self, call: Call, executor: str, headers: dict[str, str]) -> None:
        """Let the context of the call's span travel with it."""
        _propagator.inject(headers)

    @hookimpl
    @contextmanager
    def automate_performing(self, task: RemoteTask) -> Iterator[None]:
        """Make the call of a task in the trace of its host."""
        token = otel_context.attach(_propagator.extract(_carried(task.headers)))
        try:
            yield
        finally:
            otel_context.detach(token)

    # -- executions and steps ----------------------------------------------------------------

    @hookimpl
    @contextmanager
    def automate_executing(self, execution: Execution) -> Iterator[None]:
        """Open a span around one turn of an execution."""
        attributes: Attributes = {
            "automate.workflow": execution.name,
            "automate.execution.id": execution.id,
            "automate.execution.definition": execution.definition_id,
        }
        with self._span(f"execute {execution.name}", attributes) as span:
            try:
                yield
            finally:
                span.set_attribute("automate.execution.status", str(execution.status.value))
                if execution.status is ExecutionStatus.FAILED:
                    _fail(span, execution.error_code or "INTERNAL")

    @hookimpl(tryfirst=True)
    def automate_before_call(self, call: Call, input: Any) -> None:
        """Begin the span of a call. It is ended by `automate_after_call`, in the same context."""
        attributes: Attributes = {"automate.operation": call.operation}
        if call.execution_id is not None:
            attributes |= {
                "automate.execution.id": call.execution_id,
                "automate.step.id": call.step_id or "",
                "automate.attempt": call.attempt,
            }
        name = f"call {call.operation}"
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        attached = otel_context.attach(trace.set_span_in_context(span))
        self._calls.set(_OpenCall(call, span, runtime.monotonic(), attached, self._calls.get()))

    @hookimpl
    def automate_after_call(self, call: Call, output: Any, error: AutomateError | None) -> None:
        """End the span of a call."""
        opened = self._calls.get()
        if opened is None or opened.call is not call:
            return  # refused by another hook before ours was called
        self._calls.set(opened.around)
        otel_context.detach(opened.attached)
        if error is not None:
            _fail(opened.span, _error_type(error))
        opened.span.end()
        operation = {"automate.operation": self._names.kept("operation", call.operation)}
        self._call.record(runtime.monotonic() - opened.begun, operation | _with_error(error))
        if call.attempt > 1:
            self._retried.add(1, operation)


class BoundedNames:
    """The values that an attribute of a metric has had: the first `MOST_NAMES`, then `OTHERS`."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._seen: dict[str, set[str]] = {}

    def kept(self, attribute: str, name: str) -> str:
        """Return *name* as the value of *attribute*, or `OTHERS` if it is one too many."""
        seen = self._seen.get(attribute)
        if seen is None:
            if len(self._seen) >= self._most:
                return OTHERS
            seen = self._seen.setdefault(attribute, set())
        if name not in seen:
            if len(seen) >= MOST_NAMES:
                return OTHERS
            seen.add(name)
        return name


class _OpenCall(NamedTuple):
    call: Call
    span: trace.Span
    begun: float
    attached: Any
    around: _OpenCall | None


class _Gauges:
    """The gauges, which are read from the database when metrics are collected."""

    def __init__(self, kernel: Kernel, meter: metrics.Meter) -> None:
        self._outbox = kernel.outbox
        self._counts = ThrottledStats(kernel.outbox)
        self._execution_counts = ThrottledStats(kernel.executions)
        self._lock = new_lock()
        for name, unit, text, observe in (
            ("automate.outbox.items", "{item}", "Items in the outbox.", self._items),
            (
                "automate.executions",
                "{execution}",
                "Executions that have not ended, and FAILED ones that are kept.",
                self._executions,
            ),
            (
                "automate.waiting.steps",
                "{step}",
                "Steps that wait for something to come in.",
                self._waiting,
            ),
            ("automate.outbox.oldest_due", "s", "How late the oldest due item is.", self._oldest),
            ("automate.workers", "{worker}", "Workers.", self._workers),
            ("automate.worker.in_flight", "{item}", "Items that workers hold.", self._in_flight),
        ):
            meter.create_observable_gauge(name, [partial(self._locked, observe)], unit, text)

    def _locked(
        self, observe: Callable[[], Iterable[Observation]], options: CallbackOptions
    ) -> Iterable[Observation]:
        with self._lock:
            return list(observe())

    def _items(self) -> Iterable[Observation]:
        for kind, of in self._counts.look().counts.items():
            for status in ItemStatus:
                about = {"messaging.destination.name": kind, "automate.status": str(status)}
                yield Observation(of.get(str(status), 0), about)

    def _executions(self) -> Iterable[Observation]:
        for workflow, of in self._execution_counts.look().counts.items():
            for status in STANDING:
                about = {"automate.workflow": workflow, "automate.status": status}
                yield Observation(of.get(status, 0), about)

    def _waiting(self) -> Iterable[Observation]:
        waiting = self._execution_counts.look().waiting
        for reason in REASONS[1:]:
            yield Observation(waiting.get(reason, 0), {"automate.reason": reason})

    def _oldest(self) -> Iterable[Observation]:
        yield Observation(self._counts.look().oldest_due_seconds or 0.0)

    def _workers(self) -> Iterable[Observation]:
        states = workers_by_state(self._outbox.workers())
        alive = states["running"] + states["stopping"]
        for state in ("alive", "lost", "failing"):
            yield Observation(states.get(state, alive), {"automate.state": state})

    def _in_flight(self) -> Iterable[Observation]:
        yield Observation(sum(w.in_flight for w in self._outbox.workers() if not w.lost))


def _carried(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the context of a trace that is among *headers*."""
    found = {name: headers.get(name) for name in TRACE_HEADERS}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _about(kind: str, operation: str) -> Attributes:
    """Return the conventions' attributes of an item of *kind*; spans have a type as well."""
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": kind,
        "messaging.operation.name": operation,
    }


def _error_type(error: BaseException) -> str:
    return str(error.code) if isinstance(error, AutomateError) else type(error).__qualname__


def _with_error(error: BaseException | None) -> Attributes:
    return {} if error is None else {"error.type": _error_type(error)}


def _fail(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)
