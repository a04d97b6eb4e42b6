"""What the tables and columns mean."""

from __future__ import annotations

__all__ = ["COLUMN_NOTES", "DJANGO_TABLES_INTRODUCTION", "TABLES_INTRODUCTION", "TABLE_NOTES"]

DJANGO_TABLES_INTRODUCTION = """\
What a Django project has beside them, for the admin, the API and Django's tasks. The kernel knows
nothing of them."""

TABLES_INTRODUCTION = """\
The same tables whichever adapter made them: `automate_sqlalchemy.metadata`, Django's migrations and
the memory storage are all built from `automate_kernel.storage.tables`, and a test compares them.

Types: `id` is a UUID (`uuid` on PostgreSQL, 32 hex digits elsewhere), `json` is `jsonb` on
PostgreSQL, `time` is in UTC with microseconds. Where a database has no partial indexes, it has the
index of all rows, which begins with the columns of the condition that have a value in it."""

TABLE_NOTES = {
    "automate_outbox": """\
One unit of work each: an event, an execution's wake-up, or an item of the application's own.

```text
PENDING ─claim─▶ RUNNING ─success─▶ COMPLETED
                  │  ▲ └─failure, attempts spent─▶ FAILED ─requeue─▶ PENDING
           retry  ▼  │ claim, once due
                 RETRY             PENDING or RETRY ─cancel─▶ CANCELLED ─requeue─▶ PENDING
```""",
    "automate_failure": "A failed attempt of an item or of a step. The first of each and the "
    "latest are kept. [Debug failures](../howto/find-what-failed.md) shows them.",
    "automate_label": "A key of your application by which an item or an execution is found.",
    "automate_cause": "What failures come from, by kind of items or workflow, and when it was seen "
    "first. It is kept for a year after the last failure.",
    "automate_decision": "Decisions that people have made on approvals, kept as long as the audit "
    "trail.",
    "automate_approver": "Who may decide on an open approval: a row for each person and role.",
    "automate_execution_activity": "What became of executions and steps, by minute, worker and "
    "workflow; and summed up by 5 minutes, an hour and 6 hours. It is kept for a week.",
    "automate_ordering_lock": "A row exists while an item with its `ordering_key` runs.",
    "automate_outbox_slot": "A row exists while an item with its `concurrency_key` runs: the "
    "key has as many slots as may run at once.",
    "automate_outbox_pause": "The kinds that are paused, and workflows: `workflow:` and the name, "
    "with a line break and the tenant if it is for one.",
    "automate_outbox_limit": "The kinds of which only so many run at once, or start in a time; see "
    "[Operate the outbox: pause, limit, retry, purge](../howto/steer-the-outbox.md).",
    "automate_definition": "Every workflow definition that an execution was started with.",
    "automate_execution": """\
One run of a workflow for one event.

```text
PENDING ─▶ RUNNING ─┬▶ COMPLETED
  ▲          ▲      ├▶ FAILED ─resume─▶ PENDING
  ▼          ▼      └▶ CANCELLED
PAUSED     PAUSED

PENDING, RUNNING, PAUSED ─cancel─▶ CANCELLING ─cleaned up─▶ CANCELLED
```

What undoes a step has a row too: its `step_id` is `<step>.compensate`.""",
    "automate_step": """\
One row per step of an execution, and one more per element of `for_each`.

```text
PENDING ◀▶ RUNNING ─┬▶ COMPLETED
  │ │        ▲ ▼    ├▶ FAILED
  │ │       RETRY   ├▶ CANCELLED
  │ └▶ WAITING ─────┘
  └▶ SKIPPED
```""",
    "automate_webhook_delivery": "The accepted deliveries of webhooks and polls, to recognise "
    "repetitions.",
    "automate_refused_delivery": "Webhook deliveries that started nothing, with the reason. "
    "Deliveries with the same reason share a row, and a trigger has at most 20 rows.",
    "automate_schedule": "When each schedule fired last.",
    "automate_wait": "One row per step that waits for an event, a signal, an approval or another "
    "workflow.",
    "automate_signal": "Signals that have come: those to one execution, events that some workflow "
    "waits for, approvals, and the ends of workflows that others wait for.",
    "automate_awaited": "The events that some workflow waits for, by the field that each is "
    "told by.",
    "automate_poll": "The polls of connectors: where each goes on from, and how it fares; see "
    "[Poll a service](../howto/poll-a-service.md).",
    "automate_budget": "What an execution, or a tenant in a day, has spent of a budget; see "
    "[Budgets](../howto/language-models.md#budgets).",
    "automate_audit": "What people did, or were refused; see "
    "[Log in](../howto/log-in.md). "
    "No payload is in it. It is kept for a year unless you say otherwise.",
    "automate_token": "The tokens of people and services; see [Log in](../howto/log-in.md).",
    "automate_session": "The sessions of people on the pages. A session that has ended has no row.",
    "automate_api_idempotency": "The answers to requests with an `Idempotency-Key`; see "
    "[The API for clients](../howto/api.md#repeated-requests).",
    "automate_consent": "Questions to people about accounts at services, until they are answered.",
    "automate_saved_query": "The queries of lists that people keep under a name.",
    "automate_workflow_document": "The workflows that people edit. Their texts are in their "
    "versions; see [Edit workflows](../howto/edit-workflows.md).",
    "automate_workflow_version": "Every version of these workflows. Its text never changes.",
    "automate_workflow_stamp": "One row, by which workers learn of changes of these workflows.",
    "automate_debounce": "The executions of debounced workflows that wait for the last event.",
    "automate_worker": "The workers that run, as they last reported; see "
    "[Metrics, traces, logs and health](../howto/observe.md).",
    "automate_activity": "What each worker did to items of each kind, minute by minute. It alone "
    "writes its rows.",
}

COLUMN_NOTES = {
    ("automate_api_idempotency", "id"): "a hash of who asked, and of the `Idempotency-Key`",
    ("automate_api_idempotency", "fingerprint"): "a hash of method, path, query and body",
    ("automate_api_idempotency", "lock"): "whose request is running",
    ("automate_api_idempotency", "locked_until"): "until when at most",
    ("automate_api_idempotency", "status_code"): "of the answer",
    ("automate_api_idempotency", "headers"): "of the answer",
    ("automate_api_idempotency", "body"): "the answer, without secrets",
    ("automate_api_idempotency", "expires_at"): "when the row may be deleted",
    ("automate_audit", "actor_id"): "what distinguishes users of one name: a user's key, a "
    "token's prefix",
    ("automate_audit", "actor"): "the user's name then",
    ("automate_audit", "action"): "`cancel`, `log-in`, `add`, `export`, …",
    ("automate_audit", "model"): "the kind of object: `execution`, or the label of a model",
    ("automate_audit", "object_id"): "the object's key",
    ("automate_audit", "object_repr"): "what the object was called then",
    ("automate_audit", "outcome"): "`done`, `nothing` to do, `refused`, `failed`, or `asked`: then "
    "it is not known whether it was done",
    ("automate_audit", "changes"): "by field, what it was and is; of a secret only that it changed",
    ("automate_audit", "details"): "more about the action, such as the filter and how many",
    ("automate_token", "name"): "whose it is, or what it is for",
    ("automate_token", "prefix"): "its first characters, to distinguish tokens",
    ("automate_token", "digest"): "SHA-256 of the token, which is not stored",
    ("automate_token", "user_id"): "the user of a Django project that it acts for; null: a "
    "service's",
    ("automate_token", "all_tenants"): "1 if it is an operator's, for all tenants",
    ("automate_token", "roles"): "what it may do on the pages and in the API",
    ("automate_token", "scopes"): "what it opens in the API beside that",
    ("automate_token", "expires_at"): "until when; null: for ever",
    ("automate_token", "last_used_at"): "when it was used last, to the minute or so",
    ("automate_token", "revoked_at"): "when it was ended",
    ("automate_session", "id"): "SHA-256 of the session's id, which its browser alone has",
    ("automate_session", "user_name"): "the user",
    ("automate_session", "roles"): "the user's roles; of a token's session the token's count",
    ("automate_session", "tenant_id"): "the user's tenant; null: all",
    ("automate_session", "token_id"): "the token that it was begun with, and ends with",
    ("automate_session", "method"): "`token` or `oidc`",
    ("automate_session", "address"): "where it was begun from",
    ("automate_session", "agent"): "the browser, as it names itself",
    ("automate_session", "seen_at"): "when it was used last, to the minute or so",
    ("automate_session", "expires_at"): "until when it must be used to go on",
    ("automate_session", "ends_at"): "when it ends in any case",
    ("automate_consent", "id"): "SHA-256 of the state that the answer brings back",
    ("automate_consent", "digest"): "SHA-256 over what the browser keeps, the user and the session",
    ("automate_consent", "asked"): "the plugin, the tenant, and both addresses",
    ("automate_consent", "expires_at"): "until when an answer counts",
    ("automate_saved_query", "id"): "SHA-256 over tenant, user, page and name",
    ("automate_saved_query", "name"): "what the user calls it",
    ("automate_saved_query", "page"): "`executions`, `outbox`",
    ("automate_saved_query", "query"): "the query of the page's address",
    ("automate_saved_query", "user_name"): "whose it is",
    ("automate_saved_query", "shared"): "1 if all users of the tenant see it",
    ("automate_import", "id"): "a random UUID",
    ("automate_import", "owner"): "a hash of the user who uploaded it",
    ("automate_import", "filename"): "what the file was called",
    ("automate_import", "format"): "`csv` or `json`",
    ("automate_import", "content"): "the file; it is deleted after an hour",
    ("automate_workflow_document", "key"): "a hash of tenant and name, so that both are unique",
    ("automate_workflow_document", "name"): "the workflow's name",
    ("automate_workflow_document", "enabled"): "1 if events start it",
    ("automate_workflow_document", "version"): "the number of the published version; null: none",
    ("automate_workflow_document", "latest"): "the number of the version that was saved last",
    ("automate_workflow_version", "document_id"): "the workflow",
    ("automate_workflow_version", "number"): "counted from 1 within the workflow",
    ("automate_workflow_version", "format"): "`yaml` or `json`",
    ("automate_workflow_version", "source"): "the text as it was written",
    ("automate_workflow_version", "definition"): "what it says, as JSON",
    ("automate_workflow_version", "digest"): "SHA-256 of what it says, as in `automate_definition`",
    ("automate_workflow_version", "restored_from"): "the version that it says again",
    ("automate_workflow_version", "comment"): "the author's",
    ("automate_workflow_version", "author"): "who saved it",
    ("automate_workflow_version", "published_at"): "when it was published last; null for a draft",
    ("automate_workflow_version", "published_by"): "who published it",
    ("automate_workflow_stamp", "id"): "`workflows`",
    ("automate_workflow_stamp", "token"): "changes with every change of a workflow",
    ("automate_task_result", "id"): "that of the outbox item",
    ("automate_task_result", "task"): "the path of the function",
    ("automate_task_result", "attempt"): "attempts begun",
    ("automate_task_result", "worker_ids"): "who began them",
    ("automate_task_result", "errors"): "class and redacted traceback of each attempt that raised",
    ("automate_task_result", "return_value"): "what it returned, as JSON",
    ("automate_task_result", "started_at"): "when its first attempt began",
    ("automate_task_result", "last_attempted_at"): "when its last one began",
    ("automate_task_result", "finished_at"): "when it ended",
    ("*", "created_at"): "when the row was made, on the database's clock",
    ("*", "updated_at"): "when it was changed last",
    ("*", "completed_at"): "when it reached a final state",
    ("*", "tenant_id"): "whose it is",
    ("*", "error_code"): "an [error code](errors.md)",
    ("*", "error"): "the error's text, redacted",
    ("*", "output"): "what it gave, redacted",
    ("automate_outbox", "id"): "UUIDv7, made by the client",
    ("automate_outbox", "kind"): "which handler it is for",
    ("automate_outbox", "payload"): "the handler's data, at most 1,000,000 bytes of JSON",
    ("automate_outbox", "headers"): "the application's own, such as a trace context",
    ("automate_outbox", "status"): "see the drawing",
    ("automate_outbox", "waiting_for"): "what a waiting item waits for: `worker` (ready to be "
    "claimed), `time` (not due), `key` (its ordering or concurrency key is busy), `resume` (its "
    "kind, its execution or its workflow is paused); on a running one `cancel` asks it to stop and "
    "`release` to be put back and taken up again; else null",
    ("automate_outbox", "priority"): "higher goes first; a point is worth an hour of waiting",
    ("automate_outbox", "attempt_count"): "attempts begun, counted at the claim",
    ("automate_outbox", "max_attempts"): "after so many it is FAILED",
    ("automate_outbox", "next_attempt_at"): "when it is due",
    ("automate_outbox", "sort_at"): "the claim order: the due time, an hour earlier per point of "
    "priority",
    ("automate_outbox", "lease_owner"): "the worker that has it",
    ("automate_outbox", "lease_token"): "the claim's fence; it stays on the finished row",
    ("automate_outbox", "lease_expires_at"): "until when the worker has it",
    (
        "automate_outbox",
        "idempotency_key",
    ): "unique: a second item with it is not added; the tenant stands in front of it",
    (
        "automate_outbox",
        "ordering_key",
    ): "of its items one runs at a time, in order; with the tenant in front",
    (
        "automate_outbox",
        "concurrency_key",
    ): "of its items so many run at once; with the tenant in front",
    ("automate_outbox", "concurrency_limit"): "how many",
    (
        "automate_outbox",
        "lane",
    ): "the part of a kind and tenant that takes turns in claims: an execution's "
    "workflow, an event's name, or null",
    ("automate_outbox", "last_error_code"): "of the last failed attempt",
    ("automate_outbox", "last_error"): "its text, redacted",
    ("automate_ordering_lock", "ordering_key"): "the key that is busy",
    ("automate_ordering_lock", "item_id"): "the item that runs",
    ("automate_ordering_lock", "lease_token"): "of its claim",
    ("automate_outbox_slot", "id"): "the slot's number and the key",
    ("automate_outbox_slot", "concurrency_key"): "the key",
    ("automate_outbox_slot", "item_id"): "the item that runs",
    ("automate_outbox_slot", "lease_token"): "of its claim",
    ("automate_outbox_limit", "kind"): "the kind that is limited",
    ("automate_outbox_limit", "concurrency"): "how many run at once",
    ("automate_outbox_limit", "rate"): "how many start in the time",
    ("automate_outbox_limit", "per_milliseconds"): "that time",
    ("automate_outbox_limit", "burst"): "starts at once after a lull; null: as many as `rate`",
    ("automate_outbox_limit", "declared"): "1 if a handler declares it, 0 if it is an operator's",
    ("automate_outbox_limit", "full_at"): "when the starts so far are made up for",
    ("automate_outbox_pause", "kind"): "items of this kind are not claimed",
    ("automate_outbox_pause", "reason"): "for people",
    ("automate_definition", "id"): "SHA-256 of what the definition says",
    ("automate_definition", "name"): "the workflow's name",
    ("automate_definition", "body"): "the definition as JSON",
    ("automate_execution", "id"): "made from the event's id and the workflow's name, so that an "
    "event starts a workflow once",
    ("automate_execution", "workflow"): "its name",
    ("automate_execution", "definition_id"): "the definition that it is pinned to",
    ("automate_execution", "status"): "see the drawing",
    ("automate_execution", "event"): "the event that started it",
    ("automate_execution", "labels"): "those that the workflow has set, beside its event's",
    ("automate_execution", "item_id"): "the outbox item that is its wake-up",
    ("automate_step", "id"): "UUIDv7",
    ("automate_step", "execution_id"): "the execution",
    ("automate_step", "step_id"): "the step's id in the workflow",
    ("automate_step", "position"): "which element of `for_each`, or round; -1 for the step itself",
    ("automate_step", "status"): "see the drawing",
    ("automate_step", "attempts"): "calls begun",
    ("automate_step", "failures"): "attempts that failed; not those whose worker died",
    ("automate_step", "started_at"): "when its first attempt began",
    ("automate_step", "attempted_at"): "when its latest attempt began",
    ("automate_step", "worker_id"): "the worker that made its latest attempt",
    ("automate_step", "trace"): "where its error was raised: files and lines, no values",
    ("automate_step", "next_attempt_at"): "when a retry is due",
    ("automate_webhook_delivery", "id"): "SHA-256 over tenant, connector, trigger and delivery id",
    ("automate_webhook_delivery", "connector"): "the connector's key",
    ("automate_webhook_delivery", "trigger_name"): "the trigger",
    ("automate_webhook_delivery", "item_id"): "the outbox item that it became",
    ("automate_webhook_delivery", "received_at"): "when it was accepted",
    ("automate_webhook_delivery", "redeliveries"): "how often its event was emitted again; "
    "null for another id of the same delivery",
    ("automate_webhook_delivery", "redelivered_at"): "when that was last",
    ("automate_refused_delivery", "id"): "SHA-256 over the next four",
    (
        "automate_refused_delivery",
        "connector",
    ): "its key; empty for an unknown connector",
    ("automate_refused_delivery", "trigger_name"): "the trigger; empty for an unknown trigger",
    ("automate_refused_delivery", "outcome"): "`refused`, `failed`, `ignored` or `repeated`",
    ("automate_refused_delivery", "reason"): "why, without secrets, and without the body",
    ("automate_refused_delivery", "times"): "how often",
    ("automate_refused_delivery", "first_at"): "when it was so for the first time",
    ("automate_refused_delivery", "received_at"): "when it was so for the last time",
    ("automate_schedule", "id"): "the workflow's name and which of its triggers it is",
    ("automate_schedule", "last_fired_at"): "the schedule's time that was fired last",
    ("automate_schedule", "paused_at"): "when it was paused; null while it fires",
    ("automate_schedule", "execution_id"): "the execution that it started last",
    ("automate_wait", "id"): "of the execution, the step and the position",
    ("automate_wait", "key"): "SHA-256 over what is waited for",
    ("automate_wait", "about"): "`event`, `signal`, `approval` or `workflow`",
    ("automate_wait", "execution_id"): "the execution that waits",
    ("automate_wait", "step_id"): "the step that waits",
    ("automate_wait", "position"): "the element of `for_each`, or -1",
    ("automate_wait", "tenant_id"): "the execution's tenant",
    (
        "automate_wait",
        "details",
    ): "what people are shown: of an approval its title, form and who may decide",
    ("automate_wait", "created_at"): "when the wait began",
    ("automate_wait", "expires_at"): "when it ends by itself",
    ("automate_signal", "id"): "of the item that brings it, or of both keys",
    ("automate_signal", "key"): "SHA-256 over what it answers",
    ("automate_signal", "event"): "the event",
    ("automate_signal", "received_at"): "when it was accepted",
    ("automate_signal", "execution_id"): "the execution that it was sent to, or the first of its "
    "chain",
    ("automate_awaited", "id"): "SHA-256 over name and field",
    ("automate_awaited", "name"): "the event's name",
    (
        "automate_awaited",
        "field",
    ): "the field of its payload that tells which is meant; empty for any",
    ("automate_awaited", "created_at"): "when it was waited for first",
    ("automate_poll", "id"): "SHA-256 over connector, poll and tenant",
    ("automate_poll", "connector"): "the connector's key",
    ("automate_poll", "trigger_name"): "the poll's name; its events are `connector.name`",
    ("automate_poll", "tenant_id"): "the tenant for whose workflows it asks; null for everybody's",
    ("automate_poll", "poll_cursor"): "where the next call goes on from",
    ("automate_poll", "next_at"): "when it is called next",
    ("automate_poll", "claim_token"): "the fence of the call that is going on",
    ("automate_poll", "claimed_until"): "when another worker may call it",
    ("automate_poll", "polled_at"): "when a call ended last, well or not",
    ("automate_poll", "event_at"): "when a call brought events last",
    ("automate_poll", "paused_at"): "when it was paused; null while it goes on",
    ("automate_poll", "failures"): "the calls that failed since one went well",
    ("automate_poll", "error_code"): "the code of the last failure",
    ("automate_poll", "error"): "its message, without secrets",
    ("automate_poll", "created_at"): "when a workflow listened to it first",
    (
        "automate_budget",
        "id",
    ): "SHA-256 over the name and the execution, or the name, the day and the tenant",
    ("automate_budget", "name"): "the key of the plugin whose budget it is;"
    " `calls to a service` for a rate limit",
    ("automate_budget", "tenant_id"): "the tenant; null for all that have none",
    ("automate_budget", "execution_id"): "the execution that no other waits for; null for a day",
    ("automate_budget", "spent"): "amounts by their units",
    ("automate_budget", "reserved"): "the amounts of calls that go on, and until when at most",
    ("automate_budget", "ends_at"): "the end of the day; null for an execution;"
    " of a rate limit, when it has its full burst again",
    ("automate_debounce", "id"): "SHA-256 over workflow, tenant and key",
    ("automate_debounce", "execution_id"): "the execution that waits",
    ("automate_debounce", "created_at"): "when it began to wait",
    ("automate_execution", "parent_id"): "the execution whose step waits for this one",
    (
        "automate_execution",
        "chain_id",
    ): "the first execution of its chain, of one that continues another as new",
    (
        "automate_execution",
        "successor_id",
    ): "the execution that has continued this one as new",
    (
        "automate_execution",
        "events_since",
    ): "the time from which events count: when that was sent which has begun it",
    (
        "automate_execution",
        "events_taken",
    ): "what those before it have taken, by key: the last time, and its signals",
    (
        "automate_execution",
        "concurrency_key",
    ): "workflow and key of those of which only so many may go on at once",
    (
        "automate_execution",
        "seed",
    ): "what `ctx.random()` and `ctx.uuid()` follow from, of a fork; null is its own id",
    ("automate_execution", "output_ref"): "the place of an output that is too large for the column",
    ("automate_step", "place"): "the line of code that asked for it, of a workflow that is code",
    ("automate_step", "progress"): "what the call reports of itself while it runs",
    ("automate_step", "output_ref"): "the place of an output that is too large for the column",
    ("automate_worker", "id"): "the worker's name, as in `lease_owner`",
    ("automate_worker", "host"): "the machine",
    ("automate_worker", "pid"): "the process",
    ("automate_worker", "started_at"): "when it was first heard of",
    ("automate_worker", "seen_at"): "when it was last heard of",
    ("automate_worker", "kinds"): "what it has handlers for",
    ("automate_worker", "slots"): "how many handlers it can run at once",
    ("automate_worker", "in_flight"): "how many items it holds",
    ("automate_worker", "stopping"): "1 if it claims nothing more",
    ("automate_activity", "id"): "UUIDv7",
    ("automate_activity", "at"): "the minute, on the database's clock",
    ("automate_activity", "worker_id"): "the worker",
    ("automate_activity", "kind"): "the kind of item",
    ("automate_activity", "completed"): "items finished",
    ("automate_activity", "retried"): "attempts that failed and are to be repeated",
    ("automate_activity", "failed"): "items given up",
    ("automate_activity", "lost"): "leases of others that ended, and were taken back by this one",
    ("automate_activity", "run_times"): "how long handlers ran: the sum in seconds, and how many "
    "in each bucket, of which *i* ends at 10^(*i*/10) s",
    ("automate_activity", "wait_times"): "how long items were due before they were begun, likewise",
    ("automate_outbox", "last_error_group"): "type and place of the last error, by which errors "
    "are grouped",
    ("automate_execution", "error_group"): "type and place of its error",
    ("automate_step", "error_group"): "type and place of its error",
    ("automate_worker", "problem"): "why its processes end before they can work; null: they work",
    ("automate_failure", "id"): "UUIDv7",
    ("automate_failure", "subject_id"): "the item or the execution",
    ("automate_failure", "step_id"): "the step that failed; null for an item",
    ("automate_failure", "position"): "which element of `for_each`; -1 for the step itself",
    ("automate_failure", "attempt"): "which attempt it was",
    ("automate_failure", "error_code"): "the error's code",
    ("automate_failure", "error_group"): "type and place of the error",
    ("automate_failure", "error"): "the error's text, without secrets",
    ("automate_failure", "trace"): "where it was raised: files and lines, no values",
    ("automate_failure", "failed_at"): "when",
    ("automate_failure", "started_at"): "when it began; null for an item",
    ("automate_failure", "worker_id"): "the worker that made it",
    ("automate_label", "id"): "of the item or execution and the name: a label has one value",
    ("automate_label", "name"): "the label's name",
    ("automate_label", "value"): "its value",
    ("automate_label", "subject_id"): "the item or the execution",
    ("automate_label", "about"): "`item` or `execution`",
    ("automate_label", "created_at"): "when",
    ("automate_cause", "id"): "SHA-256 over the next three",
    ("automate_cause", "about"): "`item` or `execution`",
    ("automate_cause", "kind"): "the kind of items, or the workflow",
    ("automate_cause", "error_group"): "the type and place of the errors",
    ("automate_cause", "first_at"): "when the first of them failed",
    ("automate_cause", "last_at"): "when there were such failures last, to a day",
    ("automate_decision", "id"): "its id",
    ("automate_decision", "execution_id"): "the execution that asked, which may be deleted by now",
    ("automate_decision", "step_id"): "the step that asked",
    ("automate_decision", "position"): "the element of `for_each`; else -1",
    ("automate_decision", "workflow"): "its workflow",
    ("automate_decision", "title"): "the question",
    ("automate_decision", "approved"): "1 if it was approved, 0 if it was rejected",
    ("automate_decision", "decided_by"): "the person, or the entry of a link",
    ("automate_decision", "comment"): "the first 500 characters of the comment",
    ("automate_decision", "tenant_id"): "the execution's tenant",
    ("automate_decision", "decided_at"): "when it was decided",
    ("automate_approver", "id"): "of the wait and the name",
    ("automate_approver", "wait_id"): "the wait in `automate_wait`",
    ("automate_approver", "who"): "a person, a role as `role:NAME`, or empty for everybody",
    ("automate_approver", "tenant_id"): "the execution's tenant",
    ("automate_approver", "created_at"): "when the step asked",
    ("automate_execution_activity", "id"): "UUIDv7",
    ("automate_execution_activity", "at"): "the minute, on the database's clock",
    ("automate_execution_activity", "worker_id"): "the worker; null for an execution that ended "
    "otherwise than in a worker's hands",
    ("automate_execution_activity", "workflow"): "the workflow's name",
    ("automate_execution_activity", "started"): "executions begun",
    ("automate_execution_activity", "completed"): "executions that ended COMPLETED",
    ("automate_execution_activity", "failed"): "executions that ended FAILED",
    ("automate_execution_activity", "cancelled"): "executions that were cancelled",
    ("automate_execution_activity", "run_times"): "how long they took, as in `automate_activity`",
    ("automate_execution_activity", "steps_completed"): "steps finished",
    ("automate_execution_activity", "steps_retried"): "attempts that failed and are to be repeated",
    ("automate_execution_activity", "steps_failed"): "steps that failed for good",
    ("automate_execution_activity", "step_times"): "how long steps took, likewise",
    ("automate_execution_activity", "actions"): "outcomes and times of steps by their actions",
    ("automate_execution_activity", "waits"): "numbers and times of ended waits by their reasons",
    ("automate_execution_activity", "minutes"): "the length of its time: 1, or 5, 60 and 360 for "
    "the sums of all workers",
}
