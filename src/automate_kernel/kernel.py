"""The composition root: one object that holds a host's plugins, secrets, workflows and storage."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from automate_kernel.catalogue import Catalogue
from automate_kernel.context import Call
from automate_kernel.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
    WebhookRejectedError,
)
from automate_kernel.invocation import Invoker
from automate_kernel.operations import OperationSpec, operation_from_function
from automate_kernel.outbox import (
    Backoff,
    Limit,
    NewItem,
    OutboxItem,
    OutboxReaper,
    OutboxStore,
    RowsOutboxStore,
)
from automate_kernel.outbox.activity import ActivityLog
from automate_kernel.outbox.chores import Chore
from automate_kernel.outbox.handlers import Handler
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.inline import run_inline
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.worker import Worker, WorkerStats
from automate_kernel.plugins import Plugins
from automate_kernel.secrets import EnvSecretsBackend, Redactor, SecretResolver, SecretsBackend
from automate_kernel.storage import MemoryStorage, Rows, Storage
from automate_kernel.templates import (
    EnvironmentResolver,
    FilterRegistry,
    TemplateContext,
    TemplateEngine,
)
from automate_kernel.templates.filters import default_filters
from automate_kernel.webhooks import ReplayLedger, WebhookReceipt
from automate_kernel.workflows.execution import Event, EventType, Execution, ExecutionStatus
from automate_kernel.workflows.model import Workflow
from automate_kernel.workflows.runner import EVENT, Runner
from automate_kernel.workflows.state import ADVANCE, ExecutionStore
from automate_kernel.workflows.supply import WorkflowSource
from automate_kernel.workflows.ticker import Scheduled, Ticker

__all__ = ["Kernel"]

logger = logging.getLogger(__name__)
_REMEMBERED_SECONDS = 30 * 86_400.0
F = TypeVar("F", bound=Callable[..., Any])
_COMMIT_SECONDS = 60.0
_SWEEP_SECONDS = 5.0


class Kernel:
    """
    Everything that one host needs, put together.

    *storage* is where events and executions live: `MemoryStorage` by default, else an adapter's
    (``SqlAlchemyStorage(engine)``, ``DjangoStorage()``). *plugins* are classes or dotted paths;
    with *discover* the installed ones count too. *config* holds each plugin's configuration by
    its key, in which text may be ``$secret:KEY``. *secrets* are backends, or a mapping for tests;
    by default the environment variables ``AUTOMATE_SECRET_…``. *workflows* are objects, files or
    folders; *workflow_source* supplies those that change while the kernel runs. *env_allow* names
    the environment variables that templates may read. With *strict* a broken plugin raises.
    *lease_seconds*, *retention_seconds* and *failed_retention_seconds* are those of an outbox that
    isn't given; see `RowsOutboxStore`. Raises `ConfigError` for what can't work.
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        plugins: Iterable[Any] = (),
        config: Mapping[str, Mapping[str, Any]] | None = None,
        secrets: SecretsBackend | Iterable[Any] | Mapping[str, str] | None = None,
        workflows: Iterable[Workflow | str | Path] = (),
        workflow_source: WorkflowSource | None = None,
        outbox: OutboxStore | None = None,
        env_allow: Iterable[str] = (),
        settings: Mapping[str, Any] | None = None,
        discover: bool = True,
        strict: bool = False,
        disabled: Iterable[str] = (),
        winners: Mapping[str, str] | None = None,
        listed: Mapping[str, Any] | None = None,
        lease_seconds: float = 300.0,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> None:
        theirs: Storage | None = getattr(outbox, "storage", None)
        if storage is not None and theirs is not None and theirs is not storage:
            raise ConfigError(
                "the outbox is in another storage than the one that was given",
                hint="pass the outbox alone, or Kernel(outbox.storage, outbox=outbox)",
            )
        self.storage: Storage = storage or theirs or MemoryStorage()
        self.plugins = Plugins(discover, strict, disabled, winners, settings=listed)
        for plugin in plugins:
            self.plugins.register(plugin)
        self.redactor = Redactor()
        self.secrets = SecretResolver(self._backends(secrets), self.redactor)
        self.env = EnvironmentResolver(tuple(env_allow))
        self.filters = FilterRegistry(default_filters)
        self.templates = TemplateEngine(self.filters)
        self.outbox: OutboxStore = outbox or RowsOutboxStore(
            self.storage,
            lease_seconds=lease_seconds,
            retention_seconds=retention_seconds,
            failed_retention_seconds=failed_retention_seconds,
        )
        self._invoker = Invoker(
            self.plugins,
            self.secrets,
            config=config or {},
            settings=settings or {},
            compile_config=self._render_config,
        )
        self.executions = ExecutionStore(self.storage, self.outbox)
        self.purges: list[Callable[..., int]] = []
        """What a host deletes of its own: called with ``older_than_seconds`` and ``limit``."""
        self.workflows = Catalogue(
            self.templates, self._context, self.executions.definition, workflow_source
        )
        self._runner = Runner(
            self.executions,
            invoke=self._invoker.invoke,
            around=lambda execution: self.plugins.around("automate_executing", execution=execution),
            programs=self.workflows.program,
            listening=self.workflows.listening,
            sender=self,
        )
        self._ticker = Ticker(self.storage, self._scheduled, self._fire)
        self._ledger = ReplayLedger(self.storage)
        # What was given up, and until when to wait for its transaction to be committed.
        self._given_up: deque[tuple[OutboxItem, float]] = deque()
        self._handlers: dict[str, Handler] = {}
        self._add_handler(Handler(EVENT, self._runner.handle_event))
        self._add_handler(Handler(ADVANCE, self._runner.handle_advance))
        if isinstance(self.outbox, RowsOutboxStore) and self.outbox.on_failed is None:
            self.outbox.on_failed = self._item_failed
        if isinstance(self.outbox, RowsOutboxStore) and self.outbox.on_cancelled is None:
            self.outbox.on_cancelled = self.executions.cancel_with
        if isinstance(self.outbox, RowsOutboxStore) and self.outbox.on_requeued is None:
            self.outbox.on_requeued = self.executions.resume_with
        if self.outbox.before_enqueue is None:
            self.outbox.before_enqueue = self._before_enqueue
        self._add_plugin_filters()
        for workflow in workflows:
            self.add_workflow(workflow)
        self.plugins.hook.automate_configure(kernel=self)

    def __repr__(self) -> str:
        return f"<Kernel on {self.storage.describe()}, {len(self.workflows.added())} workflows>"

    def _backends(self, secrets: Any) -> Iterable[SecretsBackend]:
        from automate_kernel.secrets import MemorySecretsBackend

        if secrets is None:
            return [EnvSecretsBackend()]
        if isinstance(secrets, Mapping):
            return [MemorySecretsBackend(secrets)]
        given = [secrets] if isinstance(secrets, (str, SecretsBackend)) else list(secrets)
        return [one if isinstance(one, SecretsBackend) else self._backend(one) for one in given]

    def _backend(self, name: Any) -> SecretsBackend:
        """A backend from its class, dotted path or plugin key."""
        if isinstance(name, str) and name not in self.plugins.keys("secrets_backend"):
            from automate_kernel.plugins.loading import load_target, normal_target

            name = load_target(normal_target(name))
        cls = self.plugins.get("secrets_backend", name) if isinstance(name, str) else name
        try:
            backend: SecretsBackend = cls()
        except TypeError as error:
            raise ConfigError(
                f"the secrets backend {getattr(cls, '__name__', cls)} needs arguments",
                hint="pass an instance instead of its path",
            ) from error
        return backend

    def _render_config(self, config: Any) -> Any:
        return self.templates.compile(config, "config").render(TemplateContext(env=self.env))

    def _context(self, event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
        return TemplateContext(event, execution, steps, self.env, extra)

    def _add_plugin_filters(self) -> None:
        # A broken one is logged and left out, unless the host is strict.
        for key, function in self.plugins.filters.load_all().items():
            self.filters.register(key, function, replace=True)

    # -- what the host brings ------------------------------------------------------------------

    def register(self, plugin: Any, kind: str | None = None, *, key: str | None = None) -> None:
        """Add a plugin: a class or its dotted path; see `Plugins.register`."""
        self.plugins.register(plugin, kind, key=key)

    def action(self, name: str, *, idempotent: bool = False, **options: Any) -> Callable[[F], F]:
        """
        Make a function, ``def`` or ``async def``, an action that steps can call as *name*.

        Its typed parameters, or its one pydantic parameter, are the schema of its input.
        """

        def decorate(function: F) -> F:
            self._invoker.add(
                operation_from_function(function, name=name, idempotent=idempotent, **options)
            )
            return function

        return decorate

    def handler(
        self,
        kind: str,
        *,
        transactional: bool = False,
        inline: bool = False,
        backoff: Backoff | None = None,
        concurrency: int | None = None,
        rate: int | None = None,
        per_seconds: float = 1.0,
    ) -> Callable[[F], F]:
        """
        Make a function the handler of outbox items of *kind*.

        It is called with the item; see `automate_kernel.outbox.handlers.Handler` for the options.
        At most *concurrency* of them run at once and *rate* start per *per_seconds*, over all
        workers, unless an operator sets another limit; see `OutboxStore.limit`.
        """
        limited = concurrency is not None or rate is not None
        limit = Limit(kind, concurrency, rate, per_seconds) if limited else None

        def decorate(function: F) -> F:
            self._add_handler(
                Handler(kind, function, transactional, inline, backoff or Backoff(), limit)
            )
            return function

        return decorate

    @property
    def kinds(self) -> list[str]:
        """The kinds of outbox items that have a handler."""
        return sorted(self._handlers)

    def _add_handler(self, handler: Handler) -> None:
        if handler.kind in self._handlers:
            raise AutomateError(
                ErrorCodes.ALREADY_EXISTS, f"items of kind {handler.kind!r} have a handler already"
            )
        self._handlers[handler.kind] = handler

    def filter(self, name: str) -> Callable[[F], F]:
        """Make a function a template filter of this kernel alone; `register_filter` is for all."""

        def decorate(function: F) -> F:
            self.filters.register(name, function)
            return function

        return decorate

    def add_workflow(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> list[Workflow]:
        """
        Add a workflow, or those of a file or folder; returns them.

        Its templates are checked at once. Raises `WorkflowError` or `TemplateError`.
        """
        return self.workflows.add(workflow)

    # -- entering ------------------------------------------------------------------------------

    def emit(
        self,
        name: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        source: str = "",
        tenant_id: str | None = None,
        delay: float | timedelta = 0.0,
        priority: int = 0,
        idempotency_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """
        Accept the event *name* in the host's *transaction*, and return its id.

        It happens exactly if the transaction commits; without one, when this returns. What
        *transaction* may be is the storage's to say (a SQLAlchemy ``Session``; in Django nothing).
        A second event with the same *idempotency_key* is the first one. Raises `PayloadError`.
        """
        item = self._event_item(
            name, payload, "event", source, tenant_id,
            delay=delay, priority=priority, idempotency_key=idempotency_key,
            headers=headers or {},
        )  # fmt: skip
        return self.outbox.enqueue_many([item], transaction=transaction)[0]

    async def aemit(
        self, name: str, payload: Any = None, *, transaction: Any = None, **options: Any
    ) -> str:
        """`emit` for asynchronous code; *transaction* may be an ``AsyncSession``."""
        source, tenant_id = options.pop("source", ""), options.pop("tenant_id", None)
        item = self._event_item(name, payload, "event", source, tenant_id, **options)
        return (await self.outbox.aenqueue_many([item], transaction))[0]

    def _event_item(
        self,
        name: str,
        payload: Any,
        kind: EventType,
        source: str,
        tenant_id: str | None,
        **options: Any,
    ) -> NewItem:
        if not name:
            raise ConfigError("an event needs a name", hint='for example "order.created"')
        body = {
            "name": name,
            "type": kind,
            "source": source,
            "payload": payload,
            "occurred_at": datetime.now(timezone.utc).isoformat(),
        }
        return NewItem(EVENT, body, tenant_id=tenant_id, **options)

    def receive_webhook(
        self,
        connector_key: str,
        trigger: str,
        headers: Any,
        raw_body: bytes,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
    ) -> WebhookReceipt:
        """
        Verify a webhook and accept it as an event named ``connector.trigger``.

        *headers* is a mapping or a sequence of pairs, *raw_body* the bytes as they came. A
        delivery that was accepted before comes back with ``duplicate`` set and does nothing.
        Raises `WebhookRejectedError`, the same for every reason (the log has the reason), and
        `AutomateError` with ``INVALID_ARGUMENT`` for a body that proves its origin but can't be
        read, and `SecretUnavailableError` if the secret to verify with can't be read now.
        """
        connector, spec = self._connector_for(connector_key, trigger)
        if not connector.accepts_webhook(trigger, headers, raw_body):
            logger.warning("webhook %s.%s refused: not proven", connector_key, trigger)
            raise WebhookRejectedError("the webhook was refused")
        payload, delivery_id = self._read_webhook(connector, trigger, headers, raw_body)
        name = spec.event_name or f"{connector_key}.{trigger}"
        item = self._event_item(name, payload, "webhook", connector_key, tenant_id, id=new_id())
        delivery = (connector_key, trigger, delivery_id or "")
        with self.storage.begin(transaction) as rows:
            # In one transaction: a delivery that is remembered is also enqueued.
            if delivery_id is None or self._ledger.remember(
                rows, *delivery, item.id, tenant_id=tenant_id
            ):
                self.outbox.enqueue_many([item], transaction=rows.native)
                return WebhookReceipt(accepted=True, item_id=item.id)
            first = self._ledger.item_of(rows, *delivery, tenant_id=tenant_id)
        logger.info("webhook %s.%s came again", connector_key, trigger)
        return WebhookReceipt(accepted=True, item_id=first, duplicate=True)

    def _read_webhook(
        self, connector: Any, trigger: str, headers: Any, raw_body: bytes
    ) -> tuple[Any, str | None]:
        try:
            payload = connector.parse_webhook(trigger, headers, raw_body)
            return payload, connector.delivery_id(trigger, headers, raw_body)
        except Exception as error:
            # None: what the connector raised may quote its secret, and this is shown and logged.
            raise self._invoker.clean_error(error, f"webhook {trigger!r}") from None

    def _connector_for(self, connector_key: str, trigger: str) -> tuple[Any, Any]:
        try:
            connector = self._invoker.instance("connector", connector_key)
            return connector, connector.find_trigger(trigger)
        except SecretUnavailableError:
            raise  # not the sender's fault: it should come again
        except AutomateError as error:
            logger.warning("webhook %s.%s refused: %s", connector_key, trigger, error)
            raise WebhookRejectedError("the webhook was refused") from None

    def start(
        self,
        workflow: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
        event: Event | None = None,
    ) -> str:
        """
        Begin an execution of *workflow* by its name, whatever its triggers, and return its id.

        *event* is what it sees as ``event``; by default a manual one with *payload*. With a
        *tenant_id* the workflow may be one of the tenant's own, and the event is the tenant's:
        raises ``INVALID_ARGUMENT`` if it is another's.
        """
        event = event or Event(
            id=new_id(),
            name=workflow,
            payload=payload,
            type="manual",
            occurred_at=datetime.now(timezone.utc).isoformat(),
        )
        if tenant_id is not None and event.tenant_id is None:
            event = replace(event, tenant_id=tenant_id)
        elif tenant_id not in (None, event.tenant_id):
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT, "the event belongs to another tenant than was given"
            )
        definition = self.workflows.get(workflow, event.tenant_id)
        with self.storage.begin(transaction) as rows:
            return self.executions.start(rows, definition, event)

    def start_again(self, execution_id: str, *, transaction: Any = None) -> str:
        """
        Begin another execution of the same workflow, as it is now, for what the first one saw.

        Returns the new one's id. Raises ``NOT_FOUND`` if the execution or its workflow is gone.
        """
        first = self.executions.get(execution_id)
        if first is None:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        again = replace(first.event, id=new_id())
        return self.start(first.name, event=again, transaction=transaction)

    def _scheduled(self) -> Iterable[Scheduled]:
        for entry in self.workflows.entries():
            if entry.error is None:
                yield entry.workflow, entry.tenant_id

    def _fire(
        self,
        rows: Rows,
        workflow: Workflow,
        tenant_id: str | None,
        trigger: Any,
        moment: datetime,
    ) -> None:
        event = Event(
            id=new_id(),
            name=workflow.name,
            payload=trigger.payload,
            type="schedule",
            source="schedule",
            tenant_id=tenant_id,
            occurred_at=moment.isoformat(),
        )
        self.executions.start(rows, workflow, event)

    # -- calling -------------------------------------------------------------------------------

    def invoke(
        self,
        operation: str,
        input: Any = None,
        *,
        timeout: float | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """
        Call an action or capability now and return its output.

        Text in *input* may be ``$secret:KEY``; the output is redacted. Raises `AutomateError`.
        """
        call = Call(operation, tenant_id, idempotency_key=idempotency_key)
        return self._invoker.invoke(operation, self._input(input), call=call, timeout=timeout)

    async def ainvoke(
        self,
        operation: str,
        input: Any = None,
        *,
        timeout: float | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """`invoke` for asynchronous code."""
        call = Call(operation, tenant_id, idempotency_key=idempotency_key)
        return await self._invoker.ainvoke(
            operation, self._input(input), call=call, timeout=timeout
        )

    def _input(self, given: Any) -> Any:
        return self._render_config({} if given is None else given)

    def operation(self, name: str) -> OperationSpec:
        """What the action or capability *name* takes and gives; raises ``NOT_FOUND``."""
        return self._invoker.spec(name)

    def connector(self, key: str) -> Any:
        """The connector *key*, configured."""
        return self._invoker.instance("connector", key)

    def provider(self, key: str) -> Any:
        """The provider *key*, configured."""
        return self._invoker.instance("provider", key)

    # -- working -------------------------------------------------------------------------------

    def worker(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
        kinds: Iterable[str] = (),
        **options: Any,
    ) -> Worker:
        """
        A worker for this kernel's items; see `Worker` for the options.

        What has been kept for its time is deleted; see `sweep` for both times. *kinds* are those
        that it works on, ``mail.*`` too; by default all that have a handler. Raises `ConfigError`
        for one that has none.
        """
        lease = self.outbox.lease_seconds
        activity = options.setdefault("activity", ActivityLog())
        reaper = OutboxReaper(self.outbox, stale_threshold_seconds=lease, on_reaped=activity.reaped)
        chores = [
            Chore("reaper", min(60.0, max(0.5, lease / 4)), reaper.reap_stale_items),
            Chore("schedules", 1.0, self._ticker.tick),
            Chore("failures", 1.0, self._tell_given_up),
            Chore("reports", 3600.0, self.outbox.purge_reports),
        ]
        kept = self._kept(retention_seconds, failed_retention_seconds)
        if kept != (None, None):
            chores.append(Chore("purge", 60.0, partial(self._sweep, *kept)))
        options.setdefault("describe", self.redactor.redact_exception)
        chores += options.pop("chores", ())
        handlers = self._chosen(kinds, self._working_handlers())
        return Worker(self.outbox, handlers, chores=chores, **options)

    def _chosen(self, kinds: Iterable[str], handlers: list[Handler]) -> list[Handler]:
        patterns = list(kinds)
        for pattern in patterns:
            if not any(fnmatchcase(kind, pattern) for kind in self._handlers):
                raise ConfigError(
                    f"no handler is there for items of kind {pattern!r}",
                    hint=f"there are: {', '.join(sorted(self._handlers))}",
                )
        if not patterns:
            return handlers
        return [one for one in handlers if any(fnmatchcase(one.kind, each) for each in patterns)]

    def _working_handlers(self) -> list[Handler]:
        # Events are left to whoever knows workflows: taken by a process that has none of them,
        # they would be done with, and start nothing.
        handlers = [
            handler
            for kind, handler in self._handlers.items()
            if kind != EVENT or self.workflows.changing or self.workflows.added()
        ]
        if self.plugins.receives("automate_handling"):
            handlers = [replace(handler, around=self._around) for handler in handlers]
        return handlers

    def _before_enqueue(self, items: Sequence[NewItem]) -> None:
        if self.plugins.receives("automate_before_enqueue"):
            self.plugins.notify("automate_before_enqueue", items=items)

    def _around(self, item: OutboxItem) -> AbstractContextManager[None]:
        return self.plugins.around("automate_handling", item=item)

    def run_until_idle(self, *, patience: float = 0.0) -> WorkerStats:
        """
        Run what is due, and what follows from it, in this thread; for tests and scripts.

        Waits for what is due within *patience* seconds, retries for example.
        """
        self._ticker.tick()
        stats = run_inline(
            self.outbox,
            self._working_handlers(),
            patience=patience,
            describe=self.redactor.redact_exception,
        )
        self._tell_given_up()
        return stats

    def run(self, workflow: str, payload: Any = None, *, patience: float = 3600.0) -> Execution:
        """Start *workflow*, run until it has ended, and return the execution."""
        execution_id = self.start(workflow, payload)
        self.run_until_idle(patience=patience)
        execution = self.executions.get(execution_id)
        if execution is None:
            raise AutomateError(ErrorCodes.DATA_LOSS, f"execution {execution_id} is gone")
        return execution

    def _item_failed(self, rows: Rows, item: OutboxItem) -> None:
        self.executions.give_up(rows, item)
        self._given_up.append((item, time.monotonic() + _COMMIT_SECONDS))

    def _tell_given_up(self) -> None:
        """Tell hooks and signals of items that were given up, once that is committed."""
        for _ in range(len(self._given_up)):
            item, until = self._given_up.popleft()
            found = self.outbox.get(item.id)
            if found is None or found.status is not ItemStatus.FAILED:
                # Not committed yet, or rolled back.
                if found is not None and time.monotonic() < until:
                    self._given_up.append((item, until))
                continue
            error = AutomateError(ErrorCodes.ABORTED, item.last_error or "given up")
            self.plugins.notify("automate_item_failed", item=item, error=error)
            if item.kind == ADVANCE:
                execution = self.executions.get(item.payload["execution_id"])
                if execution is not None:
                    self._runner.tell_failed(execution)

    def sweep(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> int:
        """
        Delete items and executions that have been kept for their time; returns how many.

        What was COMPLETED *retention_seconds* ago goes, and what FAILED or was CANCELLED
        *failed_retention_seconds* ago, by default the outbox's own times: None is for ever. It
        takes some seconds at most, and the next time goes on there. A worker does so every minute.
        """
        return self._sweep(*self._kept(retention_seconds, failed_retention_seconds))

    def _kept(
        self, seconds: float | None, failed_seconds: float | None
    ) -> tuple[float | None, float | None]:
        own = self.outbox
        return (
            own.retention_seconds if seconds is None else seconds,
            own.failed_retention_seconds if failed_seconds is None else failed_seconds,
        )

    def _sweep(self, kept: float | None, failed_kept: float | None) -> int:
        swept = self.outbox.sweep(retention_seconds=kept, failed_retention_seconds=failed_kept)
        until = time.monotonic() + _SWEEP_SECONDS
        for age, statuses in (
            (kept, [ExecutionStatus.COMPLETED]),
            (failed_kept, [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]),
        ):
            while age is not None and time.monotonic() < until:
                purged = self.executions.purge(older_than_seconds=age, statuses=statuses)
                swept += purged
                if not purged:
                    break
        ages = [age for age in (kept, failed_kept) if age is not None]
        for purge in self.purges if ages else ():
            while time.monotonic() < until and (
                purged := purge(older_than_seconds=min(ages), limit=1000)
            ):
                swept += purged
        if kept is not None:
            self._ledger.forget(max(kept, _REMEMBERED_SECONDS))
        return swept

    def purge(self, *, older_than_seconds: float, batch: int = 1000) -> int:
        """
        Delete items and executions that finished that long ago; returns how many there were.

        *batch* rows go in a transaction, so that nothing waits for it. Webhook deliveries are
        remembered for 30 days at least, because services send them again.
        """
        age, total = older_than_seconds, 0
        for purge in (self.outbox.purge, self.executions.purge, *self.purges):
            while purged := purge(older_than_seconds=age, limit=batch):
                total += purged
        self._ledger.forget(max(age, _REMEMBERED_SECONDS))
        return total

    def close(self) -> None:
        """Close plugins, secrets backends, threads and what the storage opened."""
        self._runner.close()
        self._invoker.close()
        self.secrets.close()
        self.storage.close()

    def __enter__(self) -> Kernel:  # noqa: PYI034  (Self is new in Python 3.11)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
