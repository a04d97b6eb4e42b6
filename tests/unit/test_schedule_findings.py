"""What the doctor says of schedules: who paused one at night wants to hear of it in the morning."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from workers import fire_due
from automate_kernel import Kernel
from automate_kernel.monitoring.diagnosis import Finding, schedule_findings
from automate_kernel.storage import MemoryStorage
from automate_kernel.storage.tables import SCHEDULE
from automate_testing.clock import FakeClock
from automate_kernel.workflows.store.catalogue import SuppliedWorkflow


@pytest.fixture(params=[1, 8, 30])
def clock(request: pytest.FixtureRequest) -> FakeClock:
    """A few minutes after the hour, when the jitter may not be over, or many."""
    return FakeClock(datetime(2030, 5, 1, 12, request.param, tzinfo=timezone.utc))


class Source:
    """The workflow, once for all and once for a tenant."""

    def stamp(self) -> int:
        return 1

    def load(self) -> list[SuppliedWorkflow]:
        definition = {
            "trigger": {"type": "schedule", "every": "1h", "jitter": "10m"},
            "steps": [{"id": "go", "action": "acts.go"}],
        }
        return [
            SuppliedWorkflow(name=name, definition=definition, tenant_id=tenant)
            for name, tenant in (("of_all", None), ("hourly", "acme"))
        ]


@pytest.fixture
def kernel(clock: FakeClock) -> Iterator[Kernel]:
    made = Kernel(MemoryStorage(clock), discover=False, secrets={}, workflow_source=Source())
    made.action("acts.go")(lambda: None)
    yield made
    made.close()


def findings(kernel: Kernel) -> list[Finding]:
    return schedule_findings(kernel, program="automate", idle_seconds=60)


def last_fired(kernel: Kernel, clock: FakeClock, ago: timedelta) -> None:
    """Both have fired for the last time so long ago."""
    with kernel.storage.begin() as rows:
        rows.update(SCHEDULE, [], {"last_fired_at": clock() - ago})


def test_all_is_well_while_they_fire(kernel: Kernel, clock: FakeClock) -> None:
    """Also before a worker has looked at them for the first time, and within the jitter."""
    assert [(each.state, each.text) for each in findings(kernel)] == [
        ("ok", "2 schedules, on time")
    ]
    kernel.run_until_idle()
    last_fired(kernel, clock, timedelta(minutes=2))
    assert [each.state for each in findings(kernel)] == ["ok"]


def test_a_paused_one_is_named_with_its_tenant(kernel: Kernel) -> None:
    """The remedy is the command that lets it fire again."""
    kernel.run_until_idle()
    kernel.schedules.pause("hourly", tenant_id="acme")
    (found,) = findings(kernel)
    assert (found.check, found.state) == ("schedules", "warn")
    assert found.text.startswith("hourly of acme (every 1h) is paused since ")
    assert found.remedy == "automate resume schedule hourly --tenant acme"
    kernel.schedules.resume("hourly", tenant_id="acme")
    assert [each.state for each in findings(kernel)] == ["ok"]


def test_one_that_nobody_fires_is_a_failure(kernel: Kernel, clock: FakeClock) -> None:
    """No worker runs, or none that has its workflow."""
    kernel.run_until_idle()
    last_fired(kernel, clock, timedelta(hours=3))
    # Only the newest of them fires, which is within its jitter at first.
    clock.advance(600)
    found = findings(kernel)
    assert [each.state for each in found] == ["fail", "fail"]
    assert "no worker fires it" in found[0].text
    kernel.run_until_idle()
    assert [each.state for each in findings(kernel)] == ["ok"]


def test_one_that_makes_up_for_much_is_no_failure(clock: FakeClock) -> None:
    """A worker fires so many of its times at each look: it is behind, and yet somebody fires it."""
    kernel = Kernel(MemoryStorage(clock), discover=False, secrets={})
    kernel.action("acts.go")(lambda: None)
    trigger = {"type": "schedule", "every": "1m", "catch_up": True}
    kernel.add_workflow(
        {"name": "w", "trigger": trigger, "steps": [{"id": "go", "action": "acts.go"}]}
    )
    fire_due(kernel)
    clock.advance(300 * 60)
    assert "no worker fires it" in findings(kernel)[0].text
    fire_due(kernel)
    (found,) = findings(kernel)
    assert (found.state, found.remedy) == ("ok", None)
    assert "w (every 1m) makes up for missed times, and has come to" in found.text
    clock.advance(120)
    assert "no worker fires it" in findings(kernel)[0].text
    kernel.run_until_idle()
    assert findings(kernel)[0].text == "1 schedule, on time"
    kernel.close()
