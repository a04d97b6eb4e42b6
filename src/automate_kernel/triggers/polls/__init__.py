"""Polls: events of services that send no webhooks, asked for at intervals."""

from __future__ import annotations

from automate_kernel.triggers.polls.spec import PolledEvent, PollResult, PollSpec, poll

__all__ = ["PollResult", "PollSpec", "PolledEvent", "poll"]
