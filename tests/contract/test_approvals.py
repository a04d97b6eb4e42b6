"""Steps that wait for a person, on every database: decisions, timeouts, crashes, changes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from approvals_asked import ask
from clocked_world import ClockedWorld
from lock_waits import until_held_up
from waiting import PATIENCE, at_once, until

from workers import handle, working
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.outbox import ItemStatus
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.tables import SIGNAL, WAIT
from automate_testing.clock import FakeClock
from automate_kernel.workflows.decide.questions import NOTICE
from automate_kernel.workflows.decide.waits import ADVANCE
from automate_kernel.workflows.decide.waits import SIGNAL as SIGNAL_KIND
from automate_kernel.workflows.execution import StepStatus
from automate_kernel.workflows.steer.decisions import purge_decisions
from automate_sqlalchemy import SqlAlchemyStorage

pytestmark = pytest.mark.any_storage

KEY = "a-key-of-thirty-two-characters-at-least"
URL = "https://shop.example"


class World(ClockedWorld):
    """A kernel on a storage, whose clock only the test moves."""

    def __init__(self, storage: Storage, clock: FakeClock) -> None:
        self.storage, self.clock = storage, clock
        self.mails: list[dict[str, Any]] = []
        self.called: list[Any] = []
        self.broken: list[AutomateError] = []
        self.kernel = self.another()

    def another(self) -> Kernel:
        """A kernel of another process on the same database."""
        kernel = Kernel(
            self.storage, discover=False, secrets={"TOKEN": "tok-11-of-chat"}, signing_keys=[KEY],
            public_url=URL, lease_seconds=30.0,
        )  # fmt: skip

        @kernel.action
        def note(what: Any = None) -> Any:
            self.called.append(what)
            return what

        @kernel.action
        def mail(to: Any, link: str = "", text: str = "") -> None:
            self.mails.append({"to": to, "link": link, "text": text})
            if self.broken:
                raise self.broken.pop()

        return kernel

    def add(self, *steps: dict[str, Any], name: str = "w", **more: Any) -> None:
        more.setdefault("trigger", {"type": "manual"})
        self.kernel.add_workflow({"name": name, "steps": list(steps), **more})

    def ask(self, *steps: dict[str, Any], payload: Any = None, **approval: Any) -> str:
        """Start an execution whose step `ok` asks, and go as far as it goes."""
        asked = {"title": "Pay?", **approval}
        after = {"id": "then", "action": "note", "input": {"what": "{{ steps.ok.output }}"}}
        self.add({"id": "ok", "approval": asked}, *(steps or [after]))
        return self.start(payload)

    def start(self, payload: Any = None, **options: Any) -> str:
        execution_id = self.kernel.start("w", payload, **options)
        self.run()
        return execution_id

    def output(self, execution_id: str, step_id: str = "ok", position: int = -1) -> Any:
        run = self.see(execution_id).step(step_id, position)
        assert run is not None
        return run.output

    def sent(self) -> list[dict[str, Any]]:
        """The decisions that were sent."""
        items = self.kernel.outbox.find(kind=SIGNAL_KIND)
        return [item.payload["event"]["payload"] for item in items]


@pytest.fixture
def world(clocked_storage: Storage, clock: FakeClock) -> World:
    return World(clocked_storage, clock)


@pytest.fixture
def local() -> World:
    """A world for what no database can change."""
    clock = FakeClock()
    return World(MemoryStorage(clock), clock)


def refused(code: ErrorCodes, call: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(AutomateError) as caught:
        call(*args, **options)
    assert caught.value.code is code
    return str(caught.value)


# -- deciding ------------------------------------------------------------------------------------


def test_a_step_waits_until_it_is_approved(world: World) -> None:
    """It holds nothing meanwhile; what follows has the decision, and the wait is gone."""
    form = [{"name": "amount", "type": "integer", "required": True}]
    one = world.ask(title="Pay {{ event.payload.n }}?", by=["ann"], form=form, payload={"n": 3})
    assert world.see(one).step("ok").status is StepStatus.WAITING  # type: ignore[union-attr]
    item = world.kernel.outbox.get(world.see(one).item_id or "")
    assert item is not None
    assert (item.status, item.lease_expires_at) == (ItemStatus.PENDING, None)
    (waiting,) = world.kernel.approvals.pending(workflow="w").approvals
    assert (waiting.title, waiting.by, waiting.execution_id) == ("Pay 3?", ("ann",), one)
    given = world.kernel.approvals.approve(one, "ok", by="ann", comment="fine", form={"amount": 2})
    assert world.kernel.approvals.pending().approvals == []
    world.run()
    assert world.see(one).status == "COMPLETED"
    assert world.output(one) == given
    assert world.called == [given]
    assert (given["form"], given["comment"]) == ({"amount": 2}, "fine")
    assert world.rows(WAIT) == []
    text = refused(
        ErrorCodes.FAILED_PRECONDITION, world.kernel.approvals.reject, one, "ok", by="bob"
    )
    assert text == "already decided by ann"


def test_a_step_that_no_database_could_look_up_is_not_there(world: World) -> None:
    """As any other that isn't."""
    one = world.ask()
    for step_id in ("gone", "\0", "\ud800", ""):
        assert world.kernel.approvals.get(one, step_id) is None
        refused(ErrorCodes.NOT_FOUND, world.kernel.approvals.approve, one, step_id, by="ann")


def test_a_rejection_fails_the_step(world: World) -> None:
    """With who it was and why; the workflow recovers as from any failure."""
    world.add(
        {"id": "ok", "approval": {"title": "Pay?"}},
        on_failure=[{"id": "tell", "action": "note", "input": {"what": "{{ error.message }}"}}],
    )
    one = world.start()
    world.kernel.approvals.reject(one, "ok", by="ann", comment="too much")
    world.run()
    execution = world.see(one)
    assert (execution.status, execution.error_code) == ("FAILED", "FAILED_PRECONDITION")
    assert world.called == ["step 'ok' failed: rejected by ann: too much"]
    assert world.rows(WAIT) == []


def test_a_rejection_and_a_timeout_can_have_paths_of_their_own(local: World) -> None:
    """Later steps decide by the output."""
    paths = [
        {"id": "yes", "if": "{{ steps.ok.output.approved }}", "action": "note",
         "input": {"what": "yes"}},
        {"id": "late", "if": "{{ steps.ok.output.timed_out }}", "action": "note",
         "input": {"what": "late"}},
        {"id": "no", "action": "note", "input": {"what": "{{ steps.ok.output.comment }}"},
         "if": "{{ not steps.ok.output.approved and not steps.ok.output.timed_out }}"},
    ]  # fmt: skip
    one = local.ask(*paths, timeout="1h", on_timeout="continue", on_reject="continue")
    local.kernel.approvals.reject(one, "ok", by="ann", comment="no!")
    local.run()
    two, three = local.start(), local.start()
    local.kernel.approvals.approve(three, "ok", by="ann")
    local.run()
    local.later(3601)
    assert local.called == ["no!", "yes", "late"]
    assert {local.see(each).status for each in (one, two, three)} == {"COMPLETED"}


@pytest.mark.parametrize(
    ("on_timeout", "status", "approved"),
    [("fail", "FAILED", None), ("reject", "FAILED", None), ("approve", "COMPLETED", True),
     ("continue", "COMPLETED", False)],
)  # fmt: skip
def test_a_timeout_ends_the_wait(
    local: World, on_timeout: str, status: str, approved: bool | None
) -> None:
    """By the database's clock, as its author chose."""
    one = local.ask(timeout="2d", on_timeout=on_timeout)
    local.later(2 * 86_400 - 1)
    assert local.see(one).status == "RUNNING"
    local.later(2)
    assert local.see(one).status == status
    output = local.output(one)
    assert (output and output["approved"]) == approved
    refused(ErrorCodes.FAILED_PRECONDITION, local.kernel.approvals.approve, one, "ok", by="ann")


def test_a_decision_in_time_counts_though_its_signal_comes_late(world: World) -> None:
    """No worker has looked since; the decision was accepted, so it is the answer."""
    one = world.ask(timeout="1h")
    world.clock.advance(3599)
    world.kernel.approvals.approve(one, "ok", by="ann")
    world.clock.advance(100)
    # The timeout's wake-up comes first.
    world.kernel.run_until_idle(kinds=[ADVANCE])
    assert world.see(one).status == "COMPLETED"
    assert world.output(one)["by"] == "ann"
    world.run()


@pytest.mark.every_storage
def test_a_decision_that_commits_as_the_time_ends_counts(world: World) -> None:
    """The worker that finds the time over leaves it to the transaction that decides."""
    one = world.ask(timeout="1h")
    world.clock.advance(3599)
    worker = threading.Thread(target=world.kernel.run_until_idle)
    with world.storage.begin() as rows:
        world.kernel.approvals.approve(one, "ok", by="ann", transaction=rows.native)
        world.clock.advance(10)
        worker.start()
        if world.storage.supports_skip_locked:
            worker.join(PATIENCE)
        else:
            until_held_up(worker, rows)
    worker.join(PATIENCE)
    world.run()
    assert world.see(one).status == "COMPLETED"
    assert world.output(one)["by"] == "ann"


@pytest.mark.every_storage
def test_a_decision_that_takes_long_to_commit_holds_up_no_other_work(world: World) -> None:
    """Its transaction is the application's: a worker that waited for it would claim nothing."""
    if not world.storage.supports_skip_locked:
        pytest.skip("its one writer is waited for by all who write")
    one, other = world.ask(timeout="1h", on_timeout="continue"), world.start()
    world.clock.advance(3599)
    worker = threading.Thread(target=world.kernel.run_until_idle, daemon=True)
    with world.storage.begin() as rows:
        world.kernel.approvals.approve(one, "ok", by="ann", transaction=rows.native)
        world.clock.advance(10)
        worker.start()
        worker.join(PATIENCE)
        assert not worker.is_alive()
        assert [world.see(each).status for each in (one, other)] == ["RUNNING", "COMPLETED"]
    world.run()
    assert world.see(one).status == "COMPLETED"
    assert world.output(one)["by"] == "ann"


def test_a_decision_that_is_rolled_back_after_the_end_lets_the_time_be_over(world: World) -> None:
    """Somebody was deciding as it ended, and then did not."""
    if not world.storage.supports_skip_locked:
        pytest.skip("its one writer is waited for by all who write")
    one = world.ask(timeout="1h", on_timeout="continue")
    world.clock.advance(3599)
    with pytest.raises(ZeroDivisionError), world.storage.begin() as rows:
        world.kernel.approvals.approve(one, "ok", by="ann", transaction=rows.native)
        world.later(10)
        raise ZeroDivisionError
    world.later(10)
    assert world.see(one).status == "COMPLETED"
    assert world.output(one)["timed_out"]


def test_elements_of_a_list_are_decided_one_by_one(world: World) -> None:
    """Each has its question, and its people."""
    world.add(
        {
            "id": "ok", "for_each": "{{ event.payload }}", "concurrency": 5,
            "approval": {"title": "Pay {{ item.n }}?", "by": ["{{ item.who }}"],
                         "on_reject": "continue",
                         "notify": {"action": "mail", "input": {"to": "{{ item.who }}",
                                    "text": "{{ approval.title }} {{ index }}"}}},
        },
        output="{{ steps.ok.output | map(attribute='approved') | list }}",
    )  # fmt: skip
    one = world.start([{"n": 1, "who": "ann"}, {"n": 2, "who": "bob"}])
    approvals = world.kernel.approvals
    told = sorted((mail["to"], mail["text"]) for mail in world.mails)
    assert told == [("ann", "Pay 1? 0"), ("bob", "Pay 2? 1")]
    assert [each.title for each in approvals.pending(by="bob").approvals] == ["Pay 2?"]
    refused(ErrorCodes.PERMISSION_DENIED, approvals.approve, one, "ok", 0, by="bob")
    approvals.reject(one, "ok", 1, by="bob")
    world.run()
    approvals.approve(one, "ok", 0, by="ann")
    world.run()
    assert world.see(one).output == [True, False]


@pytest.mark.every_storage
def test_a_decision_in_time_counts_while_another_branch_works(local: World) -> None:
    """The worker that holds the execution looks once more before it says that nobody decided."""
    go_on = threading.Event()

    @local.kernel.action
    def slow() -> None:
        assert go_on.wait(PATIENCE)

    asked = {"title": "?", "timeout": "1s", "on_timeout": "continue"}
    local.add(
        {"id": "ok", "approval": asked, "needs": []},
        {"id": "long", "action": "slow", "needs": []},
    )
    decided, late = local.kernel.start("w"), local.kernel.start("w")
    with working(local.kernel, exclude_kinds=[SIGNAL_KIND]):
        try:
            for each in (decided, late):
                until(lambda each=each: local.kernel.approvals.get(each, "ok") is not None)
            local.kernel.approvals.approve(decided, "ok", by="ann")
            local.clock.advance(2)
            for each in (decided, late):
                until(lambda each=each: local.output(each) is not None)
        finally:
            go_on.set()
    assert [local.output(each)["by"] for each in (decided, late)] == ["ann", None]


@pytest.mark.parametrize("by", ["{{ event.payload.who }}", ["{{ event.payload.one }}"]])
@pytest.mark.parametrize("payload", [{"who": [], "one": ""}, {"who": None, "one": None},
                                     {"who": ["a", " b"], "one": 3},
                                     {"who": {"a": 1}, "one": "x" * 201}])  # fmt: skip
def test_an_empty_list_of_people_lets_nobody_decide(local: World, by: Any, payload: Any) -> None:
    """That a template came out empty opens nothing to everybody."""
    one = local.ask(by=by, payload=payload)
    execution = local.see(one)
    assert (execution.status, execution.error_code) == ("FAILED", "INVALID_ARGUMENT")
    assert "by gave" in (execution.error or "")
    assert local.rows(WAIT) == []


def test_what_is_asked_shows_no_secret(local: World) -> None:
    """Neither as a reference, nor what an earlier step gave away."""
    one = local.ask(title="With {{ secrets.TOKEN }}?", description="{{ event.payload }}",
                    payload={"a": "x" * 9_000})  # fmt: skip
    waiting = local.kernel.approvals.get(one, "ok")
    assert waiting is not None
    assert "tok-11" not in str(local.rows(WAIT))
    assert "[secret TOKEN]" in waiting.title
    assert len(waiting.description or "") == 5_000


# -- crashes, cancels, changes -------------------------------------------------------------------


def test_it_waits_over_a_restart_of_everything_and_a_new_definition(world: World) -> None:
    """The execution goes on with what it began with: its people, its form, its steps."""
    form = [{"name": "amount", "type": "integer"}]
    one = world.ask(by=["ann"], form=form)
    if not isinstance(world.storage, MemoryStorage):
        world.kernel.close()
    world.kernel = world.another()
    world.add({"id": "ok", "approval": {"title": "New?", "by": ["bob"]}})
    two = world.start()
    approvals = world.kernel.approvals
    assert {each.title for each in approvals.pending().approvals} == {"Pay?", "New?"}
    refused(ErrorCodes.PERMISSION_DENIED, approvals.approve, one, "ok", by="bob")
    approvals.approve(one, "ok", by="ann", form={"amount": 7})
    approvals.approve(two, "ok", by="bob")
    world.run()
    assert world.called[0]["form"] == {"amount": 7}
    assert world.output(two)["form"] == {}
    assert {world.see(each).status for each in (one, two)} == {"COMPLETED"}


def test_a_worker_that_dies_with_the_decision_loses_nothing(world: World) -> None:
    """Another one takes it up once the lease is over, and it counts once."""
    one = world.ask()
    world.kernel.approvals.approve(one, "ok", by="ann")
    (item,) = world.kernel.outbox.claim_batch("dying", kinds=[SIGNAL_KIND])
    handle(world.kernel, item)  # it is kept, and the execution woken
    world.kernel.outbox.claim_batch("dying", kinds=[ADVANCE])
    world.clock.advance(31)
    world.kernel.outbox.reap()
    world.later(60)
    assert world.see(one).status == "COMPLETED"
    assert [each["by"] for each in world.called] == ["ann"]


def test_a_cancelled_execution_asks_no_more(world: World) -> None:
    """Its links are used up."""
    one = world.ask()
    token = world.kernel.approvals.token(one, "ok", by="ann")
    world.kernel.executions.cancel(one)
    assert world.kernel.approvals.pending().approvals == []
    refused(ErrorCodes.NOT_FOUND, world.kernel.approvals.decide_by_token, token, approved=True)
    text = refused(
        ErrorCodes.FAILED_PRECONDITION, world.kernel.approvals.approve, one, "ok", by="ann"
    )
    assert "CANCELLED" in text
    assert world.sent() == []


def test_a_resumed_step_asks_anew(world: World) -> None:
    """Neither the decision nor the links of the first asking count."""
    one = world.ask()
    old = world.kernel.approvals.token(one, "ok", by="eve")
    world.kernel.approvals.reject(one, "ok", by="ann")
    world.run()
    assert world.see(one).status == "FAILED"
    assert world.kernel.executions.resume(one)
    world.run()
    assert world.see(one).step("ok").status is StepStatus.WAITING  # type: ignore[union-attr]
    refused(ErrorCodes.NOT_FOUND, world.kernel.approvals.decide_by_token, old, approved=True)
    world.run()
    assert world.see(one).status == "RUNNING"
    world.kernel.approvals.approve(one, "ok", by="bob")
    world.run()
    assert world.see(one).status == "COMPLETED"
    assert world.output(one)["by"] == "bob"


def test_a_tenant_s_execution_asks_within_the_tenant(world: World) -> None:
    """The wait, the signal and the notice are the tenant's."""
    world.add(
        {"id": "ok", "approval": {"title": "?", "notify": {"action": "mail", "input": {"to": 1}}}}
    )
    one = world.start(tenant_id="acme")
    assert [each.tenant_id for each in world.kernel.outbox.find(kind=NOTICE)] == ["acme"]
    approvals = world.kernel.approvals
    assert approvals.pending(tenant_id="rival").approvals == []
    refused(ErrorCodes.NOT_FOUND, approvals.approve, one, "ok", by="a", tenant_id="rival")
    approvals.approve(one, "ok", by="ann", tenant_id="acme")
    assert [each.tenant_id for each in world.kernel.outbox.find(kind=SIGNAL_KIND)] == ["acme"]
    world.run()
    assert world.see(one).status == "COMPLETED"


# -- notices -------------------------------------------------------------------------------------

NOTIFY = {
    "action": "mail",
    "input": {"to": "{{ approval.to }}", "link": "{{ approval.link }}",
              "text": "{{ approval.title }} {{ approval.reject_link }} {{ event.payload }}"},
}  # fmt: skip


def test_each_of_those_asked_gets_a_link_of_their_own(world: World) -> None:
    """Once, and only when the link is good."""
    one = world.ask(by=["ann", "role:boss"], notify=NOTIFY, payload="x")
    assert sorted(mail["to"] for mail in world.mails) == ["ann", "role:boss"]
    (mine,) = [mail for mail in world.mails if mail["to"] == "role:boss"]
    text = mine["text"].split()
    assert (text[0], text[2]) == ("Pay?", "x")
    token = mine["link"].removeprefix(f"{URL}/approvals/")
    assert world.kernel.approvals.by_token(token).by == "role:boss"
    no = text[1].removeprefix(f"{URL}/approvals/")
    refused(ErrorCodes.PERMISSION_DENIED, world.kernel.approvals.decide_by_token, no, approved=True)
    world.kernel.approvals.decide_by_token(no, approved=False)
    world.run()
    assert "rejected by role:boss" in (world.see(one).error or "")
    assert len(world.mails) == 2
    # Whoever can read the database can't decide by it.
    stored = str([world.rows(name) for name in ("automate_outbox", WAIT, SIGNAL)])
    assert token not in stored
    assert token.partition(".")[0] not in stored


def test_a_notice_for_a_place_that_all_read_is_sent_once(world: World) -> None:
    """However many may decide; it names nobody."""
    input_ = {"to": "{{ approval.to }}", "text": "{{ approval.title }} {{ approval.position }}"}
    world.ask(by=["ann", "role:boss"], notify={"action": "mail", "input": input_, "once": True})
    (mail,) = world.mails
    assert (mail["to"], mail["text"]) == (None, "Pay? -1")


@pytest.mark.parametrize("written", ["{{ approval }}", "{{- approval -}}", "{{ approval | json }}"])
def test_a_notice_that_hands_over_the_whole_approval_has_its_links(
    local: World, written: str
) -> None:
    local.ask(by=["ann"], notify={"action": "note", "input": {"what": written}})
    (told,) = local.called
    about = json.loads(told) if isinstance(told, str) else told
    assert about["to"] == "ann"
    for name in ("link", "approve_link", "reject_link"):
        assert about[name].startswith(f"{URL}/approvals/")


def test_a_notice_for_all_of_several_people_has_no_link(local: World) -> None:
    """A link decides in the name of one."""
    input_ = {"what": "{{ approval }}"}
    local.ask(by=["ann", "role:boss"], notify={"action": "note", "input": input_, "once": True})
    (told,) = local.called
    assert (told["to"], told["title"]) == (None, "Pay?")
    assert not [name for name in told if "link" in name]


def test_a_notice_that_fails_is_tried_again_without_asking_twice(local: World) -> None:
    """The approval waits all the same; an error that quotes the link doesn't give it away."""
    local.broken = [AutomateError(ErrorCodes.UNAVAILABLE, "it is down")]
    one = local.ask(by=["ann"], notify=NOTIFY)
    assert len(local.mails) == 1
    assert len(local.kernel.approvals.pending().approvals) == 1
    local.later(3600)
    assert len(local.mails) == 2
    for number in range(2):
        assert local.kernel.approvals.by_token(local.mails[number]["link"].rpartition("/")[2])
    local.kernel.approvals.approve(one, "ok", by="ann")
    local.run()
    assert local.see(one).status == "COMPLETED"


@pytest.mark.parametrize("text", ["{{ approval.link }}", "Decide here: {{ approval.link }} !"])
@pytest.mark.parametrize("says", ["all of it", "what decides"])
def test_a_link_in_the_text_of_an_error_is_hidden(local: World, text: str, says: str) -> None:
    """The log and the failed item are read by more people than those who are asked."""
    told: list[str] = []

    @local.kernel.action
    def loud(text: str) -> None:
        (token,) = re.findall(r"[\w.-]{30,}", text)
        told.append(token)
        said = text if says == "all of it" else token
        raise AutomateError(ErrorCodes.NOT_FOUND, f"no such page: {said}")

    local.ask(notify={"action": "loud", "input": {"text": text}})
    (item,) = local.kernel.outbox.find(kind=NOTICE)
    assert item.status is ItemStatus.FAILED
    assert item.last_error is not None
    assert "no such page" in item.last_error
    assert told[0] not in item.last_error
    assert len(local.kernel.approvals.pending().approvals) == 1


def test_a_notice_that_comes_late_tells_nobody(local: World) -> None:
    """Once it is decided, cancelled or asked anew."""
    local.broken = [AutomateError(ErrorCodes.UNAVAILABLE, "it is down") for _ in range(3)]
    local.ask(by=["ann"], notify=NOTIFY)
    ids = [local.see(e.id).id for e in local.kernel.executions.find()]
    two, three = local.start(), local.start()
    assert len(local.mails) == 3
    local.kernel.approvals.approve(ids[0], "ok", by="ann")
    local.kernel.executions.cancel(two)
    local.kernel.approvals.reject(three, "ok", by="ann")
    local.run()
    local.kernel.executions.resume(three)
    local.run()
    assert len(local.mails) == 4  # of the new asking
    local.later(3600)
    assert len(local.mails) == 4
    assert local.kernel.outbox.find(kind=NOTICE, status=ItemStatus.FAILED) == []


def test_a_worker_without_the_action_leaves_the_notice_to_others(local: World) -> None:
    """While old and new ones run side by side, or one is for other work."""
    local.ask(notify={"action": "newer.mail", "input": {"to": "x"}})
    local.later(3600)
    (item,) = local.kernel.outbox.find(kind=NOTICE)
    assert (item.status, item.attempt_count) == (ItemStatus.PENDING, 0)

    @local.kernel.action("newer.mail")
    def mail(to: str) -> None:
        local.mails.append({"to": to})

    local.later(60)
    assert local.mails == [{"to": "x"}]


def test_a_notice_without_links_needs_no_key(local: World) -> None:
    """A link that can't be made is a failed item that says what is missing."""
    local.kernel.approvals.public_url = None
    local.ask(notify={"action": "mail", "input": {"to": "x", "text": "{{ approval.title }} link"}})
    assert [mail["text"] for mail in local.mails] == ["Pay? link"]
    local.kernel = local.another()
    local.kernel.approvals.public_url = None
    local.add({"id": "ok", "approval": {"title": "?", "notify": NOTIFY}})
    local.start()
    (item,) = local.kernel.outbox.find(kind=NOTICE, status=ItemStatus.FAILED)
    assert "public_url" in (item.last_error or "")


def test_a_checkpoint_whose_reply_is_lost_asks_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved again, it enqueues no second notice."""
    from automate_kernel.base.errors import StorageError

    store, real = world.kernel.executions, world.kernel.executions.checkpoints.save
    lost = [True]

    def checkpoint(group: Any) -> Any:
        saved = real(group)
        if lost and any(save.turn.waits for save in group):
            lost.pop()
            raise StorageError("the reply was lost")
        return saved

    monkeypatch.setattr(store.checkpoints, "save", checkpoint)
    one = world.ask(by=["ann"], notify=NOTIFY)
    world.later(60)
    assert not lost
    assert len(world.mails) == 1
    world.kernel.approvals.approve(one, "ok", by="ann")
    world.run()
    assert world.see(one).status == "COMPLETED"


# -- races ---------------------------------------------------------------------------------------


@pytest.mark.every_storage
def test_of_many_decisions_at_once_one_is_made(world: World) -> None:
    """By account and by link; the others learn it, whichever they wanted."""
    execution_id, approvals = ask(world.kernel), world.kernel.approvals
    token = approvals.token(execution_id, "ok", by="linked")
    start = threading.Barrier(6)
    results: list[Any] = []

    def decide(number: int) -> None:
        start.wait()
        try:
            if number == 0:
                approvals.decide_by_token(token, approved=True)
            elif number % 2:
                approvals.approve(execution_id, "ok", by=f"p{number}")
            else:
                approvals.reject(execution_id, "ok", by=f"p{number}")
            results.append(number)
        except AutomateError as error:
            results.append(error.code)

    at_once(*(partial(decide, number) for number in range(6)))
    (winner,) = [each for each in results if isinstance(each, int)]
    assert {each for each in results if each != winner} <= {
        ErrorCodes.FAILED_PRECONDITION, ErrorCodes.NOT_FOUND,
    }  # fmt: skip
    (decision,) = world.sent()
    assert decision["by"] == ("linked" if winner == 0 else f"p{winner}")
    (row,) = world.rows(WAIT)
    assert row["details"]["decision"] == decision
    assert row["details"]["title"] == "Pay it back?"


def test_a_decision_that_is_rolled_back_leaves_the_approval_open(world: World) -> None:
    """Nothing of it stays, on no database."""
    execution_id = ask(world.kernel, tenant="acme")
    approvals = world.kernel.approvals
    with pytest.raises(ZeroDivisionError), world.storage.begin() as rows:
        approvals.approve(execution_id, "ok", by="ann", transaction=rows.native)
        raise ZeroDivisionError
    assert world.sent() == []
    assert len(approvals.pending(tenant_id="acme").approvals) == 1
    approvals.reject(execution_id, "ok", by="bob", tenant_id="acme")
    assert approvals.pending().approvals == []


def test_a_decision_in_a_session_of_the_host_commits_with_it(
    sqlite_engine: sa.Engine, postgresql_engine: sa.Engine
) -> None:
    """Also after the session has read and written something of its own."""
    from sqlalchemy.orm import Session

    for engine in (sqlite_engine, postgresql_engine):
        kernel = Kernel(SqlAlchemyStorage(engine), discover=False)
        execution_id = ask(kernel)
        with Session(engine) as session:
            kernel.emit("paid", {}, transaction=session)
            kernel.approvals.approve(execution_id, "ok", by="ann", transaction=session)
            session.commit()
        items = kernel.outbox.find(kind=SIGNAL_KIND)
        assert [item.payload["event"]["payload"]["by"] for item in items] == ["ann"]


def test_who_decided_what_is_kept(world: World) -> None:
    """Also what a link decided, and after the execution is gone; without secrets, for a tenant."""
    world.add({"id": "ok", "approval": {"title": "Pay?", "by": ["ann", "role:boss"]}})
    first, second = world.start(tenant_id="acme"), world.start(tenant_id="other")
    approvals = world.kernel.approvals
    world.kernel.secrets.get("TOKEN")
    approvals.approve(first, "ok", by="ann", comment="with tok-11-of-chat")
    token = approvals.token(second, "ok", by="role:boss")
    approvals.decide_by_token(token, approved=False)
    world.run()
    world.kernel.purge(older_than_seconds=0)
    made = approvals.decided().decisions
    assert [(each.execution_id, each.decided_by, each.approved) for each in made] == [
        (second, "role:boss", False),
        (first, "ann", True),
    ]
    assert (made[1].title, made[1].comment, made[1].step_id) == ("Pay?", "with [secret]", "ok")
    (mine,) = approvals.decided(tenant_id="acme").decisions
    assert mine == made[1]
    page = approvals.decided(limit=1)
    assert approvals.decided(limit=1, after=page.after).decisions == made[1:]
    with world.storage.begin() as rows:
        assert purge_decisions(rows, older_than_seconds=3600) == 0
    world.clock.advance(7200)
    with world.storage.begin() as rows:
        assert purge_decisions(rows, older_than_seconds=3600) == 2
