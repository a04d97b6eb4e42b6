"""`automate serve --ui`: the pages beside webhooks and probes, for people who log in."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from processes import PIPE, running
from starlette.testclient import TestClient

from automate_cli.session import Session
from automate_cli.ui import pages_for
from automate_kernel import ConfigError, Kernel
from automate_kernel.http.app import webhook_app
from automate_pages import User, pages

OIDC = """
[serve.oidc]
issuer = "http://127.0.0.1:9"
client_id = "automate"
client_secret = ""
roles = {groups = {ops = "operator"}}
"""
HEADER = """
[serve.header]
name = "X-User"
proxies = ["127.0.0.1"]
"""
PUBLIC = 'public_url = "https://ops.example.com"\n'


def session_of(folder: Path, text: str = "", **flags: Any) -> Session:
    (folder / "automate.toml").write_text(f'app_dir = "."\n{text}')
    return Session(str(folder / "automate.toml"), {"serve.ui": True, **flags})


def make_token(session: Session, **options: Any) -> str:
    return session.kernel.tokens.new("ada", **{"roles": ["admin"], **options})[1]


@pytest.mark.parametrize(
    ("text", "flags", "why"),
    [
        ("", {}, "nobody could log in"),
        ("", {"serve.host": "0.0.0.0"}, "safe on this machine alone"),
        (OIDC, {}, "needs the address that people come back to"),
        (PUBLIC + OIDC + HEADER, {}, "both set"),
        (HEADER.replace("proxies", "proxis"), {}, "there is no 'proxis'"),
        (HEADER.replace('proxies = ["127.0.0.1"]', ""), {}, "proxies must be given"),
        (PUBLIC + OIDC.replace("client_id", "client"), {}, "there is no 'client'"),
        (PUBLIC + OIDC + 'public_url = "https://evil.example"', {}, "there is no 'public_url'"),
    ],
)
def test_pages_without_a_log_in_do_not_start(
    tmp_path: Path, text: str, flags: dict[str, Any], why: str
) -> None:
    with contextlib.closing(session_of(tmp_path, text, **flags)) as session:
        with pytest.raises(ConfigError, match=why) as caught:
            pages_for(session)
        assert caught.value.hint or why.endswith("given")


def test_a_token_without_a_role_or_at_its_end_lets_nobody_in(tmp_path: Path) -> None:
    with contextlib.closing(session_of(tmp_path)) as session:
        make_token(session, roles=[], scopes=["*"])
        prefix = session.kernel.tokens.new("eve", roles=["viewer"])[0].prefix
        assert pages_for(session)
        session.kernel.tokens.revoke(prefix)
        with pytest.raises(ConfigError, match="nobody could log in") as caught:
            pages_for(session)
        for way in ("automate tokens new", "[serve.oidc]", "[serve.header]"):
            assert way in caught.value.hint


@pytest.mark.parametrize("text", [PUBLIC + OIDC, HEADER])
def test_each_way_to_log_in_is_a_table_of_the_settings(tmp_path: Path, text: str) -> None:
    with contextlib.closing(session_of(tmp_path, text)) as session:
        browser = TestClient(pages_for(session), base_url="https://ops.example.com",
                             client=("127.0.0.1", 1))  # fmt: skip
        if text == HEADER:
            assert browser.get("/").status_code == 401
            assert browser.get("/", headers={"X-User": "ada"}).status_code == 200
        else:
            assert browser.get("/").url.path == "/log-in"


def test_one_application_answers_both_and_guards_both() -> None:
    kernel = Kernel(discover=False)
    app = webhook_app(kernel)
    app.mount("/ui", pages(kernel, auth=lambda _: User("ada", ["admin"], None)))
    browser = TestClient(app)
    assert browser.get("/").url.path == "/ui/"
    assert browser.get("/ui").url.path == "/ui/"
    assert 'href="/ui/executions"' in browser.get("/ui/").text
    assert browser.get("/healthz").json() == {"status": "ok"}
    assert browser.get("/uix/").status_code == 404
    twice = [("Content-Length", "1"), ("Content-Length", "2")]
    assert browser.post("/ui/", headers=twice, content=b"x").status_code == 400
    below = TestClient(app, root_path="/ops")
    assert 'href="/ops/ui/executions"' in below.get("/ops/ui/").text
    assert below.get("/ops/", follow_redirects=False).headers["location"] == "/ops/ui/"


@pytest.mark.slow
def test_people_log_in_and_open_pages_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    with contextlib.closing(session_of(tmp_path)) as session:
        token = make_token(session)
        begin = [sys.executable, "-m", "automate_cli", "serve", "--ui", "--port", "0"]
        with running(begin, cwd=tmp_path, stdout=PIPE, text=True) as server:
            lines = (server.stdout.readline() for _ in range(9))
            port = next(found[1] for line in lines if (found := re.search(r":(\d+)$", line)))
            base = f"http://127.0.0.1:{port}"
            ask, jar = browser_at(base)
            form = ask("/ui/executions")
            assert "token" in form
            csrf = re.findall(r'name="csrf" value="([^"]+)"', form)[0]
            page = ask("/ui/log-in", {"csrf": csrf, "token": token, "next": "/ui/executions"})
            assert "Log out" in page
            assert "ok" in ask("/healthz")
            cookies = "; ".join(f"{each.name}={each.value}" for each in jar)
            with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as viewer:
                viewer.sendall(
                    f"GET /ui/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookies}\r\n"
                    "Accept: text/event-stream\r\n\r\n".encode()
                )
                received = b""
                while b"retry" not in received:
                    received += viewer.recv(4096)
                server.send_signal(signal.SIGTERM)
                assert server.wait(15) == 0


def browser_at(base: str) -> tuple[Callable[..., str], CookieJar]:
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def ask(path: str, form: dict[str, str] | None = None) -> str:
        body = None if form is None else urllib.parse.urlencode(form).encode()
        with opener.open(urllib.request.Request(base + path, body), timeout=30) as answer:
            return answer.read().decode()

    return ask, jar


@pytest.mark.slow
def test_the_command_says_how_to_log_in(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "automate_cli", "serve", "--ui", "--port", "0"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "automate tokens new NAME --role admin" in done.stderr
