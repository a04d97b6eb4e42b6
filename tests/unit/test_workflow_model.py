"""The model of workflows: durations, retries, triggers, the order of steps, the hash."""

from __future__ import annotations

import string
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from automate_kernel.base.errors import ErrorCodes, PayloadError, WorkflowError
from automate_kernel.base.durations import format_duration, parse_duration
from automate_kernel.storage.tables import EXECUTION, TABLES
from automate_kernel.workflows.execution import (
    Event,
    Execution,
    ExecutionStatus,
    StepRun,
    StepStatus,
)
from automate_kernel.workflows.definition.model import Step, Workflow, workflow_json_schema
from automate_kernel.workflows.definition.fields import RetryPolicy
from automate_kernel.workflows.definition.triggers import (
    EventTrigger,
    ManualTrigger,
    ScheduleTrigger,
    WebhookTrigger,
)
from automate_kernel.workflows.definition.structure import (
    ancestors,
    find_cycle,
    step_problems,
    topological_order,
)


def workflow(*steps: Step, **fields: object) -> Workflow:
    """A workflow around *steps*."""
    given_steps = list(steps) or [Step(id="a", action="x.y")]
    return Workflow.model_validate(
        {"name": "w", "trigger": ManualTrigger(), "steps": given_steps, **fields}
    )


class TestDuration:
    @given(st.integers(0, 3660 * 86_400_000))
    def test_every_duration_is_read_back_as_it_was_written(self, milliseconds: int) -> None:
        """A duration survives any number of trips through its text."""
        seconds = milliseconds / 1000
        assert parse_duration(format_duration(seconds)) == seconds

    @given(st.integers(0, 10**9))
    def test_numbers_are_seconds(self, milliseconds: int) -> None:
        """A plain number, whole or not, is a number of seconds."""
        if milliseconds / 1000 <= 3660 * 86_400:
            assert parse_duration(milliseconds / 1000) == milliseconds / 1000

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("250ms", 0.25),
            ("30s", 30),
            ("5m", 300),
            ("5ms", 0.005),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("1d", 86400),
            ("2w", 1209600),
            (" 1s ", 1),
            ("0s", 0),
        ],
    )
    def test_texts(self, text: str, seconds: float) -> None:
        """Each unit, several units, and decimals are understood."""
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize(
        ("text", "remedy"),
        [
            ("5 minutes", "did you mean '5m'?"),
            ("1 hour 30 min", "did you mean '1h30m'?"),
            ("5M", "did you mean '5m'?"),
            ("30", "'30s'"),
            ("soon", "30s"),
            ("", "30s"),
            ("-5s", "write it like"),
            ("1m1h", "write it like"),
        ],
    )
    def test_a_wrong_text_is_answered_with_what_to_write(self, text: str, remedy: str) -> None:
        """The error of a duration shows the right spelling."""
        with pytest.raises(ValueError, match="is not a duration") as caught:
            parse_duration(text)
        assert remedy in str(caught.value)

    def test_a_computed_number_means_the_millisecond_beside_it(self) -> None:
        """What floating-point arithmetic adds is not held against the author."""
        assert parse_duration(0.1 + 0.2) == 0.3

    @pytest.mark.parametrize(
        "value", [True, None, [], -1, float("nan"), float("inf"), 10**400, "0.1ms", 0.0001, "600w"]
    )
    def test_what_is_no_duration_is_refused(self, value: object) -> None:
        """Booleans, negative, endless, too fine and too long ones are errors, never rounded."""
        with pytest.raises(ValueError, match="duration"):
            parse_duration(value)  # type: ignore[arg-type]

    @given(st.text(alphabet=string.digits + "wdhms. ", max_size=80))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text makes the parser fail in another way than ValueError."""
        try:
            assert 0 <= parse_duration(text) <= 3660 * 86_400
        except ValueError as error:
            assert str(error)


class TestRetryPolicy:
    @pytest.mark.parametrize(
        ("backoff", "delays"),
        [
            ("fixed", [2, 2, 2, 2]),
            ("linear", [2, 4, 6, 8]),
            ("exponential", [2, 4, 8, 10]),
        ],
    )
    def test_backoff(self, backoff: str, delays: list[float]) -> None:
        """The wait grows as the policy says, up to its bound."""
        policy = RetryPolicy.model_validate(
            {"backoff": backoff, "delay": 2, "max_delay": 10, "jitter": False}
        )
        assert [policy.delay_for(n) for n in (1, 2, 3, 4)] == delays

    @given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
    def test_jitter_stays_within_the_wait(self, attempt: int, chance: float) -> None:
        """With jitter the wait is the given part of what it would be, for any attempt."""
        even = RetryPolicy(jitter=False)
        assert RetryPolicy().delay_for(attempt, random=lambda: chance) == (
            even.delay_for(attempt) * chance
        )

    def test_codes_decide(self) -> None:
        """Named codes count; without any it is what the error says, else what its code says."""
        named = RetryPolicy.model_validate({"on": ["NOT_FOUND"]})
        assert named.allows("NOT_FOUND")
        assert not named.allows(ErrorCodes.UNAVAILABLE, retryable=True)
        assert RetryPolicy().allows("UNAVAILABLE")
        assert RetryPolicy().allows("no such code")
        assert not RetryPolicy().allows("NOT_FOUND")
        assert RetryPolicy().allows("NOT_FOUND", retryable=True)
        assert not RetryPolicy().allows("UNAVAILABLE", retryable=False)

    def test_a_delay_above_its_bound_is_refused(self) -> None:
        """A delay that would silently be cut is an error."""
        with pytest.raises(WorkflowError, match="longer than max_delay"):
            RetryPolicy(delay=600)


class TestTriggers:
    def test_events_match_by_pattern(self) -> None:
        """An event trigger takes file-name patterns, and looks at upper and lower case."""
        trigger = EventTrigger(event="order.*")
        assert trigger.matches(Event(id="1", name="order.created"), "w")
        assert not trigger.matches(Event(id="1", name="Order.created"), "w")
        assert not trigger.matches(Event(id="1", name="order.created", type="webhook"), "w")

    def test_webhooks_match_connector_and_trigger(self) -> None:
        """A webhook is told by its connector and trigger."""
        trigger = WebhookTrigger(connector="github", trigger="pull_*")
        event = Event(id="1", name="github.pull_request", type="webhook", source="github")
        assert trigger.matches(event, "w")
        assert not WebhookTrigger(connector="git", trigger="*").matches(event, "w")

    def test_manual_and_scheduled_events_are_for_one_workflow(self) -> None:
        """A manual start of one workflow doesn't start another."""
        one = workflow()
        assert one.triggers_for(Event(id="1", name="w", type="manual")) == (ManualTrigger(),)
        assert one.triggers_for(Event(id="1", name="v", type="manual")) == ()
        assert one.triggers_for(Event(id="1", name="w", type="schedule")) == ()

    def test_one_trigger_and_a_list_of_one_are_the_same(self) -> None:
        """How a single trigger is written makes no difference."""
        one = workflow(trigger=EventTrigger(event="e"))
        listed = workflow(trigger=[{"type": "event", "event": "e"}])
        assert one == listed
        assert one.hash() == listed.hash()
        assert one.to_dict()["trigger"] == {"type": "event", "event": "e"}

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"cron": "0 9 * * *", "every": "5m"},
            {"every": "5m", "timezone": "Europe/Berlin"},
            {"every": "500ms"},
            {"cron": "0 9 * *"},
            {"cron": "0 9 30 2 *"},
            {"cron": "@daily"},
            {"cron": "0 9 * * *", "timezone": "../etc/passwd"},
        ],
    )
    def test_a_schedule_that_makes_no_sense_is_refused(self, fields: dict[str, object]) -> None:
        """Schedules without, with two, and with impossible clocks are errors."""
        with pytest.raises(ValidationError):
            ScheduleTrigger.model_validate({"type": "schedule", **fields})


class TestSteps:
    def test_a_step_without_needs_follows_the_one_before(self) -> None:
        """Steps run in their order unless they say otherwise."""
        made = workflow(
            Step(id="a", action="x"),
            Step(id="b", action="x"),
            Step(id="c", action="x", needs=[]),
            Step(id="d", action="x", needs=["a", "c", "a"]),
            on_failure=[Step(id="e", action="x"), Step(id="f", action="x")],
        )
        assert made.graph() == {"a": (), "b": ("a",), "c": (), "d": ("a", "c")}
        assert made.order() == ("a", "b", "c", "d")
        assert made.needs_of("e") == ()
        assert made.needs_of("f") == ("e",)
        assert made.recovery_order() == ("e", "f")

    def test_only_explicit_needs_hand_skipping_on(self) -> None:
        """The step before is an order, `needs` is a dependency, and an own `if` decides alone."""
        assert not Step(id="a", action="x").skipped_with_needs
        assert Step(id="a", action="x", needs=["b"]).skipped_with_needs
        assert not Step(id="a", action="x", needs=["b"], if_="{{ true }}").skipped_with_needs

    def test_an_unknown_step_is_answered_with_the_nearest(self) -> None:
        """Asking for a step that is not there names one that is."""
        with pytest.raises(WorkflowError, match="did you mean 'calculate'"):
            workflow(Step(id="calculate", action="x")).step("calculat")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"id": "a b"}, "pattern"),
            ({"action": "a..b"}, "pattern"),
            ({"action": "2fa.check"}, "pattern"),
            ({"input": [1]}, "must be a mapping"),
            ({"input": {"x": float("nan")}}, "not a number that JSON has"),
            ({"input": {"x": "a\0b"}}, "NUL"),
            ({"input": {"x": "\ud800"}}, "surrogate"),
            ({"input": {"x": {1: 2}}}, "key that is not text"),
            ({"input": {"x": datetime.now(timezone.utc)}}, "is a datetime"),
            ({"for_each": "lines"}, "neither a list nor a template"),
            ({"concurrency": 4}, "without for_each"),
            ({"timeout": 0}, "greater than 0"),
            ({"if": ""}, "condition"),
            ({"unknown": 1}, "Extra"),
        ],
    )
    def test_wrong_fields_are_refused(self, fields: dict[str, object], message: str) -> None:
        """What can't be run, or can't be stored, is no step."""
        with pytest.raises(ValidationError, match=message):
            Step.model_validate({"id": "a", "action": "x.y", **fields})

    def test_errors_show_no_input(self) -> None:
        """What a field held, which may be a password, is in no error."""
        with pytest.raises(ValidationError) as caught:
            Step.model_validate(
                {"id": "a", "action": "x", "input": ["hunter2"], "retry": "hunter2"}
            )
        assert "hunter2" not in str(caught.value)

    def test_a_workflow_keeps_a_copy_of_what_it_was_given(self) -> None:
        """Changing the author's mapping later doesn't change the workflow."""
        given_input = {"list": [1]}
        step = Step(id="a", action="x", input=given_input)
        given_input["list"].append(2)
        assert step.input == {"list": [1]}
        with pytest.raises(ValidationError, match="frozen"):
            step.id = "b"


# Graphs ----------------------------------------------------------------------------------------


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """A graph without cycles, its keys in any order."""
    ids = [f"s{n}" for n in range(draw(st.integers(1, 12)))]
    needs = {}
    for position, step_id in enumerate(ids):
        earlier = ids[:position]
        own = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        needs[step_id] = tuple(own)
    return {key: needs[key] for key in draw(st.permutations(ids))}


@given(acyclic())
def test_every_step_comes_after_what_it_needs(needs: dict[str, tuple[str, ...]]) -> None:
    """Any acyclic graph is ordered wholly, and has no cycle."""
    order = topological_order(needs)
    assert sorted(order) == sorted(needs)
    assert all(order.index(need) < order.index(key) for key in needs for need in needs[key])
    assert find_cycle(needs) == ()
    seen = ancestors(needs)
    assert all(set(needs[key]) <= seen[key] and key not in seen[key] for key in needs)


@given(acyclic(), st.data())
def test_a_cycle_is_always_named(needs: dict[str, tuple[str, ...]], data: st.DataObject) -> None:
    """Closing any way of a graph to a circle gives an error that names a real circle."""
    ids = list(needs)
    first = data.draw(st.sampled_from(ids))
    reachable = sorted(ancestors(needs)[first] | {first})
    last = data.draw(st.sampled_from(reachable))
    closed = {**needs, last: (*needs[last], first)}
    cycle = find_cycle(closed)
    assert cycle
    for step_id, following in zip(cycle, [*cycle[1:], cycle[0]]):
        assert following in closed[step_id]
    problems = step_problems(
        {"steps": [(("steps", n), key, closed[key]) for n, key in enumerate(ids)]}
    )
    assert problems
    assert all(problem.hint for problem in problems)


def test_the_innocent_step_is_not_blamed_for_a_cycle() -> None:
    """A cycle through a step's place in the list is blamed on the step that names needs."""
    steps = [(("steps", 0), "a", ["b"]), (("steps", 1), "b", None)]
    (problem,) = step_problems({"steps": steps})
    assert problem.path == ("steps", 0, "needs")
    assert "a → b → a" in problem.message
    assert problem.hint is not None
    assert "'b' needs the step before it" in problem.hint


# Hash and schema -------------------------------------------------------------------------------


def test_the_hash_knows_what_is_said_and_not_how() -> None:
    """Defaults that are written out don't change the hash; anything that matters does."""
    plain = workflow(Step(id="a", action="x.y"))
    spelt = workflow(Step(id="a", action="x.y", input={}, retry=RetryPolicy(attempts=1)), env=[])
    assert plain.hash() == spelt.hash()
    assert len(plain.hash()) == 64
    assert plain.hash() != workflow(Step(id="a", action="x.y", timeout=1)).hash()


def test_the_hash_is_the_same_for_ever() -> None:
    """Executions are pinned to it: a new version of the kernel must not change it."""
    made = workflow(Step(id="a", action="x.y", timeout=90, input={"t": "{{ event.payload }} ü"}))
    assert made.hash() == "7afb223b333f53ba4454ac6ed64294e6897c08af88deb8c86596debbbe8cfb61"


def test_the_schema_takes_what_the_model_takes() -> None:
    """The published JSON Schema is valid, and agrees with the model on examples."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = workflow_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    made = workflow(
        Step(id="a", action="x.y", timeout=90, for_each=[1], concurrency=2, if_="{{ true }}"),
        trigger=[EventTrigger(event="e"), ScheduleTrigger(every=60)],
    )
    validator.validate(made.to_dict())
    validator.validate({**made.to_dict(), "trigger": {"type": "manual"}})
    for wrong in (
        {**made.to_dict(), "trigger": {}},
        {**made.to_dict(), "timeout": "5 minutes"},
        {**made.to_dict(), "stepz": []},
        {**made.to_dict(), "steps": []},
    ):
        assert not validator.is_valid(wrong)
    assert "one attempt" in schema["$defs"]["Step"]["properties"]["timeout"]["description"]


# Events and executions -------------------------------------------------------------------------


def test_an_event_survives_its_json() -> None:
    """What is stored of an event is all of it, and fields of newer versions don't matter."""
    event = Event(id="1", name="n", payload={"a": [1]}, tenant_id="t", occurred_at="2026-01-01")
    assert Event.from_json({**event.to_json(), "later": 1}) == event


@pytest.mark.parametrize(
    "data", [{}, {"id": 1, "name": "n"}, {"id": "1", "name": "n", "type": "x"}]
)
def test_what_is_no_event_is_refused(data: dict[str, object]) -> None:
    """Stored JSON that is no event gives an error that says so."""
    with pytest.raises(PayloadError, match="not an event"):
        Event.from_json(data)


def test_an_execution_is_built_from_its_rows() -> None:
    """Rows of the tables become an execution with its steps, by the names that users know."""
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    run = StepRun(execution_id="1", step_id="a", position=1, started_at=now)
    row = {f: getattr(run, f) for f in StepRun.__dataclass_fields__}
    runs = [StepRun.from_row({**row, "position": n, "id": "x"}) for n in (1, 0)]
    execution = Execution.from_row(
        {
            **dict.fromkeys(column.name for column in TABLES[EXECUTION].columns),
            "id": "1",
            "workflow": "w",
            "definition_id": "d",
            "status": "FAILED",
            "event": Event(id="e", name="n").to_json(),
            "tenant_id": "t",
            "item_id": "i",
            "parent_id": "p",
            "error_code": "INTERNAL",
            "error": "text",
            "error_group": "KeyError in shop.charge",
            "output": {"total": 3},
            "created_at": now,
            "updated_at": now,
            "completed_at": now,
        },
        runs,
    )
    assert (execution.name, execution.workflow, execution.owner) == ("w", "w", "t")
    assert execution.status is ExecutionStatus.FAILED
    assert execution.status.finished
    assert execution.duration_seconds == 0
    assert [each.position for each in execution.runs_of("a")] == [0, 1]
    assert execution.step("a") is None
    assert execution.step("a", 1) is runs[0]
    assert runs[0].id == "a"
    assert f"{StepStatus.RETRY} {StepStatus.RETRY.finished}" == "RETRY False"


@pytest.mark.parametrize("name", ["github.2fa", "tools.repos/list/all", "api.v1.2.get_3"])
def test_a_services_own_names_can_be_called(name: str) -> None:
    """Their parts may begin with a digit, and hold slashes, as those of MCP servers do."""
    step = {"id": "a", "action": name}
    workflow = {"name": "w", "trigger": {"type": "manual"}, "steps": [step]}
    assert Workflow.model_validate(workflow).steps[0].action == name
