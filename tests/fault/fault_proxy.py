"""A TCP proxy in front of PostgreSQL that can freeze, and lose the reply to a statement."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Sequence

import sqlalchemy as sa

_CHUNK = 65536


class Proxy:
    """Forwards connections to the server of *url*; `url` leads through it."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        host = str(parsed.query.get("host") or parsed.host)
        self._server: str | tuple[str, int] = (
            f"{host}/.s.PGSQL.{parsed.port or 5432}" if host.startswith("/") else
            (host, parsed.port or 5432)
        )  # fmt: skip
        self._listener = socket.create_server(("127.0.0.1", 0))
        query = {name: value for name, value in parsed.query.items() if name != "host"}
        self.url = parsed.set(
            host="127.0.0.1", port=self._listener.getsockname()[1], query=query
        ).render_as_string(hide_password=False)
        self._flowing = threading.Event()
        self._flowing.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._cut_after: list[bytes] = []
        self.was_cut = threading.Event()
        """Whether the reply that `cut_after` waits for was lost."""
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Forward nothing more, and close nothing: what a network does that swallows packets."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward again, what was held back too."""
        self._flowing.set()

    def cut_after(self, words: Sequence[bytes]) -> None:
        """
        Lose the reply to a statement, once, and its connection.

        It is the one on which a client has said all *words*, in this order.
        """
        self.was_cut.clear()
        self._cut_after = list(words)

    def close(self) -> None:
        self.thaw()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in list(self._pairs):
            self._end(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                family = socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET
                server = socket.socket(family)
            except OSError:
                return  # closed
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                continue
            pair = (client, server)
            self._pairs.append(pair)
            threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        left: list[bytes] = []
        armed: list[bytes] | None = None
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(_CHUNK)
                    self._flowing.wait()
                    if not data:
                        return
                    if source is server:
                        client.sendall(data)
                        continue
                    if armed is not self._cut_after:
                        armed = self._cut_after
                        left = list(armed)
                    said = self._said(data, left) if left else False
                    server.sendall(data)
                    if said and self._is_mine(armed):
                        # Done is done: its reply comes only when the server has carried it out.
                        server.recv(_CHUNK)
                        self.was_cut.set()
                        return
        except (OSError, ValueError):
            pass
        finally:
            self._end((client, server))

    def _said(self, data: bytes, left: list[bytes]) -> bool:
        """Strike the words that *data* holds off the list; returns whether it was the last one."""
        place = 0
        while left and (found := data.find(left[0], place)) >= 0:
            place = found + len(left.pop(0))
        return not left

    def _is_mine(self, armed: list[bytes]) -> bool:
        with self._lock:
            if self._cut_after is not armed or self.was_cut.is_set():
                return False
            self._cut_after = []
            return True

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        with contextlib.suppress(ValueError):
            self._pairs.remove(pair)
