"""Mail on a real server: sent by SMTP, found and read by IMAP."""

import base64
from dataclasses import replace
from email import message_from_bytes
from email.policy import default

import pytest
from automate_kernel import AutomateError, Call
from automate_testing import PollContract
from automate_mail.imap import ImapSession
from mail_support import PASSWORD, USER, kernel_with

LETTER = {"to": ["Bob <bob@there.example>"], "subject": "Grüße", "text": "Hello\n.\nBob"}


def only(server, mailbox="INBOX"):
    (raw,) = server.raw(mailbox)
    return message_from_bytes(raw, policy=default)


def test_a_mail_arrives_as_it_was_written(mail_server, tmp_path):
    (tmp_path / "bill.pdf").write_bytes(b"%PDF-1.7 bill")
    kernel = mail_server.kernel(files_from=str(tmp_path))
    letter = {
        **LETTER,
        "cc": ["carol@there.example"],
        "bcc": ["dan@there.example"],
        "html": "<p>Hello</p>",
        "in_reply_to": f"<{'x' * 100}@there.example>",
        "attachments": [
            {"path": "bill.pdf", "content_type": "application/pdf"},
            {"filename": "ä.txt", "base64": base64.b64encode(b"\x00\xff").decode()},
        ],
    }
    sent = kernel.invoke("mail.send", letter)
    message = only(mail_server)
    assert message["Subject"] == "Grüße"
    assert message["From"] == f"The shop <{USER}>"
    assert message["To"] == "Bob <bob@there.example>"
    assert message["Message-ID"] == sent["message_id"]
    assert message["References"] == message["In-Reply-To"] == letter["in_reply_to"]
    written = [(name, value) for name, value in message.items() if not name.startswith("X-")]
    assert "dan" not in str(written)  # mail-devel notes the envelope's receivers itself
    assert "Bcc" not in message
    assert message.get_body(("plain",)).get_content().strip() == LETTER["text"]
    assert [(each.get_filename(), each.get_content()) for each in message.iter_attachments()] == [
        ("bill.pdf", b"%PDF-1.7 bill"),
        ("ä.txt", b"\x00\xff"),
    ]


def test_a_repeat_has_the_same_message_id_and_other_receivers_another(mail_server):
    kernel = mail_server.kernel()
    ids = [
        kernel.invoke("mail.send", letter, idempotency_key="step-1")["message_id"]
        for letter in (LETTER, LETTER, {**LETTER, "to": ["eve@there.example"]})
    ]
    assert ids[0] == ids[1] != ids[2]
    fresh = [kernel.invoke("mail.send", LETTER)["message_id"] for _ in range(2)]
    assert len({*ids, *fresh}) == 4


def test_what_is_among_the_sent_mail_is_not_sent_again(mail_server):
    kernel = mail_server.kernel(sent={"mailbox": "Sent"})
    with mail_server.client() as client:
        client.create("Sent")
    first = kernel.invoke("mail.send", LETTER, idempotency_key="step-2")
    again = kernel.invoke("mail.send", LETTER, idempotency_key="step-2")
    assert (first["already_sent"], first["saved"]) == (False, True)
    assert (again["already_sent"], again["message_id"]) == (True, first["message_id"])
    assert len(mail_server.raw("INBOX")) == len(mail_server.raw("Sent")) == 1


def begins_to_move(mail_server, monkeypatch, target):
    """Move a message by COPY, with a worker that dies after that; return what another one has to do."""
    raw = b"Subject: x\r\nMessage-ID: <4711@there.example>\r\n\r\nhello\r\n"
    mail_server.put(raw, b"Subject: y\r\n\r\nhello\r\n")
    with mail_server.client() as client:
        client.create("Sent")
    kernel = mail_server.kernel()
    monkeypatch.setattr(ImapSession, "capabilities", ("UIDPLUS",))
    given = kernel.invoke("mail.search", {"message_id": "<4711@there.example>"})["messages"][0]
    move = {"uid": given["uid"], "uid_validity": given["uid_validity"], "target": target}
    begun = Call("mail.move", execution_id="e", step_id="s", idempotency_key="e:s")

    def dies(self, what, name, *words):
        if name == "STORE":
            raise AutomateError("UNAVAILABLE", "killed")
        command(self, what, name, *words)

    command = ImapSession.command
    with monkeypatch.context() as patch:
        patch.setattr(ImapSession, "command", dies)
        with pytest.raises(AutomateError, match="killed"):
            kernel.perform(begun, move)
    return kernel, replace(begun, attempt=2), move


def test_a_move_whose_worker_died_leaves_one_message(mail_server, monkeypatch):
    kernel, again, move = begins_to_move(mail_server, monkeypatch, "Sent")
    assert len(mail_server.raw("Sent")) == 1
    kernel.perform(again, move)
    assert (len(mail_server.raw("INBOX")), len(mail_server.raw("Sent"))) == (1, 1)


def test_a_move_to_its_own_mailbox_loses_nothing_when_its_worker_dies(mail_server, monkeypatch):
    kernel, again, move = begins_to_move(mail_server, monkeypatch, "inbox")
    kernel.perform(again, move)
    assert len(mail_server.raw("INBOX")) == 2


def test_a_message_is_found_read_marked_and_moved(mail_server):
    kernel = mail_server.kernel()
    letter = {**LETTER, "html": "<b>x</b>",
              "attachments": [{"filename": "a.bin", "base64": "AAE="}]}  # fmt: skip
    sent = kernel.invoke("mail.send", letter)
    kernel.invoke("mail.send", {**LETTER, "subject": 'Other "one"'})
    for criteria in ({"subject": "Grüße"}, {"message_id": sent["message_id"]}):
        found = kernel.invoke("mail.search", criteria)
        assert [each["subject"] for each in found["messages"]] == ["Grüße"]
    newest = kernel.invoke("mail.search", {"limit": 1})
    assert (newest["total"], newest["messages"][0]["subject"]) == (2, 'Other "one"')

    place = {name: found["messages"][0][name] for name in ("uid", "uid_validity")}
    read = kernel.invoke("mail.fetch", {**place, "contents": True})
    assert read["text"].strip() == "Hello\n.\nBob"
    assert read["html"].strip() == "<b>x</b>"
    assert [(a["filename"], a["base64"]) for a in read["attachments"]] == [("a.bin", "AAE=")]
    assert "\\Seen" not in read["flags"]
    assert not read["truncated"]

    marked = kernel.invoke("mail.mark", {**place, "seen": True, "flagged": True})
    assert {"\\Seen", "\\Flagged"} <= set(marked["flags"])
    assert "\\Seen" not in kernel.invoke("mail.mark", {**place, "seen": False})["flags"]
    with mail_server.client() as client:
        client.create("Sent")
    kernel.invoke("mail.move", {**place, "target": "Sent"})
    assert len(mail_server.raw("Sent")) == len(mail_server.raw("INBOX")) == 1
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("mail.fetch", place)
    assert caught.value.code == "NOT_FOUND"
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("mail.fetch", {"uid": 1, "uid_validity": place["uid_validity"] + 1})
    assert caught.value.code == "FAILED_PRECONDITION"


def test_a_large_message_is_cut(mail_server):
    mail_server.put(b"Subject: big\r\n\r\n" + b"x" * 5_000)
    kernel = mail_server.kernel(max_message_bytes=1_024)
    uid = kernel.invoke("mail.search", {})["messages"][0]["uid"]
    read = kernel.invoke("mail.fetch", {"uid": uid})
    assert read["truncated"]
    assert len(read["text"]) < 1_024 < read["size"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"port": 9}, "UNAVAILABLE"),
        ({"secret": "WRONG"}, "UNAUTHENTICATED"),
        ({"tls": "starttls", "ca_file": None}, "FAILED_PRECONDITION"),
        ({"tls": "implicit", "ca_file": None, "port": "smtps"}, "FAILED_PRECONDITION"),
        ({"tls": "implicit"}, "UNAVAILABLE"),
    ],
    ids=["nobody", "password", "untrusted", "untrusted-implicit", "no-tls-there"],
)
def test_smtp_that_can_not_be_used_says_why(mail_server, change, code):
    config = mail_server.config()
    if change.get("port") == "smtps":
        change = {**change, "port": mail_server.smtps}
    config["smtp"].update(change)
    kernel = kernel_with(config, secrets={"WRONG": "another-password"})
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("mail.send", LETTER)
    assert caught.value.code == code
    assert "password-" not in str(caught.value)
    assert "another-password" not in str(caught.value)


def test_implicit_tls(mail_server):
    config = mail_server.config()
    config["smtp"].update(tls="implicit", port=mail_server.smtps, host="localhost")
    kernel_with(config).invoke("mail.send", LETTER)
    assert len(mail_server.raw()) == 1


def test_imap_refuses_a_wrong_password_without_showing_it(mail_server):
    config = mail_server.config()
    config["imap"]["secret"] = "WRONG"
    with pytest.raises(AutomateError) as caught:
        kernel_with(config, secrets={"WRONG": "another-word"}).invoke("mail.search", {})
    assert (caught.value.code, caught.value.retryable) == ("UNAUTHENTICATED", False)
    assert "another-word" not in str(caught.value)
    assert PASSWORD not in repr(caught.value)


def test_a_message_that_arrives_is_one_event_and_the_old_ones_are_none(mail_server):
    mail_server.put(b"Subject: old\r\n\r\n")
    connector = connector_for(mail_server)
    first = connector.arrived(None)
    assert not first.events
    assert not connector.arrived(first.cursor).events
    mail_server.put(b"Subject: new\r\nFrom: =?utf-8?q?M=C3=BCller=2C_A?= <a@b.example>\r\n\r\n")
    result = connector.arrived(first.cursor)
    (event,) = result.events
    assert (event.payload["subject"], event.payload["sender"]) == ("new", "a@b.example")
    assert event.payload["sender_name"] == "Müller, A"
    assert not connector.arrived(result.cursor).events


def test_a_mailbox_that_was_numbered_anew_goes_on_by_time(mail_server):
    """Nothing that was an event already, or was there from the beginning, is one."""
    mail_server.put(b"Subject: old\r\n\r\n")
    connector = connector_for(mail_server)
    cursor = connector.arrived(None).cursor
    mail_server.put(b"Subject: seen\r\n\r\n")
    cursor = connector.arrived(cursor).cursor
    mail_server.put(b"Subject: new\r\n\r\n")
    other = {**cursor, "uid_validity": cursor["uid_validity"] + 1, "uid": 1_000_000}
    result = connector.arrived(other)
    assert [each.payload["subject"] for each in result.events] == ["new"]
    assert not connector.arrived(result.cursor).events


def test_an_old_message_with_a_higher_number_is_no_event(mail_server):
    """As after a restore, which puts the messages back in another order."""
    connector = connector_for(mail_server)
    mail_server.put(b"Subject: seen\r\n\r\n")
    cursor = connector.arrived(None).cursor
    mail_server.put(b"Subject: new\r\n\r\n")
    mail_server.put(b"Subject: old\r\n\r\n", date="01-Jan-2026 10:00:00 +0000")
    other = {**cursor, "uid_validity": cursor["uid_validity"] + 1, "uid": 1_000_000}
    result = connector.arrived(other)
    assert [each.payload["subject"] for each in result.events] == ["new"]
    assert not connector.arrived(result.cursor).events


def test_a_mailbox_of_many_pages_that_was_numbered_anew_has_each_new_message_once(mail_server):
    """Old ones lie among the new, on each page; what comes meanwhile is new, whatever its date."""
    connector = connector_for(mail_server)
    mail_server.put(b"Subject: seen\r\n\r\n")
    cursor = connector.arrived(None).cursor
    old = {"date": "01-Jan-2026 10:00:00 +0000"}
    for begin in range(0, 130, 10):
        mail_server.put(*(b"Subject: new %d\r\n\r\n" % (begin + each) for each in range(10)))
        mail_server.put(b"Subject: old\r\n\r\n", **old)
    cursor = {**cursor, "uid_validity": cursor["uid_validity"] + 1, "uid": 1_000_000}
    found, looks, more = [], 0, True
    while more:
        result = connector.arrived(cursor)
        cursor, more = result.cursor, result.more
        found += [each.payload["subject"] for each in result.events]
        looks += 1
        if looks == 1:
            mail_server.put(b"Subject: moved here meanwhile\r\n\r\n", **old)
    assert sorted(found) == sorted(
        [*(f"new {number}" for number in range(130)), "moved here meanwhile"]
    )
    assert looks == 3
    mail_server.put(b"Subject: moved here later\r\n\r\n", **old)
    (event,) = connector.arrived(cursor).events
    assert event.payload["subject"] == "moved here later"


def test_another_mailbox_with_the_same_numbers_loses_nothing(mail_server):
    """Some servers number each mailbox from 1, and give all the same UIDVALIDITY."""
    connector = connector_for(mail_server)
    mail_server.put(b"Subject: one\r\n\r\n", b"Subject: two\r\n\r\n")
    cursor = connector.arrived(None).cursor
    mail_server.put(b"Subject: three\r\n\r\n")
    seen = connector.arrived(cursor)
    mail_server.put(b"Subject: elsewhere\r\n\r\n", mailbox="Sent")
    other = connector_for(mail_server, inbox="Sent")
    validity = other.arrived(None).cursor["uid_validity"]
    result = other.arrived({**seen.cursor, "uid_validity": validity, "uid": 1_000})
    assert [each.payload["subject"] for each in result.events] == ["elsewhere"]
    assert not {each.id for each in result.events} & {each.id for each in seen.events}
    assert not other.arrived(result.cursor).events


def test_a_mailbox_that_is_numbered_anew_again_on_the_way_loses_nothing(mail_server):
    """What was an event may come twice then; under another id, for its number is another one."""
    connector = connector_for(mail_server)
    cursor = connector.arrived(None).cursor
    mail_server.put(b"Subject: seen\r\n\r\n")
    cursor = connector.arrived(cursor).cursor
    mail_server.put(*(b"Subject: new %d\r\n\r\n" % number for number in range(60)))
    other = {**cursor, "uid_validity": cursor["uid_validity"] + 1, "uid": 1_000_000}
    half = connector.arrived(other)
    assert half.more
    again = {**half.cursor, "uid_validity": 1, "uid": 1_000_000}
    found, more = [each.payload["subject"] for each in half.events], True
    while more:
        result = connector.arrived(again)
        again, more = result.cursor, result.more
        found += [each.payload["subject"] for each in result.events]
    assert set(found) == {f"new {number}" for number in range(60)}


class TestArrivals(PollContract):
    poll = "arrived"

    @pytest.fixture
    def connector(self, mail_server):
        return connector_for(mail_server)

    @pytest.fixture(autouse=True)
    def _server(self, mail_server):
        self.server, self.count = mail_server, 0

    def happen(self, connector):
        self.count += 1
        self.server.put(b"Subject: %d\r\n\r\n" % self.count)


def connector_for(server, **config):
    kernel = server.kernel(**config)
    return kernel.connector("mail")


def test_the_answer_of_the_how_to_is_ours_whatever_a_stranger_wrote(mail_server):
    """From what arrived to what is sent, with the real server between them."""
    evil = "=?utf-8?q?a=0D=0ABcc=3A_evil=40there.example=0D=0A=0D=0AOur_new_account=3A_1?="
    twice = "=?utf-8?b?" + base64.b64encode(evil.encode()).decode() + "?="
    for number, word in enumerate((evil, twice), 1):
        mail_server.put(
            f'From: "{word}" <bob@there.example>\r\nTo: {USER}\r\nSubject: {word}\r\n'
            f"Message-ID: <{number}@there.example>\r\nIn-Reply-To: {word}\r\n"
            f"References: <{word}@there.example> <0@there.example>\r\n\r\nprice?\r\n".encode()
        )
    answer = {
        "name": "answer",
        "trigger": {"type": "manual"},
        "steps": [
            {
                "id": "answer",
                "action": "mail.send",
                "input": {
                    "to": ["{{ event.payload.sender_name }} <{{ event.payload.sender }}>"],
                    "subject": "Re: {{ event.payload.subject }}",
                    "text": "Our prices are attached.",
                    "in_reply_to": "{{ event.payload.message_id }}",
                    "references": "{{ event.payload.references }}",
                    "attachments": [
                        {"filename": "{{ event.payload.subject }}.txt", "base64": "VGVhOiAxMA=="}
                    ],
                },
            }
        ],
    }
    with mail_server.kernel() as kernel:
        kernel.add_workflow(answer)
        arrived = kernel.invoke("mail.search", {})["messages"]
        for message in arrived:
            done = kernel.run("answer", message)
            assert done.status == "COMPLETED", done.error
    sent = [raw for raw in mail_server.raw() if b"prices" in raw]
    assert len(sent) == len(arrived) == 2
    for raw in sent:
        assert b"\nBcc" not in raw
        parts = list(message_from_bytes(raw, policy=default).walk())
        assert parts[0]["References"].startswith("<0@there.example>")
        assert [name for part in parts for name in part.keys() if name.lower() == "bcc"] == []
        assert not [v for part in parts for v in part.values() if set(str(v)) & set("\r\n")]
