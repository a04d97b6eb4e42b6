"""The composition root: one object that holds a host's plugins, secrets, workflows and storage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from automate_kernel.base import runtime
from automate_kernel.base.arguments import (
    check_address,
    check_age,
    check_limit,
    check_table,
    check_texts,
    check_timeout,
    require_asyncio,
    several,
)
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    StorageError,
    TemplateError,
    type_name,
)
from automate_kernel.outbox import Backoff, Limit
from automate_kernel.outbox.causes import note_causes
from automate_kernel.outbox.item import LEASE_SECONDS, ItemStatus, check_text, new_id
from automate_kernel.outbox.labels import checked_labels, labelled_ids
from automate_kernel.secrets import Redactor, SecretResolver
from automate_kernel.secrets.handles import masked, reveal, secret_keys
from automate_kernel.secrets.logs import get_logger
from automate_kernel.secrets.redaction import EnteringRedaction
from automate_kernel.secrets.signing import Signer
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.connections import look_for_room
from automate_kernel.storage.migration import require_schema
from automate_kernel.storage.rows import write
from automate_kernel.storage.shortage import warn_of
from automate_kernel.storage.values import encode_json
from automate_kernel.workflows.decide.waits import ADVANCE, EVENT, SENT, SIGNAL
from automate_kernel.workflows.execution import ExecutionStatus, check_event_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from automate_kernel.access.accounts import AccountDesk
    from automate_kernel.access.audit import AuditLog
    from automate_kernel.access.saved_queries import SavedQueries
    from automate_kernel.access.sessions import SessionStore
    from automate_kernel.access.tokens import TokenStore
    from automate_kernel.operations.budgets import Budgets
    from automate_kernel.operations.context import Call
    from automate_kernel.operations.executors import Executors
    from automate_kernel.operations.field_choices import FieldChoices
    from automate_kernel.operations.field_options import FieldOption
    from automate_kernel.operations.invoker import Invoker
    from automate_kernel.operations.replacement import Replacement
    from automate_kernel.operations.spec import OperationOptions, OperationSpec
    from automate_kernel.outbox import NewItem, OutboxItem, OutboxStore
    from automate_kernel.outbox.labels import Labelled, Labels
    from automate_kernel.plugins import Plugins
    from automate_kernel.plugins.parts import NamedParts
    from automate_kernel.relays.cloud_events import CloudEvent
    from automate_kernel.relays.relays import Relays
    from automate_kernel.relays.subscriptions import Subscriptions
    from automate_kernel.secrets import SecretsBackend
    from automate_kernel.storage import Row, Rows, Storage
    from automate_kernel.storage.output_store import OutputStore
    from automate_kernel.templates import (
        EnvironmentResolver,
        FilterRegistry,
        TemplateContext,
        TemplateEngine,
    )
    from automate_kernel.triggers.polls.poller import Polls
    from automate_kernel.triggers.webhooks import WebhookReceipt
    from automate_kernel.triggers.webhooks.deliveries import Deliveries
    from automate_kernel.worker.handler import Handler, WorkerStats
    from automate_kernel.worker.periodic import PeriodicTask
    from automate_kernel.worker.reporter import ActivityLog
    from automate_kernel.worker.worker import Worker
    from automate_kernel.workflows.automation import Automation
    from automate_kernel.workflows.code.workflow import On
    from automate_kernel.workflows.decide.admission import Admission
    from automate_kernel.workflows.decide.dry_run import DryRun
    from automate_kernel.workflows.decide.waits import OpenWait
    from automate_kernel.workflows.definition.model import Workflow
    from automate_kernel.workflows.execution import Event, Execution
    from automate_kernel.workflows.steer.approvals import Approvals
    from automate_kernel.workflows.steer.bulk_runner import BulkRunner
    from automate_kernel.workflows.steer.documents import Documents
    from automate_kernel.workflows.steer.executions import ExecutionStore
    from automate_kernel.workflows.steer.listener import ExecutionListener
    from automate_kernel.workflows.steer.notices import ApprovalNotices
    from automate_kernel.workflows.steer.schedule import Schedules
    from automate_kernel.workflows.store.catalogue import Catalogue, WorkflowSource
    from automate_kernel.workflows.store.events import StartOptions

__all__ = ["Kernel"]

logger: logging.Logger = get_logger(__name__)
F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P")

_AUDIT_SECONDS = 365 * 86_400.0
# Services send a webhook again for days.
_REMEMBERED_SECONDS = 30 * 86_400.0
# How often `run` writes down what it has counted.
_REPORT_SECONDS = 1.0
_SWEEP_SECONDS = 5.0
# At the end signals that wait for their receivers are sent for so long.
_ANNOUNCED_SECONDS = 5.0
# So many executions that others have handed over does a worker take up as it begins.
_MOST_HANDED_OVER = 10_000


class Kernel:
    """
    The parts that one host needs, put together.

    *storage* holds events and executions: `MemoryStorage` by default, else an adapter's
    (``SqlAlchemyStorage(engine)``, ``DjangoStorage()``). *outbox* is an `OutboxStore` of your own,
    or the key or dotted path of a class, which is called with the storage and ``lease_seconds``.
    *plugins* are classes or dotted paths; with *discover* the installed ones count too. *config*
    holds each plugin's configuration by its key; text in it may be ``$secret:KEY``. *secrets* are
    backends, each itself, its class, its key, or ``{"backend": key}`` with options beside it; or a
    mapping for tests; by default the environment variables ``AUTOMATE_SECRET_…``. *workflows* are
    objects, files or folders; *workflow_source* supplies workflows that change
    while the kernel runs. *env_allow* names the environment variables that templates may read.
    *signing_keys* sign the links of approvals, each a text or ``$secret:KEY``: the first signs, all
    verify. *public_url* is where those links lead to.

    A plugin is imported at its first use, and a broken one is logged and left out. With *strict*
    all are imported at once, and the first that is broken, incompatible or contested raises
    `PluginError`. *version* is that of the host's own code (``"2026.11.2"``): while workers with
    different workflows run side by side, those of the latest version decide what events start;
    without versions those that were started last. *output_store* keeps outputs that are too large
    for a row: an `OutputStore`, a folder that all processes share, or ``{"store": key}`` with
    options beside it, as for *secrets*; a text in them may be ``$secret:KEY``. *executors* (other
    places where operations run), *relays* (which send events to other systems) and *subscriptions*
    (which receive them) are mappings by name: an instance, or the key of a plugin with options
    beside it. *lease_seconds*, *retention_seconds* and *failed_retention_seconds* are for an outbox
    that the kernel makes; see `RowsOutboxStore`. Entries of the audit trail go after
    *audit_retention_seconds*, a year by default; None keeps them for ever. Raises `ConfigError` for
    wrong arguments.
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        plugins: Iterable[Any] = (),
        config: Mapping[str, Mapping[str, Any]] | None = None,
        secrets: SecretsBackend | type[Any] | Iterable[Any] | Mapping[str, str] | None = None,
        workflows: Iterable[Workflow | str | Path] = (),
        workflow_source: WorkflowSource | None = None,
        outbox: OutboxStore | str | None = None,
        env_allow: Iterable[str] = (),
        settings: Mapping[str, Any] | None = None,
        discover: bool = True,
        strict: bool = False,
        disabled: Iterable[str] = (),
        winners: Mapping[str, str] | None = None,
        listed: Mapping[str, Any] | None = None,
        lease_seconds: float = LEASE_SECONDS,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
        signing_keys: Iterable[str] = (),
        public_url: str | None = None,
        version: str | None = None,
        output_store: OutputStore | str | Path | Mapping[str, Any] | None = None,
        audit_retention_seconds: float | None = _AUDIT_SECONDS,
        executors: Mapping[str, Any] | None = None,
        relays: Mapping[str, Any] | None = None,
        subscriptions: Mapping[str, Any] | None = None,
    ) -> None:
        self.version: str | None = version if version is None else _version(version)
        """The version of the application's own code."""
        self.storage: Storage = _storage_for(storage, outbox)
        """The place of all data."""
        self.plugins: Plugins = _plugins(plugins, discover, strict, disabled, winners, listed)
        """The plugins of every kind, the unusable ones too."""
        self.redactor: Redactor = Redactor()
        """Takes resolved secrets out of texts and values."""
        self.secrets: SecretResolver = self._resolver(secrets)
        """Looks secrets up, and checks them: `SecretResolver.check`."""
        self.env: EnvironmentResolver = _environment(env_allow)
        """The environment variables that templates may read."""
        self.filters: FilterRegistry = _filters()
        """The template filters of this kernel."""
        self.templates: TemplateEngine = _templates(self.filters, output_store)
        """Compiles and renders templates."""
        kept = retention_seconds, failed_retention_seconds
        self.outbox: OutboxStore = self._store(outbox, lease_seconds, kept)
        """The items that wait, run and are done: enqueue, find, pause, limit, cancel, requeue."""
        self.approvals: Approvals = self._approvals(signing_keys, public_url)
        """The steps that wait for a person: find, approve, reject, make a link."""
        self.operations: Invoker = self._invoker(config, settings)
        """The actions and capabilities by name."""
        self.workflows: Catalogue = self._catalogue(workflow_source)
        """The workflows of this kernel, by name."""
        self.executions: ExecutionStore = self._executions(output_store, executors)
        """Runs of workflows: get, find, cancel, resume."""
        self.schedules: Schedules = self._schedules()
        """The schedules of workflows: find, pause, resume, trigger, backfill."""
        self._audit_kept = _age(audit_retention_seconds, "audit_retention_seconds")
        self._set_up(workflows, relays, subscriptions, strict=strict)

    def _wire(self) -> None:
        """Connect the parts, before plugins and workflows come in."""
        from automate_kernel.relays.event_receiver import EventReceiver
        from automate_kernel.triggers.polls.poller import Poller, Polls
        from automate_kernel.triggers.webhooks import ReplayLedger
        from automate_kernel.triggers.webhooks.receiver import WebhookReceiver
        from automate_kernel.workflows.drive.inline import InlineExecutions
        from automate_kernel.workflows.drive.outcome_receiver import OutcomeReceiver
        from automate_kernel.workflows.drive.runner import Runner
        from automate_kernel.workflows.drive.signal_sender import SignalSender
        from automate_kernel.workflows.steer.leader_election import LeaderElection
        from automate_kernel.workflows.steer.notices import ApprovalNotices
        from automate_kernel.workflows.steer.schedule import Ticker
        from automate_kernel.workflows.store.events import event_item

        leader_election = LeaderElection(self.outbox.workers, self._marks, self.version)
        self._leader_election = leader_election
        self._runner = Runner(
            self.executions,
            operations=self.operations,
            around=lambda each: self.plugins.hooks.around("automate_executing", execution=each),
            programs=self.workflows.program,
            listening=self.workflows.listening,
            find_child=self._find_child,
            sender=self,
            leaves_events=leader_election.leaves,
            relays=self.relays or None,
        )
        self._inline = InlineExecutions(self._runner)
        notices = ApprovalNotices(
            self.executions, self.approvals, self.operations, self.workflows.program
        )
        # A receiver that hangs must not hold up what workers do every second.
        self._signal_sender = SignalSender()
        self._ticker = Ticker(self.storage, self.schedules.all, self.schedules.fire)
        ledger = ReplayLedger(self.storage)
        self._webhooks = WebhookReceiver(
            self.storage, ledger, self.outbox, self.operations, event_item, self.deliveries
        )
        self._received = EventReceiver(self.storage, ledger, self.outbox, event_item)
        self._polls = Polls(self.storage, self.operations, self.workflows.events)
        self._poller = Poller(self._polls, self.storage, self.outbox, self.operations, event_item)
        portal = self.operations.portal
        self._outcomes = OutcomeReceiver(self.executors, self.executions, portal).receiver
        self._arrivals = self._subscriptions.receiver(self._received, portal)
        self._reported_at = 0.0
        self._handle(notices)
        self._listen()

    def _handle_bulk(self, item: OutboxItem) -> Any:
        return self.bulk.handle(item)

    def _handle(self, notices: ApprovalNotices) -> None:
        """Add the handlers of our own kinds of items."""
        from automate_kernel.worker.handler import Handler, HandlerRegistry
        from automate_kernel.workflows.decide.children import CANCEL
        from automate_kernel.workflows.decide.questions import NOTICE
        from automate_kernel.workflows.drive.engine import Engine
        from automate_kernel.workflows.steer.bulk_runner import KIND as BULK

        self._handlers = HandlerRegistry()
        engine = partial(Engine, self._runner, self.operations.portal)
        self._handlers.add(Handler(EVENT, self._runner.handle_event, pool=engine))
        self._handlers.add(Handler(NOTICE, notices.handle))
        self._handlers.add(Handler(BULK, self._handle_bulk))
        self._handlers.add(Handler(ADVANCE, self._inline.handle, pool=engine))
        deliver, together = self._runner.handle_signal, self._runner.handle_signals
        self._handlers.add(Handler(SIGNAL, deliver, pool=engine, together=together))
        self._handlers.add(Handler(CANCEL, self._runner.handle_cancel, pool=engine))
        for handler in self.relays.handlers():
            self._handlers.add(handler)

    def _listen(self) -> None:
        """Hear of items that end, and see those that come in."""
        from automate_kernel.worker.failure_notices import FailureNotices
        from automate_kernel.workflows.steer.listener import ExecutionListener

        outbox = self.outbox
        self._failures = FailureNotices(outbox, self._notify_failed)
        self._listener: ExecutionListener | None = None
        if (tables := outbox.tables) is not None:
            tables.listen(ExecutionListener())
            tables.listen(self._failures)
            listeners = (one for one in tables.listeners if isinstance(one, ExecutionListener))
            self._listener = next(listeners)
            self._listener.announce_by(self._send_notices)
        outbox.redact = EnteringRedaction(self.redactor, outbox.redact)
        outbox.before_enqueue = outbox.before_enqueue or self._before_enqueue

    def _set_up(
        self,
        workflows: Iterable[Workflow | str | Path],
        relays: Mapping[str, Any] | None,
        subscriptions: Mapping[str, Any] | None,
        *,
        strict: bool,
    ) -> None:
        """Connect the parts, and add filters, hooks' changes and the host's workflows, in order."""
        self._relays = self._relays_of(relays)
        self._subscriptions = self._subscriptions_of(subscriptions)
        self._wire()
        self._open = object()
        if isinstance(self.storage, MemoryStorage):
            self.storage.kernels.add(self._open)
        self._announced: set[str] = set()
        self._announce_filters()
        # Before the workflows, whose templates may use a filter that is made here.
        self.plugins.hooks.configure(self)
        if strict:
            self.plugins.load_all()
        for workflow in several(workflows):
            self.workflows.add(workflow)
        for line in self.plugins.unused_config(self.operations.config):
            # More plugins may come, so it is no error; but a near miss is a slip.
            if "did you mean" in line:
                logger.warning("%s", line)
        for line in self.plugins.hidden():
            logger.warning("%s", line)

    def _resolver(self, secrets: Any) -> SecretResolver:
        from automate_kernel.plugins import parts

        return SecretResolver(parts.secrets_backends(secrets, self.plugins), self.redactor)

    def _store(
        self,
        given: OutboxStore | str | None,
        lease_seconds: float,
        kept: tuple[float | None, float | None],
    ) -> OutboxStore:
        from automate_kernel.plugins import parts

        return parts.outbox_store(
            given, self.plugins, self.storage, lease_seconds=lease_seconds,
            retention_seconds=kept[0], failed_retention_seconds=kept[1],
        )  # fmt: skip

    def _executions(self, outputs: Any, executors: Mapping[str, Any] | None) -> ExecutionStore:
        from automate_kernel.plugins import parts
        from automate_kernel.workflows.steer.executions import ExecutionStore

        store = parts.output_store(outputs, self.plugins, self.secrets, self._render_config)
        self.operations.executors = self._executors_of(executors, store)
        return ExecutionStore(
            self.storage, self.outbox, self.workflows, store,
            on_cancelled=self._send_cancelled,
        )  # fmt: skip

    def _invoker(
        self,
        config: Mapping[str, Mapping[str, Any]] | None,
        settings: Mapping[str, Any] | None,
    ) -> Invoker:
        from automate_kernel.operations.budgets import Budgets
        from automate_kernel.operations.call_rates import CallRates
        from automate_kernel.operations.invoker import Invoker

        config = check_table(config, "config", '{"slack": {"token": "$secret:SLACK"}}', of=Mapping)
        settings = check_table(settings, "settings", '{"currency": "EUR"}')
        sources: dict[str, Any]
        sources = {"connector": self.plugins.connectors, "provider": self.plugins.providers}
        hooks, render = self.plugins.hooks, self._render_config
        rates = None if isinstance(self.storage, MemoryStorage) else CallRates(self.storage)
        return Invoker(
            sources, hooks, self.secrets, config, settings, render,
            self.approvals, Budgets(self.storage), rates,
        )  # fmt: skip

    def _named_parts(self) -> NamedParts:
        from automate_kernel.plugins.parts import NamedParts

        return NamedParts(self.plugins, self.secrets, self._render_config)

    def _executors_of(
        self, given: Mapping[str, Any] | None, outputs: OutputStore | None
    ) -> Executors:
        from automate_kernel.operations.executors import Executors

        given = check_table(given, "executors", '{"gpu": {"type": "nats"}}')
        placements = self._named_parts().step_executors(given)
        return Executors(placements, outputs)

    def _relays_of(self, given: Mapping[str, Any] | None) -> Relays:
        from automate_kernel.relays.relays import Relays

        given = check_table(given, "relays", '{"orders": {"to": "nats", "events": ["order.*"]}}')
        routes = self._named_parts().relay_routes(given)
        return Relays(routes, self.operations.portal)

    def _subscriptions_of(self, given: Mapping[str, Any] | None) -> Subscriptions:
        given = check_table(
            given, "subscriptions", '{"orders": {"from": "nats", "stream": "SHOP"}}'
        )
        return self._named_parts().subscriptions(given)

    def _catalogue(self, source: WorkflowSource | None) -> Catalogue:
        from automate_kernel.workflows.store.catalogue import Catalogue
        from automate_kernel.workflows.store.pauses import WorkflowPauses

        able = all(callable(getattr(source, name, None)) for name in ("load", "stamp"))
        if source is not None and (isinstance(source, type) or not able):
            raise ConfigError(
                f"workflow_source can't be {type_name(source)}",
                hint="pass an object with load() and stamp(), a WorkflowSource;"
                " for files and folders there is workflows=",
            )
        pauses = WorkflowPauses(self.storage, self.outbox)
        return Catalogue(
            self.templates, self._context, self.storage, pauses, source, self.operations
        )

    def _approvals(self, signing_keys: Iterable[str], public_url: str | None) -> Approvals:
        from automate_kernel.workflows.steer.approvals import Approvals

        if not isinstance(signing_keys, str):  # which the signer refuses: a list of keys is meant
            example = 'signing_keys=["$secret:SIGNING_KEY"]'
            signing_keys = check_texts(signing_keys, "signing_keys", example)
        signer = Signer(signing_keys, "automate.approval", self._revealed)
        address = check_address(public_url, "public_url")
        return Approvals(self.storage, self.outbox, signer, address)

    def _schedules(self) -> Schedules:
        from automate_kernel.workflows.steer.schedule import Schedules

        return Schedules(self.workflows, self.executions, sender=self)

    def _revealed(self, texts: Sequence[str]) -> list[str]:
        """Return *texts*, each with its secret if it is a reference to one."""
        found: list[str] = reveal(self._render_config(list(texts)), self.secrets)
        for each in found:
            self.redactor.add(each)
        return found

    def _render_config(self, config: Any, place: str = "config") -> Any:
        from automate_kernel.templates.context import TemplateContext

        return self.templates.compile(config, place).render(TemplateContext(env=self.env))

    def _context(self, event: Any, execution: Any, steps: Any, extra: Any) -> TemplateContext:
        from automate_kernel.templates.context import TemplateContext

        return TemplateContext(event, execution, steps, self.env, extra)

    def __repr__(self) -> str:
        return f"<Kernel on {self.storage.describe()}, {len(self.workflows.added())} workflows>"

    def __enter__(self) -> Kernel:  # noqa: PYI034  (Self is new in Python 3.11)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def executors(self) -> Executors:
        """The other places where operations are called, by name."""
        return self.operations.executors

    @property
    def relays(self) -> Relays:
        """The ways by which events go out to other systems, by name."""
        return self._relays

    @property
    def subscriptions(self) -> Subscriptions:
        """The brokers whose events come in, by name."""
        return self._subscriptions

    @property
    def budgets(self) -> Budgets:
        """The budgets of plugins, such as that of language models: what was spent of each."""
        return self.operations.budgets

    @cached_property
    def purges(self) -> list[Callable[..., int]]:
        """Deletions of the application's own: called with ``older_than_seconds`` and ``limit``."""
        return []

    @cached_property
    def audit(self) -> AuditLog:
        """The audit trail: who did what on the pages and by commands, with what outcome."""
        from automate_kernel.access.audit import AuditLog

        return AuditLog(self.storage, self.redactor.redact_value)

    @cached_property
    def tokens(self) -> TokenStore:
        """The tokens of people and services: make, find, revoke."""
        from automate_kernel.access.tokens import TokenStore

        return TokenStore(self.storage)

    @cached_property
    def bulk(self) -> BulkRunner:
        """The bulk actions that workers carry out: hand over, follow, stop."""
        from automate_kernel.workflows.steer.bulk_runner import BulkRunner, RecordedEnds

        ends = RecordedEnds(self.audit, self.sessions, self.tokens)
        return BulkRunner(self.outbox, self.executions, ends)

    @cached_property
    def accounts(self) -> AccountDesk:
        """The accounts of plugins at services: find, connect by OAuth 2."""
        from automate_kernel.access.accounts import AccountDesk

        return AccountDesk(self.storage, self.operations)

    @cached_property
    def sessions(self) -> SessionStore:
        """The sessions of people on the pages: find, end."""
        from automate_kernel.access.sessions import SessionStore

        return SessionStore(self.storage)

    @cached_property
    def saved_queries(self) -> SavedQueries:
        """The queries of lists that people keep under a name."""
        from automate_kernel.access.saved_queries import SavedQueries

        return SavedQueries(self.storage)

    @cached_property
    def documents(self) -> Documents:
        """
        The workflows that people edit: create, save, publish, restore, switch on and off.

        They run where the kernel has `StoredWorkflows` as its ``workflow_source``.
        """
        from automate_kernel.workflows.steer.documents import Documents

        return Documents(self.storage, self.workflows, self.redactor)

    @cached_property
    def deliveries(self) -> Deliveries:
        """The deliveries of webhooks and polls: list them, see refusals, redeliver."""
        from automate_kernel.triggers.webhooks.deliveries import Deliveries
        from automate_kernel.workflows.store.events import event_item

        return Deliveries(self.storage, self.outbox, event_item, self.redactor.redact)

    @property
    def polls(self) -> Polls:
        """The polls that workflows listen to: find, pause, resume, start over."""
        return self._polls

    def close(self) -> None:
        """Close plugins, secrets backends, the output store, threads and the storage's own."""
        self._signal_sender.stop(_ANNOUNCED_SECONDS)
        self._inline.close()
        self._runner.close()
        self._poller.close()
        self._outcomes.close()
        self._arrivals.close()
        if self.relays or self.subscriptions:
            self.operations.portal.run(self._close_brokers())
        if not self._runner.activity.idle:
            self._report_executions()
        self.operations.close()
        self.executions.outputs.close()
        self.secrets.close()
        if isinstance(self.storage, MemoryStorage):
            self.storage.kernels.discard(self._open)
        self.storage.close()

    async def _close_brokers(self) -> None:
        await self.relays.close()
        await self.subscriptions.close()

    # -- calls of actions and capabilities -----------------------------------------------------

    def invoke(
        self,
        operation: str,
        input: Any = None,
        *,
        timeout: float | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
        literal: bool = False,
        runs_on: str | None = None,
    ) -> Any:
        """
        Call an action or capability now and return its output.

        Text in *input* may be ``$secret:KEY``; the output is redacted. Where somebody else has
        written the input, pass *literal*: its text is then no template and no reference. Raises
        `AutomateError`. A transactional operation has a transaction of its own, and no *timeout*.
        With a *tenant_id* the operation gets the *idempotency_key* with the tenant before it: no
        two share one. *runs_on* is the executor that makes the call, or ``here``; without it the
        patterns of the executors decide.
        """
        call, given = _call(operation, tenant_id, idempotency_key), self._input(input, literal)
        timeout = check_timeout(timeout)
        return self.perform(call, given, timeout=timeout, runs_on=runs_on)

    async def ainvoke(
        self,
        operation: str,
        input: Any = None,
        *,
        timeout: float | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
        literal: bool = False,
        runs_on: str | None = None,
    ) -> Any:
        """`invoke` for asynchronous code."""
        require_asyncio("ainvoke", "invoke")
        call, given = _call(operation, tenant_id, idempotency_key), self._input(input, literal)
        timeout = check_timeout(timeout)
        return await self.aperform(call, given, timeout=timeout, runs_on=runs_on)

    def perform(
        self,
        call: Call,
        data: Any,
        *,
        timeout: float | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """
        Make *call* with *data* as its literal input, and return its output, as `invoke` does.

        For code that calls for somebody else: it says by *call* for whom, and who hears of it.
        """
        if not self.operations.is_transactional(call.operation):
            return self.operations.invoke(
                call.operation, data, call=call, timeout=timeout, runs_on=runs_on
            )
        with self.storage.begin(bounded=False) as rows:
            within = replace(call, transaction=rows.native)
            return self.operations.invoke(call.operation, data, call=within, runs_on=runs_on)

    async def aperform(
        self,
        call: Call,
        data: Any,
        *,
        timeout: float | None = None,
        runs_on: str | None = None,
    ) -> Any:
        """`perform` for asynchronous code."""
        if self.operations.is_transactional(call.operation):
            from asyncio import to_thread

            return await to_thread(self.perform, call, data, runs_on=runs_on)
        return await self.operations.ainvoke(
            call.operation, data, call=call, timeout=timeout, runs_on=runs_on
        )

    def _input(self, given: Any, literal: bool = False) -> Any:
        given = {} if given is None else given
        return given if literal else self._render_config(given, "input")

    def operation(self, name: str, *, tenant_id: str | None = None) -> OperationSpec:
        """
        Return the spec of the action or capability *name*; raises ``NOT_FOUND``.

        For one that a service lists, the service is asked, with the account of the tenant if one
        is named: see `Plugin.own_operations`.
        """
        return self.operations.spec(name, tenant_id=tenant_id)

    @cached_property
    def choices(self) -> FieldChoices:
        """The choices of the fields of actions and capabilities."""
        from automate_kernel.operations.field_choices import FieldChoices

        return FieldChoices(self.operations)

    def preview(
        self, operation: str, input: Any = None, *, tenant_id: str | None = None
    ) -> dict[str, Any]:
        """
        Return the checked input with which `invoke` would call *operation*, and call nothing.

        Defaults are filled in; secrets aren't read, and stand as ``[secret KEY]``. Raises
        ``INVALID_ARGUMENT`` that names each wrong field, and ``NOT_FOUND``.
        """
        from automate_kernel.operations.outputs import shown_input

        spec = self.operations.spec(operation, tenant_id=tenant_id)
        given = self._input(input)
        shown: dict[str, Any] = masked(given)
        try:
            shown = shown_input(spec.validate(shown))
        except AutomateError as error:
            problems = error.details.get("problems", ())
            # A number, say, that is a secret: only the call will know.
            if not problems or any(not secret_keys(_at(given, p["field"])) for p in problems):
                raise
        return shown

    def options(
        self,
        operation: str,
        field: str,
        *,
        search: str = "",
        values: Mapping[str, Any] | None = None,
        limit: int = 100,
        tenant_id: str | None = None,
        timeout: float = 10.0,
    ) -> list[FieldOption]:
        """
        Return the choices of a *field* of an action or capability: the channels of a workspace.

        They come from its schema, or from the plugin's method that `automate_kernel.options`
        marked. *search* is the text that a person has typed, *values* are the other fields by name.
        There are *limit* of them at most; a method has *timeout* seconds. An answer is kept for
        half a minute.
        Raises ``NOT_FOUND`` for a field without choices, ``FAILED_PRECONDITION`` where another
        field has to be chosen first, and the service's error, normalised.
        """
        return self.choices.find(
            operation, field,
            search=search, values=values, limit=limit, tenant_id=tenant_id, timeout=timeout,
        )  # fmt: skip

    async def aoptions(
        self,
        operation: str,
        field: str,
        *,
        search: str = "",
        values: Mapping[str, Any] | None = None,
        limit: int = 100,
        tenant_id: str | None = None,
        timeout: float = 10.0,
    ) -> list[FieldOption]:
        """`options` for asynchronous code."""
        require_asyncio("aoptions", "options")
        return await self.choices.afind(
            operation, field,
            search=search, values=values, limit=limit, tenant_id=tenant_id, timeout=timeout,
        )  # fmt: skip

    def replace(self, operation: str | Callable[..., Any], fake: Any = None) -> Replacement:
        """
        Call *fake* in the place of an action or capability: for tests.

        *operation* is its name, or the function that an action was made of.

        It ends with `Replacement.undo`, or with the ``with`` block that it is used in. *fake* is a
        value; a function (``def``, ``async def``) of the action's fields, or of some of them, or of
        all in one parameter of another name; an exception to raise; or a list of these, one for
        each call. The input is still checked, and `Replacement.calls` has the inputs. Raises
        ``NOT_FOUND`` if there is no such operation, and ``INVALID_ARGUMENT`` for a workflow.
        """
        if not isinstance(operation, str) and self.workflows.function(operation) is not None:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"{operation.__qualname__} is a workflow, and no action",
                hint="replace what it calls, or the actions of the workflow that it starts",
            )
        return self.operations.replace(operation, fake)

    def connector(self, key: str) -> Any:
        """Return the connector *key*, configured."""
        return self.operations.instance("connector", key)

    def provider(self, key: str) -> Any:
        """Return the provider *key*, configured."""
        return self.operations.instance("provider", key)

    # -- events and executions -----------------------------------------------------------------

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
        ordering_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        labels: Labels | None = None,
    ) -> str:
        """
        Accept the event *name* in the application's *transaction*, and return its id.

        The event exists exactly if the transaction commits; without one, when this returns. With
        SQLAlchemy *transaction* is a ``Session`` or a ``Connection``; in Django it is left out. A
        second event with the same *idempotency_key* adds nothing: the first event's id is returned.
        Events with one *ordering_key* are handled, and sent on by relays, one after the other.
        Queries by *labels* (``{"order": 4711}``) find the event and the executions that it starts.
        Raises `PayloadError`, before anything is written, for values that can't be stored.
        """
        from automate_kernel.workflows.store.events import event_item

        item = event_item(
            name, payload, source=source, tenant_id=tenant_id, delay=delay, priority=priority,
            idempotency_key=idempotency_key, ordering_key=ordering_key, headers=headers,
            labels=labels,
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
        ordering_key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        labels: Labels | None = None,
    ) -> str:
        """`emit` for asynchronous code; *transaction* may be an ``AsyncSession``."""
        from automate_kernel.workflows.store.events import event_item

        require_asyncio("aemit", "emit")
        item = event_item(
            name, payload, source=source, tenant_id=tenant_id, delay=delay, priority=priority,
            idempotency_key=idempotency_key, ordering_key=ordering_key, headers=headers,
            labels=labels,
        )  # fmt: skip
        return (await self.outbox.aenqueue_many([item], transaction=transaction))[0]

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

        *headers* is a mapping or a sequence of pairs, *raw_body* the unchanged bytes. A delivery
        that was accepted before starts nothing, and its receipt has ``duplicate`` set. A request
        that is no event of this trigger starts nothing either, with ``ignored`` set.

        Raises `WebhookRejectedError`, the same for every reason; the log has the reason. Raises
        ``INVALID_ARGUMENT`` for a proven body that can't be read, and `SecretUnavailableError` if
        the secret to verify with can't be read now.
        """
        return self._webhooks.receive(
            connector_key, trigger, headers, raw_body, transaction=transaction, tenant_id=tenant_id
        )

    def receive_events(self, *events: CloudEvent, transaction: Any = None) -> list[WebhookReceipt]:
        """
        Accept events of another system, all or none, and return a receipt for each.

        An event whose source and id came before starts nothing, and its receipt has ``duplicate``
        set. Its tenant is not checked: verify first who sent it. Relays don't send these events on.
        Raises `PayloadError` for an event that can't be stored.
        """
        return self._received.receive(events, transaction=transaction)

    @overload
    def start(
        self, workflow: Callable[[Any, P], Any], payload: P, **options: Unpack[StartOptions]
    ) -> str: ...
    @overload
    def start(
        self,
        workflow: Callable[[Any], Any],
        payload: None = None,
        **options: Unpack[StartOptions],
    ) -> str: ...
    @overload
    def start(self, workflow: str, payload: Any = None, **options: Unpack[StartOptions]) -> str: ...
    def start(
        self,
        workflow: str | Callable[..., Any],
        payload: Any = None,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
        event: Event | None = None,
        labels: Labels | None = None,
        idempotency_key: str | None = None,
        priority: int = 0,
        delay: float | timedelta = 0.0,
        run_at: datetime | None = None,
    ) -> str:
        """
        Begin an execution of *workflow*, whatever its triggers, and return its id.

        It is named, or the function of a workflow in code.

        The execution sees *event*; by default a manual event with *payload*. With a *tenant_id*
        the workflow may be one of the tenant's own, and the event is the tenant's: another
        tenant's event raises ``INVALID_ARGUMENT``. A manual event that the ``if`` of the workflow's
        manual trigger refuses raises ``FAILED_PRECONDITION``. Raises `PayloadError` for values that
        can't be stored. Queries find the execution by *labels* (``{"order": 4711}``) and those of
        the event.

        A second start of the workflow with the same *idempotency_key*, by the same tenant, is the
        first one. The execution waits for *delay* seconds, or until *run_at*. A higher *priority*
        goes first; a point is worth an hour of waiting. The workflow's own ``concurrency`` may
        skip it: that raises ``FAILED_PRECONDITION`` with the id of the execution that goes on. With
        ``debounce`` the id is that of the execution that waits for the last start.
        """
        from automate_kernel.workflows.store.events import manual_event
        from automate_kernel.workflows.store.starts import keyed_execution_id

        if tenant_id is not None:
            check_text(tenant_id, "tenant_id")
        name, payload = self._named_workflow(workflow, payload)
        event = _of_tenant(event or manual_event(name, payload), tenant_id)
        if labels:
            own = self.redactor.redact_value(checked_labels(labels))
            event = replace(event, labels={**event.labels, **own})
        definition = self.workflows.get(name, event.tenant_id)
        self._check_manual(definition, event)
        execution_id = None
        if idempotency_key is not None:
            check_text(idempotency_key, "idempotency_key", hint="pass None for no key")
            execution_id = keyed_execution_id(name, event.tenant_id, idempotency_key)
        if idempotency_key or delay or run_at:
            _check_not_debounced(definition)
        admission = self.workflows.admission(definition, event)
        return write(
            self.storage,
            transaction,
            lambda rows: self.executions.starts.start(
                rows, definition, event, priority=priority, delay=delay, run_at=run_at,
                execution_id=execution_id, admission=admission,
            ),
        )  # fmt: skip

    def dry_run(
        self,
        workflow: str | Workflow,
        payload: Any = None,
        *,
        outputs: Mapping[str, Any] | None = None,
        event: Event | None = None,
        tenant_id: str | None = None,
    ) -> DryRun:
        """
        Render every call that *workflow* would make, and make none; nothing is written.

        *workflow* is a name, or a definition that this kernel need not know. The run is for
        *event*; by default for an event with *payload*, as its first trigger expects it.
        *outputs* are those of steps, by their ids. Without them an example is made up where the
        action has an output schema, and what depends on others is marked. Secrets stand as
        ``[secret KEY]``.
        """
        from automate_kernel.workflows.decide.dry_run import dry_run
        from automate_kernel.workflows.definition.model import CodeWorkflow
        from automate_kernel.workflows.store.events import triggering_event

        found = self.workflows.get(workflow, tenant_id) if isinstance(workflow, str) else workflow
        if isinstance(found, CodeWorkflow):
            raise AutomateError(
                ErrorCodes.UNIMPLEMENTED,
                f"the calls of workflow {found.name!r} follow from its code, and can't be foreseen",
                hint="run it in a test, and replace what its steps call: kernel.replace(function)",
            )
        event = event or replace(triggering_event(found, payload), tenant_id=tenant_id)
        return dry_run(
            found, event, outputs=outputs or {}, templates=self.templates, context=self._context,
            spec=self.operations.spec_at_hand,
            redact=partial(self.redactor.redact_value, cut=False),
        )  # fmt: skip

    def _named_workflow(self, workflow: str | Callable[..., Any], payload: Any) -> tuple[str, Any]:
        """Return a workflow's name, and the payload that its function takes as JSON."""
        if isinstance(workflow, str):
            return workflow, payload
        found = self.workflows.function(workflow)
        if found is None:
            name = getattr(workflow, "__qualname__", type_name(workflow))
            raise AutomateError(
                ErrorCodes.NOT_FOUND, f"{name} is no workflow of this kernel",
                hint="write @kernel.workflow above the function",
            )  # fmt: skip
        return found.definition.name, found.payload(payload)

    def labelled(
        self, label: str, *, tenant_id: str | None = None, limit: int = 50
    ) -> list[Labelled]:
        """
        Return items and executions with *label*, the newest first: ``order=4711``, or ``4711``.

        `Kernel.outbox` and `Kernel.executions` have the same for one of the two, with conditions.
        """
        with self.storage.begin(atomic=False) as rows:
            return labelled_ids(rows, label, tenant_id=tenant_id, limit=limit)

    def start_again(
        self, execution_id: str, *, transaction: Any = None, tenant_id: str | None = None
    ) -> str:
        """
        Begin another execution of the same workflow, as it is now, for the same event.

        Returns the new id. Raises ``NOT_FOUND`` if the execution or its workflow is gone; with
        *tenant_id* another tenant's execution is not there.
        """
        first = self.executions.get(execution_id, tenant_id=tenant_id, large_outputs=False)
        if first is None:
            raise AutomateError(ErrorCodes.NOT_FOUND, f"there is no execution {execution_id}")
        again = replace(first.event, id=new_id())
        return self.start(first.name, event=again, transaction=transaction)

    def signal(
        self,
        execution_id: str,
        name: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """
        Send the signal *name* to one execution, in the application's *transaction*; return its id.

        A step ``wait_for: {signal: name}`` of that execution takes it, even if it begins later. If
        the execution was continued as new, its successor takes it. As long as the execution,
        or its chain, is kept, a second signal with the same *idempotency_key* adds
        nothing. Raises ``NOT_FOUND`` for an unknown execution, and with *tenant_id* for another
        tenant's; ``FAILED_PRECONDITION`` if it has ended, and `PayloadError` for a payload
        that can't be stored.
        """
        return write(
            self.storage,
            transaction,
            lambda rows: self._send_signal(
                rows, execution_id, name, payload, tenant_id, idempotency_key
            ),
        )

    async def asignal(
        self,
        execution_id: str,
        name: str,
        payload: Any = None,
        *,
        transaction: Any = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """`signal` for asynchronous code; *transaction* may be an ``AsyncSession``."""
        require_asyncio("asignal", "signal")
        return await self.storage.arun_in(
            transaction,
            lambda rows: self._send_signal(
                rows, execution_id, name, payload, tenant_id, idempotency_key
            ),
        )

    def _send_signal(
        self,
        rows: Rows,
        execution_id: str,
        name: str,
        payload: Any,
        tenant_id: str | None,
        idempotency_key: str | None,
    ) -> str:
        from automate_kernel.workflows.store.events import manual_event

        check_event_name(name)
        encode_json(payload, "payload")
        execution = self.executions.live(rows, execution_id, tenant_id=tenant_id)
        event = replace(
            manual_event(name, payload), type="event", source=SENT,
            tenant_id=execution.tenant_id,
        )  # fmt: skip
        if idempotency_key is not None:
            check_text(idempotency_key, "idempotency_key", hint="pass None for no key")
        return self.executions.signals.send(rows, execution, event, idempotency_key)

    def _find_child(self, name: str, event: Event) -> tuple[Workflow, Admission | None]:
        from automate_kernel.workflows.store.stored import unreadable

        try:
            workflow = self.workflows.get(name, event.tenant_id)
        except TemplateError as error:
            raise unreadable(name, error) from None
        self._check_manual(workflow, event)
        admission = self.workflows.admission(workflow, event)
        # Its parent waits for this very execution, which comes to its turn.
        return workflow, admission and admission.waiting()

    def _check_manual(self, workflow: Workflow, event: Event) -> None:
        """Raise ``FAILED_PRECONDITION`` if no manual trigger lets *event* start its workflow."""
        triggers = [each for each in workflow.triggers if each.matches(event, workflow.name)]
        if event.type != "manual" or not triggers:
            return
        if not any(self.workflows.pulls(workflow, trigger, event) for trigger in triggers):
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                f"workflow {workflow.name!r} can't be started with this payload: the if of its"
                " manual trigger is false",
            )

    # -- registration --------------------------------------------------------------------------

    def register(self, plugin: Any, kind: str | None = None, *, key: str | None = None) -> None:
        """Add a plugin: a class or its dotted path; see `Plugins.register`."""
        self.plugins.register(plugin, kind, key=key)
        self._announce_filters()

    def _announce_filters(self) -> None:
        """Let templates find the filters of plugins that have come since the last time."""
        for key in self.plugins.filters.keys():  # noqa: SIM118  (a registry is no mapping)
            if key not in self._announced:
                self._announced.add(key)
                self.filters.announce(key, partial(self.plugins.filters.get, key))

    @overload
    def action(self, name: F) -> F: ...
    @overload
    def action(
        self, name: str | None = None, **options: Unpack[OperationOptions]
    ) -> Callable[[F], F]: ...
    def action(self, name: Any = None, **options: Unpack[OperationOptions]) -> Any:
        """
        Make a function, ``def`` or ``async def``, an action that steps can call as *name*.

        Its typed parameters, or its one pydantic parameter, are the schema of its input. Without a
        *name*, as in ``@kernel.action`` alone, the action is called as the function is.
        """
        from automate_kernel.operations.spec import decorating, operation_from_function

        def take(function: Callable[..., Any], **options: Any) -> None:
            self.operations.add(operation_from_function(function, **options))

        return decorating(name, options, "Kernel.action", take)

    @overload
    def workflow(self, function: F) -> F: ...
    @overload
    def workflow(
        self,
        *,
        on: On = None,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        version: int = 1,
        timeout: float | str | timedelta | None = None,
        waits: Mapping[str, str] | None = None,
    ) -> Callable[[F], F]: ...
    def workflow(self, function: Any = None, **options: Any) -> Any:
        """
        Make a function, ``def`` or ``async def``, a workflow in code.

        It takes a `WorkflowContext` (a ``def`` a `SyncWorkflowContext`) and, if it has a second
        parameter, the payload of the event in the type of its annotation. *on* is the name of the
        event that starts it, a trigger, or a list of them; without, it is started by hand.
        Executions go on with the *version* that they began with. *timeout* bounds an execution,
        waits included. Events that come before the workflow waits for them are kept if its source
        names them in ``wait_for``; *waits* names others, each with the field that it is matched
        by, or "".
        Raises `WorkflowError`.
        """
        from automate_kernel.workflows.code.workflow import check_options, workflow_function

        check_options(options)

        def decorate(function: F) -> F:
            self.workflows.add_function(workflow_function(function, **options))
            return function

        return decorate if function is None else decorate(function)

    def include(self, automation: Automation) -> None:
        """Add the actions and workflows that a module has collected in an `Automation`."""
        for function, name, options in automation.actions:
            self.action(name, **options)(function)
        for function, options in automation.workflows:
            self.workflow(**options)(function)
        for definition in automation.definitions:
            self.add_workflow(definition)

    def handler(
        self,
        kind: str,
        *,
        transactional: bool = False,
        backoff: Backoff | None = None,
        concurrency: int | None = None,
        rate: int | None = None,
        per_seconds: float = 1.0,
        burst: int | None = None,
    ) -> Callable[[F], F]:
        """
        Make a function the handler of outbox items of *kind*.

        It is called with the item; see `automate_kernel.worker.handler.Handler` for the options.
        Over all workers at most *concurrency* of them run at once, and *rate* start per
        *per_seconds*, *burst* at once after a lull. An operator may set another limit; see
        `OutboxStore.limit`.
        """
        if callable(kind):
            raise ConfigError(
                "Kernel.handler() needs the kind of items that the function handles",
                hint=f'write @kernel.handler("{getattr(kind, "__name__", "kind")}")',
            )
        check_text(kind, "kind", hint='for example "mail.send"')
        limited = concurrency is not None or rate is not None
        limit = Limit(kind, concurrency, rate, per_seconds, burst) if limited else None

        def decorate(function: F) -> F:
            from automate_kernel.worker.handler import Handler

            self._handlers.add(Handler(kind, function, transactional, backoff or Backoff(), limit))
            return function

        return decorate

    @property
    def kinds(self) -> list[str]:
        """The kinds of outbox items that have a handler."""
        return self._handlers.kinds

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

    # -- workers -------------------------------------------------------------------------------

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
        Return a worker for this kernel's items; see `Worker` for the options.

        It deletes items and executions after their time; see `sweep` for both times. It works on
        *kinds*, ``mail.*`` too; by default on all that have a handler. *exclude_kinds* are left to
        other workers. Raises `ConfigError` for a kind without a handler, and if no kind is left.
        """
        from automate_kernel.worker import Worker
        from automate_kernel.worker.reporter import ActivityLog

        for line in self.plugins.unused_config(self.operations.config):
            logger.warning("%s", line)
        handlers = self._chosen(kinds, exclude_kinds)
        chosen = {handler.kind for handler in handlers}
        kept, works = self._kept(retention_seconds, failed_retention_seconds), ADVANCE in chosen
        activity = options.setdefault("activity", ActivityLog())
        options.setdefault("describe", self.redactor.redact_exception)
        options.setdefault("redact", self.redactor.redact)
        options.setdefault("also_report", partial(self.executions.report, self._runner.activity))
        options.setdefault("version", self.version)
        options.setdefault("workflows", self._marks)
        options.setdefault("executors", partial(self.executors.used, self.redactor.redact))
        options.setdefault("preflight", partial(self._preflight, executes=works))
        options.setdefault("take_over", self._take_up_handed_over if works else None)
        options["periodic_tasks"] = [
            *self._clock(activity, events=EVENT in chosen),
            *self._upkeep(*kept),
            *options.pop("periodic_tasks", ()),
        ]
        worker = Worker(self.outbox, handlers, **options)
        shortage = getattr(self.storage, "shortage", None)
        if shortage is not None:
            # It keeps few connections while the database's server has no more of them.
            shortage.add_worker(worker)
        return worker

    def _clock(self, activity: ActivityLog, *, events: bool) -> Iterator[PeriodicTask]:
        """Yield what a worker does on time; for *events* it learns who else takes them."""
        from automate_kernel.worker import OutboxReaper, PeriodicTask

        lease = self.outbox.lease_seconds
        reaper = OutboxReaper(self.outbox, stale_threshold_seconds=lease, on_reaped=activity.reaped)
        tick = partial(self._ticker.tick, self._signal_sender.call)
        yield PeriodicTask("reaper", min(60.0, max(0.5, lease / 4)), reaper.look, clock=True)
        yield PeriodicTask("schedules", 1.0, tick, clock=True)
        yield PeriodicTask("polls", 1.0, self._poller.tick, clock=True)
        if self._outcomes.needed:
            yield PeriodicTask("outcomes", 1.0, self._outcomes.look, at_once=True, clock=True)
        if self._arrivals.needed:
            yield PeriodicTask("arrivals", 1.0, self._arrivals.look, at_once=True, clock=True)
        if events:
            yield PeriodicTask("leader_election", 1.0, self._leader_election.look, clock=True)

    def _upkeep(self, kept: float | None, failed: float | None) -> Iterator[PeriodicTask]:
        """Yield what a worker does beside its work, with the retention in seconds."""
        from automate_kernel.worker.periodic import PeriodicTask

        # Here, as it reads what has failed, however much that is.
        yield PeriodicTask("failures", 1.0, partial(self._send_notices, self._signal_sender.call))
        yield PeriodicTask("signals", 600.0, self.executions.signals.purge)
        yield PeriodicTask("reports", 3600.0, self.outbox.purge_reports)
        yield PeriodicTask("execution reports", 3600.0, self.executions.purge_activity)
        yield PeriodicTask("causes", 300.0, partial(write, self.storage, None, note_causes))
        yield PeriodicTask("execution statistics", 60.0, self.executions.roll_up_activity)
        yield PeriodicTask("start_locks", 3600.0, self.executions.purge_start_locks)
        yield PeriodicTask("audit trail and sessions", 3600.0, self._purge_access)
        if self.executors.placements:
            yield PeriodicTask("executors", 15.0, self._look_at_executors)
        if self.executions.outputs.store is not None:
            yield PeriodicTask("outputs", 21_600.0, self.executions.sweep_outputs)
        if (kept, failed) != (None, None):
            sweep = partial(self.sweep, retention_seconds=kept, failed_retention_seconds=failed)
            unused = partial(self._purge_definitions, kept, failed)
            yield PeriodicTask("purge", 60.0, sweep)
            # To know that a definition is unused costs a walk along its workflow's executions.
            yield PeriodicTask("definitions", 3600.0, unused)
        shortage = getattr(self.storage, "shortage", None)
        if shortage is not None:
            # Who has connections enough hears of no refusal: so all look whether others get any.
            look = partial(look_for_room, self.storage, shortage)
            yield PeriodicTask("connections", 15.0, look)

    def _look_at_executors(self) -> None:
        self.operations.portal.run(self.executors.problems())

    def _marks(self) -> tuple[str, ...]:
        """Return what becomes of events here: a worker that knows less leaves them to another."""
        return (*self.workflows.marks(), *self.relays.marks())

    def _preflight(self, *, executes: bool) -> None:
        require_schema(self.storage)
        try:
            self._leader_election.look()  # before its first claim, which may be of events
            self._keep_awaited()
        except StorageError as error:
            if not error.retryable:
                raise
            warn_of(logger, error, "who else works could not be seen: %s")
        if executes:
            self._warn_of_unknown_actions()

    def _keep_awaited(self) -> None:
        """
        Have the events kept that workflows here wait for, before the first start of each.

        What begins its first execution may stand in a frozen worker, while others take the answer.
        """
        awaited = {each for one in self.workflows.entries() for each in one.workflow.awaited}
        if awaited:
            write(self.storage, None, lambda rows: self.executions.signals.register(rows, awaited))

    def _take_up_handed_over(self, worker_id: str) -> int:
        """Make due what others have handed over, and the worker has not; return the number."""
        found = self.outbox.handed_over(limit=_MOST_HANDED_OVER)
        untried = [one.id for one in found if one.handover and worker_id not in one.handover.tried]
        return self.outbox.request_release(untried) if untried else 0

    def _warn_of_unknown_actions(self) -> None:
        """Log the actions of files and code that aren't known here: they may be misspelt."""
        for workflow in self.workflows.added():
            for step in (*workflow.every_step(), *workflow.compensations.values()):
                lack = self.operations.lack_of(step.action, step.runs_on) if step.action else None
                if lack is not None:
                    logger.warning(
                        "workflow %r, step %r: this worker %s; its executions are handed over",
                        workflow.name, step.id, lack,
                    )  # fmt: skip

    def _chosen(self, kinds: Iterable[str], exclude_kinds: Iterable[str]) -> list[Handler]:
        # A process with neither workflows nor relays leaves events to the others: it would finish
        # them, and start nothing.
        takes_events = self.workflows.changing or self.workflows.added() or self.relays
        handlers = self._handlers.choose(
            kinds, exclude_kinds, unwanted=() if takes_events else (EVENT,)
        )
        return self._around_items(handlers)

    def _around_items(self, handlers: list[Handler]) -> list[Handler]:
        hooks = self.plugins.hooks
        if not hooks.receives("automate_handling"):
            return handlers

        def around(item: OutboxItem) -> AbstractContextManager[None]:
            return hooks.around("automate_handling", item=item)

        return [replace(handler, around=around) for handler in handlers]

    def _before_enqueue(self, items: Sequence[NewItem]) -> None:
        for item in items:
            if item.labels:
                item.labels = self.redactor.redact_value(checked_labels(item.labels))
        if self.plugins.hooks.receives("automate_before_enqueue"):
            self.plugins.hooks.notify("automate_before_enqueue", items=items)

    def run_until_idle(
        self, *, patience: float = 0.0, kinds: Iterable[str] = (), exclude_kinds: Iterable[str] = ()
    ) -> WorkerStats:
        """
        Run all due items, and those that follow from them, in this thread; for tests and scripts.

        Waits for items that are due within *patience* seconds, retries for example. *kinds* and
        *exclude_kinds* choose as they do for `worker`.
        """
        return self._run_due(self._chosen(kinds, exclude_kinds), patience)

    def _run_due(self, handlers: Iterable[Handler], patience: float) -> WorkerStats:
        from automate_kernel.worker.inline import run_inline

        # One look fires so many times of a schedule with catch_up, and a worker looks again.
        while self._ticker.tick():
            pass
        self._poller.run_due()
        stats = run_inline(
            self.outbox,
            handlers,
            patience=patience,
            describe=self.redactor.redact_exception,
            redact=self.redactor.redact,
        )
        self._send_notices()
        self._report_executions()
        return stats

    def _report_executions(self) -> None:
        self._reported_at = runtime.monotonic()
        try:
            self.executions.report(self._runner.activity, "inline")
        except StorageError as error:
            # These are only figures; the work is done.
            logger.warning("what was done could not be counted: %s", error)

    @overload
    def run(
        self, workflow: Callable[[Any, P], Any], payload: P, *, patience: float = 3600.0
    ) -> Execution: ...
    @overload
    def run(
        self, workflow: Callable[[Any], Any], payload: None = None, *, patience: float = 3600.0
    ) -> Execution: ...
    @overload
    def run(self, workflow: str, payload: Any = None, *, patience: float = 3600.0) -> Execution: ...
    def run(
        self,
        workflow: str | Callable[..., Any],
        payload: Any = None,
        *,
        patience: float = 3600.0,
    ) -> Execution:
        """
        Start *workflow*, run until it has ended, and return the execution.

        Other items that are due are left alone, unless it has to wait: for a retry, or because its
        kind is paused or limited. Then they run too, as in `run_until_idle` with *patience*. A
        worker that goes on with it, or with a sub-workflow of it, has as much time. It is not
        handed over to others: a step whose action isn't known here fails, and so does code that
        does not repeat what is recorded.
        """
        from automate_kernel.worker.handler import default_worker_id
        from automate_kernel.workflows.store.events import manual_event

        name, payload = self._named_workflow(workflow, payload)
        event = manual_event(name, payload)
        definition = self.workflows.get(name)
        self._check_manual(definition, event)
        owner = default_worker_id()
        item, begun = None, None
        if admission := self.workflows.admission(definition, event):
            begin = self.executions.starts.start
            execution_id = write(
                self.storage, None,
                lambda rows: begin(rows, definition, event, admission=admission),
            )  # fmt: skip
        else:
            execution_id, item, begun = self._inline.begin(definition, event, owner)
        with self.executing_here(execution_id):
            return self._run_here(execution_id, item, begun, patience)

    def executing_here(self, execution_id: str | None = None) -> AbstractContextManager[None]:
        """
        Let an execution, and its sub-workflows, fail here where they would be handed over.

        Without an *execution_id* that holds for all.

        It is for a caller that waits for its end, and wants the reason: as `run` does.
        """
        return self._runner.only_here(execution_id)

    def _run_here(
        self,
        execution_id: str,
        item: OutboxItem | None,
        begun: Execution | None,
        patience: float,
    ) -> Execution:
        """Run an execution until it has ended, and what else is due if it has to wait."""
        from automate_kernel.worker.inline import run_claimed

        if item is not None:
            (handler,) = self._around_items([self._handlers[ADVANCE]])
            stats = run_claimed(
                self.outbox, handler, item, describe=self.redactor.redact_exception,
                redact=self.redactor.redact,
            )  # fmt: skip
            if stats.failed:
                self._send_notices()
            if runtime.monotonic() - self._reported_at > _REPORT_SECONDS:
                self._report_executions()
        if begun is not None and begun.status.finished:
            self.executions.outputs.fill(begun)
            return begun
        execution = self.executions.get(execution_id)
        if execution is not None and not execution.status.finished:
            execution = self._waited_for(execution, patience)
        if execution is None:
            raise AutomateError(ErrorCodes.DATA_LOSS, f"execution {execution_id} is gone")
        return execution

    def _waited_for(self, execution: Execution, patience: float) -> Execution | None:
        """Run what is due until an execution has ended, or nobody goes on with it."""
        from automate_kernel.workflows.store.stored import going_items

        until, pause = runtime.monotonic() + patience, 0.01
        items: list[Row] = []
        while True:
            # Sub-workflows, mostly: they have no order among themselves.
            together = self._inline.handle_all
            handlers = [
                replace(one, together=together) if one.kind == ADVANCE else one
                for one in self._chosen((), ())
            ]
            self._run_due(handlers, patience)
            with self.storage.begin(atomic=False) as rows:
                before, items = items, going_items(rows, execution.id)
            found = self.executions.get(execution.id)
            patience = until - runtime.monotonic()
            if found is None or found.status.finished or patience <= 0:
                return found
            if any(item["status"] == ItemStatus.RUNNING for item in items):
                # A worker has taken an item: look less often the longer it takes.
                runtime.sleep(min(pause, patience))
                pause = min(1.0, 2 * pause)
            elif items == before:
                return found

    def _send_notices(self, call: Callable[..., Any] = lambda send, *given: send(*given)) -> None:
        """Send the signals of what ended otherwise than in a worker's hands, by way of *call*."""
        self._failures.send(call)
        if self._listener is not None:
            for execution in self._listener.take_cancelled(self.executions):
                call(self._send_cancelled, execution)

    def _send_cancelled(self, execution: Execution, waits: Collection[OpenWait] = ()) -> None:
        self._runner.cancel_tasks(waits)
        self._runner.send_cancelled(execution)

    def _notify_failed(self, item: OutboxItem, error: AutomateError) -> None:
        self.plugins.hooks.notify("automate_item_failed", item=item, error=error)
        if item.kind == ADVANCE:
            execution = self.executions.get(item.payload["execution_id"], large_outputs=False)
            # An execution that has something to undo goes on, and fails after that.
            failed = execution is not None and execution.status is ExecutionStatus.FAILED
            if execution is not None and failed and execution.item_id == item.id:
                self._runner.send_failed(execution)

    # -- retention -----------------------------------------------------------------------------

    def sweep(
        self,
        *,
        retention_seconds: float | None = None,
        failed_retention_seconds: float | None = None,
    ) -> int:
        """
        Delete items and executions that have been kept for their time; returns how many.

        What COMPLETED goes after *retention_seconds*, what FAILED or was CANCELLED after
        *failed_retention_seconds*. The defaults are the outbox's own times: None is for ever. It
        takes some seconds at most; the next call continues. A worker does so every minute.
        """
        kept, failed_kept = self._kept(retention_seconds, failed_retention_seconds)
        swept = self.outbox.sweep(retention_seconds=kept, failed_retention_seconds=failed_kept)
        until = runtime.monotonic() + _SWEEP_SECONDS
        purge, failed = self.executions.purge, [ExecutionStatus.FAILED, ExecutionStatus.CANCELLED]
        youngest = min((age for age in (kept, failed_kept) if age is not None), default=None)
        for age, purge_batch in (
            (kept, partial(purge, statuses=[ExecutionStatus.COMPLETED])),
            (failed_kept, partial(purge, statuses=failed)),
            *((youngest, partial(own, limit=1000)) for own in self.purges),
        ):
            while age is not None and runtime.monotonic() < until:
                purged = purge_batch(older_than_seconds=age)
                swept += purged
                if not purged:
                    break
        if kept is not None:
            self._webhooks.ledger.forget(max(kept, _REMEMBERED_SECONDS))
        return swept

    def purge_definitions(self, *, older_than_seconds: float, limit: int = 100) -> int:
        """
        Delete stored definitions that no execution is pinned to; returns how many.

        Those of the workflows of this kernel stay, and those that were stored since then.
        """
        current = {entry.workflow.hash() for entry in self.workflows.entries()}
        return self.executions.purge_definitions(
            older_than_seconds=older_than_seconds, keep=current, limit=limit
        )

    def _purge_definitions(self, kept: float | None, failed: float | None) -> None:
        age = max(each for each in (kept, failed) if each is not None)
        self.purge_definitions(older_than_seconds=age)

    def _purge_access(self) -> None:
        """Delete sessions and questions that have ended, old decisions and the trail's entries."""
        from automate_kernel.workflows.steer.decisions import purge_decisions

        until, kept = runtime.monotonic() + _SWEEP_SECONDS, self._audit_kept
        purges: list[Callable[[], int]] = [self.sessions.purge, self.accounts.purge]
        if kept is not None:
            purges.append(partial(self.audit.purge, older_than_seconds=kept))
            old = partial(purge_decisions, older_than_seconds=kept)
            purges.append(partial(write, self.storage, None, old))
        for purge in purges:
            while runtime.monotonic() < until and purge():
                pass

    def _kept(
        self, seconds: float | None, failed_seconds: float | None
    ) -> tuple[float | None, float | None]:
        own = self.outbox
        return (
            own.retention_seconds if seconds is None else seconds,
            own.failed_retention_seconds if failed_seconds is None else failed_seconds,
        )

    def purge(self, *, older_than_seconds: float, batch: int = 1000) -> int:
        """
        Delete items and executions that finished that long ago; returns how many there were.

        Definitions of workflows that no execution is pinned to any more go with them.

        A transaction deletes *batch* rows, so that nothing waits for it. Webhook deliveries are
        remembered for 30 days at least, because services send them again.
        """
        age, total = check_age(older_than_seconds, "older_than_seconds"), 0
        batch = check_limit(batch)
        for purge in (
            self.outbox.purge, self.executions.purge, self.purge_definitions, *self.purges
        ):  # fmt: skip
            while purged := purge(older_than_seconds=age, limit=batch):
                total += purged
        self._webhooks.ledger.forget(max(age, _REMEMBERED_SECONDS))
        self.executions.purge_outputs(older_than_seconds=age)
        return total


def _plugins(
    plugins: Iterable[Any],
    discover: bool,
    strict: bool,
    disabled: Iterable[str],
    winners: Mapping[str, str] | None,
    listed: Mapping[str, Any] | None,
) -> Plugins:
    from automate_kernel.plugins import Plugins

    found = Plugins(discover, strict, disabled, winners, settings=listed)
    for plugin in several(plugins):
        found.register(plugin)
    return found


def _environment(allowed: Iterable[str]) -> EnvironmentResolver:
    from automate_kernel.templates import EnvironmentResolver

    return EnvironmentResolver(allowed)


def _filters() -> FilterRegistry:
    from automate_kernel.templates import FilterRegistry, default_filters

    return FilterRegistry(default_filters)


def _templates(filters: FilterRegistry, outputs: Any) -> TemplateEngine:
    from automate_kernel.templates import Limits, TemplateEngine
    from automate_kernel.workflows.store.large_outputs import MAX_OUTPUT_BYTES

    # A step's large output can be the input of the next one.
    limits = Limits() if outputs is None else Limits(passed=MAX_OUTPUT_BYTES)
    return TemplateEngine(filters, limits=limits)


def _storage_for(storage: Storage | None, outbox: OutboxStore | str | None) -> Storage:
    """Return the storage of a kernel: the given one, the outbox's, or one in memory."""
    able = hasattr(storage, "begin") and hasattr(storage, "describe")
    if storage is not None and (isinstance(storage, type) or not able):
        kind = f"the class {storage.__name__}" if isinstance(storage, type) else type_name(storage)
        # Not the value, which may be a URL with a password.
        raise ConfigError(
            f"a kernel's storage can't be {kind}",
            hint=(
                "pass a storage: SqlAlchemyStorage(engine or URL) of automate_sqlalchemy,"
                " DjangoStorage() of automate_django, or MemoryStorage()"
            ),
        )
    theirs: Storage | None = getattr(outbox, "storage", None)
    if storage is not None and theirs is not None and theirs is not storage:
        raise ConfigError(
            "the outbox is in another storage than the one that was given",
            hint="pass the outbox alone, or Kernel(outbox.storage, outbox=outbox)",
        )
    return storage or theirs or MemoryStorage()


def _age(seconds: float | None, name: str) -> float | None:
    return None if seconds is None else check_age(seconds, name)


def _version(version: str) -> str:
    if not isinstance(version, str) or not 0 < len(version) <= 200 or not version.isprintable():
        raise ConfigError(
            f"a version can't be {str(version)[:40]!r}", hint='give text: version="2026.11.2"'
        )
    return version


def _of_tenant(event: Event, tenant_id: str | None) -> Event:
    """Return *event* as that of a tenant; raises ``INVALID_ARGUMENT`` for another's."""
    if tenant_id is not None and event.tenant_id is None:
        return replace(event, tenant_id=tenant_id)
    if tenant_id not in (None, event.tenant_id):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT, "the event belongs to another tenant than was given"
        )
    return event


def _check_not_debounced(workflow: Workflow) -> None:
    if workflow.debounce is not None:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the debounce of workflow {workflow.name!r} decides when it begins, and what is one",
            hint="start it without idempotency_key, delay and run_at",
        )


def _call(operation: str, tenant_id: str | None, idempotency_key: str | None) -> Call:
    from automate_kernel.operations.context import Call
    from automate_kernel.operations.invoker import require_name

    require_name(operation)
    if tenant_id is not None:
        check_text(tenant_id, "tenant_id")
    if idempotency_key is not None:
        check_text(idempotency_key, "idempotency_key", hint="pass None for no key")
        if tenant_id is not None:
            # Else a service would take the call of another tenant with the same key for this one.
            idempotency_key = json.dumps([tenant_id, idempotency_key], ensure_ascii=False)
    return Call(operation, tenant_id, idempotency_key=idempotency_key)


def _at(value: Any, path: str) -> Any:
    """Return the value at the dotted *path* of an input; None if there is none."""
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
