"""
A storm over events: the senders, the broker and the receivers are killed at random.

``python relay_storm.py FOLDER {"executions": 60, "kills": 12, …}`` prints what became of them, as JSON.
One installation emits events and relays them; another one subscribes and starts an execution for each.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError
from automate_kernel.relays import CloudEvent
from automate_nats import NatsRelay, NatsSubscription
from automate_sqlalchemy import SqlAlchemyStorage
from nats_storm import Storm, main
from nats_support import messages

KEYS = 10
STREAM = "STORM"
FLOW = {
    "name": "received",
    "trigger": {"type": "event", "event": "storm.*"},
    "steps": [{"id": "a", "action": "storm.note"}],
}


@dataclass
class RelayStorm(Storm):
    """One storm; the ``executions`` of it are events."""

    duplicate_seconds: float = 600.0
    other_url: str = ""

    def kernel(self) -> Kernel:
        """Return the kernel of the installation that sends."""
        relay = NatsRelay(
            self.server.url, stream=STREAM, subject="storm.{type}",
            duplicate_seconds=self.duplicate_seconds,
        )  # fmt: skip
        storage = SqlAlchemyStorage(sa.create_engine(self.url))
        return Kernel(
            storage, discover=False, lease_seconds=1.5,
            relays={"out": {"to": relay, "events": ["storm.*"]}},
        )  # fmt: skip

    def other(self) -> Kernel:
        """Return the kernel of the installation that receives."""
        came = NatsSubscription(self.server.url, stream=STREAM, ack_seconds=1.5)
        url = self.other_url or f"sqlite:///{self.folder / 'other.sqlite3'}"
        kernel = Kernel(
            SqlAlchemyStorage(sa.create_engine(url)), discover=False, lease_seconds=1.5,
            subscriptions={"in": came},
        )  # fmt: skip
        kernel.action("storm.note")(lambda: None)
        kernel.add_workflow(FLOW)
        return kernel

    def remote(self) -> None:
        """Be a worker of the installation that receives."""
        self.other().worker(poll_seconds=0.05, grace_seconds=1.0).run()

    def begin(self) -> None:
        """Make the tables of both."""
        for kernel in (self.kernel(), self.other()):
            kernel.storage.create_tables()  # type: ignore[attr-defined]
            kernel.close()

    def also(self) -> None:
        """Emit events while the others are killed: most with a key, whose order counts."""
        self.fork("emitter", self.emit)

    def emit(self) -> None:
        """Emit all events, over the time of the kills."""
        kernel = self.kernel()
        pause = self.kills * (self.pause + 0.15) / self.executions
        for n in range(self.executions):
            key = None if n % (KEYS + 1) == KEYS else f"k{n % (KEYS + 1)}"
            while True:
                try:
                    kernel.emit(
                        "storm.happened", {"n": n}, ordering_key=key, idempotency_key=f"{n}"
                    )
                    break
                except StorageError:  # SQLite is locked: it has one writer
                    time.sleep(0.05)
            time.sleep(pause)
        kernel.close()

    def ends(self) -> dict[str, Any]:
        """Wait until all has arrived, and return what became of the events."""

        def look() -> dict[str, Any]:
            one, other = self.kernel(), self.other()
            ends_at, done = time.monotonic() + self.patience, 0
            while done < self.executions and time.monotonic() < ends_at:
                time.sleep(0.2)
                done = len(other.executions.find(status="COMPLETED", limit=10_000))
            time.sleep(0.5)
            items = one.outbox.find(kind="automate.event", limit=10_000)
            started = Counter(
                each.event.payload["n"] for each in other.executions.find(limit=10_000)
            )
            return {
                "emitted": len(items),
                "failed": len(one.outbox.find(status="FAILED", limit=100)),
                "ids": [item.id for item in items],
                "not started": sum(n not in started for n in range(self.executions)),
                "started twice": sum(number > 1 for number in started.values()),
            }

        found = self.seen(look)
        texts = asyncio.run(messages(self.server.url, STREAM))
        events = [CloudEvent.from_text(text) for _, text in texts]
        ids = Counter(event.id for event in events)
        disordered = 0
        for key in {event.partition_key for event in events} - {None}:
            firsts = dict.fromkeys(e.data["n"] for e in events if e.partition_key == key)
            disordered += sum(b < a for a, b in zip(firsts, list(firsts)[1:], strict=False))
        return {
            "emitted": found["emitted"], "failed": found["failed"],
            "lost": len(set(found["ids"]) - set(ids)),
            "twice": sum(number > 1 for number in ids.values()), "out of order": disordered,
            "not started": found["not started"], "started twice": found["started twice"],
            "kills": dict(self.killed),
        }  # fmt: skip


if __name__ == "__main__":
    main(RelayStorm)
