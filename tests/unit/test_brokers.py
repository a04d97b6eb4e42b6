"""Brokers that do not answer, or fail: nobody waits for them for ever."""

from __future__ import annotations

import asyncio
import logging

import pytest
from automate_kernel import ErrorCodes
from automate_kernel.base.errors import AutomateError
from automate_kernel.operations import brokers


class Silent:
    """A broker that never answers."""

    async def problems(self) -> list[str]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


class Refusing:
    """A broker that refuses all."""

    async def problems(self) -> list[str]:
        """Refuse."""
        raise AutomateError(ErrorCodes.UNAVAILABLE, "NATS refuses the credentials")

    async def close(self) -> None:
        """Fail with a text that may hold a password."""
        raise ValueError("nats://user:hunter2@broker")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "_PATIENCE", 0.01)


def test_a_broker_that_does_not_answer_is_a_problem() -> None:
    """Doctor says so, where it would wait for ever."""
    assert asyncio.run(brokers.problems_of(Silent())) == ["the broker does not answer"]
    assert asyncio.run(brokers.problems_of(Refusing())) == ["NATS refuses the credentials"]


def test_all_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that hangs or fails holds up no other, and its error's text is not in the log."""
    closed = []

    class Well(Silent):
        async def close(self) -> None:
            closed.append(self)

    with caplog.at_level(logging.WARNING, "automate_kernel"):
        asyncio.run(brokers.close_all({"a": Silent(), "b": Refusing(), "c": Well()}))
    assert [each.getMessage() for each in caplog.records] == ["a: TimeoutError", "b: ValueError"]
    assert len(closed) == 1
