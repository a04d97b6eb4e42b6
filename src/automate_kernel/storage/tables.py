"""The tables as data: their columns and indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from automate_kernel.storage.statuses import ItemStatus, ItemWait

Type = Literal["id", "text", "longtext", "json", "int", "time"]

NULL = "null"
"""The value of a condition that means: the column is null."""


@dataclass(frozen=True, slots=True)
class Column:
    """
    A column: ``id`` is a UUID, ``text`` has a *length*, ``longtext`` none, ``time`` is in UTC.

    The values of a *fixed* column are a few words of ours, written into the text of a statement.
    In a plan that is kept, no database can match a bound parameter with a partial index.

    *default*, as text of SQL (``0``, ``'[]'``), fills the rows that are older than the column.
    Every column that is added to a table and isn't *null* needs one, and workers of the release
    before go on writing rows without it.
    """

    name: str
    type: Type
    length: int = 0
    null: bool = False
    fixed: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """
    An index, on some rows only where the database can.

    *where* holds columns and their values, all of which must match. A value of None means: the
    column is not null; `NULL` means: it is. A database without partial indexes has one of all rows,
    which begins with those values: so a claim reads no item there either that has ended.
    """

    name: str
    columns: tuple[str, ...]
    where: tuple[tuple[str, str | None], ...] = ()
    unique: bool = False

    @property
    def whole(self) -> tuple[str, ...]:
        """The columns that it has where there are no partial indexes."""
        leading = [name for name, value in self.where if value and name not in self.columns]
        return (*leading, *self.columns)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its first column is the primary key, and *storage* are PostgreSQL's parameters."""

    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = field(default=())
    storage: tuple[tuple[str, float], ...] = ()
    by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False)
    """The columns by their names."""
    key: str = field(init=False, repr=False, compare=False)
    """The primary key's column."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})
        object.__setattr__(self, "key", self.columns[0].name)

    @property
    def unique(self) -> tuple[tuple[str, ...], ...]:
        """The columns that must be unique together, beside the primary key."""
        return tuple(index.columns for index in self.indexes if index.unique)


OUTBOX = "automate_outbox"
ORDERING_LOCK = "automate_ordering_lock"
SLOT = "automate_outbox_slot"
PAUSE = "automate_outbox_pause"
WORKFLOW_PAUSE = "workflow:"
"""The beginning of the name of a pause that is of a workflow, not of a kind of items."""
LIMIT = "automate_outbox_limit"
DEFINITION = "automate_definition"
EXECUTION = "automate_execution"
STEP = "automate_step"
DELIVERY = "automate_webhook_delivery"
REFUSED_DELIVERY = "automate_refused_delivery"
SCHEDULE = "automate_schedule"
WORKER = "automate_worker"
ACTIVITY = "automate_activity"
FAILURE = "automate_failure"
CAUSE = "automate_cause"
LABEL = "automate_label"
EXECUTION_ACTIVITY = "automate_execution_activity"
WAIT = "automate_wait"
APPROVER = "automate_approver"
DECISION = "automate_decision"
SIGNAL = "automate_signal"
AWAITED = "automate_awaited"
POLL = "automate_poll"
DEBOUNCE = "automate_debounce"
BUDGET = "automate_budget"
AUDIT = "automate_audit"
TOKEN = "automate_token"  # noqa: S105
SESSION = "automate_session"
CONSENT = "automate_consent"
SAVED_QUERY = "automate_saved_query"
IDEMPOTENCY = "automate_api_idempotency"
DOCUMENT = "automate_workflow_document"
DOCUMENT_VERSION = "automate_workflow_version"
DOCUMENT_STAMP = "automate_workflow_stamp"

_KEY, _NAME, _CODE, _LONG_KEY = 64, 200, 64, 255
# What errors have in common: their type and place, `automate_kernel.secrets.tracebacks.group_of`.
_GROUP = 200


def _columns(type_: Type, names: str, *, null: bool = False) -> list[Column]:
    return [Column(name, type_, null=null) for name in names.split()]


def _index(name: str, columns: str, *, unique: bool = False, **where: str | None) -> Index:
    return Index(name, tuple(columns.split()), tuple(where.items()), unique)


def _table(name: str, *parts: Column | Index, **storage: float) -> Table:
    columns = tuple(part for part in parts if isinstance(part, Column))
    indexes = tuple(part for part in parts if isinstance(part, Index))
    return Table(name, columns, indexes, tuple(storage.items()))


_ALL = (
    _table(
        OUTBOX,
        Column("id", "id"),
        Column("kind", "text", _NAME),
        Column("payload", "json"),
        Column("headers", "json"),
        Column("status", "text", 16, fixed=True),
        # What a waiting item waits for: "worker" (ready to be claimed), "time" (not due), "key"
        # (its ordering or concurrency key is busy), "resume" (its kind is paused). On a running
        # item "cancel" asks it to stop, "release" to be put back. Else null. Only ready items stand
        # in the index that is claimed from.
        Column("waiting_for", "text", 8, null=True, fixed=True),
        *_columns("int", "priority attempt_count max_attempts"),
        Column("next_attempt_at", "time"),
        # The claim order: the due time, moved ahead by an hour per priority point. Priority wins
        # among items of about the same age, and age wins in the end.
        Column("sort_at", "time"),
        Column("lease_owner", "text", _NAME, null=True),
        Column("lease_token", "id", null=True),
        Column("lease_expires_at", "time", null=True),
        Column("idempotency_key", "text", _LONG_KEY, null=True),
        Column("tenant_id", "text", _NAME, null=True),
        Column("ordering_key", "text", _NAME, null=True),
        Column("last_error_code", "text", _CODE, null=True),
        Column("last_error", "longtext", null=True),
        *_columns("time", "created_at updated_at"),
        Column("completed_at", "time", null=True),
        Column("concurrency_key", "text", _NAME, null=True),
        Column("concurrency_limit", "int", null=True),
        # Not read by a claim. The failed ones, among which a group is looked for, have an index of
        # their own.
        Column("last_error_group", "text", _GROUP, null=True),
        # What takes turns within a kind and tenant: of executions the workflow, of events the name.
        Column("lane", "text", _NAME, null=True),
        # Ready items by kind, and by tenant those that have one: in one of the two, so that each
        # kind and tenant has a queue of its own and none waits for another's.
        _index(
            "automate_outbox_ready",
            "kind sort_at id",
            tenant_id=NULL,
            waiting_for=ItemWait.WORKER.value,
        ),
        _index(
            "automate_outbox_shared",
            "kind tenant_id sort_at id",
            tenant_id=None,
            waiting_for=ItemWait.WORKER.value,
        ),
        # Read while a kind is backlogged. PostgreSQL sorts, instead of reading in order, where a
        # column of the index has to be null: so there are two of them too.
        _index(
            "automate_outbox_lane",
            "kind lane sort_at id",
            lane=None,
            tenant_id=NULL,
            waiting_for=ItemWait.WORKER.value,
        ),
        _index(
            "automate_outbox_shared_lane",
            "kind tenant_id lane sort_at id",
            lane=None,
            tenant_id=None,
            waiting_for=ItemWait.WORKER.value,
        ),
        _index("automate_outbox_later", "next_attempt_at", waiting_for=ItemWait.TIME.value),
        _index("automate_outbox_lease", "lease_expires_at", lease_expires_at=None),
        _index(
            "automate_outbox_line",
            "ordering_key created_at id",
            ordering_key=None,
            waiting_for=None,
        ),
        _index("automate_outbox_idempotency", "idempotency_key", idempotency_key=None, unique=True),
        # Finished rows stand in no index but the key: keeping them costs nothing. The failed ones,
        # which people look for, are few.
        _index(
            "automate_outbox_failed",
            "id kind last_error_group tenant_id",
            status=ItemStatus.FAILED.value,
        ),
        _index(
            "automate_outbox_concurrency",
            "concurrency_key kind id",
            concurrency_key=None,
            waiting_for=ItemWait.KEY.value,
        ),
        _index("automate_outbox_cancel", "id", waiting_for=ItemWait.CANCEL.value),
        # Room for the version that the claim writes, so that it stays on its page.
        fillfactor=70,
        # Every item leaves two dead versions. The usual fifth of the table would be a lot of them
        # where finished items are kept.
        autovacuum_vacuum_scale_factor=0.02,
        autovacuum_analyze_scale_factor=0.05,
    ),
    _table(
        ORDERING_LOCK,
        Column("ordering_key", "text", _NAME),
        *_columns("id", "item_id lease_token"),
        _index("automate_ordering_lock_item", "item_id"),
    ),
    _table(
        SLOT,
        # Its number and the key: unique, so that no two items ever have the same one.
        Column("id", "text", _LONG_KEY),
        Column("concurrency_key", "text", _NAME),
        *_columns("id", "item_id lease_token"),
        _index("automate_outbox_slot_key", "concurrency_key"),
        _index("automate_outbox_slot_item", "item_id"),
    ),
    _table(
        PAUSE,
        Column("kind", "text", _NAME),
        Column("reason", "longtext", null=True),
        Column("created_at", "time"),
    ),
    _table(
        LIMIT,
        Column("kind", "text", _NAME),
        *_columns("int", "concurrency rate", null=True),
        Column("per_milliseconds", "int"),
        Column("burst", "int", null=True),
        # Whether it comes from the code (1) or from an operator (0), who has the last word.
        Column("declared", "int"),
        # When the bucket of starts that may be made at once would be full again: the one number
        # that a token bucket needs.
        *_columns("time", "full_at updated_at"),
    ),
    _table(
        DEFINITION,
        Column("id", "text", _KEY),
        Column("name", "text", _NAME),
        Column("body", "json"),
        Column("created_at", "time"),
    ),
    _table(
        EXECUTION,
        Column("id", "id"),
        Column("workflow", "text", _NAME),
        Column("definition_id", "text", _KEY),
        Column("status", "text", 16),
        Column("event", "json"),
        Column("output", "json", null=True),
        Column("tenant_id", "text", _NAME, null=True),
        Column("item_id", "id"),
        Column("error_code", "text", _CODE, null=True),
        Column("error", "longtext", null=True),
        *_columns("time", "created_at updated_at"),
        Column("completed_at", "time", null=True),
        Column("error_group", "text", _GROUP, null=True),
        # The execution whose step waits for this one.
        Column("parent_id", "id", null=True),
        # Workflow and key of those of which only so many may go on at once.
        Column("concurrency_key", "text", _LONG_KEY, null=True),
        # Where the host's store has an output that is too large for the column.
        Column("output_ref", "longtext", null=True),
        # The first of those that continue each other as new, and the next one.
        *_columns("id", "chain_id successor_id", null=True),
        # The time from which events count for it, and what those have taken that it continues.
        Column("events_since", "time", null=True),
        Column("events_taken", "json", null=True),
        # Those that the workflow itself has set, beside its event's.
        Column("labels", "json", null=True),
        # What chance in its code follows from, of a copy: that of the original.
        Column("seed", "id", null=True),
        _index("automate_execution_recent", "created_at"),
        _index("automate_execution_workflow", "workflow created_at"),
        # With what else is asked for behind the time: who looks for it passes entries of the index,
        # and reads no row that doesn't match.
        _index("automate_execution_status", "status created_at workflow error_group tenant_id"),
        _index("automate_execution_tenant", "tenant_id created_at workflow status", tenant_id=None),
        _index("automate_execution_parent", "parent_id created_at", parent_id=None),
        _index("automate_execution_chain", "chain_id created_at", chain_id=None),
        _index("automate_execution_key", "concurrency_key status created_at", concurrency_key=None),
    ),
    _table(
        STEP,
        *_columns("id", "id execution_id"),
        Column("step_id", "text", _NAME),
        # Which element of `for_each` it is; -1 for a step without.
        Column("position", "int"),
        Column("status", "text", 16),
        Column("attempts", "int"),
        # Without those whose worker died, or gave the call back.
        Column("failures", "int"),
        Column("output", "json", null=True),
        Column("error_code", "text", _CODE, null=True),
        Column("error", "longtext", null=True),
        # Where the last error was raised: files and lines, no values.
        Column("trace", "longtext", null=True),
        *_columns("time", "started_at next_attempt_at completed_at", null=True),
        Column("error_group", "text", _GROUP, null=True),
        # The line of code that asked for it, of a workflow that is code.
        Column("place", "text", _NAME, null=True),
        # What the call reports of itself while it runs.
        Column("progress", "json", null=True),
        Column("output_ref", "longtext", null=True),
        # When its latest attempt began, and the worker that made it.
        Column("attempted_at", "time", null=True),
        Column("worker_id", "text", _NAME, null=True),
        _index("automate_step_once", "execution_id step_id position", unique=True),
    ),
    _table(
        DELIVERY,
        # SHA-256 over connector, trigger and the delivery's own id: unique, so that the database
        # itself recognizes a replayed webhook.
        Column("id", "text", _KEY),
        Column("connector", "text", _NAME),
        Column("trigger_name", "text", _NAME),
        Column("item_id", "id"),
        Column("received_at", "time"),
        # How often an operator has had its event emitted again, and when that was last. It is null
        # for another id of the same delivery.
        Column("redeliveries", "int", null=True),
        Column("redelivered_at", "time", null=True),
        _index("automate_delivery_received", "received_at"),
    ),
    _table(
        REFUSED_DELIVERY,
        # SHA-256 over the next four: what is alike is one row. A trigger has 20 rows at most.
        Column("id", "text", _KEY),
        # Empty for a connector or a trigger that there isn't: strangers choose these names.
        Column("connector", "text", _NAME),
        Column("trigger_name", "text", _NAME),
        Column("outcome", "text", 16),
        # Without secrets, and without anything of the request's body.
        Column("reason", "longtext"),
        Column("times", "int"),
        *_columns("time", "first_at received_at"),
        _index("automate_refused_trigger", "connector trigger_name received_at"),
    ),
    _table(
        SCHEDULE,
        # The workflow's name and which of its triggers it is.
        Column("id", "text", _LONG_KEY),
        Column("last_fired_at", "time"),
        Column("paused_at", "time", null=True),
        # The execution that it started last.
        Column("execution_id", "id", null=True),
    ),
    _table(
        WORKER,
        Column("id", "text", _NAME),
        Column("host", "text", _NAME),
        Column("pid", "int"),
        *_columns("time", "started_at seen_at"),
        Column("kinds", "json"),
        *_columns("int", "slots in_flight stopping"),
        # The reason for which it can't work, as its supervisor reports.
        Column("problem", "longtext", null=True),
    ),
    _table(
        ACTIVITY,
        # One row per minute, worker and kind: its worker alone writes it, so that no two ever wait
        # for each other.
        Column("id", "id"),
        Column("at", "time"),
        Column("worker_id", "text", _NAME),
        Column("kind", "text", _NAME),
        *_columns("int", "completed retried failed lost"),
        Column("run_times", "json"),
        Column("wait_times", "json"),
        _index("automate_activity_at", "at"),
    ),
    _table(
        FAILURE,
        # One failed attempt, of an item or of a step; the last ones of each are kept.
        Column("id", "id"),
        # The item's id, or the execution's.
        Column("subject_id", "id"),
        Column("step_id", "text", _NAME, null=True),
        *_columns("int", "position attempt"),
        Column("error_code", "text", _CODE),
        Column("error_group", "text", _GROUP),
        Column("error", "longtext"),
        # Where it was raised: files and lines, no values.
        Column("trace", "longtext", null=True),
        Column("failed_at", "time"),
        # When it began, if that is known, and the worker that made it.
        Column("started_at", "time", null=True),
        Column("worker_id", "text", _NAME, null=True),
        _index("automate_failure_subject", "subject_id failed_at"),
    ),
    _table(
        CAUSE,
        # SHA-256 over the other three: a kind of items or a workflow, and where its errors come
        # from. Of all tenants together.
        Column("id", "text", _KEY),
        Column("about", "text", 16),
        Column("kind", "text", _NAME),
        Column("error_group", "text", _GROUP),
        *_columns("time", "first_at last_at"),
    ),
    _table(
        LABEL,
        # Of subject and name: a label has one value.
        Column("id", "id"),
        Column("name", "text", _KEY),
        Column("value", "text", _NAME),
        # The item's id, or the execution's.
        Column("subject_id", "id"),
        # ``item``, ``execution``, or ``schedule``: then the value is the event of the time it took.
        Column("about", "text", 16),
        Column("tenant_id", "text", _NAME, null=True),
        Column("created_at", "time"),
        _index("automate_label_value", "value created_at name tenant_id"),
        _index("automate_label_subject", "subject_id"),
    ),
    _table(
        EXECUTION_ACTIVITY,
        # One row per minute, worker and workflow, as above; and one without a worker for each
        # execution that ended otherwise than in a worker's hands.
        Column("id", "id"),
        Column("at", "time"),
        Column("worker_id", "text", _NAME, null=True),
        Column("workflow", "text", _NAME),
        *_columns("int", "started completed failed cancelled"),
        Column("run_times", "json"),
        *_columns("int", "steps_completed steps_retried steps_failed"),
        Column("step_times", "json"),
        # What was called, and waited for: counts and times by action and by reason.
        *_columns("json", "actions waits", null=True),
        # Sums of all workers are kept too, by blocks of so many minutes, without a worker.
        Column("minutes", "int", default="1"),
        _index("automate_execution_activity_at", "minutes at"),
    ),
    _table(
        WAIT,
        # One step that waits for a signal; the row goes when the step ends.
        Column("id", "id"),
        # SHA-256 over what is waited for, as of the signals that answer it.
        Column("key", "text", _KEY),
        # "event", "approval" or "workflow".
        Column("about", "text", 16),
        Column("execution_id", "id"),
        Column("step_id", "text", _NAME),
        Column("position", "int"),
        Column("tenant_id", "text", _NAME, null=True),
        Column("details", "json", null=True),
        Column("created_at", "time"),
        Column("expires_at", "time", null=True),
        _index("automate_wait_once", "execution_id step_id position", unique=True),
        _index("automate_wait_key", "key"),
        _index("automate_wait_about", "about created_at"),
    ),
    _table(
        APPROVER,
        # A person or role that may decide on the approval that a step waits for, empty for
        # everybody: so that an inbox reads its own. Of the wait's id and the name. It goes with the
        # decision; after a wait that ended otherwise, some minutes later.
        *_columns("id", "id wait_id"),
        Column("who", "text", _NAME),
        Column("tenant_id", "text", _NAME, null=True),
        Column("created_at", "time"),
        _index("automate_approver_who", "who created_at wait_id tenant_id"),
    ),
    _table(
        DECISION,
        # What a person decided on an approval, on the pages, by a link or by the API. It outlives
        # the wait and the execution.
        *_columns("id", "id execution_id"),
        Column("step_id", "text", _NAME),
        Column("position", "int"),
        Column("workflow", "text", _NAME),
        Column("title", "text", 500),
        Column("approved", "int"),
        Column("decided_by", "text", _NAME),
        Column("comment", "text", 500),
        Column("tenant_id", "text", _NAME, null=True),
        Column("decided_at", "time"),
        _index("automate_decision_at", "decided_at"),
        _index("automate_decision_tenant", "tenant_id decided_at"),
    ),
    _table(
        SIGNAL,
        # A signal that has come, for steps that wait for it and for those that soon will.
        Column("id", "id"),
        Column("key", "text", _KEY),
        Column("event", "json"),
        Column("received_at", "time"),
        # The execution that it was sent to, or the first of its chain: it is kept as long as these.
        # Of an event, which is for whoever waits for it, there is none.
        Column("execution_id", "id", null=True),
        _index("automate_signal_key", "key received_at"),
        _index("automate_signal_execution", "execution_id received_at"),
    ),
    _table(
        AWAITED,
        # The events that some workflow waits for, and the field that each is told by: only these
        # are kept as signals.
        Column("id", "text", _KEY),
        Column("name", "text", _NAME),
        Column("field", "text", _NAME),
        Column("created_at", "time"),
        _index("automate_awaited_name", "name"),
    ),
    _table(
        POLL,
        # One poll of a connector for one tenant: SHA-256 over the three.
        Column("id", "text", _KEY),
        Column("connector", "text", _NAME),
        Column("trigger_name", "text", _NAME),
        Column("tenant_id", "text", _NAME, null=True),
        Column("poll_cursor", "json", null=True),
        Column("next_at", "time"),
        # The fence of a call that is going on: whoever else claims it puts another token here.
        Column("claim_token", "id", null=True),
        *_columns("time", "claimed_until polled_at event_at paused_at", null=True),
        Column("failures", "int"),
        Column("error_code", "text", _CODE, null=True),
        Column("error", "longtext", null=True),
        Column("created_at", "time"),
    ),
    _table(
        DEBOUNCE,
        # A row that starts of one key lock: SHA-256 over workflow, tenant and key; and the
        # execution that came through it last, which may wait for the last event.
        Column("id", "text", _KEY),
        Column("execution_id", "id"),
        # The time of the first event; of a rate limit, when its bucket would be full again.
        Column("created_at", "time"),
    ),
    _table(
        BUDGET,
        # SHA-256 over its name and the execution, or the day and the tenant.
        Column("id", "text", _KEY),
        # The key of the plugin whose budget it is.
        Column("name", "text", _NAME),
        Column("tenant_id", "text", _NAME, null=True),
        # The execution that no other waits for; null for a day.
        Column("execution_id", "id", null=True),
        # Amounts by unit; and those of calls that go on, each until when at the longest.
        *_columns("json", "spent reserved"),
        *_columns("time", "created_at updated_at"),
        Column("ends_at", "time", null=True),
        _index("automate_budget_execution", "execution_id", execution_id=None),
        _index("automate_budget_ended", "ends_at", ends_at=None),
    ),
    _table(
        AUDIT,
        # What somebody did, or was refused. Names are kept as text: an entry outlives the user and
        # the object.
        Column("id", "id"),
        Column("created_at", "time"),
        Column("actor_id", "text", _NAME, null=True),
        Column("actor", "text", _NAME),
        Column("tenant_id", "text", _NAME, null=True),
        Column("action", "text", _KEY),
        # The kind of object: ``execution``, ``item``; a Django model's label.
        Column("model", "text", _NAME),
        Column("object_id", "text", _LONG_KEY, null=True),
        Column("object_repr", "text", _NAME),
        # "asked" until it is known: an order is written down before it is carried out.
        Column("outcome", "text", 16),
        *_columns("json", "changes details"),
        _index("automate_audit_recent", "created_at"),
        _index("automate_audit_tenant", "tenant_id created_at"),
        _index("automate_audit_object", "object_id model"),
        _index("automate_audit_actor", "actor created_at"),
    ),
    _table(
        TOKEN,
        Column("id", "id"),
        Column("name", "text", _NAME),
        # It finds the row, and is no secret. Of the whole text there is the SHA-256 alone.
        Column("prefix", "text", 32),
        Column("digest", "text", _KEY),
        Column("user_id", "text", _NAME, null=True),
        Column("tenant_id", "text", _NAME, null=True),
        # 1 if it is for the rows of all tenants.
        Column("all_tenants", "int"),
        *_columns("json", "roles scopes"),
        Column("created_at", "time"),
        *_columns("time", "expires_at last_used_at revoked_at", null=True),
        _index("automate_token_prefix", "prefix", unique=True),
        _index("automate_token_user", "user_id"),
    ),
    _table(
        SESSION,
        # SHA-256 of the session's id, which its browser alone has. A session that has ended has no
        # row.
        Column("id", "text", _KEY),
        Column("user_name", "text", _NAME),
        Column("roles", "json"),
        Column("tenant_id", "text", _NAME, null=True),
        # The token that it was begun with: it ends with it, and has its roles.
        Column("token_id", "id", null=True),
        # How it was begun: ``token`` or ``oidc``; and from where.
        Column("method", "text", 32),
        Column("address", "text", _NAME, null=True),
        Column("agent", "text", _NAME, null=True),
        # It ends if it is not used until *expires_at*, which each use moves on, and at *ends_at*.
        *_columns("time", "created_at seen_at expires_at ends_at"),
        _index("automate_session_expires", "expires_at"),
        _index("automate_session_user", "user_name created_at"),
    ),
    _table(
        CONSENT,
        # A question to a person about an account at a service; SHA-256 of the state that the answer
        # brings back.
        Column("id", "text", _KEY),
        # SHA-256 over what the browser keeps (the verifier of PKCE), the user and the session.
        Column("digest", "text", _KEY),
        # The plugin, the tenant, the address of the question, and that of the answer.
        Column("asked", "json"),
        Column("expires_at", "time"),
        _index("automate_consent_expires", "expires_at"),
    ),
    _table(
        SAVED_QUERY,
        # SHA-256 over user, tenant, page and name: a user has a name once for a page.
        Column("id", "text", _KEY),
        Column("name", "text", _NAME),
        Column("page", "text", _KEY),
        # The query of the page's address.
        Column("query", "longtext"),
        Column("user_name", "text", _NAME),
        Column("tenant_id", "text", _NAME, null=True),
        # 1 if all users of the tenant see it.
        Column("shared", "int"),
        Column("created_at", "time"),
        _index("automate_saved_query_page", "page user_name"),
    ),
    _table(
        IDEMPOTENCY,
        # SHA-256 over the client and its key.
        Column("id", "text", _KEY),
        # SHA-256 of the request: another request with the same key is refused.
        Column("fingerprint", "text", _KEY),
        # The token of the request that is being answered, and until when it has the key at most.
        Column("lock", "text", 32, null=True),
        Column("locked_until", "time", null=True),
        # The answer, without secrets.
        Column("status_code", "int", null=True),
        Column("headers", "json"),
        Column("body", "json", null=True),
        *_columns("time", "created_at expires_at"),
        _index("automate_api_idempotency_old", "expires_at"),
    ),
    _table(
        DOCUMENT,
        # A workflow that people edit. Its text is in its versions.
        Column("id", "id"),
        # SHA-256 over tenant and name. NULLs differ, so an index of both would not do.
        Column("key", "text", _KEY),
        Column("name", "text", _NAME),
        Column("tenant_id", "text", _NAME, null=True),
        Column("enabled", "int"),
        # The number of the published version, and that of the latest.
        Column("version", "int", null=True),
        Column("latest", "int"),
        *_columns("time", "created_at updated_at"),
        _index("automate_document_key", "key", unique=True),
        _index("automate_document_name", "name"),
    ),
    _table(
        DOCUMENT_VERSION,
        *_columns("id", "id document_id"),
        Column("number", "int"),
        Column("format", "text", 8),
        Column("source", "longtext"),
        # What the source says, and its hash, which executions are pinned to.
        Column("definition", "json"),
        Column("digest", "text", _KEY),
        Column("restored_from", "int", null=True),
        Column("comment", "text", 500),
        Column("author", "text", _NAME),
        Column("created_at", "time"),
        # The last time that it was published; null for a draft.
        Column("published_at", "time", null=True),
        Column("published_by", "text", _NAME),
        _index("automate_version_number", "document_id number", unique=True),
    ),
    _table(
        DOCUMENT_STAMP,
        # One row, whose token changes with every change of a document. Workers look at it.
        Column("id", "text", 16),
        Column("token", "text", _KEY),
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}
