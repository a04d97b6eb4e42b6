"""A relay in the memory of one process: for tests, and as an example for authors."""

from __future__ import annotations

from dataclasses import dataclass, field

from automate_kernel.base.errors import AutomateError, ErrorCodes, PayloadError
from automate_kernel.relays import CloudEvent, Relay


@dataclass
class MemoryTopic:
    """
    The events that several `MemoryRelay` have sent; a broker that drops repeats by their ids.

    With *available* False it can't be reached. A message has *largest* bytes at most.
    """

    available: bool = True
    largest: int = 1_000_000
    events: list[CloudEvent] = field(default_factory=list)
    """The events that others got, in order, each once."""
    repeats: int = 0
    """The number of events that were dropped because they came again."""


class MemoryRelay(Relay):
    """One process's connection to *topic*."""

    def __init__(self, topic: MemoryTopic | None = None) -> None:
        self.topic: MemoryTopic = topic or MemoryTopic()
        """The events that were sent."""

    async def send(self, event: CloudEvent) -> None:
        """Add an event, unless it is there."""
        if not self.topic.available:
            raise AutomateError(ErrorCodes.UNAVAILABLE, "the broker can't be reached")
        text = event.to_text()
        if len(text.encode()) > self.topic.largest:
            raise PayloadError(f"the broker takes messages of at most {self.topic.largest:,} bytes")
        # As a broker that keeps text would.
        sent = CloudEvent.from_text(text)
        if any((each.source, each.id) == (sent.source, sent.id) for each in self.topic.events):
            self.topic.repeats += 1
        else:
            self.topic.events.append(sent)

    async def problems(self) -> list[str]:
        """Say that the broker is away."""
        return [] if self.topic.available else ["the broker can't be reached"]
