"""Mailboxes whose logins are tokens of OAuth 2, which a person connects and the plugin renews."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
from automate_kernel import AutomateError, Kernel
from automate_kernel.operations.portal import LoopThread
from automate_kernel.secrets import MemorySecretsBackend, WritableFileSecretsBackend
from automate_mail import MailConnector
from automate_mail.config import MailConfig
from mail_support import USER, scripted
from pydantic import ValidationError

pytest.importorskip("authlib", reason="pip install 'automate-mail[oauth]'")
aiosmtpd = pytest.importorskip("aiosmtpd.smtp", reason="pip install aiosmtpd")

CLIENT_SECRET = "client-secret-canary-4711"  # noqa: S105 - of nothing


class Service:
    """A mail service: its token endpoint, SMTP that is aiosmtpd, and IMAP by script."""

    def __init__(self):
        self.valid, self.given, self.grants, self.logins = set(), [], [], []
        self.lifetime, self.ended, self.mails, self.allowed = 3_600, False, [], True

    def token(self, form):
        self.grants.append(form)
        if self.ended:
            return 400, {"error": "invalid_grant"}
        number = len(self.given) + 1
        self.given += [f"access-canary-{number}", f"refresh-canary-{number}"]
        self.valid = {self.given[-2]}
        return 200, {
            "access_token": self.given[-2],
            "refresh_token": self.given[-1],
            "token_type": "Bearer",
            "expires_in": self.lifetime,
        }

    def knows(self, words):
        """Return True for the answer to XOAUTH2 of a user with a token that is good."""
        self.logins.append(words)
        good = {f"user={USER}\1auth=Bearer {each}\1\1" for each in self.valid}
        return self.allowed and words in good

    # SMTP, as a handler of aiosmtpd

    async def auth_XOAUTH2(self, server, args):
        if self.knows(base64.b64decode(args[1]).decode()):
            return aiosmtpd.AuthResult(success=True, auth_data="ada")
        await server.challenge_auth(base64.b64encode(b'{"status":"400"}').decode(), False)
        return aiosmtpd.AuthResult(success=False, handled=False)

    async def handle_DATA(self, server, session, envelope):
        if not session.authenticated:
            return "530 log in first"
        self.mails.append(envelope.content)
        return "250 taken"

    # IMAP

    def imap(self, connection):
        connection.say("* OK here")
        while True:
            tag, *words = connection.hear().decode().split()
            answer = "OK done"
            if words[0] == "AUTHENTICATE":
                connection.say("+ ")
                if not self.knows(base64.b64decode(connection.hear()).decode()):
                    connection.say("+ " + base64.b64encode(b'{"status":"400"}').decode())
                    assert connection.hear().strip() == b""
                    answer = "NO invalid credentials"
            untagged = {
                "CAPABILITY": ["* CAPABILITY IMAP4rev1 AUTH=XOAUTH2"],
                "EXAMINE": ["* 0 EXISTS", "* OK [UIDVALIDITY 7] x", "* OK [UIDNEXT 1] x"],
                "UID": ["* SEARCH"],
            }
            connection.say(*untagged.get(words[0], []), f"{tag} {answer}")


@pytest.fixture
def service():
    """The service, with its address of tokens as *url*, and its ports."""
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, answer = found.token({name: value[0] for name, value in form.items()})
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    tokens = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=tokens.serve_forever, args=(0.01,), daemon=True).start()
    found.url = f"http://127.0.0.1:{tokens.server_port}"
    thread = LoopThread("smtp")

    async def listen():
        loop = asyncio.get_running_loop()
        make = partial(aiosmtpd.SMTP, found, auth_require_tls=False, loop=loop)
        return await loop.create_server(make, "127.0.0.1", 0)

    smtp = asyncio.run_coroutine_threadsafe(listen(), thread.loop).result(60)
    found.smtp_port = smtp.sockets[0].getsockname()[1]
    with scripted(found.imap) as port:
        found.imap_port = port
        yield found
    thread.loop.call_soon_threadsafe(smtp.close)
    assert thread.end(60)
    tokens.shutdown()
    tokens.server_close()


@pytest.fixture
def kernel(service, tmp_path):
    here = {"host": "127.0.0.1", "tls": "none"}
    config = {
        "sender": USER,
        "smtp": {**here, "port": service.smtp_port},
        "imap": {**here, "port": service.imap_port},
        "oauth": {
            "provider": "microsoft", "user": USER, "client_id": "shop",
            "client_secret": "MAIL_CLIENT", "token_url": f"{service.url}/token",
        },
    }  # fmt: skip
    secrets = [
        MemorySecretsBackend({"MAIL_CLIENT": CLIENT_SECRET}),
        WritableFileSecretsBackend(tmp_path / "tokens"),
    ]
    options = {"plugins": [MailConnector], "config": {"mail": config}, "secrets": secrets}
    with Kernel(discover=False, **options) as found:
        yield found


def connect(kernel):
    """Do what `automate connect mail` does, for a person who says yes; return the question."""
    account = kernel.connector("mail").oauth()
    consent = account.begin("http://127.0.0.1:8400/callback")
    answer = f"{consent.redirect_uri}?code=c-1&state={consent.state}"
    account.finish(consent, answer, kernel.secrets, by="ada")
    return {name: value[0] for name, value in parse_qs(urlsplit(consent.url).query).items()}


def test_a_command_connects_the_mailbox(service, tmp_path):
    """From the printed page to the stored tokens, with which another process logs in."""
    (tmp_path / "automate.toml").write_text(
        f"""
        secrets = ["env", {{backend = "writable_file", directory = "tokens"}}]
        [config.mail]
        sender = "{USER}"
        imap = {{host = "127.0.0.1", port = {service.imap_port}, tls = "none"}}
        [config.mail.oauth]
        provider = "google"
        user = "{USER}"
        client_id = "shop"
        token_url = "{service.url}/token"
        """
    )
    command = [sys.executable, "-m", "automate_cli"]
    options = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    asking = [*command, "connect", "mail", "--no-browser", "--by", "grace", "--wait", "60s"]
    with subprocess.Popen(asking, **options) as process:
        url = next(line.strip() for line in process.stderr if line.startswith("http"))
        asked = {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()}
        back = f"{asked['redirect_uri']}?code=c-1&state={asked['state']}"
        assert urlopen(back, timeout=60).status == 200
        printed = process.stdout.read() + process.stderr.read()
        assert process.wait(60) == 0, printed
    assert asked["scope"] == "https://mail.google.com/"
    assert "mail is connected. Its tokens are in the secret mail-account" in printed
    assert "canary" not in printed
    done = subprocess.run([*command, "call", "mail.search"], timeout=100, **options)
    assert done.returncode == 0, done.stderr
    assert service.logins == [f"user={USER}\1auth=Bearer access-canary-1\1\1"]


LETTER = {"to": ["bob@there.example"], "text": "Hello"}


def test_an_account_is_connected_and_its_token_logs_in(kernel, service):
    asked = connect(kernel)
    assert (asked["client_id"], asked["code_challenge_method"]) == ("shop", "S256")
    assert asked["scope"].split() == [
        "offline_access",
        "https://outlook.office.com/SMTP.Send",
        "https://outlook.office.com/IMAP.AccessAsUser.All",
    ]
    kernel.invoke("mail.send", LETTER)
    assert kernel.invoke("mail.search", {}) == {"messages": [], "total": 0}
    assert len(service.mails) == 1
    assert service.logins == [f"user={USER}\1auth=Bearer access-canary-1\1\1"] * 2
    (grant,) = service.grants
    assert (grant["grant_type"], grant["client_secret"]) == ("authorization_code", CLIENT_SECRET)
    assert "can be used" in asyncio.run(kernel.connector("mail").check())


@pytest.mark.parametrize("call", [("mail.send", LETTER), ("mail.search", {})], ids=["smtp", "imap"])
def test_a_token_that_is_refused_is_renewed_once_and_the_mail_goes_once(kernel, service, call):
    connect(kernel)
    service.valid = set()  # the service takes it back before its time
    kernel.invoke(*call)
    assert [each["grant_type"] for each in service.grants][1:] == ["refresh_token"]
    assert service.grants[1]["refresh_token"] == "refresh-canary-1"
    assert [each.split()[1].strip("\1") for each in service.logins] == [
        "access-canary-1", "access-canary-3"
    ]  # fmt: skip
    assert len(service.mails) == (call[0] == "mail.send")
    kernel.invoke(*call)
    assert len(service.grants) == 2


def test_a_token_is_renewed_before_it_expires(kernel, service):
    service.lifetime = 0
    connect(kernel)
    service.lifetime = 3_600
    kernel.invoke("mail.send", LETTER)
    assert len(service.grants) == 2
    assert service.logins == [f"user={USER}\1auth=Bearer access-canary-3\1\1"]


@pytest.mark.parametrize("call", [("mail.send", LETTER), ("mail.search", {})], ids=["smtp", "imap"])
@pytest.mark.parametrize("state", ["never connected", "ended", "not allowed"])
def test_a_login_that_can_not_be_had_names_the_remedy(kernel, service, caplog, call, state):
    caplog.set_level(logging.DEBUG)
    if state != "never connected":
        connect(kernel)
        service.valid, service.ended = set(), state == "ended"
        service.allowed = False
    with pytest.raises(AutomateError) as caught:
        kernel.invoke(*call)
    error = caught.value
    assert (error.code, error.retryable) == ("UNAUTHENTICATED", False)
    wanted = "allows this protocol" if state == "not allowed" else "automate connect mail"
    assert wanted in str(error)
    assert not service.mails
    shown = f"{error} {error.trace} {caplog.text} {kernel.connector('mail')!r}"
    assert "canary" not in shown
    if state == "not allowed":
        assert len(service.grants) == 2  # it asks for another token once, not for ever


def test_the_token_endpoint_that_is_away_is_tried_again(kernel, service, monkeypatch):
    connect(kernel)
    service.valid = set()
    monkeypatch.setattr(service, "token", lambda form: (503, {}))
    with pytest.raises(AutomateError) as caught:
        kernel.invoke("mail.send", LETTER)
    assert (caught.value.code, caught.value.retryable) == ("UNAVAILABLE", True)


def test_every_tenant_uses_the_mailbox_of_the_config(kernel, service):
    connect(kernel)
    kernel.invoke("mail.send", LETTER, tenant_id="acme")
    assert len(service.mails) == 1
    with pytest.raises(AutomateError, match="not for another tenant"):
        kernel.connector("mail").oauth().for_tenant("acme")


@pytest.mark.parametrize(
    ("provider", "servers", "host", "scope"),
    [
        ("microsoft", {"smtp": ("smtp.office365.com", "starttls"),
                       "imap": ("outlook.office365.com", "implicit")},
         "login.microsoftonline.com", "SMTP.Send"),
        ("google", {"smtp": ("smtp.gmail.com", "implicit"), "imap": ("imap.gmail.com", "implicit")},
         "accounts.google.com", "https://mail.google.com/"),
    ],
    ids=["microsoft", "google"],
)  # fmt: skip
def test_what_is_known_of_a_service_needs_no_words(provider, servers, host, scope):
    oauth = {"provider": provider, "user": USER, "client_id": "shop"}
    config = MailConfig.model_validate({"sender": USER, "oauth": oauth})
    for name, known in servers.items():
        server = getattr(config, name)
        assert (server.host, server.tls) == known
        assert (server.user, server.auth, server.secret) == (USER, "xoauth2", None)
    plugin = MailConnector({"sender": USER, "oauth": oauth})
    url = urlsplit(plugin.oauth().begin("http://127.0.0.1:8400/callback").url)
    assert (url.scheme, url.netloc) == ("https", host)
    asked = parse_qs(url.query)
    assert scope in asked["scope"][0]
    assert (asked.get("access_type") == ["offline"]) == (provider == "google")


def test_only_the_servers_that_are_named_are_used_and_asked_for():
    oauth = {"provider": "microsoft", "user": USER, "client_id": "shop", "directory": "d-1"}
    plugin = MailConnector({"oauth": oauth, "imap": {}})
    url = plugin.oauth().begin("http://127.0.0.1:8400/callback").url
    assert url.startswith("https://login.microsoftonline.com/d-1/oauth2/v2.0/authorize?")
    assert "IMAP.AccessAsUser.All" in url
    assert "SMTP.Send" not in url


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"imap": {"host": "a.example", "user": USER, "auth": "xoauth2"}}, "needs secret, or oauth"),
        ({"oauth": {"user": USER, "client_id": "x"}}, "needs a provider, or authorize_url"),
        ({"oauth": {"provider": "yahoo", "user": USER, "client_id": "x"}}, "microsoft"),
        ({"oauth": {"provider": "google", "user": f"{USER}\1auth=Bearer x", "client_id": "x"},
          "imap": {}}, "control characters"),
        ({"oauth": {"provider": "microsoft", "user": USER, "client_id": "x", "directory": "a/../b"}},
         "directory"),
    ],
    ids=["no account", "no service", "unknown service", "controls", "directory"],
)  # fmt: skip
def test_a_config_that_can_not_work_is_refused(config, words):
    with pytest.raises(ValidationError, match=words):
        MailConfig.model_validate(config)


def test_a_secret_that_something_else_renews_still_wins(service, tmp_path):
    service.valid = {"own-token"}
    server = {"host": "127.0.0.1", "tls": "none", "user": USER, "auth": "xoauth2", "secret": "OWN"}
    config = {"imap": {**server, "port": service.imap_port}}
    secrets = {"OWN": "own-token"}
    options = {"plugins": [MailConnector], "config": {"mail": config}, "secrets": secrets}
    with Kernel(discover=False, **options) as kernel:
        assert kernel.invoke("mail.search", {})["total"] == 0
        assert kernel.connector("mail").oauth() is None
        service.valid = set()
        with pytest.raises(AutomateError, match="may have expired"):
            kernel.invoke("mail.search", {})
