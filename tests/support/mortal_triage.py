"""
The example in processes that kill themselves: before or after the commit of a given number.

    python mortal_triage.py FOLDER WHEN EACH SMTP_PORT IMAP_PORT

WHEN is ``before`` or ``after``. For one commit in EACH there is a process that dies there, and
another one that finishes the work. `FOLDER/result.json` says what became of each; a process that
came to its end before it had to die is the last. Slack and the language model are doubles on this
machine.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from automate_github import GitHubConnector
from automate_llm import LlmProvider
from automate_mail import MailConnector
from automate_mcp import McpProvider
from automate_slack import SlackConnector
from automate_slack.testing import FakeSlack
from leases import pass_leases
from mortal_process import die_at_commit, ends

from automate_kernel import Kernel
from automate_cli.settings import load_settings
from automate_sqlalchemy import SqlAlchemyStorage

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/triage"
sys.path.insert(0, str(ROOT / "plugins/automate-llm/tests/support"))
from llm_support import says, scripted  # noqa: E402

HOOK, PASSWORD, CHANNEL, PERSON = "hook-5577", "mail-5577", "C0TRIAGE", "U0ANN"


class World:
    """The services around the example, and a kernel for each process."""

    def __init__(self, slack: FakeSlack, model: str, smtp: int, imap: int) -> None:
        self.slack, self.model, self.smtp, self.imap = slack, model, smtp, imap

    def config(self, title: str) -> dict[str, Any]:
        """The example's own settings, with the addresses of what runs here."""
        config: dict[str, Any] = load_settings(EXAMPLE / "automate.toml", environ={})["config"]
        config["team"] |= {"command": sys.executable, "args": [str(EXAMPLE / "team.py")]}
        base_url = f"{self.model.removesuffix('/v1')}/{title}/v1"
        config["llm"]["services"]["triage"] |= {"model": "openai-chat:double", "base_url": base_url}
        config["slack"] |= self.slack.config
        here = {"host": "127.0.0.1", "tls": "none"}
        config["mail"]["smtp"] = {**here, "port": self.smtp}
        config["mail"]["imap"] |= {**here, "port": self.imap}
        return config

    def kernel(self, folder: Path, place: tuple[str, int] | None) -> Kernel:
        """A kernel whose process dies at *place*."""
        engine = sa.create_engine(f"sqlite:///{folder / 'triage.sqlite3'}")
        storage = SqlAlchemyStorage(engine)
        storage.create_tables()
        secrets = {"GITHUB_WEBHOOK_SECRET": HOOK, "MAIL_PASSWORD": PASSWORD, "GITHUB_TOKEN": "none"}
        kernel = Kernel(
            storage, discover=False, config=self.config(folder.name),
            plugins=[GitHubConnector, LlmProvider, SlackConnector, MailConnector],
            secrets={**secrets, **self.slack.secrets},
        )  # fmt: skip
        kernel.register(McpProvider, key="team")
        for file in sorted((EXAMPLE / "workflows").glob("*.yaml")):
            kernel.add_workflow(file)
        if place is not None:
            die_at_commit(engine, *place)
        return kernel

    def go(self, kernel: Kernel, title: str) -> None:
        """Deliver the issue, as GitHub does again and again, and click where there are buttons."""
        body = json.dumps(issue(title)).encode()
        digest = hmac.new(HOOK.encode(), body, hashlib.sha256).hexdigest()
        kernel.receive_webhook("github", "issues", {
            "X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": "issues",
            "X-GitHub-Delivery": title, "Content-Type": "application/json",
        }, body)  # fmt: skip
        kernel.run_until_idle()
        for message in self.posted(title):
            buttons = [
                each["action_id"]
                for block in message["blocks"]
                for each in block.get("elements", ())
                if "approve" in each.get("action_id", "")
            ]
            if buttons:
                click = self.slack.click({**message, "channel": CHANNEL}, buttons[0], user=PERSON)
                kernel.receive_webhook("slack", "interaction", click.headers, click.body)
                kernel.run_until_idle()

    def posted(self, title: str) -> list[dict[str, Any]]:
        """The messages in Slack about an issue."""
        answer = httpx.post(
            f"{self.slack.url}/conversations.history", data={"channel": CHANNEL, "limit": "200"},
            headers={"Authorization": f"Bearer {self.slack.token}"},
        ).json()  # fmt: skip
        return [each for each in answer["messages"] if f"{title}?" in json.dumps(each["blocks"])]


def issue(title: str) -> dict[str, Any]:
    """What GitHub sends when an issue is opened."""
    person = {"login": "kim", "id": 7, "type": "User"}
    return {
        "action": "opened",
        "issue": {
            "id": 1, "number": 12, "title": title, "state": "open", "user": person,
            "body": "It is cold.", "html_url": "https://github.com/shop/tea/issues/12",
        },
        "repository": {"id": 3, "name": "tea", "full_name": "shop/tea", "private": False},
        "sender": person,
    }  # fmt: skip


def one(world: World, folder: Path, place: tuple[str, int]) -> bool:
    """Die at *place*, and finish in another process; False if it came to its end before that."""
    folder.mkdir()

    def begin() -> None:
        world.go(world.kernel(folder, place), folder.name)

    def finish() -> None:
        kernel = world.kernel(folder, None)
        pass_leases(kernel)  # of the one that died: what this one holds no pause takes from it
        execution = None
        for _ in range(400):  # looks, and no seconds: a busy machine may need them all for one
            kernel.outbox.reap()
            world.go(kernel, folder.name)
            execution = next(iter(kernel.executions.find(workflow="triage")), None)
            if execution is not None and execution.status.finished:
                break
            time.sleep(0.1)
        assert execution is not None
        steps = [[run.step_id, run.status.value, run.error] for run in execution.steps]
        told = {"status": execution.status.value, "steps": steps}
        (folder / "told.json").write_text(json.dumps(told))

    died = not ends(begin)
    assert ends(finish)
    return died


def main() -> None:
    folder, when = Path(sys.argv[1]), sys.argv[2]
    each, smtp, imap = map(int, sys.argv[3:])
    told = {}
    with (
        FakeSlack() as slack,
        scripted(lambda _: says('{"kind": "defect", "urgent": true}')) as model,
    ):
        slack.add_channel(CHANNEL, "triage")
        slack.add_user(PERSON, "ann@shop.example")
        world = World(slack, model.url, smtp, imap)
        for number in range(1, 200, each):
            title = f"{when}-{number}-{each}"
            died = one(world, folder / title, (when, number))
            told[title] = {
                **json.loads((folder / title / "told.json").read_text()),
                "asked": sum(path.startswith(f"/{title}/") for path in model.paths),
                "posted": len(world.posted(title)),
            }
            if not died:
                break
        else:
            raise SystemExit("there are more commits than places")
    (folder / "result.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
