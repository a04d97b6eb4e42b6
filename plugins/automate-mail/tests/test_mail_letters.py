"""Letters: what may stand in them, and what becomes of it."""

import base64
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from automate_kernel import AutomateError
from automate_mail.addresses import parse_address
from automate_mail.approval import ApprovalRequest
from automate_mail.headers import WIRE, require_own_headers
from automate_mail.imap import encoded_name, quoted
from automate_mail.letter import Attachment, Letter, posting_of
from automate_mail.reading import message_of, summary_of
from hypothesis import given
from hypothesis import strategies as st
from mail_support import USER, kernel_with
from pydantic import ValidationError

CONFIG = {"smtp": {"host": "127.0.0.1", "port": 9, "tls": "none"}, "sender": USER}
LINE_BREAKS = ["\n", "\r", "\r\n", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]


def posted(letter, *, limit=100_000, files_from=None):
    return posting_of(
        Letter.model_validate(letter), USER, key="k", files_from=files_from, limit=limit
    )


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "subject", "reply_to", "in_reply_to"])
@pytest.mark.parametrize("end", LINE_BREAKS, ids=ascii)
def test_a_header_can_not_be_injected(field, end):
    value = f"a@b.example{end}Bcc: evil@there.example"
    letter = {"to": ["a@b.example"], "text": "x"}
    letter[field] = [value] if field in {"to", "cc", "bcc"} else value
    with pytest.raises(AutomateError) as caught:
        kernel_with(CONFIG).invoke("mail.send", letter)
    assert caught.value.code == "INVALID_ARGUMENT"


INJECTION = "=0D=0AX-Evil=3A_1=0D=0A=0D=0ANew_body"
ENCODED_WORDS = {
    "q": f"=?utf-8?q?a{INJECTION}?=",
    "b": "=?utf-8?b?YQ0KWC1FdmlsOiAxDQoNCk5ldyBib2R5?=",
    "language": f"=?utf-8*en?Q?a{INJECTION}?=",
    "latin": f"=?iso-8859-1?q?=E4{INJECTION}?=",
    "two": "=?utf-8?q?a=0D?= =?utf-8?q?=0AX-Evil=3A_1?=",
    "amid": f"Tea =?utf-8?q?a{INJECTION}?= and cake",
    "twice": "=?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3D0D=3D0AX-Evil=3D3A=5F1=3F=3D?=",
}


def headers(raw):
    """Every header of every part, as this Python reads them."""
    parts = message_from_bytes(raw, policy=default).walk()
    return [(name, str(value)) for part in parts for name, value in part.items()]


@pytest.mark.parametrize("word", list(ENCODED_WORDS))
@pytest.mark.parametrize(
    "field",
    ["subject", "re", "to", "quoted", "cc", "reply_to", "sender", "filename", "in_reply_to",
     "references", "to_local", "title"],
)  # fmt: skip
def test_encoded_words_add_no_header(field, word):
    """A program reads what was given, or the mail is refused."""
    text, sender, file, filename = ENCODED_WORDS[word], USER, "x.txt", None
    letter = {"to": ["a@b.example"], "text": "Our body", "html": "<p>Our body</p>"}
    display = f"{text} <c@d.example>"
    match field:
        case "subject":
            letter["subject"] = text
        case "re":
            letter["subject"] = f"Re: {text}"
        case "to" | "cc":
            letter[field] = [display]
        case "quoted":
            letter["to"] = [f'"{text}" <c@d.example>']
        case "reply_to":
            letter["reply_to"] = display
        case "to_local":
            letter["to"] = [f"{text}@b.example"]
        case "sender":
            sender = display
        case "filename":
            file = filename = f"{text}.pdf"
        case "in_reply_to":
            letter["in_reply_to"] = f"<{text}@b.example>"
        case "references":
            letter["references"] = [f"<{text}@b.example>"]
    letter["attachments"] = [{"filename": file, "base64": "AAE="}]
    try:
        made = Letter.model_validate(letter)
        if field == "title":
            asked = {"to": USER, "title": text, "link": "https://shop.example/a"}
            made = ApprovalRequest.model_validate(asked).letter()
        raw = posting_of(made, sender, key="k", files_from=None, limit=100_000).content
    except ValidationError:
        assert field in {"in_reply_to", "references", "to_local"}
        return
    assert b"\nX-Evil" not in raw
    found = headers(raw)
    assert {name for name, _ in found} <= {
        "From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version",
        "Content-Type", "Content-Transfer-Encoding", "Content-Disposition",
    }  # fmt: skip
    assert not [value for _, value in found if set(value) & set("\r\n")]
    message = message_from_bytes(raw, policy=default)
    assert message.get_body(("plain",)).get_content().split("\r\n") == [*made.text.split("\n"), ""]
    if field in {"subject", "re"}:
        assert message["Subject"] == letter["subject"]
    if filename is not None:
        assert [part.get_filename() for part in message.iter_attachments()] == [filename]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("subject", {"subject": "a\r\nX-Evil: 1"}),
        ("subject", {"subject": "=?utf-8?q?a=0Db?=\n"}),
        ("in_reply_to", {"in_reply_to": "<a@b>\r\nX-Evil: 1"}),
        ("in_reply_to", {"in_reply_to": "<a\u00a0b@c>"}),
        ("references", {"references": ["<=?utf-8?q?a=0Ab?=@c>"]}),
        ("references", {"references": ["<a@b>\r\n\r\nNew body"]}),
        ("filename", {"filename": "a\r\nX-Evil: 1"}),
        ("filename", {"filename": "a\udc80b"}),
        ("content_type", {"content_type": "text/plain\r\nX-Evil: 1"}),
        ("content_type", {"content_type": "text/=?utf-8?q?a=0D=0AX-Evil=3A_1?="}),
    ],
    ids=lambda each: None if isinstance(each, str) else ascii(*each.values()),
)
def test_the_finished_mail_is_looked_at_whatever_was_checked_before(field, change):
    """As if a check of a field were missing."""
    given = {"filename": "x.txt", "base64": "AAE=", "path": None, "content_type": "text/plain"}
    given |= {name: value for name, value in change.items() if name in given}
    attachment = Attachment.model_construct(**given)
    letter = {"to": ["a@b.example"], "text": "x", "attachments": [attachment], **change}
    with pytest.raises(AutomateError, match=rf"^{field}: |^{field}\b") as caught:
        posting_of(Letter.model_construct(**letter), USER, key="k", files_from=None, limit=100_000)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("subject", b"Subject: Tea", b"Subject: Tea\r\nX-Evil: 1"),
        ("subject", b"Subject: Tea", b"Subject: Tea\r\n\r\nNew body"),
        ("to", b"To: a@b.example", b"To: a@b.example, evil@there.example"),
        ("filename", b'"x.txt"', b'"x.txt"\r\nX-Evil: 1'),
        ("filename", b'"x.txt"', b'"y.txt"'),
        ("mime_version", b"MIME-Version: 1.0", b"MIME-Version: 1.0\r\nBcc: evil@there.example"),
    ],
)
def test_a_header_that_nobody_set_is_found_in_each_part(field, old, new):
    message = EmailMessage(policy=WIRE)
    message["To"], message["Subject"] = "a@b.example", "Tea"
    message.set_content("Hello")
    message.add_attachment(b"x", "text", "plain", disposition='attachment; filename="x.txt"')
    raw = message.as_bytes()
    require_own_headers(message, raw)
    assert old in raw
    with pytest.raises(AutomateError, match=f"^INVALID_ARGUMENT: {field}:|^{field}:"):
        require_own_headers(message, raw.replace(old, new, 1))


def test_a_file_on_a_disk_may_have_any_name(tmp_path):
    (tmp_path / "a\r\nX-Evil: 1").write_text("x")
    letter = {"to": ["a@b.example"], "text": "x", "attachments": [{"path": "a\r\nX-Evil: 1"}]}
    with pytest.raises(AutomateError, match="filename"):
        posted(letter, files_from=str(tmp_path))
    letter["attachments"][0]["filename"] = "a.txt"
    posted(letter, files_from=str(tmp_path))


def test_a_mail_of_anybody_can_be_answered():
    """Its subject, names and identifiers are the sender's, in what they become and in what not."""
    raw = (
        b"From: =?utf-8?q?Bob=0D=0AX-Evil=3A_1=00=7F?= <bob@there.example>\r\n"
        b"Subject: =?utf-8?b?YQ0KWC1FdmlsOiAxAAE=?= =?utf-8?q?=E2=80=A8=ED=A0=80?=\r\n"
        b"Message-ID: <=?utf-8?q?a=0D=0AX-Evil=3A_1?=@there.example>\r\n"
        b"In-Reply-To: Your message of Tuesday\r\n"
        b"References: <1@there.example> nonsense <=?utf-8?q?=0A?=@x> <2@there.example>\r\n\r\n"
    )
    found = summary_of("INBOX", 1, b"1 (UID 5)", raw)
    assert (found.message_id, found.in_reply_to) == (None, None)
    assert found.references == ["<1@there.example>", "<2@there.example>"]
    answer = {
        "to": [f"{found.sender_name} <{found.sender}>"],
        "subject": f"Re: {found.subject}",
        "references": found.references,
        "in_reply_to": found.message_id,
        "text": "Hello",
    }
    read = message_from_bytes(posted(answer).content, policy=default)
    assert read["Subject"].startswith("Re: a X-Evil: 1")
    assert "X-Evil" not in read.keys()


def test_an_approval_is_asked_for_whatever_its_title_holds():
    title = "Refund\x00 order\u2028 7\x85?\r\nBcc: evil@there.example"
    asked = {"to": USER, "title": title, "link": "https://shop.example/a"}
    letter = ApprovalRequest.model_validate(asked).letter()
    assert letter.subject == "Refund order 7 ? Bcc: evil@there.example"
    posted(letter.model_dump())


@given(
    subject=st.text(max_size=300),
    name=st.text(max_size=100),
    text=st.text(max_size=300),
    filename=st.text(min_size=1, max_size=100),
)
def test_whatever_is_accepted_comes_back_and_adds_no_header(subject, name, text, filename):
    letter = {
        "to": [f"{name} <a@b.example>"],
        "subject": subject,
        "text": text,
        "attachments": [{"filename": filename, "base64": "AAE="}],
    }
    try:
        posting = posted(letter)
    except ValidationError:
        return
    assert posting.content.isascii()
    assert all(len(line) < 998 for line in posting.content.split(b"\r\n"))
    assert b"\n" not in posting.content.replace(b"\r\n", b"")
    message = message_from_bytes(posting.content, policy=default)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"]
    )
    assert message["To"].addresses[0].addr_spec == "a@b.example"
    assert message["Subject"] == subject
    assert message["To"].addresses[0].display_name == parse_address(letter["to"][0]).display_name
    assert [part.get_filename() for part in message.iter_attachments()] == [filename]


@pytest.mark.parametrize(
    "address",
    ["", "a", "a@", "@b", "a b@c.example", "a@b..example", "a@-b.example", "<a@b.example", "a@b,c@d",
     "a@b.example, c@d.example", "a@b.example>", '"a b"@c.example', "ü@b.example", "a@" + "b" * 300,
     "a@b.example SIZE=1", "-a@b.example\n", "a.@b.example"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError):
        parse_address(address)


@pytest.mark.parametrize(
    ("address", "name", "plain"),
    [
        ("a@b.example", "", "a@b.example"),
        ("Ada L. <a+x@b.example>", "Ada L.", "a+x@b.example"),
        ('"L, Ada" <a@b.example>', "L, Ada", "a@b.example"),
        ("a@bücher.example", "", "a@xn--bcher-kva.example"),
    ],
)
def test_addresses_are_understood(address, name, plain):
    found = parse_address(address)
    assert (found.display_name, found.addr_spec) == (name, plain)


@pytest.mark.parametrize(
    "longest",
    ["a" * 64 + "@b.example", "a@" + "b" * 63 + ".example", "a@" + ".".join(["b" * 48] * 5)],
    ids=["local part", "label", "whole"],
)
def test_the_longest_address_is_understood_and_no_longer_one(longest):
    whole = longest.count(".") > 1
    longest = longest.ljust(254, "b") if whole else longest
    assert parse_address(longest).addr_spec == longest
    with pytest.raises(ValueError):
        parse_address(longest + "b" if whole else longest[0] + longest.replace("b.", "bb."))


def test_the_size_is_bounded_before_anything_is_sent():
    many = base64.b64encode(b"x" * 4_000).decode()
    attachment = {"filename": "x", "base64": many}
    for letter in ({"text": "x" * 6_000}, {"text": "", "attachments": [attachment] * 2}):
        with pytest.raises(AutomateError) as caught:
            posted({"to": ["a@b.example"], **letter}, limit=5_000)
        assert (caught.value.code, caught.value.retryable) == ("INVALID_ARGUMENT", False)


def test_a_mail_of_just_the_size_is_sent():
    letter = {"to": ["a@b.example"], "text": "x", "attachments": [{"filename": "x", "base64": ""}]}
    size = len(posted(letter).content)
    assert len(posted(letter, limit=size).content) == size
    with pytest.raises(AutomateError, match=f"larger than {size - 1} bytes"):
        posted(letter, limit=size - 1)


def test_a_file_is_read_no_further_than_a_mail_may_be(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 101)
    encoded = base64.b64encode(b"x" * 101).decode()
    # The length of base64 tells it but for the last three bytes.
    for given_, less in (({"path": "x"}, 100), ({"filename": "x", "base64": encoded}, 98)):
        attachment = Attachment.model_validate(given_)
        assert attachment.read(str(tmp_path), 101) == b"x" * 101
        with pytest.raises(AutomateError, match=f"larger than {less} bytes"):
            attachment.read(str(tmp_path), less)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"path": "x"}, "either base64 or path"),
        ({"base64": None}, "either base64 or path"),
        ({"filename": None}, "needs a filename"),
        ({"filename": ""}, "needs a filename"),
        *(({"content_type": each}, "is no media type of a file")
          for each in ("multipart/mixed", "Message/rfc822", "text", "text/plain; charset=x", "")),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused(change, problem):
    with pytest.raises(ValidationError, match=problem):
        Attachment.model_validate({"filename": "x", "base64": "AAE=", **change})


def test_a_file_whose_base64_has_other_characters_is_refused():
    attachment = Attachment.model_validate({"filename": "x", "base64": "AA\nE="})
    with pytest.raises(AutomateError, match="'x' is not base64"):
        attachment.read(None, 100)


@pytest.mark.parametrize(
    ("change", "problem"), [({"to": []}, "needs a receiver"), ({"text": None}, "text or html")]
)
def test_what_is_no_letter_is_refused(change, problem):
    with pytest.raises(ValidationError, match=problem):
        Letter.model_validate({"to": ["a@b.example"], "text": "x", **change})


def test_each_receiver_has_a_mail_once():
    copies = {"cc": ["Ada <a@b.example>", "c@d.example"], "bcc": ["c@d.example", "e@f.example"]}
    letter = Letter.model_validate({"to": ["a@b.example"], "text": "x", **copies})
    assert letter.receivers() == ["a@b.example", "c@d.example", "e@f.example"]


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link", "", "folder", "a\0b"])
def test_only_files_below_the_folder_are_attached(tmp_path, path):
    folder = tmp_path / "files"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    letter = {"to": ["a@b.example"], "text": "x", "attachments": [{"path": path}]}
    for files_from in (str(folder), None):
        with pytest.raises(AutomateError) as caught:
            posted(letter, files_from=files_from)
        assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"host": "mail.example"}, "loopback"),
        ({"user": "ada"}, "secret"),
        ({"tls": "maybe"}, "tls"),
    ],
)
def test_a_config_that_is_not_safe_is_refused(change, word):
    config = {**CONFIG, "smtp": {**CONFIG["smtp"], **change}}
    with pytest.raises(AutomateError, match=word if word != "loopback" else "this machine alone"):
        kernel_with(config).invoke("mail.send", {"to": ["a@b.example"], "text": "x"})


@given(st.binary(max_size=2_000))
def test_whatever_was_sent_can_be_read(raw):
    summary = summary_of("INBOX", 1, b"1 (UID 5 RFC822.SIZE 10 FLAGS (\\Seen)", raw)
    message = message_of(summary, raw, contents=True)
    message.model_dump_json().encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + b"--a\r\n" * 5_000,
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(3_000)
        ),
        b"From: " + b"(" * 50_000 + b"\r\n\r\n",
        b"Subject: " + b"=?utf-8?q?" * 5_000 + b"\r\n\r\n",
        b"Content-Type: text/plain; charset=no-such\r\n\r\n\xff",
        b"Content-Transfer-Encoding: base64\r\n\r\n!!!",
    ],
    ids=["parts", "nested", "comments", "words", "charset", "base64"],
)
def test_a_hostile_message_is_read_or_refused(raw):
    summary = summary_of("INBOX", 1, b"1 (UID 5)", raw)
    try:
        message = message_of(summary, raw, contents=False)
    except AutomateError as error:
        assert error.code == "INVALID_ARGUMENT"
    else:
        assert len(message.attachments) <= 200


@pytest.mark.parametrize(
    "parameter",
    [b"*=a\0b''x", b"*=undefined''x", b"*=idna''%ff", b"*=punycode''%ff%fe", b"*" + b"9" * 5_000 + b"=x",
     b"*=x; NAME*0=y"],
    ids=["nul", "undefined", "idna", "punycode", "number", "mixed"],
)  # fmt: skip
def test_a_message_is_read_whatever_its_parameters_say(parameter):
    """Anybody can send one, and the mails after it are waiting."""
    names = (b"charset", b"name", b"filename")
    given = [b"; " + name + parameter.replace(b"NAME", name) for name in names]
    parts = [
        b"Content-Type: text/plain" + given[0] + b"\r\n\r\nhello",
        b"Content-Type: application/x" + given[1] + b"\r\n\r\nfile",
        b"Content-Disposition: attachment" + given[2] + b"\r\n\r\nfile",
    ]
    joined = b"".join(b"\r\n--b\r\n" + each for each in parts)
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n" + joined + b"\r\n--b--"
    message = message_of(summary_of("INBOX", 1, b"1 (UID 5)", raw), raw, contents=True)
    assert message.text == "hello"
    assert len(message.attachments) == 2
    odd = b"Content-Type: multipart/mixed; boundary" + parameter + b"\r\n\r\nhello"
    message_of(summary_of("INBOX", 1, b"1 (UID 5)", odd), odd, contents=True)


def test_an_imap_command_can_not_be_injected():
    with pytest.raises(AutomateError):
        quoted('x"\r\nA1 DELETE INBOX')
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'
    assert encoded_name("Entwürfe & mehr") == "Entw&APw-rfe &- mehr"
