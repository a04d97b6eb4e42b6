"""Requests that are believed, and start nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Ignored"]


@dataclass(frozen=True, slots=True)
class Ignored:
    """
    The answer to a webhook that is accepted and starts nothing.

    A connector's `parse_webhook` returns it in place of a payload. *reason* is told to the sender
    and to the log. *answer*, a JSON object, is the whole body of the answer, for services that
    wait for a certain one.
    """

    reason: str = "it starts nothing here"
    answer: Mapping[str, Any] | None = field(default=None, hash=False)
