"""Hostile values in each header, in a body, and in commands of IMAP."""

from __future__ import annotations

import base64
import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import default
from email.utils import getaddresses

import pytest
from automate_testing import HostileValuesContract
from automate_mail.addresses import spaced
from automate_mail.approval import ApprovalRequest
from automate_mail.config import MailConfig
from automate_mail.letter import Letter, posting_of
from mail_support import USER, kernel_with, scripted

CHANGING = {"date", "message-id", "content-type", "content-transfer-encoding"}


def read(letter, sender=USER):
    raw = posting_of(letter, sender, key=None, files_from=None, limit=2_000_000).content
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) < 998
    return message_from_bytes(raw, policy=default)


def outline(message, place):
    """All headers of all parts, without the values that differ from mail to mail, and *place*."""
    hidden = {"in-reply-to", "references"} if place == "in-reply-to" else {place}
    return [
        [(name, None if name.lower() in CHANGING | hidden else str(value)) for name, value in part.items()]
        for part in message.walk()
    ]  # fmt: skip


class TestMail(HostileValuesContract):
    places = (
        "subject", "to", "quoted", "reply-to", "from", "local part", "domain", "in-reply-to",
        "references", "content-disposition", "text", "html", "title", "description",
    )  # fmt: skip
    accepts = {
        place: {"encoded_word", "encoded_words", "latin", "astral", "right_to_left"}
        for place in ("subject", "to", "content-disposition", "text", "title")
    } | {place: {"nul", "crlf", "escape", "line_separator"} for place in ("title", "text")}

    def carry(self, place, value):
        letter, sender = {"to": ["a@b.example"], "text": "x", "html": "y"}, USER
        letter["attachments"] = [{"filename": "x.txt", "base64": "AAE="}]
        display = f"{value} <c@d.example>"
        match place:
            case "subject" | "text" | "html":
                letter[place] = value
            case "to":
                letter[place] = [display]
            case "quoted":
                letter["to"] = [f'"{value}" <c@d.example>']
            case "local part":
                letter["to"] = [f"{value}@b.example"]
            case "domain":
                letter["to"] = [f"a@{value}.example"]
            case "reply-to":
                letter["reply_to"] = display
            case "from":
                server = {"host": "localhost", "tls": "none"}
                sender = MailConfig.model_validate({"smtp": server, "sender": display}).sender
            case "in-reply-to":
                letter["in_reply_to"] = f"<{value}@b.example>"
            case "references":
                letter["references"] = [f"<{value}@b.example>", "<2@b.example>"]
            case "content-disposition":
                letter["attachments"][0]["filename"] = value
            case "title" | "description":
                asked = {"to": USER, "title": "T", "link": "https://a.example/", place: value}
                message = read(ApprovalRequest.model_validate(asked).letter())
                subject = message["subject"]
                return (subject if place == "title" else value), outline(message, "subject")
        message = read(Letter.model_validate(letter), sender)
        return self.found(message, place), outline(message, self.header(place))

    def header(self, place):
        return {"quoted": "to", "local part": "to", "domain": "to"}.get(place, place)

    def found(self, message, place):
        header = message[self.header(place)]
        match place:
            case "text" | "html":
                return message.get_body(("plain" if place == "text" else "html",)).get_content()
            case "to" | "quoted" | "reply-to" | "from":
                # The newer parser of Python puts a blank between encoded words that follow another.
                ((name, address),) = getaddresses(
                    [dict(message.raw_items())[self.header(place).title()]]
                )
                assert address == header.addresses[0].addr_spec == "c@d.example"
                return str(make_header(decode_header(name)))
            case "local part" | "domain":
                (address,) = header.addresses
                return address.username if place == "local part" else address.domain
            case "in-reply-to":
                return str(header)
            case "references":
                return str(header).split()
            case "content-disposition":
                (file,) = message.iter_attachments()
                return file["content-disposition"].params["filename"]
        return str(header)

    def same(self, place, value, arrived):
        match place:
            case "text" | "html":
                # Lines end as mail has it, and what no mail can hold is left out.
                sent = value.replace("\0", "").encode("utf-8", "replace").decode()
                return arrived.splitlines() == (sent.splitlines() or [""])
            case "title":
                return len(arrived) <= 200 and arrived == spaced(value)[:200].strip()
            case "in-reply-to":
                return arrived == f"<{value}@b.example>"
            case "references":
                return arrived[0] == f"<{value}@b.example>" and len(arrived) == 2
            case "subject":
                return arrived == value
            case "domain":
                return arrived.isascii()
        # Blanks around a name say nothing.
        return arrived.strip() == value.strip()


class Mailbox:
    """An IMAP server that reads commands as RFC 3501 has them, and notes their words."""

    def __init__(self):
        self.commands = []

    def __call__(self, connection):
        connection.say("* OK here")
        while True:
            tag, name, *words = self.read(connection)
            self.commands.append((name, words))
            sub = words[0] if name == "UID" else name
            untagged = {
                "CAPABILITY": ["* CAPABILITY IMAP4rev1 MOVE"],
                "EXAMINE": ["* 1 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 6] x"],
                "SELECT": ["* 1 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 6] x"],
                "SEARCH": ["* SEARCH"],
                "FETCH": ["* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 9)"],
            }
            connection.say(*untagged.get(sub, []), f"{tag} OK done")

    def read(self, connection):
        """Return the words of a command, with literals and quoted strings as they are meant."""
        words, line = [], connection.hear().removesuffix(b"\r\n")
        assert b"\r" not in line
        while line:
            if match := re.match(rb'"((?:[^"\\\r\n]|\\["\\])*)"', line):
                words.append(re.sub(rb"\\(.)", rb"\1", match[1]).decode())
            elif match := re.fullmatch(rb"\{(\d+)\}", line):
                connection.say("+ go on")
                words.append(connection.take(int(match[1])).decode())
                line = connection.hear().removesuffix(b"\r\n")
                continue
            else:
                match = re.match(rb"\([^()]*\)|[!-~]+", line)
                words.append(match[0].decode())
            line = line[match.end() :].removeprefix(b" ")
        return words


class TestImapCommands(HostileValuesContract):
    places = ("mailbox", "subject", "body", "message id", "target")
    accepts = {
        **dict.fromkeys(("mailbox", "target"), {"latin", "astral", "quote", "backslash"}),
        **dict.fromkeys(("subject", "body"), {"latin", "astral", "quote", "operators"}),
    }
    mixtures = 20

    @pytest.fixture(autouse=True)
    def _server(self):
        self.server = Mailbox()
        with scripted(self.server) as port:
            server = {"host": "127.0.0.1", "port": port, "tls": "none"}
            login = {"user": USER, "secret": "MAIL_PASSWORD"}
            with kernel_with({"imap": {**server, **login}, "timeout_seconds": 60}) as kernel:
                self.kernel = kernel
                yield

    def carry(self, place, value):
        self.server.commands.clear()
        match place:
            case "mailbox":
                self.kernel.invoke("mail.search", {"mailbox": value}, literal=True)
            case "target":
                self.kernel.invoke("mail.move", {"uid": 5, "target": value}, literal=True)
            case "message id":
                asked = {"message_id": f"<{value}@b.example>"}
                self.kernel.invoke("mail.search", asked, literal=True)
            case _:
                self.kernel.invoke("mail.search", {place: value}, literal=True)
        said = [(name, words) for name, words in self.server.commands if name != "LOGIN"]
        names = [name for name, _ in said]
        found = {name: words for name, words in said}
        last = found["EXAMINE"] if place == "mailbox" else found["UID"]
        arrived = last.pop()
        if place == "message id":
            arrived = arrived.removeprefix("<").removesuffix("@b.example>")
        if place in {"subject", "body"} and last[1:3] == ["CHARSET", "UTF-8"]:
            del last[1:3]
        return arrived, (names, found)

    def same(self, place, value, arrived):
        if place in {"mailbox", "target"}:
            # Names are in the modified UTF-7 of RFC 3501.
            return arrived.isascii() and arrived.isprintable() and decoded_name(arrived) == value
        return arrived == value


def decoded_name(text):
    def decode(match):
        packed = match[1].replace(",", "/")
        packed += "=" * (-len(packed) % 4)
        return base64.b64decode(packed).decode("utf-16-be") if packed else "&"

    return re.sub(r"&([^-]*)-", decode, text)
