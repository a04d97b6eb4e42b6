"""The composition root: one object that holds a host's plugins, secrets, workflows and storage."""

from __future__ import annotations

import inspect
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
from typing import Any, TypeVar, overload

from automate_kernel.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    SecretUnavailableError,
    StorageError,
    WebhookRejectedError,
)
from automate_kernel.logs import get_logger
from automate_kernel.operations.context import Call
from automate_kernel.operations.invoker import Invoker
from automate_kernel.operations.schemas import Schema, json_schema_of
from automate_kernel.operations.spec import OperationSpec, operation_from_function
from automate_kernel.outbox import Backoff, Limit, NewItem, OutboxItem, OutboxStore, RowsOutboxStore
from automate_kernel.outbox.ids import new_id
from automate_kernel.outbox.item import ItemStatus, Redaction, check_text, encode_json
from automate_kernel.outbox.labels import Labelled, Labels, checked_labels, labelled_ids
from automate_kernel.outbox.statistics import ActivityLog
from automate_kernel.plugins import Plugins
from automate_kernel.secrets import EnvSecretsBackend, Redactor, SecretResolver, SecretsBackend
from automate_kernel.secrets.redaction import EnteringRedaction
from automate_kernel.storage import MemoryStorage, Rows, Storage
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.migration import require_schema
from automate_kernel.templates import (
    EnvironmentResolver,
    FilterRegistry,
    TemplateContext,
    TemplateEngine,
)
from automate_kernel.templates.filters import default_filters
from automate_kernel.tracebacks import log_error
from automate_kernel.webhooks import Ignored, ReplayLedger, WebhookReceipt
from automate_kernel.webhooks.request import delivery_id_of
from automate_kernel.worker import OutboxReaper
from automate_kernel.worker.handler import Handler
from automate_kernel.worker.inline import run_inline
from automate_kernel.worker.periodic import PeriodicTask
from automate_kernel.worker.worker import Worker, WorkerStats
from automate_kernel.workflows.catalogue import Catalogue, WorkflowSource
from automate_kernel.workflows.definition.model import Workflow
from automate_kernel.workflows.engine.execution import (
    Event,
    EventType,
    Execution,
    ExecutionStatus,
    check_event_name,
    check_event_source,
)
from automate_kernel.workflows.engine.executions import ADVANCE, ExecutionStore
from automate_kernel.workflows.engine.runner import EVENT, Runner
from automate_kernel.workflows.engine.ticker import Scheduled, Ticker

__all__ = [
    "Assembly",
    "Calling",
    "Entering",
    "Keeping",
    "Kernel",
    "Registering",
    "Working",
]

logger: logging.Logger = get_logger(__name__)


class Assembly:
    """A kernel's parts, from what the host gave."""

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
        if storage is not None:
            _require_storage(storage)
        theirs: Storage | None = getattr(outbox, "storage", None)
        if storage is not None and theirs is not None and theirs is not storage:
            raise ConfigError(
                "the outbox is in another storage than the one that was given",
                hint="pass the outbox alone, or Kernel(outbox.storage, outbox=outbox)",
            )
        self.storage: Storage = storage or theirs or MemoryStorage()
        """Where everything is kept."""
        self.plugins: Plugins = Plugins(discover, strict, disabled, winners, settings=listed)
        """The plugins of every kind, those that can't be used too."""
        for plugin in plugins:
            self.plugins.register(plugin)
        self.redactor: Redactor = Redactor()
        """Takes the secrets that were resolved out of texts and values."""
        self.secrets: SecretResolver = SecretResolver(self._backends(secrets), self.redactor)
        """Looks secrets up, and checks whether they can be: `SecretResolver.check`."""
        self.env: EnvironmentResolver = EnvironmentResolver(tuple(env_allow))
        """The environment variables that templates may read."""
        self.filters: FilterRegistry = FilterRegistry(default_filters)
        """The template filters of this kernel."""
        self.templates: TemplateEngine = TemplateEngine(self.filters)
        """Compiles and renders templates."""
        self.outbox: OutboxStore = outbox or RowsOutboxStore(
            self.storage,
            lease_seconds=lease_seconds,
            retention_seconds=retention_seconds,
            failed_retention_seconds=failed_retention_seconds,
        )
        """The items that wait, run and are done: enqueue, find, pause, limit, cancel, requeue."""
        self._invoker = Invoker(
            self.plugins,
            self.secrets,
            config=config or {},
            settings=settings or {},
            compile_config=self._render_config,
        )
        self.executions: ExecutionStore = ExecutionStore(self.storage, self.outbox)
        """Runs of workflows: get, find, cancel, resume."""
        self.purges: list[Callable[..., int]] = []
        """What a host deletes of its own: called with ``older_than_seconds`` and ``limit``."""
        self.workflows: Catalogue = Catalogue(
            self.templates, self._context, self.executions.definition, workflow_source
        )
        """The workflows that this kernel knows, by name."""
        self._runner = Runner(
            self.executions,
            invoke=self._invoker.invoke,
            around=lambda execution: self.plugins.around("automate_executing", execution=execution),
            programs=self.workflows.program,
            listening=self.workflows.listening,
            sender=self,
        )
        self._wire()
        self._add_plugin_filters()
        # First, since the templates of a file may use a filter that is made here.
        self.plugins.hook.automate_configure(kernel=self)
        if strict:
            self.plugins.load_all()
        for workflow in workflows:
            self.workflows.add(workflow)
        for told in self._invoker.unused_config():
            # More plugins may come, so it is no error; but a near miss is a slip.
            if "did you mean" in told:
                logger.warning("%s", told)

    @property
    def unused_config(self) -> list[str]:
        """A line for each key of *config* that no connector and no provider has."""
        return self._invoker.unused_config()

    def _wire(self) -> None:
        """Connect the parts with what the kernel does; before plugins and workflows come in."""
        raise NotImplementedError

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

    def close(self) -> None:
        """Close plugins, secrets backends, threads and what the storage opened."""
        self._runner.close()
        self._invoker.close()
        self.secrets.close()
        self.storage.close()


def _require_storage(storage: object) -> None:
    if not isinstance(storage, type) and hasattr(storage, "begin") and hasattr(storage, "describe"):
        return
    kind = f"the class {storage.__name__}" if isinstance(storage, type) else type(storage).__name__
    # Not the value, which may be a URL with a password.
    raise ConfigError(
        f"a kernel's storage can't be {_an(kind)}",
        hint=(
            "pass a storage: SqlAlchemyStorage(engine or URL) of automate_sqlalchemy,"
            " DjangoStorage() of automate_django, or MemoryStorage()"
        ),
    )


def _an(kind: str) -> str:
    if kind.startswith("the "):
        return kind
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


class Calling(Assembly):
    """The part of `Kernel` that calls actions and capabilities."""

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
        call = _call(operation, tenant_id, idempotency_key)
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
        call = _call(operation, tenant_id, idempotency_key)
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


def _call(operation: str, tenant_id: str | None, idempotency_key: str | None) -> Call:
    if tenant_id is not None:
        check_text(tenant_id, "tenant_id")
    if idempotency_key is not None:
        check_text(idempotency_key, "idempotency_key", hint="pass None for no key")
    return Call(operation, tenant_id, idempotency_key=idempotency_key)


class _NewEvent(NewItem):
    """An item whose payload is an event around the caller's own payload."""

    __slots__ = ()

    def _encoded(self, redact: Redaction | None = None) -> JsonText:
        return encode_json(self.payload, "payload", inside=1, redact=redact)


class Entering(Assembly):
    """The part of `Kernel` that accepts work."""

    _ledger: ReplayLedger

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
        labels: Labels | None = None,
    ) -> str:
        """
        Accept the event *name* in the host's *transaction*, and return its id.

        It happens exactly if the transaction commits; without one, when this returns. What
        *transaction* may be is the storage's to say (a SQLAlchemy ``Session``; in Django nothing).
        A second event with the same *idempotency_key* is the first one. By *labels*
        (``{"order": 4711}``) the event is found, and the executions that it starts. Raises
        `PayloadError`, before anything is written, for what can't be stored as it is.
        """
        item = self._event_item(
            name, payload, "event", source, tenant_id,
            delay=delay, priority=priority, idempotency_key=idempotency_key,
            headers=headers or {}, labels=labels,
        )  # fmt: skip
        return self.outbox.enqueue_many([item], transaction=transaction)[0]

    async def aemit(
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
        labels: Labels | None = None,
    ) -> str:
        """`emit` for asynchronous code; *transaction* may be an ``AsyncSession``."""
        item = self._event_item(
            name, payload, "event", source, tenant_id,
            delay=delay, priority=priority, idempotency_key=idempotency_key,
            headers=headers or {}, labels=labels,
        )  # fmt: skip
        return (await self.outbox.aenqueue_many([item], transaction))[0]

    def _event_item(
        self,
        name: str,
        payload: Any,
        kind: EventType,
        source: str,
        tenant_id: str | None,
        kept: Mapping[str, str] | None = None,
        **options: Any,
    ) -> NewItem:
        check_event_name(name)
        check_event_source(source)
        options["headers"] = options.get("headers") or {}
        body = {
            "name": name,
            "type": kind,
            "source": source,
            "payload": payload,
            "occurred_at": datetime.now(timezone.utc).isoformat(),
        }
        if kept:
            body["headers"] = dict(kept)
        return _NewEvent(EVENT, body, tenant_id=tenant_id, **options)

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
        delivery that was accepted before comes back with ``duplicate`` set and does nothing, and
        so does one that is no event of this trigger, with ``ignored`` set.
        Raises `WebhookRejectedError`, the same for every reason (the log has the reason), and
        `AutomateError` with ``INVALID_ARGUMENT`` for a body that proves its origin but can't be
        read, and `SecretUnavailableError` if the secret to verify with can't be read now.
        """
        connector, spec = self._connector_for(connector_key, trigger)
        if not connector.accepts_webhook(trigger, headers, raw_body):
            logger.warning("webhook %s.%s refused: not proven", connector_key, trigger)
            raise WebhookRejectedError("the webhook was refused")
        payload, delivery_id = self._read_webhook(connector, spec, headers, raw_body)
        if isinstance(payload, Ignored):
            # Its texts are the connector's, which knows secrets, and they are logged and answered.
            reason = self.redactor.redact(payload.reason)
            told = Ignored(reason, self.redactor.redact_value(payload.answer))
            logger.info("webhook %s.%s starts nothing: %s", connector_key, trigger, reason)
            return WebhookReceipt(accepted=True, ignored=told)
        name = spec.event_name or f"{connector_key}.{trigger}"
        kept = spec.kept_headers(headers)
        item = self._event_item(
            name, payload, "webhook", connector_key, tenant_id, kept=kept, id=new_id()
        )
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
        self, connector: Any, spec: Any, headers: Any, raw_body: bytes
    ) -> tuple[Any, str | None]:
        """What a verified request says, or why it says nothing, and its delivery's id."""
        trigger = spec.name
        try:
            ignored = connector.ignores_webhook(trigger, headers, raw_body)
            payload = ignored or connector.parse_webhook(trigger, headers, raw_body)
            if isinstance(payload, Ignored) or spec.replay_guard == "off":
                return payload, None
            return payload, delivery_id_of(connector, spec, headers, raw_body)
        except Exception as error:
            # None: what the connector raised may quote its secret, and this is shown and logged.
            clean = self._invoker.clean_error(error, f"webhook {trigger!r}")
            if not isinstance(error, AutomateError):
                what = f"{connector.key}.{trigger}"
                log_error(
                    logger, logging.ERROR, "webhook %s can't be read: %s", what, clean.message,
                    trace=clean.trace,
                )  # fmt: skip
            raise clean from None

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
        labels: Labels | None = None,
    ) -> str:
        """
        Begin an execution of *workflow* by its name, whatever its triggers, and return its id.

        *event* is what it sees as ``event``; by default a manual one with *payload*. With a
        *tenant_id* the workflow may be one of the tenant's own, and the event is the tenant's:
        raises ``INVALID_ARGUMENT`` if it is another's, and `PayloadError` for what can't be stored.
        By *labels* (``{"order": 4711}``), added to those of the event, it is found.
        """
        if tenant_id is not None:
            check_text(tenant_id, "tenant_id")
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
        if labels:
            own = self.redactor.redact_value(checked_labels(labels))
            event = replace(event, labels={**event.labels, **own})
        definition = self.workflows.get(workflow, event.tenant_id)
        with self.storage.begin(transaction) as rows:
            return self.executions.start(rows, definition, event)

    def labelled(
        self, label: str, *, tenant_id: str | None = None, limit: int = 50
    ) -> list[Labelled]:
        """
        Items and executions with *label*, the newest first: ``order=4711``, or ``4711``.

        `Kernel.outbox` and `Kernel.executions` have the same for one of the two, with conditions.
        """
        with self.storage.begin(atomic=False) as rows:
            return labelled_ids(rows, label, tenant_id=tenant_id, limit=limit)

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


_REMEMBERED_SECONDS = 30 * 86_400.0
_SWEEP_SECONDS = 5.0


class Keeping(Assembly):
    """The part of `Kernel` that deletes what has been kept for its time."""

    _ledger: ReplayLedger

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


F = TypeVar("F", bound=Callable[..., Any])


class Registering(Assembly):
    """The part of `Kernel` that takes in what a host brings."""

    _handlers: dict[str, Handler]

    def register(self, plugin: Any, kind: str | None = None, *, key: str | None = None) -> None:
        """Add a plugin: a class or its dotted path; see `Plugins.register`."""
        self.plugins.register(plugin, kind, key=key)

    def plugin_problems(self) -> dict[tuple[str, str], AutomateError]:
        """
        What keeps connectors and providers from being used, by kind and key.

        Each is imported, made with its config and the secrets in it, and its actions,
        capabilities and triggers are read; no service is asked. Other plugins are imported; those
        that can't be are in `Plugins.records`.
        """
        found: dict[tuple[str, str], AutomateError] = {}
        self.plugins.load_all()
        for kind in ("connector", "provider"):
            for key in self.plugins.keys(kind):
                try:
                    _read_specs(self._invoker.instance(kind, key))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # SystemExit too: a plugin must not end its host
                    found[kind, key] = self._invoker.clean_error(error, f"{kind} {key!r}")
        return found

    @overload
    def action(self, name: F) -> F: ...
    @overload
    def action(
        self,
        name: str | None = None,
        *,
        idempotent: bool = False,
        title: str = "",
        description: str | None = None,
        input_schema: Schema = None,
        output_schema: Schema = None,
    ) -> Callable[[F], F]: ...
    def action(
        self,
        name: Any = None,
        *,
        idempotent: bool = False,
        title: str = "",
        description: str | None = None,
        input_schema: Schema = None,
        output_schema: Schema = None,
    ) -> Any:
        """
        Make a function, ``def`` or ``async def``, an action that steps can call as *name*.

        Its typed parameters, or its one pydantic parameter, are the schema of its input. Without a
        *name*, as in ``@kernel.action`` alone, the action is called as the function is.
        """
        if not (name is None or isinstance(name, str) or callable(name)):
            raise TypeError(f"an action's name must be text, not {type(name).__name__}")

        def decorate(function: F) -> F:
            self._invoker.add(
                operation_from_function(
                    function,
                    name=name if isinstance(name, str) else None,
                    idempotent=idempotent,
                    title=title,
                    description=description,
                    input_schema=input_schema,
                    output_schema=output_schema,
                )
            )
            return function

        return decorate(name) if callable(name) else decorate

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
        burst: int | None = None,
    ) -> Callable[[F], F]:
        """
        Make a function the handler of outbox items of *kind*.

        It is called with the item; see `automate_kernel.worker.handler.Handler` for the options.
        At most *concurrency* of them run at once and *rate* start per *per_seconds*, *burst* at
        once after a lull, over all workers, unless an operator sets another limit; see
        `OutboxStore.limit`.
        """
        if callable(kind):
            raise ConfigError(
                "Kernel.handler() was not told which kind of items the function handles",
                hint=f'write @kernel.handler("{getattr(kind, "__name__", "kind")}")',
            )
        check_text(kind, "kind", hint='for example "mail.send"')
        limited = concurrency is not None or rate is not None
        limit = Limit(kind, concurrency, rate, per_seconds, burst) if limited else None

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

    @overload
    def filter(self, name: F) -> F: ...
    @overload
    def filter(self, name: str | None = None) -> Callable[[F], F]: ...
    def filter(self, name: Any = None) -> Any:
        """
        Make a function a template filter of this kernel alone; `register_filter` is for all.

        Without a *name*, as in ``@kernel.filter`` alone, it is called as the function is.
        """
        return self.filters.register(name)

    def add_workflow(self, workflow: Workflow | Mapping[str, Any] | str | Path) -> list[Workflow]:
        """
        Add a workflow, or those of a file or folder; returns them.

        Its templates are checked at once. Raises `WorkflowError` or `TemplateError`.
        """
        return self.workflows.add(workflow)


def _read_specs(plugin: Any) -> None:
    for what in ("actions", "capabilities"):
        for spec in getattr(plugin, what, list)():
            spec.json_schema()
    for trigger in getattr(plugin, "triggers", list)():
        json_schema_of(trigger.payload_schema)


_COMMIT_SECONDS = 60.0


class Working(Registering, Entering, Keeping):
    """The part of `Kernel` that runs what is due."""

    _ticker: Ticker
    _given_up: deque[tuple[OutboxItem, float]]

    def worker(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
        kinds: Iterable[str] = (),
        exclude_kinds: Iterable[str] = (),
        **options: Any,
    ) -> Worker:
        """
        A worker for this kernel's items; see `Worker` for the options.

        What has been kept for its time is deleted; see `sweep` for both times. *kinds* are those
        that it works on, ``mail.*`` too; by default all that have a handler. *exclude_kinds* are
        left to other workers. Raises `ConfigError` for one that no handler is there for, and if
        none is left.
        """
        for told in self.unused_config:
            logger.warning("%s", told)
        lease = self.outbox.lease_seconds
        activity = options.setdefault("activity", ActivityLog())
        reaper = OutboxReaper(self.outbox, stale_threshold_seconds=lease, on_reaped=activity.reaped)
        periodic_tasks = [
            PeriodicTask("reaper", min(60.0, max(0.5, lease / 4)), reaper.reap_stale_items),
            PeriodicTask("schedules", 1.0, self._ticker.tick),
            PeriodicTask("failures", 1.0, self._tell_given_up),
            PeriodicTask("reports", 3600.0, self.outbox.purge_reports),
            PeriodicTask("execution reports", 3600.0, self.executions.purge_activity),
        ]
        kept = self._kept(retention_seconds, failed_retention_seconds)
        if kept != (None, None):
            periodic_tasks.append(PeriodicTask("purge", 60.0, partial(self._sweep, *kept)))
        options.setdefault("describe", self.redactor.redact_exception)
        options.setdefault("redact", self.redactor.redact)
        options.setdefault("also_report", partial(self.executions.report, self._runner.log))
        options.setdefault("preflight", partial(require_schema, self.storage))
        periodic_tasks += options.pop("periodic_tasks", ())
        handlers = self._chosen(kinds, exclude_kinds)
        return Worker(self.outbox, handlers, periodic_tasks=periodic_tasks, **options)

    def _chosen(self, kinds: Iterable[str], exclude_kinds: Iterable[str]) -> list[Handler]:
        patterns, others = list(kinds), list(exclude_kinds)
        for pattern in (*patterns, *others):
            if not any(fnmatchcase(kind, pattern) for kind in self._handlers):
                raise ConfigError(
                    f"no handler is there for items of kind {pattern!r}",
                    hint=f"there are: {', '.join(sorted(self._handlers))}",
                )
        handlers = self._working_handlers()
        chosen = [
            one
            for one in handlers
            if (not patterns or any(fnmatchcase(one.kind, each) for each in patterns))
            and not any(fnmatchcase(one.kind, each) for each in others)
        ]
        if handlers and not chosen:
            raise ConfigError(
                "no kind of item is left to work on",
                hint="name fewer kinds that are left out, or others that are worked on",
            )
        return chosen

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
        for item in items:
            if item.labels:
                item.labels = self.redactor.redact_value(checked_labels(item.labels))
        if self.plugins.receives("automate_before_enqueue"):
            self.plugins.notify("automate_before_enqueue", items=items)

    def _around(self, item: OutboxItem) -> AbstractContextManager[None]:
        return self.plugins.around("automate_handling", item=item)

    def run_until_idle(
        self,
        *,
        patience: float = 0.0,
        kinds: Iterable[str] = (),
        exclude_kinds: Iterable[str] = (),
    ) -> WorkerStats:
        """
        Run what is due, and what follows from it, in this thread; for tests and scripts.

        Waits for what is due within *patience* seconds, retries for example. *kinds* and
        *exclude_kinds* choose as they do for `worker`.
        """
        handlers = self._chosen(kinds, exclude_kinds)
        self._ticker.tick()
        stats = run_inline(
            self.outbox,
            handlers,
            patience=patience,
            describe=self.redactor.redact_exception,
            redact=self.redactor.redact,
        )
        self._tell_given_up()
        self._report_executions()
        return stats

    def _report_executions(self) -> None:
        try:
            self.executions.report(self._runner.log, "inline")
        except StorageError as error:
            # It is only about the work, which is done.
            logger.warning("what was done could not be counted: %s", error)

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
            error.group = item.last_error_group
            self.plugins.notify("automate_item_failed", item=item, error=error)
            if item.kind == ADVANCE:
                execution = self.executions.get(item.payload["execution_id"])
                if execution is not None:
                    self._runner.tell_failed(execution)


class Kernel(Working, Calling):
    """
    Everything that one host needs, put together.

    *storage* is where events and executions live: `MemoryStorage` by default, else an adapter's
    (``SqlAlchemyStorage(engine)``, ``DjangoStorage()``). *plugins* are classes or dotted paths;
    with *discover* the installed ones count too. *config* holds each plugin's configuration by
    its key, in which text may be ``$secret:KEY``. *secrets* are backends, or a mapping for tests;
    by default the environment variables ``AUTOMATE_SECRET_…``. *workflows* are objects, files or
    folders; *workflow_source* supplies those that change while the kernel runs. *env_allow* names
    the environment variables that templates may read. With *strict* all plugins are imported at
    once, and the first that is broken, incompatible or contested raises `PluginError`; without, one
    is imported at its first use, and a broken one is logged and left out.
    *lease_seconds*, *retention_seconds* and *failed_retention_seconds* are those of an outbox that
    isn't given; see `RowsOutboxStore`. Raises `ConfigError` for what can't work.
    """

    def _wire(self) -> None:
        self._ticker = Ticker(self.storage, self._scheduled, self._fire)
        self._ledger = ReplayLedger(self.storage)
        # What was given up, and until when to wait for its transaction to be committed.
        self._given_up: deque[tuple[OutboxItem, float]] = deque()
        self._handlers: dict[str, Handler] = {}
        self._add_handler(Handler(EVENT, self._runner.handle_event))
        self._add_handler(Handler(ADVANCE, self._runner.handle_advance))
        outbox = self.outbox
        if isinstance(outbox, RowsOutboxStore):
            # What a host has set stays.
            outbox.on_failed = outbox.on_failed or self._item_failed
            outbox.on_cancelled = outbox.on_cancelled or self.executions.cancel_with
            outbox.on_requeued = outbox.on_requeued or self.executions.resume_with
        outbox.redact = EnteringRedaction(self.redactor, outbox.redact)
        outbox.before_enqueue = outbox.before_enqueue or self._before_enqueue

    def __repr__(self) -> str:
        return f"<Kernel on {self.storage.describe()}, {len(self.workflows.added())} workflows>"

    def __enter__(self) -> Kernel:  # noqa: PYI034  (Self is new in Python 3.11)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _named_as_public() -> None:
    # The parts of the kernel are modules of their own for their readers; what Python says of a
    # wrong call should name what its writer knows.
    for base in Kernel.__mro__[1:-1]:
        for name, method in vars(base).items():
            if inspect.isfunction(method) and (name == "__init__" or name[0] != "_"):
                method.__qualname__ = f"Kernel.{name}"


_named_as_public()
