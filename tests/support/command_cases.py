"""
A case for each command and each of its options: what `test_every_command.py` runs as processes.

Both tables are compared with what the programs declare, so a new command or option without a case
fails. Options that contradict each other are in cases of their own; all others share one.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from approvals_asked import ask


@dataclass(frozen=True)
class Case:
    """
    One call: its *arguments*, with ``{words}`` that a `State` fills in, and what must be printed.

    An *endless* one runs until Ctrl-C, once it has printed *shows*.
    """

    arguments: str
    shows: str = ""
    endless: bool = False
    codes: tuple[int, ...] = (0,)

    def words(self, state: State) -> list[str]:
        """The arguments, filled in."""
        return [word.format(**state.words) for word in shlex.split(self.arguments)]

    def options(self) -> set[str]:
        """The options that it gives."""
        return {
            word for word in shlex.split(self.arguments) if word.startswith("-") and word != "-"
        }


@dataclass
class State:
    """What is stored, by the names that cases use."""

    words: dict[str, str] = field(default_factory=dict)


def make_state(
    kernel: Any, *, kind: str, well: Any, failing: Any, workflow: str, event: Any
) -> State:
    """
    Store something in every state, for commands to work on.

    Items of *kind* fail with the payload *failing*; *workflow* fails without its *event*'s payload.
    """
    words = {"kind": kind, "workflow": workflow}
    for name, payload in (("completed", well), ("failed", failing), ("failed2", failing)):
        words[name] = kernel.outbox.enqueue(kind, payload, max_attempts=1)
    words["token"] = kernel.tokens.new("exporter", scopes=["*"])[0].shown
    words["execution"] = kernel.start(workflow, event)
    words["failed_execution"] = kernel.start(workflow, None)
    kernel.run_until_idle()
    assert kernel.executions.get(words["execution"]).status == "COMPLETED"
    assert kernel.executions.get(words["failed_execution"]).status == "FAILED"
    for name in ("pending", "pending2"):
        words[name] = kernel.outbox.enqueue(kind, well, delay=3600)
    words["running_execution"] = kernel.start(workflow, event)
    words["acme_execution"] = kernel.start(workflow, event, tenant_id="acme")
    form = [{"name": "amount", "type": "integer"}]
    for name in ("asked", "asked2"):
        words[name] = ask(kernel, tenant="acme", by=["ann", "role:boss"], form=form)
    words["step"] = kernel.workflows.get(workflow).steps[0].id
    return State(words)


EDITED = """\
name: edited
trigger: {type: event, event: edited.go}
steps:
  - {id: a, sleep: 1s}
"""
"""A workflow for the commands of those that people edit in the database."""
_CHOSEN = "--kind '{kind}' --older-than 0s --newer-than 1h --limit 1 --yes"

# What `automate` and `manage.py` have in common, by the words of `automate`.
SHARED: dict[str, list[Case]] = {
    "emit": [
        Case(
            """go '{{"a": 1}}' --delay 1h --priority 3 --idempotency-key k
            --tenant acme --source test --label order=4711"""
        ),
        Case("go @payload.json"),
    ],
    "executions ls": [
        Case("--status COMPLETED --workflow {workflow} --limit 5", "{execution}"),
        Case("--tenant nobody", ""),
        Case("--error 'KeyError in nowhere.at_all'"),
        Case("--label order=none --label region=eu"),
        Case("--by-error --workflow {workflow} --limit 5", "{workflow}"),
        Case("--by-error --tenant nobody"),
        Case("--by-workflow --within 15m", "{workflow}"),
    ],
    "executions show": [
        Case("{execution}", "{execution}"),
        Case("{execution} --output"),
        Case("{execution} --output --step {step}"),
        Case("{execution} --output --step {step} --position 0", codes=(1,)),
    ],
    "executions signal": [
        Case("""{acme_execution} go --payload '{{"by": "ann"}}' --tenant acme""", "go"),
    ],
    "executions cancel": [
        Case("{running_execution} --tenant nobody", codes=(1,)),
        Case("{running_execution} --force", "cancelled"),
    ],
    "executions fork": [
        Case("{execution} --step {step} --payload 1 --definition current", "forked_from"),
    ],
    "executions retry": [
        Case("{failed_execution} --step {step} --definition current", "resumed"),
        Case("{failed_execution}"),
        Case("{failed_execution} --only nothing --position 1 --tenant nobody", codes=(1,)),
        Case(
            "--failed --workflow {workflow} --tenant nobody --error-code ABORTED --older-than 1h"
            " --newer-than 2h --limit 5 --rate 5 --yes"
        ),
        Case("--failed -n 1 -y", "resumed"),
    ],
    "approvals ls": [
        Case("--by kim --role boss --workflow refund --tenant acme --limit 5", "{asked}"),
        Case("-n 5", "{asked}"),
    ],
    "approvals show": [
        Case("{asked} ok --position -1 --tenant acme", "Pay it back?"),
        Case(
            "{asked} ok --position -1 --link --by kim --role boss --decision reject --tenant acme"
            " --base-url https://shop.example",
            "https://shop.example/approvals/",
        ),
    ],
    "approvals decide": [
        Case(
            """{asked} ok approve --position -1 --by kim --role boss --comment fine --tenant acme
            --form '{{"amount": 3}}'""",
            "kim",
        ),
        Case(
            """{asked2} ok reject --position -1 --by kim --role boss --comment no --tenant acme
            --form '{{}}'""",
            "kim",
        ),
    ],
    "pause": [
        Case("kind {kind} --reason 'the server is down'", "paused"),
        Case("workflow {workflow} --reason 'stock-taking' --tenant acme", "paused"),
        Case("execution {running_execution} --tenant nobody", codes=(1,)),
    ],
    "resume": [
        Case("kind {kind}", "resumed"),
        Case("workflow {workflow} --tenant acme", "{workflow}"),
        Case("execution {running_execution} --tenant nobody", codes=(1,)),
    ],
    "outbox ls": [
        Case("--status FAILED --kind {kind} --limit 1", "{kind}"),
        Case("--tenant nobody"),
        Case("--label order=none"),
        Case("--by-error --kind {kind} --limit 5", "{kind}"),
        Case("--by-error --tenant nobody"),
        Case("--by-kind", "{kind}"),
    ],
    "outbox show": [Case("{failed}", "{failed}")],
    "outbox requeue": [
        Case("{failed}"),
        Case(f"--failed {_CHOSEN} --rate 5"),
        Case("--all --status FAILED --tenant nobody --error-code ABORTED --yes"),
        Case("--failed --error 'KeyError in nowhere.at_all' --yes"),
        Case("{pending} {pending2} --delay 2h", "rescheduled"),
        Case("--stale --older-than 10m", "reaped"),
    ],
    "outbox cancel": [
        Case("{pending}"),
        Case(f"--all --status PENDING {_CHOSEN}"),
        Case("--all --status PENDING --tenant nobody --error-code ABORTED --yes"),
        Case("--all --status PENDING --error 'KeyError in nowhere.at_all' --yes"),
    ],
    "outbox purge": [
        Case("--older-than 30d --yes"),
        Case("{failed}"),
        Case(f"--all --status FAILED {_CHOSEN}"),
        Case("--all --tenant nobody --error-code ABORTED --yes"),
        Case("--all --error 'KeyError in nowhere.at_all' --yes"),
    ],
    "outbox limit": [
        Case("{kind} --concurrency 5 --rate 100/1m --burst 10"),
        Case("{kind} --remove"),
        Case(""),
    ],
    "top": [Case("--once"), Case("--every 0.2", "{kind}", endless=True)],
}
"""By the command's words. ``{{`` in a case stands for a brace."""


def missing(cases: dict[str, list[Case]], declared: dict[str, list[set[str]]]) -> list[str]:
    """Say which of the *declared* commands and options (each a set of its names) no case has."""
    found = [f"{name}: no case" for name in declared if not cases.get(name)]
    for name, options in declared.items():
        given = {word for case in cases.get(name, []) for word in case.options()}
        found += [f"{name}: no case gives {sorted(each)}" for each in options if not each & given]
    return found + [f"{name}: there is no such command" for name in cases.keys() - declared.keys()]
