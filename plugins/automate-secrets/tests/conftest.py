"""A Secret Service and age keys; the database servers are those of the kernel's own tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("automate_testing")
sys.path.append(str(Path(__file__).parents[3] / "tests" / "support"))

from database_servers import mariadb_server, postgresql_server  # noqa: E402, F401


# Without services that the bus starts by itself: a keyring that is gone would be replaced by one
# without a collection, which asks for a password on a screen.
_BUS = """<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@pytest.fixture(scope="module")
def secret_service() -> Iterator[None]:
    """GNOME's keyring on a message bus of its own."""
    for program in ("dbus-daemon", "gnome-keyring-daemon"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not there: apt-get install gnome-keyring dbus-daemon")
    # Not below pytest's folder: whoever tidies that up takes the collection away.
    with (
        tempfile.TemporaryDirectory(prefix="automate-keyring-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(folder) / "bus.conf").write_text(_BUS)
        bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork", "--print-address=1"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert bus.stdout is not None
        patch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.stdout.readline().strip())
        for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"):
            patch.setenv(name, folder)
        daemon = subprocess.Popen(
            ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert daemon.stdin is not None
        daemon.stdin.write(b"a-password")
        daemon.stdin.close()
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it is ready
        yield
        for process in (daemon, bus):
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.fixture
def age_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The file of a new age key, and its recipient."""
    for name in [each for each in os.environ if each.startswith("SOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return _new_age_key(tmp_path / "age.txt")


@pytest.fixture
def other_age_key(tmp_path: Path) -> tuple[Path, str]:
    """Another one."""
    return _new_age_key(tmp_path / "other.txt")


def _new_age_key(file: Path) -> tuple[Path, str]:
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    file.write_text(f"{identity}\n")
    return file, str(identity.to_public())
