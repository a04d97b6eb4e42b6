"""
A worker that kills itself before or after what people see of it, while a workflow asks in Slack.

    python crashing_worker.py URL FOLDER

The places to die at are each call of Slack that writes: before it, and after its answer, which
then is in no commit. For each it forks a child that dies there, and others that finish the work;
the channel of place n is Cn. A child that comes to its end is the last. The number of places goes
to `FOLDER/result.json`.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from automate_kernel import Kernel
from automate_slack import APPROVALS, SlackConnector
from automate_slack.testing import FakeSlack
from automate_slack.web_api import WebApi
from automate_sqlalchemy import SqlAlchemyStorage

sys.path.append(str(Path(__file__).parents[4] / "tests" / "support"))
from leases import pass_leases  # noqa: E402
from mortal_process import die_around, die_everywhere, ends  # noqa: E402
from waiting import until  # noqa: E402

WORKFLOW = {
    "name": "announce",
    "trigger": {"type": "manual"},
    "steps": [
        {
            "id": "ask",
            "approval": {
                "title": "Announce?",
                "by": ["ann@example.com", "role:owners"],
                "notify": {
                    "action": "slack.ask_approval",
                    "once": True,
                    "input": {"channel": "{{ event.payload.channel }}"},
                },
            },
        },
        {
            "id": "tell",
            "action": "slack.post_message",
            "input": {"channel": "{{ event.payload.channel }}", "text": "out"},
            "retry": {"attempts": 5, "delay": "50ms"},
        },
    ],
}


def make(folder: Path, url: str) -> Kernel:
    engine = sa.create_engine(f"sqlite:///{folder / 'run.sqlite3'}")
    storage = SqlAlchemyStorage(engine)
    storage.create_tables()
    config = {"base_url": url, "allow_private_networks": ["127.0.0.1"]}
    kernel = Kernel(
        storage, plugins=[SlackConnector], discover=False, config={"slack": config},
        secrets=FakeSlack().secrets,
    )  # fmt: skip
    kernel.add_workflow(APPROVALS)
    kernel.add_workflow(WORKFLOW)
    return kernel


def question(url: str, channel: str) -> dict[str, Any] | None:
    """The message with the buttons, as a person sees it."""
    headers = {"Authorization": f"Bearer {FakeSlack().token}"}
    request = urllib.request.Request(
        f"{url}/conversations.history?channel={channel}", None, headers
    )
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)["messages"]
    return next((each for each in found if "blocks" in each), None)


def click(kernel: Kernel, url: str, channel: str) -> None:
    message = question(url, channel)
    assert message is not None
    request = FakeSlack().click(message, "automate_approve", user="U0ANN")
    kernel.receive_webhook("slack", "interaction", request.headers, request.body)


def work_until(kernel: Kernel, done: Callable[[], bool]) -> None:
    def is_done() -> bool:
        if done():
            return True
        kernel.outbox.reap()
        kernel.run_until_idle(patience=0.1)
        return False

    until(is_done)


def survives(folder: Path, url: str, number: int) -> bool:
    """Die at the place *number*, and finish in another process; True if it came to its end."""
    channel = f"C{number:04}"
    folder.mkdir()

    def start() -> None:
        make(folder, url).start("announce", {"channel": channel})

    def all_of_it(dies_at: int | None) -> None:
        kernel = make(folder, url)
        if dies_at is not None:
            die_around(WebApi, "call", dies_at, lambda method: method.startswith("chat."))
        else:
            pass_leases(kernel)  # of the one that died: what this one holds no pause takes from it

        def status() -> str:
            return kernel.executions.find(workflow="announce")[0].status.value

        def waiting() -> bool:
            return bool(kernel.approvals.pending().approvals) and question(url, channel) is not None

        work_until(kernel, lambda: waiting() or status() == "COMPLETED")
        if kernel.approvals.pending().approvals:
            click(kernel, url, channel)
        work_until(
            kernel,
            lambda: (
                all(each.status.finished for each in kernel.executions.find())
                and status() == "COMPLETED"
                and not kernel.outbox.find(status="RETRY")
                and not kernel.outbox.find(status="RUNNING")
            ),
        )

    assert ends(start)
    ended = ends(lambda: all_of_it(number))
    assert ends(lambda: all_of_it(None))
    return ended


if __name__ == "__main__":
    die_everywhere(survives)
