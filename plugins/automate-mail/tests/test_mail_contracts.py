"""The connector's contract, in a workflow, and an approval by mail."""

import asyncio
import re
from email import message_from_bytes
from email.policy import default

import httpx
import pytest
from automate_kernel import Kernel
from automate_kernel.http.app import webhook_app
from automate_kernel.storage import MemoryStorage
from automate_testing import ConnectorContract
from automate_mail import MailConnector
from mail_support import USER, kernel_with

NOBODY = {"host": "127.0.0.1", "port": 9, "tls": "none"}


class TestMailConnector(ConnectorContract):
    plugin_class = MailConnector
    supports_webhooks = False
    config = {"smtp": NOBODY, "sender": USER}
    bad_configs = ({}, config, {"imap": {**NOBODY, "user": "ada", "secret": "KEY"}})
    example_inputs = {
        "send": {"to": ["bob@there.example"], "text": "Hello"},
        "search": {"subject": "Hello"},
    }

    @pytest.fixture
    def connector(self, mail_server):
        return mail_server.kernel().connector("mail")


ASK = {
    "name": "leave",
    "trigger": {"type": "event", "event": "leave.asked"},
    "steps": [
        {
            "id": "ok",
            "approval": {
                "title": "{{ event.payload.who }} would like a week off\nBcc: x@evil.example",
                "by": ["boss@shop.example", "chief@shop.example"],
                "notify": {
                    "action": "mail.ask_approval",
                    "input": {"approval": "{{ approval }}"},
                },
            },
        }
    ],
}


def asked(mail_server):
    """Start the workflow; return the kernel and the mails that ask."""
    kernel = kernel_with(
        mail_server.config(),
        storage=MemoryStorage(),
        secrets={"LINK_KEY": "a-random-text-of-at-least-32-characters"},
        signing_keys=["$secret:LINK_KEY"],
        public_url="https://shop.example/automate",
    )
    kernel.add_workflow(ASK)
    kernel.emit("leave.asked", {"who": "Kim <b>"})
    kernel.run_until_idle()
    return kernel, [message_from_bytes(raw, policy=default) for raw in mail_server.raw()]


def test_an_approval_by_a_link_in_a_mail(mail_server):
    kernel, mails = asked(mail_server)
    assert [mail["To"] for mail in mails] == ["boss@shop.example", "chief@shop.example"]
    assert len({mail["Message-ID"] for mail in mails}) == 2
    assert mails[0]["Bcc"] is None
    assert "Kim &lt;b&gt;" in mails[0].get_body(("html",)).get_content()
    text = mails[0].get_body(("plain",)).get_content()
    (link,) = re.findall(r"Approve: https://shop\.example/automate(\S+)", text)

    async def follow():
        transport = httpx.ASGITransport(webhook_app(kernel))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as browser:
            looked = [(await browser.get(link)).status_code for _ in range(3)]
            waiting = len(kernel.approvals.pending().approvals)
            decided = await browser.post(link, data={"decision": "approve"})
            again = await browser.post(link, data={"decision": "approve"})
            return looked, waiting, decided.status_code, again.status_code

    # A scanner that follows links decides nothing, and a link works once.
    assert asyncio.run(follow()) == ([200, 200, 200], 1, 200, 410)
    kernel.run_until_idle()
    (execution,) = kernel.executions.find(workflow="leave")
    assert execution.step("ok").output["by"] == "boss@shop.example"


def test_a_step_that_is_tried_again_sends_the_same_message_id(mail_server):
    """The first attempt breaks off after the mail was taken, before the step was saved."""
    config = mail_server.config(sent={"mailbox": "Sent"})
    with mail_server.client() as client:
        client.create("Sent")

    class Interrupted(MailConnector):
        attempts = 0

        async def _send(self, letter, key):
            sent = await super()._send(letter, key)
            Interrupted.attempts += 1
            if Interrupted.attempts == 1:
                raise ConnectionError("the worker's network is gone")
            return sent

    secrets = {"MAIL_PASSWORD": "a-password-4711"}
    kernel = Kernel(plugins=[Interrupted], config={"mail": config}, secrets=secrets,
                    discover=False, storage=MemoryStorage())  # fmt: skip
    kernel.add_workflow({
        "name": "greet",
        "trigger": {"type": "event", "event": "greet"},
        "steps": [{
            "id": "hello", "action": "mail.send", "retry": {"attempts": 2, "delay": 0},
            "input": {"to": ["bob@there.example"], "text": "Hello {{ event.payload.name }}"},
        }],
    })  # fmt: skip
    kernel.emit("greet", {"name": "Bob"})
    kernel.run_until_idle()
    (execution,) = kernel.executions.find(workflow="greet")
    assert execution.step("hello").output["already_sent"] is True
    assert Interrupted.attempts == 2
    assert len(mail_server.raw()) == 1
