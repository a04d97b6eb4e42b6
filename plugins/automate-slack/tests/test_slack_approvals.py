"""Approvals by buttons: who may decide, what is shown, and what can't be forged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from automate_kernel import AutomateError, ErrorCodes, Kernel, WebhookRejectedError
from automate_slack import APPROVALS
from automate_slack.testing import FakeSlack, SlackRequest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

APPROVE, REJECT = "automate_approve", "automate_reject"


def workflow(**approval: Any) -> dict[str, Any]:
    notify = {"action": "slack.ask_approval", "once": True, "input": {"channel": "C0LAUNCH"}}
    return {
        "name": "announce",
        "trigger": {"type": "manual"},
        "steps": [
            {
                "id": "ask",
                "approval": {
                    "title": "Announce {{ event.payload.what }}?",
                    "description": "It is <!channel> & done.",
                    "by": ["ann@example.com", "role:owners"],
                    "on_reject": "continue",
                    "notify": notify,
                    **approval,
                },
            }
        ],
        "output": "{{ steps.ask.output }}",
    }


def ask(kernel: Kernel, slack: FakeSlack, tenant: str | None = None, **approval: Any) -> Any:
    """Start it, and return the message with the buttons."""
    kernel.add_workflow(workflow(**approval))
    kernel.start("announce", {"what": "v2"}, tenant_id=tenant)
    kernel.run_until_idle()
    return slack.messages("C0LAUNCH")[-1]


def send(kernel: Kernel, request: SlackRequest, tenant: str | None = None) -> None:
    kernel.receive_webhook("slack", "interaction", request.headers, request.body, tenant_id=tenant)
    kernel.run_until_idle(patience=1)


def output(kernel: Kernel) -> Any:
    """The decision; None while the workflow waits."""
    (execution,) = kernel.executions.find(workflow="announce")
    return kernel.executions.get(execution.id).output


def outcomes(kernel: Kernel) -> list[Any]:
    found = kernel.executions.find(workflow="slack-approvals")
    return [kernel.executions.get(each.id).output for each in reversed(found)]


@pytest.fixture
def owners(slack: FakeSlack) -> Iterator[Kernel]:
    """A kernel whose config has people and roles."""
    slack.groups["S0OWNERS"] = ["U0KIM"]
    config = {
        **slack.config,
        "people": {"U0LEE": "lee", "Max@example.com": "max"},
        "roles": {"owners": ["U0LEE", "S0OWNERS"]},
    }
    slack.add_user("U0LEE", "lee@example.com")
    slack.add_user("U0MAX", "max@example.com")
    with Kernel(config={"slack": config}, secrets=slack.secrets) as kernel:
        kernel.add_workflow(APPROVALS)
        yield kernel


def test_the_question_is_posted_once_with_its_buttons(slack: FakeSlack, kernel: Kernel) -> None:
    """Nobody is called by a word of the payload."""
    message = ask(kernel, slack, timeout="2d")
    assert len(slack.messages("C0LAUNCH")) == 1
    shown = str(message["blocks"])
    assert "*Announce v2?*" in shown
    assert "&lt;!channel&gt; &amp; done" in shown
    assert "<!channel>" not in shown
    assert "<!date^" in shown


@pytest.mark.parametrize(
    ("button", "approved", "words"),
    [(APPROVE, True, "*Approved* by <@U0ANN>: go &amp; see"),
     (REJECT, False, "*Rejected* by <@U0ANN>: go &amp; see")],
)  # fmt: skip
def test_a_click_decides(
    slack: FakeSlack, kernel: Kernel, button: str, approved: bool, words: str
) -> None:
    """By the person's e-mail; with the comment; and the message shows it, without its buttons."""
    message = ask(kernel, slack)
    send(kernel, slack.click(message, button, user="U0ANN", typed={"automate_comment": "go & see"}))
    found = output(kernel)
    assert (found["approved"], found["by"], found["comment"]) == (
        approved, "ann@example.com", "go & see",
    )  # fmt: skip
    (shown,) = slack.messages("C0LAUNCH")
    assert words in shown["text"]
    assert "Announce v2?" in str(shown["blocks"])
    with pytest.raises(LookupError):
        slack.click(shown, APPROVE, user="U0ANN")


@pytest.mark.parametrize(
    ("user", "by"), [("U0LEE", "lee"), ("U0KIM", "kim@example.com"), ("U0ANN", "ann@example.com")]
)
def test_people_and_groups_have_roles(slack: FakeSlack, owners: Kernel, user: str, by: str) -> None:
    """A user, a user group, or the person that the approval names."""
    message = ask(owners, slack)
    send(owners, slack.click(message, APPROVE, user=user))
    assert output(owners)["by"] == by


def test_the_config_names_people_by_e_mail_too(slack: FakeSlack, owners: Kernel) -> None:
    """In any case of letters."""
    message = ask(owners, slack, by=["max"])
    send(owners, slack.click(message, APPROVE, user="U0MAX"))
    assert output(owners)["by"] == "max"


def test_who_may_not_decide_is_told_so_alone(slack: FakeSlack, owners: Kernel) -> None:
    """The buttons stay for the others."""
    message = ask(owners, slack)
    send(owners, slack.click(message, APPROVE, user="U0MAX"))
    assert output(owners) is None
    assert outcomes(owners) == ["refused"]
    assert [each["user"] for each in slack.ephemeral] == ["U0MAX"]
    assert "may not decide" in slack.ephemeral[0]["text"]
    send(owners, slack.click(slack.messages("C0LAUNCH")[0], APPROVE, user="U0ANN"))
    assert output(owners)["approved"] is True


@pytest.mark.parametrize(
    "more", [{"team": "T0ELSEWHERE"}, {"is_stranger": True}, {"deleted": True}, {"is_bot": True}]
)
@pytest.mark.parametrize("by", [["ann@example.com"], []])
def test_an_e_mail_of_another_workspace_proves_nothing(
    slack: FakeSlack, kernel: Kernel, more: dict[str, Any], by: list[str]
) -> None:
    """In a shared channel its administrators could give anybody that address."""
    message = ask(kernel, slack, by=by)
    slack.add_user("U0FOREIGN", "ann@example.com", **more)
    send(kernel, slack.click(message, APPROVE, user="U0FOREIGN"))
    assert output(kernel) is None
    assert outcomes(kernel) == ["refused"]


def test_a_second_click_changes_nothing(slack: FakeSlack, owners: Kernel) -> None:
    """Whoever clicks, on a screen that still has the buttons; it says who was first."""
    message = ask(owners, slack)
    send(owners, slack.click(message, APPROVE, user="U0ANN"))
    send(owners, slack.click(message, REJECT, user="U0KIM"))
    send(owners, slack.click(message, REJECT, user="U0ANN"))
    assert output(owners)["by"] == "ann@example.com"
    assert outcomes(owners) == ["approved", "closed", "closed"]
    assert "*Approved* by ann@example.com" in slack.messages("C0LAUNCH")[0]["text"]


def test_a_decision_made_elsewhere_is_shown_at_the_next_click(
    slack: FakeSlack, kernel: Kernel
) -> None:
    """Whether a worker has taken it up or not."""
    message = ask(kernel, slack)
    (waiting,) = kernel.approvals.pending().approvals
    kernel.approvals.reject(waiting.execution_id, "ask", by="ann@example.com")
    send(kernel, slack.click(message, APPROVE, user="U0ANN"))
    assert output(kernel)["approved"] is False
    assert "*Rejected* by ann@example.com" in slack.messages("C0LAUNCH")[0]["text"]


@pytest.mark.parametrize(("asked", "heard"), [("a", "b"), ("a", None), (None, "b")])
def test_another_tenants_approval_can_not_be_answered(
    slack: FakeSlack, kernel: Kernel, asked: str | None, heard: str | None
) -> None:
    """The webhook's tenant has to be the approval's."""
    message = ask(kernel, slack, asked)
    request = slack.click(message, APPROVE, user="U0ANN")
    send(kernel, request, heard)
    assert output(kernel) is None
    assert "automate_approve" in str(slack.messages("C0LAUNCH")[0]["blocks"])
    send(kernel, slack.click(message, APPROVE, user="U0ANN", now=None), asked)
    assert output(kernel)["approved"] is True


def test_a_click_that_is_not_signed_is_refused(slack: FakeSlack, kernel: Kernel) -> None:
    """The webhook lets nothing in that Slack has not signed."""
    request = slack.click(ask(kernel, slack), APPROVE, user="U0ANN")
    for headers in ({}, {**request.headers, "X-Slack-Signature": "v0=" + "a" * 64}):
        with pytest.raises(WebhookRejectedError):
            send(kernel, SlackRequest(headers, request.body))
    assert output(kernel) is None


def test_a_button_that_was_not_made_here_is_none(slack: FakeSlack, kernel: Kernel) -> None:
    """Whoever may post blocks through the bot can post a button of the same name."""
    message = ask(kernel, slack)
    for value in ("forged", message["blocks"][-1]["elements"][0]["value"][:-2] + "xx"):
        message["blocks"][-1]["elements"][0]["value"] = value
        send(kernel, slack.click(message, APPROVE, user="U0ANN"))
    assert output(kernel) is None
    assert outcomes(kernel) == []


def test_an_event_that_was_made_up_proves_no_click(slack: FakeSlack, kernel: Kernel) -> None:
    """Who may emit events, or call the action, decides nothing by it: neither a button's own text
    nor a click with another comment."""
    message = ask(kernel, slack)
    button = message["blocks"][-1]["elements"][0]["value"]
    seen: list[Any] = []
    with kernel.replace("slack.answer_approval", lambda **given: seen.append(given)):
        send(kernel, slack.click(message, APPROVE, user="U0ANN"))
    click = seen[0] if seen else {"proof": button}
    for forged in ({"proof": button}, {**click, "comment": "another"}, {"proof": "x"}):
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("slack.answer_approval", forged)
        assert caught.value.code is ErrorCodes.PERMISSION_DENIED
    assert output(kernel) is None


def test_a_click_on_an_earlier_asking_decides_nothing(slack: FakeSlack, kernel: Kernel) -> None:
    """A step that was run again asks anew."""
    message = ask(kernel, slack, on_reject="fail")
    (waiting,) = kernel.approvals.pending().approvals
    kernel.approvals.reject(waiting.execution_id, "ask", by="ann@example.com")
    kernel.run_until_idle()
    kernel.executions.resume(waiting.execution_id)
    kernel.run_until_idle()
    assert len(slack.messages("C0LAUNCH")) == 2
    send(kernel, slack.click(message, APPROVE, user="U0ANN"))
    assert outcomes(kernel) == ["closed"]
    assert kernel.approvals.pending().approvals


def test_a_question_whose_answer_was_lost_is_posted_once(slack: FakeSlack, kernel: Kernel) -> None:
    """And one that Slack could not take is posted later."""
    slack.lose_answer("chat.postMessage")
    ask(kernel, slack)
    kernel.run_until_idle(patience=10)
    assert len(slack.messages("C0LAUNCH")) == 1


def test_a_decision_stands_although_slack_can_not_show_it(slack: FakeSlack, kernel: Kernel) -> None:
    """The click is tried again until the message shows it."""
    message = ask(kernel, slack)
    slack.fail("chat.update", 503)
    send(kernel, slack.click(message, APPROVE, user="U0ANN", typed={"automate_comment": "yes"}))
    assert output(kernel)["approved"] is True
    kernel.run_until_idle(patience=10)
    assert "*Approved* by <@U0ANN>: yes" in slack.messages("C0LAUNCH")[0]["text"]


def test_an_approval_of_a_list_names_its_element(slack: FakeSlack, kernel: Kernel) -> None:
    """Each has a message of its own, the one after the other."""
    given = workflow()
    step = given["steps"][0]
    step["for_each"] = ["a", "b"]
    step["approval"]["title"] = "Take {{ item }}?"
    step["approval"]["notify"]["input"]["position"] = "{{ approval.position }}"
    kernel.add_workflow(given)
    kernel.start("announce", {"what": "x"})
    kernel.run_until_idle()
    for button in (APPROVE, REJECT):
        send(kernel, slack.click(slack.messages("C0LAUNCH")[-1], button, user="U0ANN"))
    assert [each["approved"] for each in output(kernel)] == [True, False]


def test_a_form_that_buttons_can_not_fill_in_is_refused(slack: FakeSlack, kernel: Kernel) -> None:
    """When it is asked, and not at each click."""
    kernel.add_workflow(workflow(form=[{"name": "amount", "type": "integer", "required": True}]))
    kernel.start("announce", {"what": "x"})
    kernel.run_until_idle()
    (item,) = kernel.outbox.find(status="FAILED")
    assert "buttons can't fill in the form" in (item.last_error or "")
    assert not slack.messages("C0LAUNCH")


def test_without_a_waiting_step_nothing_is_asked(slack: FakeSlack, kernel: Kernel) -> None:
    """The remedy is where it belongs."""
    with pytest.raises(AutomateError, match="notify"):
        kernel.invoke("slack.ask_approval", {"channel": "C0LAUNCH"})


def test_another_value_than_the_signing_secret_is_told_as_such(slack: FakeSlack) -> None:
    """Slack shows a verification token beside it. The remedy was that of the kernel's own keys."""
    slack.signing_secret = "a-verification-token-24x"
    with (
        Kernel(config={"slack": slack.config}, secrets=slack.secrets) as kernel,
        pytest.raises(AutomateError, match="'SLACK_SIGNING_SECRET' is too short") as caught,
    ):
        kernel.invoke("slack.ask_approval", {"channel": "C0LAUNCH"})
    assert "Basic Information" in str(caught.value)
    assert slack.signing_secret not in str(caught.value)


class Clicking(RuleBasedStateMachine):
    """People click on old and new screens, in any order: the first who may decides, for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.slack = FakeSlack().start()
        self.slack.add_channel("C0LAUNCH", "launch")
        for name in ("ann", "kim", "max"):
            self.slack.add_user(f"U0{name.upper()}", f"{name}@example.com")
        self.kernel = Kernel(config={"slack": self.slack.config}, secrets=self.slack.secrets)
        self.kernel.add_workflow(APPROVALS)
        allowed = ["ann@example.com", "kim@example.com"]
        self.message = ask(self.kernel, self.slack, by=allowed)
        self.first: tuple[bool, str] | None = None

    @rule(name=st.sampled_from(["ann", "kim", "max"]), button=st.sampled_from([APPROVE, REJECT]))
    def click(self, name: str, button: str) -> None:
        request = self.slack.click(self.message, button, user=f"U0{name.upper()}")
        send(self.kernel, request)
        if self.first is None and name != "max":
            self.first = (button == APPROVE, f"{name}@example.com")

    @invariant()
    def it_is_as_the_first_has_said(self) -> None:
        found = output(self.kernel)
        assert (found and (found["approved"], found["by"])) == self.first
        text = self.slack.messages("C0LAUNCH")[0]["text"]
        assert ("Approved" in text or "Rejected" in text) is (self.first is not None)

    def teardown(self) -> None:
        self.kernel.close()
        self.slack.stop()


TestClicking = Clicking.TestCase
TestClicking.settings = settings(max_examples=8, stateful_step_count=6, deadline=None)
