"""Workers, and what they tell."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from automate_kernel.errors import AutomateError, ConfigError, ErrorCodes, StorageError
from automate_kernel.kernel.entering import Entering
from automate_kernel.kernel.keeping import Keeping
from automate_kernel.kernel.registering import Registering
from automate_kernel.logs import get_logger
from automate_kernel.outbox import NewItem, OutboxItem, OutboxReaper
from automate_kernel.outbox.activity import ActivityLog
from automate_kernel.outbox.chores import Chore
from automate_kernel.outbox.handlers import Handler
from automate_kernel.outbox.inline import run_inline
from automate_kernel.outbox.item import ItemStatus
from automate_kernel.outbox.labels import checked_labels
from automate_kernel.outbox.worker import Worker, WorkerStats
from automate_kernel.storage import Rows
from automate_kernel.storage.migration import require_schema
from automate_kernel.workflows.execution import Execution
from automate_kernel.workflows.runner import EVENT
from automate_kernel.workflows.state import ADVANCE
from automate_kernel.workflows.ticker import Ticker

__all__ = ["Working"]

logger: logging.Logger = get_logger(__name__)


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
        chores = [
            Chore("reaper", min(60.0, max(0.5, lease / 4)), reaper.reap_stale_items),
            Chore("schedules", 1.0, self._ticker.tick),
            Chore("failures", 1.0, self._tell_given_up),
            Chore("reports", 3600.0, self.outbox.purge_reports),
            Chore("execution reports", 3600.0, self.executions.purge_activity),
        ]
        kept = self._kept(retention_seconds, failed_retention_seconds)
        if kept != (None, None):
            chores.append(Chore("purge", 60.0, partial(self._sweep, *kept)))
        options.setdefault("describe", self.redactor.redact_exception)
        options.setdefault("redact", self.redactor.redact)
        options.setdefault("also_report", partial(self.executions.report, self._runner.log))
        options.setdefault("preflight", partial(require_schema, self.storage))
        chores += options.pop("chores", ())
        handlers = self._chosen(kinds, exclude_kinds)
        return Worker(self.outbox, handlers, chores=chores, **options)

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
