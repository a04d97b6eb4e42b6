"""The composition root: one object that holds a host's plugins, secrets, workflows and storage."""

from __future__ import annotations

import inspect
from collections import deque

from automate_kernel.kernel.calling import Calling
from automate_kernel.kernel.working import Working
from automate_kernel.outbox import OutboxItem, RowsOutboxStore
from automate_kernel.outbox.handlers import Handler
from automate_kernel.secrets.redaction import EnteringRedaction
from automate_kernel.webhooks import ReplayLedger
from automate_kernel.workflows.runner import EVENT
from automate_kernel.workflows.state import ADVANCE
from automate_kernel.workflows.ticker import Ticker

__all__ = ["Kernel"]


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
