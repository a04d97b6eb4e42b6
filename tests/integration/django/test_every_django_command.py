"""
Every command of ``manage.py automate`` and ``automate_*``, with every option, as a process.

Which there are is read from the parsers themselves: one without a case fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm_forks import Forked
import typer
import warm_forks
from automate_django import get_kernel
from automate_django.models import ApiToken
from automate_cli.app import hosted
from automate_kernel.workflows.execution import ExecutionStatus
from command_cases import EDITED, SHARED, Case, State, make_state, missing
from django.contrib.auth import get_user_model
from django.core.management import get_commands, load_command_class
from django.db import connections

pytestmark = pytest.mark.slow

Start = Callable[..., Forked]
ORDER = {"lines": [{"price": 3, "quantity": 4}], "channel_id": "C1"}
# Those that Django gives every command.
DJANGOS = {
    "--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback",
    "--no-color", "--force-color", "--skip-checks",
}  # fmt: skip
COMMON = {"--config", "--database", "--debug", "--json"}
# The command runs in the tests' folder, where no file is.
WITHOUT_FILES = [case for case in SHARED["emit"] if "@" not in case.arguments]
CASES: dict[str, list[Case]] = {
    **{f"automate {name}": given for name, given in SHARED.items() if name != "emit"},
    "automate pause": [
        *SHARED["pause"],
        Case("schedule nothing --number 0 --tenant a", codes=(1,)),
        Case("poll nothing.here --tenant a", codes=(1,)),
    ],
    "automate resume": [
        *SHARED["resume"],
        Case("schedule nothing --number 0 --tenant a", codes=(1,)),
        Case("poll nothing.here --tenant a --start-over --yes", codes=(1,)),
        Case("poll nothing.here --start-over -y", codes=(1,)),
    ],
    "automate schedules trigger": [
        Case(
            "nothing --number 0 --tenant a --from 2026-01-01 --to 2026-01-02 --limit 5 --yes",
            codes=(1,),
        )
    ],
    "automate workflow ls": [
        Case("--paused"),
        Case("", "order-notify"),
        Case("--stored", "edited"),
        Case("--stored --tenant acme --limit 5"),
        Case("edited --stored", "published"),
    ],
    "automate call": [
        Case(
            """orders.total --lines '[{{"price": 3, "quantity": 4}}]' --tenant acme --timeout 300
            --idempotency-key k""",
            "12",
        ),
        Case("""orders.total --input '{{"lines": []}}' --dry-run""", "orders.total"),
        Case("orders.total --choices lines --search x", codes=(1,)),
        Case("orders.total --lines [] --yes"),
        Case("orders.total --lines [] -y"),
    ],
    "automate polls ls": [Case("")],
    "automate schedules ls": [Case("")],
    "automate_emit": [*WITHOUT_FILES, Case("go @{file}")],
    "automate_doctor": [Case("--idle-after 5m --test-connections", "database", codes=(0, 1))],
    "automate db migrate": [
        Case("--sql"),
        Case("", "statements"),
        Case("--check", "managed_by"),
        Case("--emit-function", codes=(1,)),
    ],
    "automate tokens new": [
        Case(
            "ci --user tester --tenant acme --scope events:write --scope outbox:* --days 90",
            "atk_",
        ),
        Case("ops --role operator", "atk_"),
    ],
    "automate tokens ls": [Case("--tenant acme --limit 1", "{token}")],
    "automate tokens revoke": [Case("{token}", "revoked")],
    "automate workflow publish": [
        Case("{edited} --draft --comment 'more'", "edited"),
        Case("edited --number 1", "edited"),
        Case("mine --tenant acme", "mine"),
    ],
}
WORKER = (
    "--processes 2 --slots 3 --grace-seconds 5 --kinds automate.*,shop.order"
    " --exclude-kinds shop.die --health-port 0 --metrics-port 0 --probe-host 127.0.0.1"
    " --log-format json"
)


def declared() -> dict[str, list[set[str]]]:
    """The options of each of our commands, as its parser declares them."""
    found: dict[str, list[set[str]]] = {}
    for name, application in get_commands().items():
        if name.startswith("automate_"):
            parser = load_command_class(str(application), name).create_parser("manage.py", name)
            look(parser, name, found)
    mounted(typer.main.get_command(hosted), "automate", found)
    return found


def mounted(command: Any, name: str, found: dict[str, list[set[str]]]) -> None:
    """The same of a command of ``automate``, of which Django has the options in common."""
    children = getattr(command, "commands", {})
    for word, child in children.items():
        if not child.hidden:
            mounted(child, f"{name} {word}", found)
    if not children:
        options = [set(each.opts) for each in command.params if each.param_type_name == "option"]
        found[name] = [each for each in options if not each & COMMON]


def look(parser: argparse.ArgumentParser, name: str, found: dict[str, list[set[str]]]) -> None:
    inner = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for action in inner:
        for word, child in action.choices.items():
            look(child, f"{name} {word}", found)
    if not inner:
        shared = DJANGOS | {"--json"}
        options = [set(action.option_strings) for action in parser._actions]
        found[name] = [each for each in options if each and not each & shared]


def test_every_command_and_option_has_a_case() -> None:
    """Or else nobody knows whether it works as a process."""
    elsewhere = [Case(WORKER), Case("--until-idle"), Case("--queue mail"), Case("--reload")]
    assert missing({**CASES, "automate_worker": elsewhere}, declared()) == []


@pytest.fixture
def state(sqlite: str, tmp_path: Path) -> State:
    """Something in every state, in the project's database."""
    found = make_state(
        get_kernel(), kind="shop.order", well={"number": "1"},
        failing={"number": "2", "fail": True}, workflow="order-notify", event=ORDER,
    )  # fmt: skip
    get_user_model()._default_manager.get_or_create(username="tester")
    token, _ = ApiToken.objects.issue("old", scopes=["*"], tenant_id="acme")
    file = tmp_path / "payload.json"
    file.write_text('{"x": "hi"}')
    edited = tmp_path / "edited.yaml"
    edited.write_text(EDITED)
    get_kernel().documents.create(EDITED)
    mine = EDITED.replace("name: edited", "name: mine")
    get_kernel().documents.create(mine, tenant_id="acme")
    found.words |= {"token": token.shown, "file": str(file), "edited": str(edited)}
    return found


# What a project imports at its start, and for Django's own checks.
IMPORTED = (*warm_forks.COMMAND_LINE, "shopsite.wsgi", "shopsite.urls")
PROJECT = Path(__file__).parents[2] / "django_project"


@pytest.fixture(scope="module")
def forks(sqlite_alias: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where commands are forked from the project, as it is set up on SQLite."""
    address = tmp_path_factory.mktemp("forks") / "socket"
    environment = {
        **os.environ, "PYTHONPATH": str(PROJECT), "DJANGO_SETTINGS_MODULE": "shopsite.settings",
        "SHOP_SQLITE": str(connections[sqlite_alias].settings_dict["NAME"]),
    }  # fmt: skip
    with warm_forks.serving(address, IMPORTED, environment) as served:
        yield served


CALLS = [
    pytest.param(command, case, id=f"{command} {case.arguments}"[:60])
    for command, cases in CASES.items()
    for case in cases
]


@pytest.mark.long
@pytest.mark.parametrize(("command", "case"), CALLS)
def test_a_command_does_its_work(
    command: str, case: Case, state: State, environment: dict[str, str], forks: str, start: Start
) -> None:
    """With all options that go together; with ``--json`` what it prints is JSON."""
    words = [*command.split(), *case.words(state), "--json"]
    shows = case.shows.format(**state.words)
    if case.endless:
        process = start(*words, stderr=subprocess.PIPE)
        assert process.stdout is not None
        printed = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
        code, printed = process.returncode, printed + rest
    else:
        code, printed, errors = warm_forks.ended(
            forks, ["manage.py", *words], environment, folder=PROJECT, seconds=120
        )
    assert code in (*case.codes, *([-signal.SIGINT, 130] if case.endless else [])), printed + errors
    assert shows in printed
    assert "Traceback" not in errors
    # A refusal is an error alone, on the other stream.
    if "--json" in words and not case.endless and (printed or code == 0):
        json.loads(printed)
    elif "--json" in words and not case.endless:
        assert errors.strip()


def completed() -> int:
    return len(get_kernel().executions.find(status=ExecutionStatus.COMPLETED))


def expected() -> int:
    """Return how many have completed once those that wait are done."""
    waiting = len(get_kernel().executions.find(status=ExecutionStatus.PENDING))
    assert waiting
    return completed() + waiting


@pytest.mark.parametrize(
    "options",
    [WORKER, "--reload --log-format text", "--concurrency 2 --processes 1 --grace-seconds 1"],
)
def test_a_worker_with_every_option_works(
    options: str, state: State, start: Start, until: Callable[..., None]
) -> None:
    """An execution that waits ends, and SIGTERM ends all processes."""
    ends = expected()
    worker = start("automate_worker", *options.split())
    until(lambda: completed() == ends, worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(120) == 0 or "--reload" in options


def test_a_worker_until_idle(state: State, start: Start) -> None:
    """It does what is due, and ends."""
    ends = expected()
    worker = start("automate_worker", "--until-idle")
    printed, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, printed
    assert completed() == ends


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--kinds", "nobody.knows"], "no handler is there"),
        (["--exclude-kinds", "nobody.*"], "no handler is there"),
        (["--kinds", "shop.die", "--exclude-kinds", "shop.*"], "no kind of item is left"),
    ],
)
def test_a_kind_that_nobody_knows_is_told(
    options: list[str], why: str, state: State, start: Start
) -> None:
    """At the start, and by the process that was started."""
    worker = start("automate_worker", *options)
    printed: Any = worker.communicate(timeout=120)[0]
    assert worker.returncode != 0
    assert why in printed
