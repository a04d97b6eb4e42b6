"""Connections go where the guard has looked, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from automate_http import AddressPolicy, Guard, GuardedTransport, HttpConnector
from automate_http.guard import GuardedBackend, resolve
from automate_http.transport import default_ssl_context
from automate_kernel.base.errors import AutomateError

Run = Callable[..., Any]
Connect = Callable[..., HttpConnector]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[::1]",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::]",
        "0",
        "LOCALHOST.",
        "127。0。0。1",
    ],
)
def test_this_machine_is_not_reached_in_any_spelling(host: str, server: Any, run: Run) -> None:
    """With the real resolver: what it makes of a name is checked, not the name's looks."""
    server.answer("/", body=b"secret")
    with pytest.raises(AutomateError) as caught:
        run(HttpConnector(), "get", url=f"http://{host}:{server.port}/")
    # Some resolvers don't know some of the spellings.
    assert caught.value.code in ("PERMISSION_DENIED", "UNAVAILABLE", "INVALID_ARGUMENT")
    assert server.requests == []


def test_a_refused_address_is_not_told(server: Any, connect: Connect, run: Run) -> None:
    """The kind of address is enough for whoever wrote the workflow; the operator has the log."""

    async def intern(host: str, port: int) -> list[str]:
        return ["10.20.30.40"]

    with pytest.raises(AutomateError) as caught:
        run(connect(intern), "get", url="http://wiki.example/")
    assert caught.value.code == "PERMISSION_DENIED"
    assert not caught.value.retryable
    assert "private" in caught.value.message
    assert "10.20" not in str(caught.value)


def test_one_refused_address_refuses_the_name(connect: Connect, run: Run) -> None:
    """A name that is public and private at once is no accident."""

    async def both(host: str, port: int) -> list[str]:
        return ["93.184.215.14", "192.168.0.1"]

    with pytest.raises(AutomateError, match="private"):
        run(connect(both), "get", url="http://both.example/")


def test_a_redirect_to_a_private_address_is_refused(
    server: Any, connect: Connect, run: Run
) -> None:
    """Each hop is checked like the first."""
    server.answer("/", 302, Location=server.url("/inside", host="intern.test"))
    server.answer("/inside", body=b"secret")
    with pytest.raises(AutomateError, match="'intern.test' is at a loopback address"):
        run(connect(), "get", url=server.url())
    assert [request.path for request in server.requests] == ["/"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "gopher://a.example/", "http://u:p@public.test/"]
)
def test_a_redirect_out_of_the_web_is_refused(
    target: str, server: Any, connect: Connect, run: Run
) -> None:
    """A server can't choose another scheme, or make us send a password."""
    server.answer("/", 302, Location=target)
    with pytest.raises(AutomateError) as caught:
        run(connect(), "get", url=server.url())
    assert caught.value.code == "INVALID_ARGUMENT"


def test_the_connection_goes_to_the_address_that_was_checked(server: Any) -> None:
    """A name that resolves to something else a moment later (rebinding) gains nothing by it."""
    asked: list[str] = []
    opened: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    class Recorder(httpcore.AnyIOBackend):
        async def connect_tcp(self, host: str, *args: Any, **options: Any) -> Any:
            opened.append(host)
            return await super().connect_tcp(host, *args, **options)

    guard = Guard(AddressPolicy.parse(["rebind.test"]), resolver=rebinding)
    url = server.url(host="rebind.test")
    server.answer("/", body=b"first", Connection="close")

    async def twice() -> str:
        transport = GuardedTransport(guard, network=Recorder())
        async with httpx.AsyncClient(transport=transport) as client:
            text = (await client.get(url)).text
            with pytest.raises(AutomateError, match="link-local"):
                await client.get(url)
            return text

    assert asyncio.run(twice()) == "first"
    # One look-up for each connection, and the socket never saw the name.
    assert asked == ["rebind.test", "rebind.test"]
    assert opened == ["127.0.0.1"]
    assert server.last.headers["host"] == f"rebind.test:{server.port}"


def test_the_next_address_is_tried(server: Any) -> None:
    """A host of which one address doesn't answer is still reached."""

    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    with socket.socket() as unused:
        # Nothing listens at the server's port there; it does on 127.0.0.1 only.
        unused.bind(("127.0.0.2", 0))
        server.answer("/", body=b"here")
        transport = GuardedTransport(Guard(AddressPolicy(private=True), resolver=two))

        async def get() -> str:
            async with httpx.AsyncClient(transport=transport) as client:
                return (await client.get(server.url())).text

        assert asyncio.run(get()) == "here"


def test_the_guard_works_under_httpx_own_client(server: Any) -> None:
    """Other plugins can use it, redirects, errors and all."""
    server.answer("/", 302, Location="http://intern.test/")

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async def use() -> None:
        guard = Guard(AddressPolicy.parse(["public.test"]), resolver=here)
        async with httpx.AsyncClient(
            transport=GuardedTransport(guard), follow_redirects=True
        ) as client:
            with pytest.raises(AutomateError, match="intern.test"):
                await client.get(server.url())
            with pytest.raises(httpx.ConnectError):
                await client.get("http://public.test:1/")

    asyncio.run(use())


def test_proxies_of_the_environment_are_not_used(
    server: Any, connect: Connect, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve the name itself, behind the guard's back."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answer("/", body=b"direct")
    assert run(connect(), "get", url=server.url())["text"] == "direct"


def test_socket_files_are_never_opened() -> None:
    """The daemon's own socket is the classic target."""
    with pytest.raises(httpcore.UnsupportedProtocol):
        asyncio.run(GuardedBackend(Guard()).connect_unix_socket("/var/run/docker.sock"))


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example", "a..example"])
def test_a_name_that_can_not_be_resolved_is_unavailable(host: str, run: Run) -> None:
    """A resolver that is down for a moment is worth another attempt."""
    with pytest.raises(AutomateError) as caught:
        run(HttpConnector(), "get", url=f"http://{host}/")
    assert caught.value.code in ("UNAVAILABLE", "INVALID_ARGUMENT")


class Network:
    """Connects to nothing, and remembers what it was asked for; *answers* has what comes of it."""

    def __init__(self, answers: dict[str, Exception] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[tuple[str, float | None]] = []

    async def connect_tcp(
        self, address: str, port: int, timeout: float | None, *_: Any
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((address, timeout))
        if address in self.answers:
            raise self.answers[address]
        return httpcore.AsyncMockStream([])


def connected(network: Network, addresses: list[str], timeout: float | None) -> Any:
    """What comes of a connection to a host that has *addresses*."""

    async def known(host: str, port: int) -> list[str]:
        return addresses

    backend = GuardedBackend(Guard(resolver=known), network)  # type: ignore[arg-type]
    return asyncio.run(backend.connect_tcp("a.example", 443, timeout))


@pytest.mark.parametrize("error", [httpcore.ConnectError("no"), httpcore.ConnectTimeout("late")])
def test_the_next_address_is_tried_within_the_time_that_all_have(error: Exception) -> None:
    """One that is down, or that nobody answers at, must not use up the time of the others."""
    network = Network({"1.1.1.1": error})
    assert connected(network, ["1.1.1.1", "8.8.8.8"], 10) is not None
    assert network.asked == [("1.1.1.1", 5), ("8.8.8.8", 5)]
    network = Network()
    connected(network, ["8.8.8.8"], None)
    assert network.asked == [("8.8.8.8", None)]


def test_the_last_addresss_error_is_the_one_that_is_raised() -> None:
    """If none answers, the caller learns how."""
    late, refused = httpcore.ConnectTimeout("late"), httpcore.ConnectError("refused")
    network = Network({"1.1.1.1": refused, "8.8.8.8": late})
    with pytest.raises(httpcore.ConnectTimeout):
        connected(network, ["1.1.1.1", "8.8.8.8"], 10)


def test_a_host_without_an_address_is_a_failed_connection() -> None:
    """Not a division by nothing."""
    with pytest.raises(httpcore.ConnectError, match="could not be resolved"):
        connected(Network(), [], 10)


def test_a_label_that_is_too_long_is_no_host_name() -> None:
    """What a resolver says of it is no OSError."""

    async def encoding(host: str, port: int) -> list[str]:
        raise UnicodeError("label too long")

    backend = GuardedBackend(Guard(resolver=encoding))
    with pytest.raises(httpcore.ConnectError, match="no host name"):
        asyncio.run(backend.connect_tcp("a.example", 443))


@pytest.mark.parametrize("port", [1, 65535])
def test_every_port_that_there_is_can_be_asked_for(port: int) -> None:
    """And none beyond: httpx reads more."""
    Guard().check_url(httpx.URL(f"http://a.example:{port}/"))


def test_the_systems_resolver_gives_each_address_once() -> None:
    """An address literal resolves to itself."""
    assert asyncio.run(resolve("127.0.0.1", 80)) == ["127.0.0.1"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for secure.test, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=secure.test -addext subjectAltName=DNS:secure.test -keyout key.pem -out cert.pem"
    )
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is not installed")
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def secure(server: Any, certificate: Path) -> Any:
    """The server, behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.seen_names = []
    context.sni_callback = lambda _socket, name, _context: server.seen_names.append(name)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.answer("/", body=b'{"safe": true}', Content_Type="application/json")
    return server


def test_tls_checks_the_name_though_it_connects_to_an_address(
    secure: Any, certificate: Path, connect: Connect, run: Run
) -> None:
    """SNI, certificate and Host header are about the name."""
    connector = connect(ca_file=str(certificate), allow_private_networks=True)
    url = secure.url(host="secure.test", scheme="https")
    assert run(connector, "get", url=url)["json"] == {"safe": True}
    assert secure.seen_names == ["secure.test"]
    assert secure.last.headers["host"] == f"secure.test:{secure.port}"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_for_another_name_or_by_nobody_is_refused(
    trusted: bool, secure: Any, certificate: Path, connect: Connect, run: Run
) -> None:
    """And trying again doesn't help."""
    config = {"ca_file": str(certificate)} if trusted else {}
    connector = connect(allow_private_networks=True, **config)
    host = "other.test" if trusted else "secure.test"
    with pytest.raises(AutomateError, match="certificate") as caught:
        run(connector, "get", url=secure.url(host=host, scheme="https"))
    assert not caught.value.retryable
    assert secure.requests == []


def test_the_environment_adds_no_authorities(
    secure: Any, certificate: Path, connect: Connect, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE is for others."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    default_ssl_context.cache_clear()
    with pytest.raises(AutomateError, match="certificate"):
        run(
            connect(allow_private_networks=True),
            "get",
            url=secure.url(host="secure.test", scheme="https"),
        )


def test_a_redirect_from_https_to_http_is_refused(
    secure: Any, certificate: Path, connect: Connect, run: Run
) -> None:
    """Over a real connection."""
    secure.answer("/", 301, Location="http://secure.test/")
    connector = connect(ca_file=str(certificate), allow_private_networks=True)
    with pytest.raises(AutomateError, match="without encryption"):
        run(connector, "get", url=secure.url(host="secure.test", scheme="https"))


def test_a_plain_server_is_no_tls_server(server: Any, connect: Connect, run: Run) -> None:
    """The handshake's failure is an error of ours."""
    with pytest.raises(AutomateError) as caught:
        run(connect(), "get", url=server.url(scheme="https"))
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.details == {"sent": False}
