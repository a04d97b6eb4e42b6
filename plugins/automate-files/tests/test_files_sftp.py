"""SFTP servers: host keys, credentials, and servers that misbehave."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from automate_files import FilesConnector
from automate_files.sftp import SftpPlace, _Alarm
from automate_kernel import AutomateError, ConfigError
from automate_kernel.plugins.connectors import ConnectorContext
from files_support import PASSWORD, SECRETS, Secrets, SftpServer, tcp_server
from ports import free_ports
from waiting import within


def connector(place: dict[str, Any], **secrets: str) -> FilesConnector:
    config = {"places": {"main": place}}
    ctx = ConnectorContext(key="files", secrets=Secrets(**{**SECRETS, **secrets}))
    return FilesConnector(config, ctx=ctx)


def fails(place: dict[str, Any], **secrets: str) -> AutomateError:
    with pytest.raises(AutomateError) as raised:
        connector(place, **secrets).list_files("main")
    return raised.value


def test_an_unknown_host_key_is_refused(sftp: SftpServer, tmp_path: Path) -> None:
    """And nothing is sent: neither is the key remembered."""
    known = tmp_path / "known_hosts"
    known.write_text("")
    error = fails(sftp.config(host_key=None, known_hosts=str(known)))
    assert error.code == "FAILED_PRECONDITION"
    assert not error.retryable
    assert "host key" in str(error) and "SHA256:" in str(error)
    assert known.read_text() == ""


def test_another_host_key_is_refused(sftp: SftpServer) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    error = fails(sftp.config(host_key=other))
    assert (error.code, error.retryable) == ("FAILED_PRECONDITION", False), error


def test_known_hosts_is_enough(sftp: SftpServer, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sftp.port} {sftp.public_key}\n")
    connector(sftp.config(host_key=None, known_hosts=str(known))).list_files("main")


def test_a_host_key_that_is_none_is_a_wrong_config(sftp: SftpServer) -> None:
    with pytest.raises(ConfigError, match="host_key"):
        connector(sftp.config(host_key="ssh-rsa nothing")).list_files("main")


@pytest.mark.parametrize("passphrase", [None, "open sesame 91t"])
def test_a_private_key_is_enough(sftp: SftpServer, passphrase: str | None) -> None:
    key = sftp.user_key.export_private_key("openssh", passphrase=passphrase).decode()
    more: dict[str, Any] = {"passphrase_secret": "PHRASE"} if passphrase else {}
    # To open a key takes much work, on purpose, and a busy machine longer than that.
    more["timeout_seconds"] = 60
    config = sftp.config(password_secret=None, private_key_secret="KEY", **more)
    connector(config, KEY=key, PHRASE=passphrase or "").list_files("main")


def test_a_wrong_password_is_said_and_not_shown(sftp: SftpServer, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        error = fails(sftp.config(), PASSWORD="canary-9Qm2xVb91t")
    assert (error.code, error.retryable) == ("UNAUTHENTICATED", False)
    assert "canary" not in caplog.text + str(error) + repr(error)


def test_a_broken_private_key_is_not_shown(sftp: SftpServer, caplog: Any) -> None:
    config = sftp.config(password_secret=None, private_key_secret="KEY")
    error = fails(config, KEY="-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n")
    assert not error.retryable
    assert "canary" not in caplog.text + str(error) + repr(error)


def test_a_lost_connection_is_made_anew(sftp: SftpServer, sftp_config: dict[str, Any]) -> None:
    files = connector(sftp_config)
    files.write("main", "a", text="one")
    before = sftp.connections
    assert files.read("main", "a").text == "one"
    assert sftp.connections == before  # one connection serves many calls
    sftp.drop()
    found = None
    for _ in range(3):
        try:
            found = files.read("main", "a").text
            break
        except AutomateError as error:
            assert (error.code, error.retryable) == ("UNAVAILABLE", True)
    assert found == "one"


def test_a_time_limit_that_ends_as_its_call_does_cuts_no_other_call(
    sftp: SftpServer, sftp_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may have the connection by then."""
    alarms: list[_Alarm] = []
    keep = SftpPlace._keep

    class Noted(_Alarm):
        def __init__(self) -> None:
            super().__init__()
            alarms.append(self)

    def keep_and_ring(place: SftpPlace, connection: Any, *, lost: bool) -> None:
        keep(place, connection, lost=lost)
        alarms[-1].ring()

    monkeypatch.setattr("automate_files.sftp._Alarm", Noted)
    monkeypatch.setattr(SftpPlace, "_keep", keep_and_ring)
    files, before = connector(sftp_config), sftp.connections
    files.write("main", "a", text="one")
    with pytest.raises(AutomateError, match="it isn't there"):
        files.read("main", "b")
    assert files.read("main", "a").text == "one"
    assert sftp.connections == before + 1


def test_a_password_that_changes_counts_at_the_next_connection(
    sftp: SftpServer, sftp_config: dict[str, Any]
) -> None:
    files = connector(sftp_config, PASSWORD="old")
    with pytest.raises(AutomateError):
        files.list_files("main")
    files.ctx.secrets.values["PASSWORD"] = PASSWORD  # type: ignore[attr-defined]
    files.list_files("main")


def silent(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


def hangs_up(connection: socket.socket) -> None:
    connection.close()


def speaks_http(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
    connection.close()


def drips(connection: socket.socket) -> None:
    try:
        connection.sendall(b"SSH-2.0-x\r\n")
        while True:
            connection.sendall(b"\0")
            time.sleep(0.05)
    except OSError:
        pass


def never_ends(connection: socket.socket) -> None:
    try:
        while True:
            connection.sendall(b"SSH" * 10_000)
    except OSError:
        pass


@pytest.mark.parametrize("serve", [silent, hangs_up, speaks_http, drips, never_ends])
def test_a_server_that_misbehaves(serve: Any) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with tcp_server(serve) as port:
        place = {
            "type": "sftp", "host": "127.0.0.1", "port": port, "user": "ada", "host_key": key,
            "password_secret": "PASSWORD", "timeout_seconds": 1,
        }  # fmt: skip
        error = within(5, lambda: fails(place))
        assert error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, error
        assert error.retryable


class Refusing(asyncssh.SFTPServer):
    """A server with files that nobody may touch, a full disk, and a folder without an end."""

    def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
        if b"denied" in path:
            raise asyncssh.SFTPPermissionDenied("no")
        return super().open(path, pflags, attrs)

    def write(self, file: Any, offset: int, data: bytes) -> Any:
        if len(data) + offset > 100_000:
            raise asyncssh.SFTPFailure("No space left on device")
        return super().write(file, offset, data)

    async def scandir(self, path: bytes) -> Any:
        if path.endswith(b"/endless"):
            for number in range(10**9):
                yield asyncssh.SFTPName(
                    b"%d" % number, attrs=asyncssh.SFTPAttrs(permissions=0o100644)
                )
        async for each in super().scandir(path):
            yield each


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[SftpServer]:
    server = SftpServer(tmp_path, Refusing)
    yield server
    server.stop()


def test_what_the_server_refuses(refusing: SftpServer) -> None:
    files = connector(refusing.config(max_entries=5_000))
    (refusing.root / "denied").write_text("x")
    (refusing.root / "endless").mkdir()
    with pytest.raises(AutomateError) as raised:
        files.read("main", "denied")
    assert raised.value.code == "PERMISSION_DENIED"
    with pytest.raises(AutomateError) as raised:
        files.write("main", "big", text="x" * 1_000_000)
    assert raised.value.retryable
    with pytest.raises(AutomateError) as raised:
        files.list_files("main", "endless/*")
    assert raised.value.code == "RESOURCE_EXHAUSTED"
    assert sorted(each.name for each in refusing.root.iterdir()) == ["denied", "endless"]


def test_a_link_of_the_server_leads_nowhere_else(
    sftp: SftpServer, sftp_config: dict[str, Any]
) -> None:
    outside = sftp.root / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret.txt").write_text("secret")
    root = sftp.root / sftp_config["folder"].strip("/")
    (root / "folder").symlink_to("../outside")
    (root / "file").symlink_to("../outside/secret.txt")
    files = connector(sftp_config)
    for call in (
        lambda: files.read("main", "folder/secret.txt"),
        lambda: files.read("main", "file"),
        lambda: files.write("main", "folder/new", text="x"),
        lambda: files.write("main", "folder/a/b", text="x"),
        lambda: files.delete("main", "folder/secret.txt"),
        lambda: files.list_files("main", "folder/*"),
    ):
        with pytest.raises(AutomateError) as raised:
            call()
        assert raised.value.code == "PERMISSION_DENIED", raised.value
    assert [each.name for each in outside.iterdir()] == ["secret.txt"]
    assert files.list_files("main", "**").files == []


SSHD = "/usr/sbin/sshd"


@pytest.mark.skipif(not os.path.exists(SSHD), reason="apt-get install openssh-server")
@pytest.mark.skipif(os.geteuid() != 0, reason="sshd lets only its own user in otherwise")
def test_with_openssh(tmp_path: Path) -> None:
    """The server that most have: its renames, its codes and its paths."""
    import getpass
    import subprocess

    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host.write_private_key(tmp_path / "host")
    (tmp_path / "host").chmod(0o600)
    (tmp_path / "keys").write_bytes(user.export_public_key())
    (tmp_path / "root").mkdir()
    (port,) = free_ports(1)
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host", "UsePAM": "no",
        "AuthorizedKeysFile": tmp_path / "keys", "StrictModes": "no", "PidFile": "none",
        "Subsystem": "sftp internal-sftp", "PermitRootLogin": "prohibit-password",
    }  # fmt: skip
    (tmp_path / "config").write_text(
        "".join(f"{name} {value}\n" for name, value in options.items())
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "config"], stderr=subprocess.PIPE)
    try:
        files = connector({
            "type": "sftp", "host": "127.0.0.1", "port": port, "user": getpass.getuser(),
            "folder": str(tmp_path / "root"), "private_key_secret": "KEY", "timeout_seconds": 10,
            "host_key": host.export_public_key().decode(),
        }, KEY=user.export_private_key().decode())  # fmt: skip
        until = time.monotonic() + 60
        while True:
            try:
                files.list_files("main")
                break
            except AutomateError:
                assert time.monotonic() < until, server.stderr and server.stderr.read()
                time.sleep(0.05)
        files.write("main", "a/b", text="one" * 100_000)
        assert files.write("main", "a/b", text="one" * 100_000).changed is False
        with pytest.raises(AutomateError) as raised:
            files.write("main", "a/b", text="two")
        assert raised.value.code == "ALREADY_EXISTS"
        files.write("main", "a/b", text="two", overwrite=True)
        files.move("main", "a/b", "c")
        assert files.read("main", "c").text == "two"
        with pytest.raises(AutomateError) as raised:
            files.delete("main", "a", missing_ok=False)
            files.delete("main", "a", missing_ok=False)
        assert raised.value.code == "NOT_FOUND"
    finally:
        server.terminate()
        server.wait(10)
