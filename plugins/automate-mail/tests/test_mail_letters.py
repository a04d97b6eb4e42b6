"""Letters: what may stand in them, and what becomes of it."""

import base64
from email import message_from_bytes
from email.policy import default

import pytest
from automate_kernel import AutomateError
from automate_mail.addresses import parse_address
from automate_mail.imap import encoded_name, quoted
from automate_mail.letter import Letter, posting_of
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
    assert all(len(line) < 998 for line in posting.content.split(b"\r\n"))
    assert b"\n" not in posting.content.replace(b"\r\n", b"")
    message = message_from_bytes(posting.content, policy=default)
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"]
    )
    assert message["To"].addresses[0].addr_spec == "a@b.example"
    assert message["Subject"].split() == subject.split()


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


def test_the_size_is_bounded_before_anything_is_sent():
    many = base64.b64encode(b"x" * 4_000).decode()
    attachment = {"filename": "x", "base64": many}
    for letter in ({"text": "x" * 6_000}, {"text": "", "attachments": [attachment] * 2}):
        with pytest.raises(AutomateError) as caught:
            posted({"to": ["a@b.example"], **letter}, limit=5_000)
        assert (caught.value.code, caught.value.retryable) == ("INVALID_ARGUMENT", False)


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
