"""Real servers of files on this machine: S3 by moto, SFTP by asyncssh."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
from automate_kernel.operations.portal import LoopThread

USER, PASSWORD = "ada", "correct-horse-7Qm2xVb91t"
SECRETS = {"PASSWORD": PASSWORD, "S3_SECRET": "canary-s3-7Qm2xVb91t"}


class Secrets:
    """Reads secrets of a dict, and counts."""

    def __init__(self, **values: str) -> None:
        self.values, self.read = values, list[str]()

    def get(self, key: str) -> str:
        self.read.append(key)
        return self.values[key]

    async def aget(self, key: str) -> str:
        return self.get(key)


class SftpServer:
    """An SFTP server on a thread, with the folder *root*."""

    def __init__(self, root: Path, files: type[asyncssh.SFTPServer] | None = None) -> None:
        self.root, self.connections = root, 0
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self._files = files or asyncssh.SFTPServer
        self._thread = LoopThread("sftp")
        self.port = self._run(self._listen())

    @property
    def public_key(self) -> str:
        return self.host_key.export_public_key().decode().strip()

    def config(self, **more: Any) -> dict[str, Any]:
        return {
            "type": "sftp", "host": "127.0.0.1", "port": self.port, "user": USER, "folder": "/",
            "password_secret": "PASSWORD", "host_key": self.public_key, "timeout_seconds": 30,
            **more,
        }  # fmt: skip

    def drop(self) -> None:
        """Cut all connections."""
        self._run(self._cut())

    def stop(self) -> None:
        self._run(self._end())
        assert self._thread.end(40)

    async def _listen(self) -> int:
        server, root, files = self, str(self.root), self._files
        self._open: list[Any] = []

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: Any) -> None:
                server.connections += 1
                server._open.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (USER, PASSWORD)

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: Any) -> bool:
                return key.public_data == server.user_key.public_data

        self._server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Login, server_host_keys=[self.host_key],
            sftp_factory=lambda chan: files(chan, chroot=root),
        )  # fmt: skip
        return int(self._server.get_port())

    async def _cut(self) -> None:
        for each in self._open:
            each.abort()
        self._open.clear()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._thread.loop).result(40)


@contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port, and let *serve* have each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        open_ones: list[socket.socket] = []

        def served(connection: socket.socket) -> None:
            with suppress(OSError):  # a late thread finds it closed, with the test over
                serve(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                open_ones.append(connection)
                threading.Thread(target=served, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for each in open_ones:
                each.close()
