"""Executions that continue each other take each event once, whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest

from automate_kernel import Kernel
from automate_kernel.storage import MemoryStorage
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.waits import ADVANCE
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

ACTS = st.one_of(
    st.tuples(st.just("emit"), st.sampled_from([1, 2])),
    st.tuples(st.just("later"), st.sampled_from([0.5, 60, 4000])),
    st.tuples(
        st.sampled_from(["pause", "unpause", "purge", "run", "advance", "signals"]), st.none()
    ),
)
WORKFLOW = {
    "name": "chain",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "one", "wait_for": {"event": "paid", "match": {"order": 1}}, "needs": []},
        {"id": "two", "wait_for": {"event": "paid", "match": {"order": 2}}, "needs": []},
        {"id": "note", "action": "note", "input": {"n": "{{ steps.one.output.payload.n }}"},
         "needs": ["one"]},
        {"id": "note-two", "action": "note", "input": {"n": "{{ steps.two.output.payload.n }}"},
         "needs": ["two"]},
        {"id": "next", "continue_as_new": {}, "needs": ["note", "note-two"]},
    ],
}  # fmt: skip


@settings(max_examples=examples(100))
@given(st.lists(ACTS, max_size=30))
def test_a_chain_takes_each_event_once(acts: list[tuple[str, Any]]) -> None:
    """Of each order the events in which they came, as many as there were of both."""
    clock = FakeClock()
    with Kernel(MemoryStorage(clock), discover=False, secrets={}) as kernel:
        taken: list[int] = []

        @kernel.action
        def note(n: int) -> None:
            taken.append(n)

        kernel.add_workflow(WORKFLOW)
        kernel.start("chain")
        kernel.run_until_idle()
        sent: dict[int, list[int]] = {1: [], 2: []}
        for number, (act, value) in enumerate(acts):
            if act == "emit":
                kernel.emit("paid", {"order": value, "n": number})
                sent[value].append(number)
            elif act == "later":
                clock.advance(value)
            elif act in ("pause", "unpause"):
                steer = getattr(kernel.executions, act)
                for one in kernel.executions.find():
                    if not one.status.finished:
                        steer(one.id)
            elif act == "purge":
                kernel.executions.signals.purge()
            elif act == "advance":
                kernel.run_until_idle(kinds=[ADVANCE])
            elif act == "signals":
                kernel.run_until_idle(exclude_kinds=[ADVANCE])
            else:
                kernel.run_until_idle()
        for one in kernel.executions.find():
            if one.status == "PAUSED":
                kernel.executions.unpause(one.id)
        kernel.run_until_idle()
        # The last execution waits for the rest of the other order.
        pairs = min(map(len, sent.values()))
        for its in sent.values():
            assert [n for n in taken if n in its] == its[: pairs + 1]


@pytest.mark.parametrize("waiting", ["100", "001", "010", "0010"])
def test_a_link_that_waits_for_nothing_forgets_nothing(waiting: str) -> None:
    """What those before it have taken answers none of those after it, which may begin at once."""
    with Kernel(MemoryStorage(FakeClock()), discover=False, secrets={}) as kernel:
        taken: list[int] = []

        @kernel.action
        def note(n: int) -> None:
            assert len(taken) < 20, "it goes on for ever"
            taken.append(n)

        waits = f"{{{{ '{waiting}'[event.payload.link % {len(waiting)}] == '1' }}}}"
        kernel.add_workflow({
            "name": "chain",
            "trigger": {"type": "manual"},
            "steps": [
                {"id": "take", "wait_for": {"event": "paid", "match": {"order": 1}}, "if": waits},
                {"id": "note", "action": "note", "if": waits,
                 "input": {"n": "{{ steps.take.output.payload.n }}"}},
                {"id": "next", "continue_as_new": {"link": "{{ event.payload.link + 1 }}"}},
            ],
        })  # fmt: skip
        kernel.start("chain", {"link": 0})
        for number in range(6):
            # Of two that come at once the second is there while the links between them begin.
            kernel.emit("paid", {"order": 1, "n": number})
            if number % 3:
                kernel.run_until_idle()
        assert taken == [*range(6)]
