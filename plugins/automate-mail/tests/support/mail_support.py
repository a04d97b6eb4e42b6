"""The parts of a mail connector's tests: a real server's address, and servers by script."""

from __future__ import annotations

import imaplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automate_kernel import Kernel
from automate_mail import MailConnector

USER, PASSWORD = "ada@shop.example", "a-password-4711"


@dataclass
class MailServer:
    smtp: int
    smtps: int
    imap: int
    ca_file: str

    def config(self, **more: Any) -> dict[str, Any]:
        login = {"user": USER, "secret": "MAIL_PASSWORD", "host": "127.0.0.1"}
        tls = {"tls": "starttls", "ca_file": self.ca_file}
        return {
            "smtp": {**login, **tls, "port": self.smtp},
            "imap": {**login, "tls": "none", "port": self.imap},
            "sender": f"The shop <{USER}>",
            **more,
        }

    def kernel(self, **more: Any) -> Kernel:
        return kernel_with(self.config(**more))

    @contextmanager
    def client(self) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4("127.0.0.1", self.imap) as client:
            client.login(USER, PASSWORD)
            yield client

    def empty(self) -> None:
        with self.client() as client:
            for name in ("INBOX", "Sent"):
                answer, data = client.select(name)
                if answer == "OK" and data[0] != b"0":
                    client.store("1:*", "+FLAGS", r"(\Deleted)")
                    client.expunge()

    def put(self, *raws: bytes, mailbox: str = "INBOX", date: str = "") -> None:
        with self.client() as client:
            when = f'"{date}"' if date else ""
            for raw in raws:
                assert client.append(mailbox, "", when, raw)[0] == "OK"

    def raw(self, mailbox: str = "INBOX") -> list[bytes]:
        with self.client() as client:
            if client.select(mailbox, readonly=True)[1] == [b"0"]:
                return []
            _, data = client.fetch("1:*", "(BODY.PEEK[])")
            return [each[1] for each in data if isinstance(each, tuple)]


def kernel_with(config: dict[str, Any], **options: Any) -> Kernel:
    secrets = {"MAIL_PASSWORD": PASSWORD, **options.pop("secrets", {})}
    return Kernel(plugins=[MailConnector], config={"mail": config}, secrets=secrets,
                  discover=False, **options)  # fmt: skip


class Connection:
    """The server's end of one connection, for a script."""

    def __init__(self, taken: socket.socket) -> None:
        self.socket = taken
        taken.settimeout(20)
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = taken.makefile("rb")

    def encrypt(self, certificate: Path) -> None:
        """Begin TLS as the server, with the cert.pem and key.pem of the folder *certificate*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self._lines = self.socket.makefile("rb")

    def say(self, *lines: str | bytes) -> None:
        raws = (line if isinstance(line, bytes) else line.encode() + b"\r\n" for line in lines)
        self.socket.sendall(b"".join(raws))  # in pieces, each would wait for the one before it

    def hear(self) -> bytes:
        line = self._lines.readline()
        if not line:
            raise ConnectionError
        return line

    def take(self, size: int) -> bytes:
        return self._lines.read(size)


@contextmanager
def scripted(script: Callable[[Connection], None]) -> Iterator[int]:
    """Run *script* for each connection, and close it afterwards; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:
                    return
                with taken:
                    try:
                        script(Connection(taken))
                    except OSError:
                        pass
                    try:
                        taken.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
