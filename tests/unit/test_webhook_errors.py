"""What a connector raises while it reads a webhook shows none of its secrets."""

import traceback
from asyncio import CancelledError
from concurrent.futures import ThreadPoolExecutor

import pytest
from logged import logged
from automate_kernel import AutomateError, Connector, ErrorCodes, Kernel, TriggerSpec
from automate_kernel.triggers.webhooks import GitHubSignature

SECRET = "s3cr3t-of-the-hub"


class Hub(Connector):
    """Takes whatever comes."""

    key = "hub"

    @classmethod
    def triggers(cls):
        return [TriggerSpec("push")]

    def verify_webhook(self, headers, raw_body):
        return True


def kernel_of(**members):
    """A kernel with a hub that has these methods in place of its own."""
    hub = type("OwnHub", (Hub,), members)
    return Kernel(plugins=[hub], secrets={"HUB": SECRET}, discover=False)


@pytest.mark.parametrize("raised", [ValueError, "ours"])
def test_a_failing_parser_shows_no_secret(raised):
    """Neither in the error that a receiver answers with, nor in the traceback that it logs."""

    def parse_webhook(self, trigger, headers, raw_body):
        text = f"can't read it with {self.ctx.secrets.get('HUB')}"
        if raised == "ours":
            raise AutomateError(ErrorCodes.INVALID_ARGUMENT, text)
        raise raised(text)

    kernel = kernel_of(parse_webhook=parse_webhook)
    with pytest.raises(AutomateError, match="can't read it with") as caught:
        kernel.receive_webhook("hub", "push", {}, b"{}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert kernel.outbox.find() == []


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), CancelledError()])
@pytest.mark.parametrize(
    "where", ["verify_webhook", "route_webhook", "parse_webhook", "delivery_id"]
)
def test_a_connector_that_exits_ends_no_server(where, raised):
    """
    It would end the process that serves, at the word of whoever sends the request.

    A server receives on a thread: what is raised there ends the event loop that waits for it.
    """

    def leave(*given):
        raise raised

    kernel = kernel_of(**{where: leave})
    with ThreadPoolExecutor(1) as threads, pytest.raises(AutomateError):
        threads.submit(kernel.receive_webhook, "hub", "push", {}, b"{}").result()
    assert kernel.outbox.find() == []


def test_ctrl_c_while_a_webhook_is_received_is_the_programs():
    """On the main thread it is no error of the connector."""

    def interrupted(self, headers, raw_body):
        raise KeyboardInterrupt

    kernel = kernel_of(verify_webhook=interrupted)
    with pytest.raises(KeyboardInterrupt):
        kernel.receive_webhook("hub", "push", {}, b"{}")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"verify_webhook": lambda *_: None}, "verify_webhook didn't return True"),
        (
            {"verify_webhook": Connector.verify_webhook},
            "nothing can prove it: give TriggerSpec('push', …) a signature",
        ),
        (
            {"signature_for": lambda *_: GitHubSignature("HUB")},
            "no header X-Hub-Signature-256",
        ),
    ],
)
def test_the_log_says_why_a_webhook_is_refused(caplog, members, says):
    """And its sender doesn't learn it."""
    with pytest.raises(AutomateError) as caught:
        kernel_of(**members).receive_webhook("hub", "push", {}, b"{}")
    told = logged(caplog, "automate_kernel.triggers.webhooks")
    assert told[-1] == f"webhook hub.push refused: {says}"
    assert str(caught.value) == "the webhook was refused"


def test_a_stranger_writes_little_into_the_log(caplog):
    """A path may have tens of thousands of characters, and stood there twice."""
    kernel = Kernel(plugins=[], secrets={}, discover=False)
    with pytest.raises(AutomateError):
        kernel.receive_webhook("a" * 50_000, "b" * 50_000, {}, b"{}")
    told = "\n".join(logged(caplog, "automate_kernel.triggers.webhooks"))
    assert "aaa" in told
    assert len(told) < 2_000
