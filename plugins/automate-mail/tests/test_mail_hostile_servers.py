"""Servers that fail, lie, drip, flood and hang up: a code, the right retry, bounded memory."""

import threading
import time
import tracemalloc

import pytest
from automate_kernel import AutomateError
from automate_kernel.secrets import Redactor
from automate_mail.failures import said
from mail_support import PASSWORD, USER, kernel_with, scripted

LETTER = {"to": ["bob@there.example", "carol@there.example"], "text": "Hello"}
MIB = 1_048_576


# For servers that leave a client waiting, and for those that answer, on a machine that is busy.
SHORT, LONG = 0.3, 8.0


def smtp(config=None, seconds=LONG):
    return lambda port: {
        "smtp": {"host": "127.0.0.1", "port": port, "tls": "none", **(config or {})},
        "sender": USER, "timeout_seconds": seconds,
    }  # fmt: skip


def failure(script, operation, data, config):
    """Return the error of a call to *script*, which may take little time and memory."""
    with scripted(script) as port:
        kernel = kernel_with(config(port))
        tracemalloc.start()
        begin = time.monotonic()
        try:
            with pytest.raises(AutomateError) as caught:
                kernel.invoke(operation, data)
            assert time.monotonic() - begin < 10
            assert tracemalloc.get_traced_memory()[1] < 40 * MIB
        finally:
            tracemalloc.stop()
    text = f"{caught.value} {caught.value!r} {caught.value.details}"
    assert PASSWORD not in text
    assert len(text) < 2_000
    return caught.value


def conversation(stage=None, answer=None):
    """A server that plays well, but at *stage*: there it says *answer*, or hangs up."""
    reached = threading.Event()

    def reply(connection, name, usual):
        if name == stage:
            reached.set()
            if answer is None:
                raise ConnectionError
            if callable(answer):
                answer(connection)
                raise ConnectionError
            connection.say(answer)
        else:
            connection.say(usual)

    def script(connection):
        reply(connection, "greeting", "220 here")
        while True:
            line = connection.hear()
            verb = line.split()[0].upper()
            if verb == b"DATA":
                reply(connection, "data", "354 go on")
                if stage == "data":
                    continue
                while connection.hear() != b".\r\n":
                    pass
                reply(connection, "content", "250 taken")
            elif verb == b"EHLO":
                reply(connection, "ehlo", b"250-here\r\n250 AUTH PLAIN\r\n")
            elif verb == b"AUTH":
                reply(connection, "auth", "235 yes")
            elif verb == b"RCPT":
                reply(connection, "rcpt" if b"bob" in line else "", "250 yes")
            else:
                reply(connection, verb.decode().lower(), "250 yes")

    script.reached = reached
    return script


def drip(connection):
    for _ in range(200):
        connection.say(b"2")
        time.sleep(0.05)


def flood(connection):
    for _ in range(512):
        connection.say(b"250-" + b"x" * 1_000 + b"\r\n")
        connection.say(b"y" * MIB)


def long_silence(connection):
    try:
        connection.hear()
        connection.hear()
    except OSError:
        pass


EARLY = ["greeting", "ehlo", "mail", "rcpt"]


@pytest.mark.parametrize("stage", EARLY)
def test_smtp_that_hangs_up_before_the_mail_is_tried_again(stage):
    error = failure(conversation(stage), "mail.send", LETTER, smtp())
    assert (error.code, error.retryable) == ("UNAVAILABLE", True)


@pytest.mark.parametrize("stage", EARLY)
@pytest.mark.parametrize(
    "answer", [drip, flood, long_silence, b"\xff\xfe\x00garbage\r\n", "999 what", "-1 what"],
    ids=["drip", "flood", "silence", "garbage", "999", "minus"],
)  # fmt: skip
def test_smtp_that_talks_nonsense_before_the_mail_is_tried_again(stage, answer):
    error = failure(conversation(stage, answer), "mail.send", LETTER, smtp(seconds=SHORT))
    assert (error.code, error.retryable) == ("UNAVAILABLE", True)


@pytest.mark.parametrize("stage", ["data", "content"])
@pytest.mark.parametrize(
    "answer", [None, drip, flood, long_silence, b"\xff\xfegarbage\r\n"],
    ids=["hang-up", "drip", "flood", "silence", "garbage"],
)  # fmt: skip
def test_smtp_that_leaves_it_open_is_not_tried_again(stage, answer):
    """Nobody knows whether the mail was taken, and the error says so by its code."""
    for seconds in (SHORT, 2.0, LONG):
        script = conversation(stage, answer)  # its own: the last one's server may be late
        error = failure(script, "mail.send", LETTER, smtp(seconds=seconds))
        if script.reached.is_set():
            break  # else the machine was so busy that time was over before
    assert (error.code, error.retryable) == ("DEADLINE_EXCEEDED", False)
    assert "did not say whether it took it" in str(error)
    assert "@shop.example>" in str(error)


@pytest.mark.parametrize("stage", [*EARLY, "data", "content"])
@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        ("451 later", "UNAVAILABLE", True),
        ("452 full", "RESOURCE_EXHAUSTED", True),
        ("421 closing", "UNAVAILABLE", True),
        ("550 never", "FAILED_PRECONDITION", False),
        ("552 too big", "INVALID_ARGUMENT", False),
    ],
)
def test_smtp_replies_decide_about_the_next_try(stage, answer, code, retryable):
    if stage == "ehlo" and answer.startswith("5"):
        pytest.skip("HELO follows")
    error = failure(conversation(stage, answer), "mail.send", LETTER, smtp())
    assert (error.code, error.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (f"535 no: {PASSWORD}", "UNAUTHENTICATED", False),
        ("454 later", "UNAVAILABLE", True),
        (None, "UNAVAILABLE", True),
        (f"535 {PASSWORD} expired", "UNAUTHENTICATED", False),
    ],
    ids=["wrong", "later", "hang-up", "token"],
)
@pytest.mark.parametrize("auth", ["password", "xoauth2"])
def test_a_login_that_fails_shows_no_secret(answer, code, retryable, auth):
    login = {"user": USER, "secret": "MAIL_PASSWORD", "auth": auth}
    error = failure(conversation("auth", answer), "mail.send", LETTER, smtp(login))
    assert (error.code, error.retryable) == (code, retryable)


def test_one_refused_receiver_is_an_error_and_nobody_gets_the_mail():
    heard = []

    def script(connection):
        hear = connection.hear
        connection.hear = lambda: heard.append(hear()) or heard[-1]
        conversation("rcpt", "550 unknown")(connection)

    error = failure(script, "mail.send", LETTER, smtp())
    assert (error.code, error.retryable) == ("FAILED_PRECONDITION", False)
    assert "refused bob@there.example: 550 unknown" in str(error)
    assert b"DATA\r\n" not in heard


def test_the_others_get_it_if_that_is_asked_for():
    with scripted(conversation("rcpt", "550 unknown")) as port:
        kernel = kernel_with(smtp()(port))
        sent = kernel.invoke("mail.send", {**LETTER, "deliver_to_accepted": True})
    assert sent["refused"] == {"bob@there.example": "unknown"}


@pytest.mark.parametrize(
    "answer", [None, drip, flood, long_silence], ids=["hang-up", "drip", "flood", "silence"]
)
def test_a_mail_that_was_taken_is_sent_whatever_the_server_says_at_the_end(answer):
    with scripted(conversation("quit", answer)) as port:
        sent = kernel_with(smtp()(port)).invoke("mail.send", LETTER)
    assert sent["refused"] == {}


def test_a_server_that_takes_less_is_not_sent_more():
    heard = []

    def script(connection):
        connection.say("220 here")
        heard.append(connection.hear())
        connection.say(b"250-here\r\n250 SIZE 100\r\n")
        heard.append(connection.hear())

    error = failure(script, "mail.send", LETTER, smtp())
    assert error.code == "INVALID_ARGUMENT"
    assert len(heard) == 1 or heard[1] == b"QUIT\r\n"


def imap(config=None, seconds=LONG):
    return lambda port: {
        "imap": {"host": "127.0.0.1", "port": port, "tls": "none",
                 "user": USER, "secret": "MAIL_PASSWORD", **(config or {})},
        "timeout_seconds": seconds, "max_message_bytes": MIB,
    }  # fmt: skip


def mailbox(stage=None, answer=None):
    def reply(connection, name, tag, *untagged):
        if name == stage:
            if answer is None:
                raise ConnectionError
            if callable(answer):
                answer(connection)
                raise ConnectionError
            connection.say(answer if isinstance(answer, bytes) else answer.replace("TAG", tag))
            return
        connection.say(*untagged, f"{tag} OK done")

    def script(connection):
        if stage == "greeting":
            return reply(connection, "greeting", "*")
        connection.say("* OK here")
        while True:
            tag, *words = connection.hear().decode().split()
            name = words[1].lower() if words[0] == "UID" else words[0].lower()
            untagged = {
                "capability": ["* CAPABILITY IMAP4rev1 MOVE"],
                "examine": ["* 1 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 2] x"],
                "search": ["* SEARCH 1"],
            }.get(name, [])
            reply(connection, name, tag, *untagged)

    return script


def huge_literal(connection):
    connection.say("* 1 FETCH (UID 1 BODY[] {99999999999}")
    flood(connection)


def endless_lines(connection):
    for _ in range(20_000):
        connection.say(b"* 1 FETCH (FLAGS ())\r\n" * 1_000)


def long_refusal(connection):
    connection.say(b"* NO x " * 600_000 + b"\r\n")
    long_silence(connection)


STAGES = ["greeting", "capability", "login", "examine", "search", "fetch"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "answer",
    [None, drip, flood, huge_literal, endless_lines, long_silence, b"\xff\xfe\x00\r\n",
     b"* 1 FETCH (UID {5\r\n", b"+ \r\n" * 3],
    ids=["hang-up", "drip", "flood", "literal", "lines", "silence", "garbage", "half", "plus"],
)  # fmt: skip
def test_imap_that_fails_has_a_code(stage, answer):
    error = failure(mailbox(stage, answer), "mail.search", {}, imap(seconds=SHORT))
    assert error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert error.retryable is (error.code != "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("stage", "code"),
    [("login", "UNAUTHENTICATED"), ("examine", "NOT_FOUND"), ("search", "INVALID_ARGUMENT")],
)
def test_imap_that_says_no(stage, code):
    error = failure(mailbox(stage, f"TAG NO {PASSWORD} no\x07"), "mail.search", {}, imap())
    assert (error.code, error.retryable) == (code, False)


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_server_says_at_length_is_cut_before_it_is_looked_at(stage):
    """Megabytes of words took hundreds of megabytes, and seconds in which nothing else ran."""
    error = failure(mailbox(stage, long_refusal), "mail.search", {}, imap(seconds=2))
    assert error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert error.retryable


def test_the_words_of_a_server_show_no_secret_at_the_place_where_they_are_cut():
    for before in range(170, 202):
        shown = said("x" * before + PASSWORD, Redactor([PASSWORD]).redact)
        assert PASSWORD[:4] not in shown


def test_what_is_said_before_tls_is_refused():
    """A stranger on the way can't add to the encrypted session."""

    def script(connection):
        connection.say("* OK here")
        while True:
            tag, name = connection.hear().decode().split()[:2]
            if name == "STARTTLS":
                connection.say(f"{tag} OK go\r\n* CAPABILITY EVIL".encode() + b"\r\n")
            else:
                connection.say("* CAPABILITY IMAP4rev1 STARTTLS", f"{tag} OK done")

    error = failure(script, "mail.search", {}, imap({"tls": "starttls"}))
    assert error.code == "UNAVAILABLE"
