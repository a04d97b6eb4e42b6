"""The example of five plugins against real servers, killed before and after its commits."""

from __future__ import annotations

import imaplib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_ports
from waiting import listening, until

pytestmark = pytest.mark.plugins

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/triage"
SCRIPT = ROOT / "tests/support/mortal_triage.py"
USER, PASSWORD = "triage@shop.example", "mail-5577"


@pytest.fixture(scope="module")
def mail(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, int]]:
    """The ports of a real mail server: SMTP and IMAP."""
    if sys.version_info < (3, 11):
        pytest.skip("mail-devel needs Python 3.11")
    if not request.config.getoption("--with-plugins"):
        pytest.importorskip("mail_devel", reason="mail-devel is not there: uv sync --group plugins")
    (smtp, imap), log = free_ports(2), tmp_path_factory.mktemp("mail") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mail_devel", "--host", "127.0.0.1", "--no-http",
             "--user", USER, "--password", PASSWORD, "--smtp-port", str(smtp),
             "--imap-port", str(imap)],
            stdout=output, stderr=output,
        )  # fmt: skip
    for port in (smtp, imap):
        until(lambda: listening(port), 60, process=process, why=log.read_text)
    with imaplib.IMAP4("127.0.0.1", imap) as client:
        client.login(USER, PASSWORD)
        client.create("Sent")
    yield smtp, imap
    process.terminate()
    process.wait(60)


def subjects(port: int) -> Counter[str]:
    """The subjects of the mails that have arrived."""
    with imaplib.IMAP4("127.0.0.1", port) as client:
        client.login(USER, PASSWORD)
        client.select("INBOX", readonly=True)
        _, data = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    return Counter(
        each[1].decode().strip().removeprefix("Subject: ")
        for each in data
        if isinstance(each, tuple)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "each"),
    [
        ("before", 6),
        ("after", 7),
        pytest.param("before", 1, marks=pytest.mark.long),
        pytest.param("after", 1, marks=pytest.mark.long),
    ],
)
def test_a_kill_at_any_commit_leaves_one_question_and_one_mail(
    when: str, each: int, mail: tuple[int, int], tmp_path: Path
) -> None:
    """Webhook, MCP tool, model, approval in Slack, mail: each person is asked and told once."""
    command = [sys.executable, str(SCRIPT), str(tmp_path), when, *map(str, (each, *mail))]
    subprocess.run(command, check=True, timeout=290)
    told = json.loads((tmp_path / "result.json").read_text())
    assert len(told) > 30 / each
    sent = subjects(mail[1])
    for title, one in told.items():
        assert one["status"] == "COMPLETED", (title, one)
        assert one["posted"] == 1, (title, one)
        assert sent[f"defect: {title}"] == 1, (title, one)
    # An answer that has come and is not saved yet is the one that is paid for twice.
    paid_twice = [title for title, one in told.items() if one["asked"] > 1]
    assert all(one["asked"] in (1, 2) for one in told.values())
    assert len(paid_twice) <= (1 if when == "before" else 0)


def test_it_is_set_up_as_its_readme_says(tmp_path: Path) -> None:
    """The settings, the workflows, the secrets and the team's own tool."""
    pytest.importorskip("automate_mcp")
    project = shutil.copytree(EXAMPLE, tmp_path / "triage")
    secrets = re.findall(r"AUTOMATE_SECRET_\w+", (project / "README.md").read_text())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, **{name: f"a value for {name}" for name in secrets}}

    def automate(*arguments: str) -> Any:
        command = [sys.executable, "-m", "automate_cli", *arguments, "--json"]
        return json.loads(
            subprocess.run(
                command, cwd=project, env=environment, check=True, capture_output=True, timeout=120
            ).stdout
        )

    found = automate("doctor")["findings"]
    assert {each["text"] for each in found if each["check"] == "workflows"} == {"2 are valid"}
    wrong = [each["text"] for each in found if each["state"] != "ok"]
    assert len(wrong) == 1, "the database, which the first event makes"
    assert "there is no file" in wrong[0]
    owner = automate("call", "team.owner_of", "--repository", "shop/tea", "--yes")
    assert owner["name"] == "Ann"


def test_the_workflow_of_the_clicks_is_the_plugins() -> None:
    """The example has a copy of it, to read."""
    copy = EXAMPLE / "workflows/slack-approvals.yaml"
    own = ROOT / "plugins/automate-slack/src/automate_slack/approvals.yaml"
    assert copy.read_text() == own.read_text()
