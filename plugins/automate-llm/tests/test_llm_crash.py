"""Agents that are killed: at each commit, after each answer, while one is shown, and inside a tool."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llm_support import answers_given, calls, says, scripted

SCRIPT = Path(__file__).parent / "support" / "crashing_agent.py"
LONG = [pytest.mark.slow, pytest.mark.long]

Asked = dict[str, Counter[tuple[int, int]]]
"""The requests for each place of death: of which order, and after how many answers."""


def order_of(request: dict[str, Any]) -> int:
    asked = next(each["content"] for each in request["messages"] if each["role"] == "user")
    return int(asked.removeprefix("refund order "))


def clerk(request: dict[str, Any]) -> dict[str, Any]:
    """Look an order up, pay it back, and say what came of it."""
    given, number = answers_given(request), order_of(request)
    if given == 0:
        return calls(("desk_find", {"number": number}), text="I look the order up.")
    if given == 1:
        assert f"order {number} costs {number * 10}" in str(request["messages"][-1]["content"])
        return calls(("desk_refund", {"number": number}), text="I pay it back.")
    told = str(request["messages"][-1]["content"])
    return says("unknown" if "interrupted" in told else told)


def killed(
    folder: Path,
    shape: str,
    when: str,
    answer: Callable[[str, Any], Any] | None = None,
    *,
    every: int = 1,
    server: str | None = None,
) -> tuple[list[str], Asked]:
    """Kill agents at places of a kind; return the places, and what was asked for each."""

    def script(request: dict[str, Any]) -> dict[str, Any]:
        return clerk(request) if answer is None else answer(service.paths[-1], request)

    with scripted(script) as service:
        command = [sys.executable, str(SCRIPT), service.url, str(folder), shape, when, str(every)]
        command += [server] if server is not None else []
        subprocess.run(command, check=True, timeout=280)
        asked: Asked = {}
        for path, request in zip(service.paths, service.requests, strict=True):
            counted = asked.setdefault(path.split("/")[1], Counter())
            counted[order_of(request), answers_given(request)] += 1
    numbers = json.loads((folder / "result.json").read_text())
    return [f"{when}-{number}" for number in numbers], asked


def told_at(folder: Path, place: str, when: str = "after") -> dict[str, Any]:
    return json.loads((folder / place / "told.json").read_text())[when]


def refunds_at(folder: Path, place: str) -> list[str]:
    done = folder / place / "refund"
    return sorted(done.read_text().split()) if done.exists() else []


def unsaved_refunds(saved: list[str]) -> int:
    """How many refunds had begun whose outcome is in none of the steps that are *saved*."""
    begun = [each for each in saved if "refund-begin" in each]
    return sum(each.replace("refund-begin", "refund") not in saved for each in begun)


MANY = ("before", "after")
CASES = [
    *[pytest.param("alone", when, 1, marks=pytest.mark.slow) for when in ("answer", "tool")],
    *[
        # Those that start a server in each place try a third of them.
        pytest.param(
            shape, when, 3 if shape in ("http", "approved") and when in MANY else 1, marks=LONG
        )
        for shape, whens in {
            # A minute each: between them each shape dies in each kind of place that is its own.
            "alone": ["before", "after"],
            "gather": ["after", "tool"],
            "child": ["answer"],
            "mcp": ["tool", "find"],
            "http": ["tool", "find", "before"],
            "approved": ["tool", "after"],
            "stream": ["before", "tool"],
            "events": ["after", "tool"],
            "dynamic": ["after", "tool", "find"],
            "nested": ["after", "tool"],
        }.items()
        for when in whens
    ],
]
ON_POSTGRESQL = [
    pytest.param("alone", "answer", 1, marks=pytest.mark.slow),
    pytest.param("alone", "tool", 1, marks=pytest.mark.slow),
    pytest.param("alone", "after", 6, marks=pytest.mark.slow),
    pytest.param("alone", "before", 1, marks=LONG),
    pytest.param("gather", "after", 1, marks=LONG),
    pytest.param("stream", "before", 1, marks=LONG),
]


@pytest.mark.parametrize(("shape", "when", "every"), CASES)
def test_a_kill_repeats_no_saved_answer_and_no_refund(tmp_path, shape, when, every):
    """Three answers and two tools for an order: what was saved is never paid or done again."""
    nothing_is_repeated(tmp_path, shape, when, every)


@pytest.mark.parametrize(("shape", "when", "every"), ON_POSTGRESQL)
def test_nothing_is_repeated_on_postgresql_either(tmp_path, postgresql_server, shape, when, every):
    """There the dead one's connection may still be open, with a transaction in it."""
    nothing_is_repeated(tmp_path, shape, when, every, postgresql_server)


def nothing_is_repeated(
    tmp_path: Path, shape: str, when: str, every: int, server: str | None = None
) -> None:
    orders = [7, 8] if shape == "gather" else [7]
    once = Counter((order, given) for order in orders for given in range(3))
    places, asked = killed(tmp_path, shape, when, every=every, server=server)
    # Each step has a commit; those of the start and the end come to it.
    assert len(places) * every > 10 or when in ("answer", "tool", "find")
    assert len(places) == len(once) + 1 or when != "answer"
    unknown = 0
    for place in places:
        told, refunds, paid = told_at(tmp_path, place), refunds_at(tmp_path, place), asked[place]
        assert told["status"] == "COMPLETED", (place, told)
        lost = told["output"].count("unknown")
        unknown += lost
        # At most once: it is told to the model rather than made again.
        assert lost == unsaved_refunds(told_at(tmp_path, place, "before")["saved"]), place
        assert refunds == sorted(set(refunds)) and len(refunds) >= len(orders) - lost, place
        for order, output in zip(orders, told["output"], strict=True):
            assert output == "unknown" or (
                re.search(rf"refunded {order * 10}\b", output) and str(order) in refunds
            ), (place, told)
        # Twice only answers that had come and were not saved yet: of each run one, at most.
        again = paid - once
        assert set(paid) == set(once) and max(paid.values()) <= 2, (place, paid)
        # A commit may be of what was shown of one.
        saved = when in ("tool", "find") or (when == "after" and shape != "stream")
        flying = len(orders) - saved
        assert len(again) <= flying, (place, paid)
        assert len({order for order, _ in again}) == len(again), (place, paid)
        assert bool(again) or when != "answer" or place == places[-1], place
        assert all(len(set(steps)) == len(steps) for steps in told["steps"])
    if when == "tool":
        assert unknown >= 1


@pytest.mark.slow
@pytest.mark.long
def test_an_answer_whose_beginning_was_shown_is_shown_anew_as_another_attempt(tmp_path):
    """No model says the same twice: the parts of two answers are never mixed, and who looks can tell."""
    times: Counter[tuple[str, int]] = Counter()

    def forgetful(path: str, request: dict[str, Any]) -> dict[str, Any]:
        answer, key = clerk(request), (path, answers_given(request))
        times[key] += 1
        return {**answer, "content": f"{answer['content']}, for the time {times[key]}"}

    places, asked = killed(tmp_path, "stream", "part", forgetful)
    assert len(places) > 15
    mixed = 0
    for place in places[:-1]:
        seen, now = (told_at(tmp_path, place, when)["shown"] for when in ("before", "after"))
        assert sum(asked[place].values()) == 4 and refunds_at(tmp_path, place) == ["7"], place
        for step, shown in seen.items():
            assert shown["attempt"] == 1
            if now[step]["attempt"] == 1:  # its answer was saved, and is as it was shown
                assert now[step] == shown
            else:
                mixed += 1
                assert now[step]["attempt"] == 2 and now[step]["text"].endswith("time 2")
        assert "time 2, for" not in str(now) and list(now) == [
            "clerk-model", "clerk-model#2", "clerk-model#3"
        ]  # fmt: skip
    assert mixed > len(places) // 2
