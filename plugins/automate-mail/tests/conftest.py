"""A real mail server, mail-devel, and scripted ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_ports

pytest.register_assert_rewrite("automate_testing")
sys.path.insert(0, str(Path(__file__).parent / "support"))

from mail_support import PASSWORD, USER, MailServer  # noqa: E402
from waiting import listening, until


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem for 127.0.0.1 and localhost, which nobody has signed."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def server_process(certificate: Path, tmp_path_factory) -> Iterator[MailServer]:
    """mail-devel with SMTP, SMTPS and IMAP, on 127.0.0.1."""
    pytest.importorskip("mail_devel", reason="pip install mail-devel (Python 3.11 and later)")
    server = MailServer(*free_ports(3), str(certificate / "cert.pem"))
    log = tmp_path_factory.mktemp("mail") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mail_devel", "--host", "127.0.0.1", "--no-http",
             "--user", USER, "--password", PASSWORD, "--auth-required",
             "--smtp-port", str(server.smtp), "--smtps-port", str(server.smtps),
             "--imap-port", str(server.imap),
             "--cert", str(certificate / "cert.pem"), "--key", str(certificate / "key.pem")],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        _wait_for(process, (server.smtp, server.smtps, server.imap), log)
        yield server
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def mail_server(server_process: MailServer) -> MailServer:
    """The server, with an empty mailbox."""
    server_process.empty()
    return server_process


def _wait_for(process: subprocess.Popen[bytes], ports: tuple[int, ...], log: Path) -> None:
    for port in ports:
        until(lambda: listening(port), 60, process=process, why=log.read_text)
