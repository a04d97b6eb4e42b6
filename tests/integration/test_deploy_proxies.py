"""`automate serve` behind nginx and Caddy, as deploy/ configures them: clients keep their address."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import processes
import pytest
from ports import free_ports
from tools import DEPLOY, output_of, tool
from waiting import listening, until

from automate_kernel import Kernel
from automate_sqlalchemy import SqlAlchemyStorage

HOST, TOKEN = "ops.example.com", "t" * 40
# A client's address is another than the proxy's: all of 127.0.0.0/8 is this machine on Linux.
CLIENT, ANOTHER = "127.0.0.2", "127.0.0.3"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.2"),
]
SETTINGS = """
public_url = "https://{host}:{front}"

[serve]
proxies = ["127.0.0.1"]
port = {back}
processes = 0
ui = true
api = true
"""


@dataclass
class Site:
    """The address of a proxy, and what a client at *source* has of it."""

    port: int
    kernel: Kernel
    token: str
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes = b"", source: str = CLIENT, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        with contextlib.closing(self.open(source)) as connection:
            connection.request(method, path, body, self._headers(headers))
            answer = connection.getresponse()
            for value in answer.headers.get_all("set-cookie") or ():
                name, _, rest = value.partition("=")
                self.cookies[name] = rest.partition(";")[0]
            return answer.status, answer.headers, answer.read().decode()

    def open(self, source: str = CLIENT) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(HOST, self.port, timeout=60, context=context)
        plain = socket.create_connection(("127.0.0.1", self.port), 60, (source, 0))
        connection.sock = context.wrap_socket(plain, server_hostname=HOST)
        return connection

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        kept = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"Host": f"{HOST}:{self.port}", "Cookie": kept, **named}

    def log_in(self, token: str, source: str = CLIENT, **headers: str) -> int:
        """Try to log in, and return the status."""
        _, _, form = self.ask("GET", "/ui/log-in", source=source)
        csrf = re.findall(r'name="csrf" value="([^"]+)"', form)[0]
        fields = urllib.parse.urlencode({"csrf": csrf, "token": token, "next": "/ui/"}).encode()
        typed = {"Content_Type": "application/x-www-form-urlencoded"}
        own = {"Origin": f"https://{HOST}:{self.port}"}
        return self.ask("POST", "/ui/log-in", fields, source, **typed, **own, **headers)[0]


def _nginx(folder: Path, front: int, back: int) -> list[str]:
    nginx = tool("nginx")
    text = (DEPLOY / "nginx" / "automate.conf").read_text()
    text = text.replace("/etc/ssl/certs/ops.example.com.pem", str(folder / "cert.pem"))
    text = text.replace("/etc/ssl/private/ops.example.com.key", str(folder / "key.pem"))
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{front} ssl")
    text = text.replace("listen 80;", f"listen unix:{folder}/plain.sock;")
    (folder / "automate.conf").write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{back}"))
    parts = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{part}_temp_path {folder}/{part};\n" for part in parts)
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.getuid() == 0 else ''}\ndaemon off;\npid {folder}/nginx.pid;\n"
        f"error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}include {folder}/automate.conf;\n}}\n"
    )
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    output_of(*command, "-t")
    return command


def _caddy(folder: Path, front: int, back: int) -> list[str]:
    caddy = tool("caddy")
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    assert output_of(caddy, "fmt", DEPLOY / "caddy" / "Caddyfile").strip() == text.strip()
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{back}").replace(
        "ops.example.com {",
        "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n}\n"
        f"https://ops.example.com:{front} {{\n\ttls {folder}/cert.pem {folder}/key.pem\n",
    )
    (folder / "Caddyfile").write_text(text)
    output_of(caddy, "validate", "--adapter", "caddyfile", "--config", folder / "Caddyfile")
    return [caddy, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.fixture(scope="module", params=[_nginx, _caddy], ids=["nginx", "caddy"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("proxied")
    front, back = free_ports(2)
    output_of(
        tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
        "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
    )  # fmt: skip
    settings = SETTINGS.format(host=HOST, front=front, back=back)
    (folder / "automate.toml").write_text(f'database = "sqlite:///{folder}/a.sqlite3"\n{settings}')
    storage = SqlAlchemyStorage(f"sqlite:///{folder}/a.sqlite3")
    storage.create_tables()
    kernel = Kernel(storage, discover=False)
    token = kernel.tokens.new("ada", roles=["operator"])[1]
    command: Callable[[Path, int, int], list[str]] = request.param
    home = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    serve = [sys.executable, "-m", "automate_cli", "serve"]
    environment = {**os.environ, "AUTOMATE_SERVE_EVENTS_TOKEN": TOKEN}
    with (folder / "log").open("w") as log, processes.running(
        serve, cwd=folder, env=environment, stdout=log, stderr=log
    ) as server, processes.running(
        command(folder, front, back), cwd=folder, env=home, stdout=log, stderr=log
    ) as proxy:  # fmt: skip
        until(lambda: listening(front), 60, process=proxy)
        until(lambda: listening(back), 60, process=server)
        yield Site(front, kernel, token)
    kernel.close()


@pytest.fixture
def site(served: Site) -> Site:
    """The site, for a browser without cookies."""
    return Site(served.port, served.kernel, served.token)


def test_failed_log_ins_count_for_the_address_of_the_client(site: Site) -> None:
    """Who guesses has to wait, whatever address it pretends to have; others behind the same don't."""
    forged = {"X_Forwarded_For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    assert [site.log_in("wrong", **forged) for _ in range(10)] == [401] * 10
    assert site.log_in("wrong", **forged) == 429
    assert site.log_in("wrong", source=ANOTHER) == 401
    addresses = {each.actor for each in site.kernel.audit.page(action="log-in").records}
    assert addresses - {"ada"} == {CLIENT, ANOTHER}
    assert site.log_in(site.token) == 303


def test_a_session_has_a_secure_cookie(site: Site) -> None:
    """Behind TLS the pages know that they are."""
    assert site.log_in(site.token) == 303
    status, headers, page = site.ask("GET", "/ui/executions")
    assert status == 200
    assert "Log out" in page
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert any(name.startswith("__Host-") for name in site.cookies), site.cookies


def test_both_have_the_same_bound_of_a_body(site: Site) -> None:
    """A body that the receiver takes passes the proxy, and a longer one is refused."""
    event = json.dumps({"name": "order.created", "payload": {}}).encode()
    sent = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json"}
    assert site.ask("POST", "/events", event.ljust(1_000_000), **sent)[0] == 202
    assert site.ask("POST", "/events", event.ljust(1_000_001), **sent)[0] == 413


def test_pages_are_live_through_the_proxy(site: Site) -> None:
    """The stream of a page begins at once, and tells of a change while it is open."""
    assert site.log_in(site.token) == 303
    with contextlib.closing(site.open()) as connection:
        headers = site._headers({"Accept": "text/event-stream"})
        connection.request("GET", "/ui/executions", headers=headers)
        answer = connection.getresponse()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.readline().startswith(b"retry")
        site.kernel.add_workflow(
            {"name": "w", "trigger": {"type": "manual"}, "steps": [{"id": "wait", "sleep": 3600}]}
        )
        told = threading.Event()

        def read() -> None:
            if any(line.startswith(b"data") for line in answer):
                told.set()

        threading.Thread(target=read, daemon=True).start()
        # The stream tells what differs from its first look, and nobody knows when that was.
        for _ in range(30):
            site.kernel.start("w")
            if told.wait(2):
                break
        assert told.is_set()


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/ui/../healthz", "/%68ealthz"]
)
def test_probes_and_metrics_are_for_this_machine(site: Site, path: str) -> None:
    """Nobody from outside sees the state of the receiver."""
    assert site.ask("GET", path)[0] == 404


def test_the_api_gives_addresses_that_clients_reach(site: Site) -> None:
    """An address in an answer has the scheme and the host that the client asked for."""
    token = site.kernel.tokens.new("monitor", roles=["viewer"])[1]
    for name in ("a", "b"):
        site.kernel.emit(name, {})
    status, _, body = site.ask("GET", "/api/outbox?page_size=1", Authorization=f"Bearer {token}")
    assert status == 200, body
    assert f"https://{HOST}:{site.port}/api/" in body
