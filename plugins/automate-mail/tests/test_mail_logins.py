"""Logins and TLS, to their success, on servers by script: mail-devel has IMAP without TLS alone."""

import base64
import time

import pytest
from automate_kernel import AutomateError
from mail_support import PASSWORD, USER, kernel_with, scripted

TOKEN = f"user={USER}\1auth=Bearer {PASSWORD}\1\1"


class ImapScript:
    """An empty mailbox, which notes what was said, and over which connection."""

    def __init__(self, certificate=None, *, implicit=False):
        self.certificate, self.implicit = certificate, implicit
        self.heard, self.encrypted = [], False

    def encrypt(self, connection):
        connection.encrypt(self.certificate)
        self.encrypted = True

    def __call__(self, connection):
        if self.implicit:
            self.encrypt(connection)
        connection.say("* OK here")
        while True:
            tag, *words = connection.hear().decode().split()
            self.heard.append((" ".join(words), self.encrypted))
            self.answer(connection, tag, words)

    def answer(self, connection, tag, words):
        if words[0] == "AUTHENTICATE":
            connection.say("+ ")
            self.heard.append((base64.b64decode(connection.hear()).decode(), self.encrypted))
        untagged = {
            "CAPABILITY": ["* CAPABILITY IMAP4rev1 STARTTLS AUTH=XOAUTH2 AUTH=PLAIN"],
            "EXAMINE": ["* 0 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 1] x"],
            "UID": ["* SEARCH"],
        }
        connection.say(*untagged.get(words[0], []), f"{tag} OK done")
        if words[0] == "STARTTLS":
            self.encrypt(connection)


def imap(port, **server):
    login = {"host": "localhost", "port": port, "user": USER, "secret": "MAIL_PASSWORD"}
    return kernel_with({"imap": {**login, **server}, "timeout_seconds": 20})


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_imap_logs_in_over_tls(certificate, tls):
    script = ImapScript(certificate, implicit=tls == "implicit")
    with scripted(script) as port:
        trusted = {"tls": tls, "ca_file": str(certificate / "cert.pem")}
        found = imap(port, **trusted).invoke("mail.search", {})
    assert found == {"messages": [], "total": 0}
    logins = [each for each in script.heard if each[0].startswith("LOGIN")]
    assert logins == [(f'LOGIN "{USER}" "{PASSWORD}"', True)]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize(
    ("host", "trusted"), [("localhost", False), ("127.1", True)], ids=["issuer", "name"]
)
def test_imap_tells_nothing_to_a_server_that_is_not_trusted(certificate, tls, host, trusted):
    """The certificate is nobody's, or another name's."""
    script = ImapScript(certificate, implicit=tls == "implicit")
    ca_file = str(certificate / "cert.pem") if trusted else None
    with scripted(script) as port:
        kernel = imap(port, tls=tls, ca_file=ca_file, host=host)
        with pytest.raises(AutomateError) as caught:
            kernel.invoke("mail.search", {})
    assert (caught.value.code, caught.value.retryable) == ("FAILED_PRECONDITION", False)
    assert PASSWORD not in str(script.heard)


def test_imap_sends_an_access_token():
    script = ImapScript()
    with scripted(script) as port:
        imap(port, tls="none", auth="xoauth2").invoke("mail.search", {})
    assert (TOKEN, False) in script.heard


def test_imap_sends_a_password_beyond_ascii():
    script = ImapScript()
    with scripted(script) as port:
        server = {"host": "localhost", "port": port, "user": USER, "secret": "OWN", "tls": "none"}
        kernel_with({"imap": server}, secrets={"OWN": "Schlüssel-4711"}).invoke("mail.search", {})
    assert (f"\0{USER}\0Schlüssel-4711", False) in script.heard


@pytest.mark.parametrize("manner", ["hang-up", "silence", "garbage"])
def test_what_imap_has_done_is_done_whatever_the_server_says_at_the_end(manner):
    class Rude(ImapScript):
        def answer(self, connection, tag, words):
            if words[0] != "LOGOUT":
                super().answer(connection, tag, words)
            elif manner == "hang-up":
                raise ConnectionError
            elif manner == "garbage":
                connection.say(b"\xff\xfe\x00{99999999999}\r\n" * 3)
            else:
                connection.hear()

    begin = time.monotonic()
    with scripted(Rude()) as port:
        found = imap(port, tls="none").invoke("mail.search", {})
    assert found["total"] == 0
    assert time.monotonic() - begin < 10


class OneMessage(ImapScript):
    """A mailbox with one message, on a server that has the *extensions*."""

    def __init__(self, extensions):
        super().__init__()
        self.extensions = extensions

    def answer(self, connection, tag, words):
        untagged = {
            "CAPABILITY": [f"* CAPABILITY IMAP4rev1 {self.extensions}"],
            "SELECT": ["* 1 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 6] x"],
            "FETCH": ["* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 9)"],
        }
        name = words[1] if words[0] == "UID" else words[0]
        connection.say(*untagged.get(name, []), f"{tag} OK done")


@pytest.mark.parametrize(
    ("extensions", "commands"),
    [
        ("MOVE UIDPLUS", ['MOVE 5 "Done"']),
        ("UIDPLUS", ['COPY 5 "Done"', r"STORE 5 +FLAGS.SILENT (\Deleted)", "EXPUNGE 5"]),
        ("", None),
    ],
    ids=["move", "uidplus", "neither"],
)
def test_a_message_is_moved_alone_or_not_at_all(extensions, commands):
    """Never by a plain EXPUNGE, which deletes what others have marked."""
    script = OneMessage(extensions)
    with scripted(script) as port:
        kernel = imap(port, tls="none")
        if commands is None:
            with pytest.raises(AutomateError) as caught:
                kernel.invoke("mail.move", {"uid": 5, "target": "Done"})
            assert caught.value.code == "UNIMPLEMENTED"
        else:
            kernel.invoke("mail.move", {"uid": 5, "target": "Done"})
    heard = [text for text, _ in script.heard if text.startswith("UID ") and "FETCH" not in text]
    assert heard == [f"UID {each}" for each in commands or []]


def test_smtp_sends_an_access_token():
    heard = []

    def script(connection):
        connection.say("220 here")
        while True:
            line = connection.hear().decode()
            heard.append(line)
            if line.startswith("EHLO"):
                connection.say("250-here", "250 AUTH XOAUTH2")
            elif line.startswith("AUTH"):
                connection.say("235 yes")
            elif line.startswith("DATA"):
                connection.say("354 go on")
                while connection.hear() != b".\r\n":
                    pass
                connection.say("250 taken")
            else:
                connection.say("250 yes")

    with scripted(script) as port:
        server = {"host": "127.0.0.1", "port": port, "tls": "none", "user": USER}
        login = {"secret": "MAIL_PASSWORD", "auth": "xoauth2"}
        kernel = kernel_with({"smtp": {**server, **login}, "sender": USER})
        kernel.invoke("mail.send", {"to": ["bob@there.example"], "text": "Hello"})
    (token,) = [line.split()[2] for line in heard if line.startswith("AUTH XOAUTH2")]
    assert base64.b64decode(token).decode() == TOKEN
