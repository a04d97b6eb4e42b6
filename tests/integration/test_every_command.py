"""
Every command of ``automate``, with every option, as a process.

Which there are is read from the program itself: one without a case fails.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_cases import EDITED, SHARED, Case, State, make_state, missing
from command_line import CliRunner

import processes
import warm_forks
from ports import free_ports
from automate_cli.app import app
from automate_cli.session import Session
from automate_kernel.monitoring.diagnosis import worker_findings
from waiting import until

pytestmark = pytest.mark.slow

PATIENCE = 120.0
ROOT = Path(__file__).parents[2]
HTTP = ROOT / "plugins" / "automate-http"
CODE = """\
from typing import Literal

from automate_kernel import Connector, PollResult, poll


class Sheet(Connector):
    key = "sheet"
    display_name = "Sheet"

    @poll("new_row", every="1h")
    def new_row(self, cursor):
        return PollResult()


def automate_configure(kernel):
    kernel.plugins.register(Sheet)

    @kernel.action("note.pick")
    def pick(x: Literal["hi", "ho"]) -> str:
        return x

    @kernel.action("note.do")
    def note(x: str) -> str:
        return x

    @kernel.handler("mail.send")
    def send(item):
        if item.payload.get("fail"):
            raise ValueError("told to")

    @kernel.handler("other.kind")
    def other(item):
        pass
"""
WORKFLOW = """\
name: greet
trigger: {type: event, event: go, if: "{{ event.payload.x == 'hi' }}"}
steps:
  - {id: a, action: note.do, input: {x: "{{ event.payload.x }}"}}
"""
ROWS = """\
name: rows
trigger: {type: event, event: sheet.new_row}
steps:
  - {id: a, action: note.do, input: {x: "a row"}}
"""
TEST = """\
workflow: workflows/greet.yaml
real: [note.do]
cases:
  - name: it greets
    payload: {x: hi}
    expect: {outputs: {a: hi}}
"""
HOURLY = """\
name: hourly
trigger: {type: schedule, every: 1h}
steps:
  - {id: a, action: note.do, input: {x: hour}}
"""
SETTINGS = """\
app = "automation"
signing_keys = ["a-key-of-thirty-two-characters-at-least"]
[worker]
poll_seconds = 0.05
"""
COMMON = {"--config", "--database", "--debug", "--json"}
CASES: dict[str, list[Case]] = {
    **SHARED,
    "pause": [
        *SHARED["pause"],
        Case("poll sheet.new_row", "paused"),
        Case("schedule hourly --number 0", "paused"),
    ],
    "resume": [
        *SHARED["resume"],
        Case("poll sheet.new_row", "sheet.new_row"),
        Case("poll sheet.new_row --start-over --yes", "started over"),
        Case("poll sheet.new_row --start-over -y", "started over"),
        Case("schedule hourly --number 0", "hourly"),
    ],
    "": [Case("--version")],
    "init": [Case("shop", "shop/automate.toml")],
    "run": [
        Case("greet --event payload.json --name go --store --timeout 300", "COMPLETED"),
        Case("workflows/greet.yaml --event other.json --force --label order=7", '"order": "7"'),
        Case(
            "workflows/greet.yaml --event payload.json --header X-Event=push", '"x-event": "push"'
        ),
        Case("""greet --dry-run --payload '{{"x": "hi"}}' --output 'a="hi"'""", "note.do"),
        Case("workflows/greet.yaml --dry-run --event payload.json", "note.do"),
        Case(
            """greet --detach --payload '{{"x": "hi"}}' --idempotency-key k --priority 3 --delay 1h
            --tenant acme --label order=4711"""
        ),
        Case("greet --detach --event payload.json"),
    ],
    "call": [
        Case("note.do --x hi --tenant acme --idempotency-key k --timeout 300", '"hi"'),
        Case("""note.do --input '{{"x": "hi"}}' --dry-run""", "note.do"),
        Case("note.pick --choices x --search h", "ho"),
        Case("note.do --x hi -y"),
        Case("note.do --x hi --yes"),
    ],
    "polls ls": [Case("", "sheet.new_row")],
    "schedules ls": [Case("", "hourly"), Case("hourly")],
    "schedules trigger": [
        Case("hourly --number 0", "execution_id"),
        Case("hourly --from 2026-01-01 --to 2026-01-01T03:00Z --number 0 --limit 10 --yes", "4"),
    ],
    "tokens new": [
        Case("ada --role operator --tenant acme --days 9", "atk_"),
        Case("exporter --scope events:write", "atk_"),
    ],
    "tokens ls": [Case("--tenant acme --limit 1")],
    "tokens revoke": [Case("{token}", "{token}")],
    "doctor": [
        Case("--idle-after 5m --test-connections", "program", codes=(0, 1)),
        Case("--secrets"),
        Case("--settings", "automation"),
        Case("--settings --show-values", "automation"),
    ],
    "workflow validate": [Case("workflows"), Case("--syntax workflows/greet.yaml")],
    "workflow show": [
        Case("greet --execution {execution}", "note.do"),
        Case("greet --mermaid", "flowchart"),
        Case("greet --svg", "<svg"),
        Case("greet --diff stored", "running_before"),
        Case("greet --diff workflows/greet.yaml"),
        Case("--schema", "properties"),
    ],
    "workflow test": [Case("greet.test.yaml --only greets", "greets")],
    "workflow ls": [
        Case("", "greet"),
        Case("--paused"),
        Case("--stored", "edited"),
        Case("--stored --tenant acme --limit 5"),
        Case("edited --stored", "published"),
    ],
    "workflow publish": [
        Case("edited.yaml --draft --comment 'more'", "edited"),
        Case("edited --number 1", "edited"),
        Case("mine --tenant acme", "mine"),
    ],
    # Installed plugins that have no config exit with 1.
    "plugins ls": [
        Case("--load --kind connector", "http", codes=(0, 1)),
        Case("--search 'signed webhooks'", "http"),
    ],
    "plugins show": [
        Case("connector:http", "http"),
        Case("connector:http --load", "LOADED"),
        Case("connector:http --markdown", "http.get"),
    ],
    "plugins new": [Case("acme --kind filter --kind store --directory made", "automate-acme")],
    "plugins check": [
        Case("http --level complete --test-connection", "automate-http"),
        Case(f"{HTTP} --manifest check", "up to date"),
    ],
    "db migrate": [
        Case("--sql"),
        Case("--force", "statements"),
        Case("--check", "managed_by"),
    ],
}
# These need more than a case: a test of their own, below or elsewhere.
RUN_ELSEWHERE = {
    # Files hold no tenant's workflows: test_every_django_command.py.
    "schedules trigger": {"--tenant"},
    "demo": {"--keep", "--json"},  # test_cli_processes.py
    "db migrate": {"--emit-function"},  # it needs PostgreSQL: test_django_outbox.py
    # test_plugin_authoring.py, and --operation in the tests of automate-openapi
    "plugins new": {"--from-openapi", "--url", "--tag", "--operation"},
    "worker": None,
    "serve": {"--ui"},  # test_serve_ui.py
    "dev": {"--app", "--port", "--no-open"},  # test_dev.py
    # It needs a broker: plugins/automate-nats/tests/test_nats_command.py.
    "executor": {
        "--queue",
        "--slots",
        "--grace-seconds",
        "--health-port",
        "--metrics-port",
        "--probe-host",
    },
    "": {"--install-completion", "--show-completion"},  # typer's, by the shell that is found
}
WORK = (
    "--slots 3 --grace-seconds 5 --lease-seconds 5 --kind automate.* --kind mail.send"
    " --exclude-kind other.* --probe-host 127.0.0.1 --log-format json"
)
WORKING = {
    "worker": f"--processes 2 --health-port {{health}} --metrics-port {{metrics}} {WORK}",
    "serve": (
        f"--processes 2 --health-port {{health}} --metrics-port {{metrics}} {WORK}"
        " --host 127.0.0.1 --port {port} --api"
    ),
}


def declared() -> dict[str, list[set[str]]]:
    """The options of each command, as the program declares them."""
    found: dict[str, list[set[str]]] = {}

    def look(command: Any, words: list[str]) -> None:
        children = getattr(command, "commands", None)
        if not children or not words:
            options = [set(p.opts) for p in command.params if p.param_type_name == "option"]
            found[" ".join(words)] = [each for each in options if not each & COMMON]
        for name, child in (children or {}).items():
            # `list` is another name of `ls`.
            if not child.hidden and not (name == "list" and "ls" in children):
                look(child, [*words, name])

    look(typer.main.get_command(app), [])
    return found


def flags(command: str) -> set[str]:
    """Which of the options of every command this one has."""
    found = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    return COMMON & {name for each in found.params for name in each.opts}


def test_every_command_and_option_has_a_case() -> None:
    """Or else nobody knows whether it works as a process."""
    found = declared()
    del found["connect"]  # it needs a service: plugins/automate-http/tests/test_http_oauth.py
    for name, options in RUN_ELSEWHERE.items():
        if options is not None:
            found[name] = [each for each in found[name] if not each & options]
    cases = {name: given for name, given in CASES.items()}
    until_idle = Case("--until-idle")
    cases |= {name: [Case(text), until_idle] for name, text in WORKING.items()}
    cases |= {"demo": [Case("")], "dev": [Case("")], "executor": [Case("")]}
    assert missing(cases, found) == []


def named_in_source() -> Iterator[tuple[str, str]]:
    """Each `automate …` in the texts of the source: hints, examples, remedies and docstrings."""
    for folder in (ROOT / "src", *ROOT.glob("plugins/*/src"), ROOT / "examples"):
        for path in folder.rglob("*.py"):
            source = path.read_text("utf-8")
            found = ast.walk(ast.parse(source)) if "automate " in source else ()
            texts = [each.value for each in found if isinstance(each, ast.Constant)]
            for text in (each for each in texts if isinstance(each, str)):
                for line in re.findall(r"\bautomate ((?:[a-z][a-z-]* ?)+)", text):
                    yield path.name, line.strip()


def test_a_command_that_the_source_names_is_there() -> None:
    """Or a hint sends people to nothing: `automate outbox stats`, say."""
    groups = {
        name: set(getattr(command, "commands", ()))
        for name, command in typer.main.get_command(app).commands.items()
    }
    wrong = [
        (file, line)
        for file, line in named_in_source()
        for first, *rest in [line.split()]
        if groups.get(first) and rest and rest[0] not in groups[first]
    ]
    assert wrong == []


def test_there_are_not_more_commands_than_people_can_read_through() -> None:
    """What is an option of another command is none of its own."""
    assert len(declared()) - 1 <= 53


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A project with something in every state."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "automate.toml").write_text(SETTINGS)
    (folder / "automation.py").write_text(CODE)
    (folder / "workflows").mkdir()
    (folder / "workflows" / "greet.yaml").write_text(WORKFLOW)
    (folder / "greet.test.yaml").write_text(TEST)
    (folder / "workflows" / "hourly.yaml").write_text(HOURLY)
    (folder / "workflows" / "rows.yaml").write_text(ROWS)
    (folder / "edited.yaml").write_text(EDITED)
    (folder / "payload.json").write_text('{"x": "hi"}')
    (folder / "other.json").write_text('{"x": "ho"}')
    with contextlib.chdir(folder) if sys.version_info >= (3, 11) else _chdir(folder):
        session = Session(str(folder / "automate.toml"))
        session.kernel.documents.create(EDITED)
        mine = EDITED.replace("name: edited", "name: mine")
        session.kernel.documents.create(mine, tenant_id="acme")
        state = make_state(
            session.kernel, kind="mail.send", well={"n": 1}, failing={"fail": True},
            workflow="greet", event={"x": "hi"},
        )  # fmt: skip
        session.close()
    sys.modules.pop("automation", None)
    return folder, state


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def project(template: tuple[Path, State], tmp_path: Path) -> Path:
    """A copy of it, for commands that change something."""
    return Path(shutil.copytree(template[0], tmp_path / "project"))


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
    return {**kept, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", **more}


class Running:
    """A command of ``automate`` that runs, and what it printed so far."""

    def __init__(self, process: Any, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                self.printed += line

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, found: Callable[[], Any], what: str) -> Any:
        def why() -> str:
            return f"waited in vain for {what}\n{self.printed}\n{self.log()}"

        return until(found, PATIENCE, process=self.process, why=why)

    def ended(self) -> int:
        code: int = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


@contextlib.contextmanager
def running(forks: str, folder: Path, words: list[str], **variables: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "automate_cli", *words]
    with (folder / "log").open("w") as log, warm_forks.running(
        forks, command, cwd=folder, env=environment(**variables), text=True,
        stdout=processes.PIPE, stderr=log, stdin=processes.DEVNULL,
    ) as process:  # fmt: skip
        yield Running(process, folder)


CALLS = [
    pytest.param(command, case, id=f"{command or 'automate'} {case.arguments}"[:60])
    for command, cases in CASES.items()
    for case in cases
]


@pytest.mark.long
@pytest.mark.parametrize(("command", "case"), CALLS)
def test_a_command_does_its_work(
    command: str, case: Case, template: tuple[Path, State], project: Path, forks: str
) -> None:
    """With all options that go together, and those of every command; what it prints is JSON."""
    words = [*command.split(), *case.words(template[1])]
    given = flags(command) if command else set()
    places = {"--config": ["automate.toml"], "--database": ["sqlite:///automate.sqlite3"]}
    text = not {"--mermaid", "--svg"}.isdisjoint(words)
    for flag in sorted(given - ({"--json"} if text else set())):
        words += [flag, *places.get(flag, [])]
    shows = case.shows.format(**template[1].words)
    if case.endless:
        with running(forks, project, words) as run:
            run.until(lambda: shows in run.printed, shows)
            run.process.send_signal(signal.SIGINT)
            code, printed, errors = run.ended(), run.printed, run.log()
    else:
        program = ["-m", "automate_cli", *words]
        code, printed, errors = warm_forks.ended(
            forks, program, environment(), folder=project, seconds=PATIENCE
        )
    assert code in case.codes, printed + errors
    assert shows in printed
    assert "Traceback" not in errors
    if "--json" in words and not case.endless:
        json.loads(printed)


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def count(folder: Path, status: str) -> int:
    # Asked every 20 ms, and a kernel takes longer than that to be made.
    with contextlib.closing(sqlite3.connect(folder / "automate.sqlite3")) as connection:
        # Not those of `hourly`: an hour may begin meanwhile.
        asked = "SELECT count(*) FROM automate_execution WHERE status = ? AND workflow = 'greet'"
        found: int = connection.execute(asked, [status]).fetchone()[0]
        return found


@pytest.mark.parametrize("ports", ["two", "one", "settings"])
@pytest.mark.parametrize("command", WORKING)
def test_what_runs_on_works_with_every_option(
    command: str, ports: str, project: Path, forks: str
) -> None:
    """An execution ends, the probes and the metrics answer, and a signal ends all processes."""
    health, metrics, port = free_ports(3)
    metrics = health if ports == "one" else metrics
    words = WORKING[command].format(health=health, metrics=metrics, port=port).split()
    variables = {}
    if ports == "settings":
        # Whatever names the ports, they are the parent's.
        variables = {
            "AUTOMATE_WORKER_HEALTH_PORT": words[3],
            "AUTOMATE_WORKER_METRICS_PORT": words[5],
        }
        del words[2:6]
    variables["AUTOMATE_SERVE_EVENTS_TOKEN"] = "t0ken"
    waiting = count(project, "PENDING")
    assert waiting
    expected = count(project, "COMPLETED") + waiting
    words += ["--config", "automate.toml", "--database", "sqlite:///automate.sqlite3", "--debug"]
    with running(forks, project, [command, *words], **variables) as run:
        probes = f"http://127.0.0.1:{health}"
        run.until(lambda: ask(f"{probes}/readyz")[0] == 200, "ready")
        if command == "serve":
            base = f"http://127.0.0.1:{port}"
            run.until(lambda: ask(f"{base}/readyz")[0] == 200, "ready")
            body = json.dumps({"name": "go", "payload": {"x": "hi"}}).encode()
            assert ask(f"{base}/events", body, Authorization="Bearer t0ken")[0] == 202
            assert ask(f"{base}/api/workflows", Authorization="Bearer t0ken")[0] == 401
            expected += 1
        run.until(lambda: count(project, "COMPLETED") == expected, "the execution to end")
        assert ask(f"{probes}/healthz")[0] == 200
        # A busy machine's database may not have answered within the page's own time.
        told = f"http://127.0.0.1:{metrics}/metrics"
        run.until(lambda: "automate_outbox_items" in ask(told)[1], "the metrics")
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0, run.log()
    assert "other.kind" not in run.log()


@pytest.mark.parametrize("how", [[], ["--kind", "automate.*", "--exclude-kind", "mail.*"]])
def test_a_worker_until_idle(project: Path, how: list[str], forks: str) -> None:
    """It does what is due, and ends."""
    waiting = count(project, "PENDING")
    assert waiting
    expected = count(project, "COMPLETED") + waiting
    with running(forks, project, ["worker", "--until-idle", *how]) as run:
        assert run.ended() == 0, run.log()
    assert count(project, "COMPLETED") == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--kind", "nobody.knows"], "no handler is there"),
        (["--exclude-kind", "mial.*"], "no handler is there"),
        (["--kind", "mail.send", "--exclude-kind", "mail.*"], "no kind of item is left"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "serve"])
def test_a_kind_that_nobody_knows_is_told_at_the_start(
    project: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str], why: str
) -> None:
    """A worker that works on nothing would look like one that has nothing to do."""
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "automation", raising=False)
    done = CliRunner().invoke(app, [command, *options], env=environment())
    assert done.exit_code == 2
    assert why in done.stderr


def problems(project: Path) -> list[str]:
    """What ``automate doctor`` says of workers that can't begin."""
    with contextlib.closing(Session(str(project / "automate.toml"))) as session:
        found = worker_findings(session.plain.outbox, program="automate")
    return [each.text for each in found if each.state == "fail" and "can't begin" in each.text]


def test_serve_is_not_ready_while_its_workers_can_not_start(project: Path, forks: str) -> None:
    """It says so and why, goes on taking events, and is ready once they work."""
    broken = CODE + "\nimport os, pathlib, multiprocessing\n" + (
        "if multiprocessing.parent_process() and pathlib.Path('broken').exists():\n"
        "    os._exit(3)\n"
    )  # fmt: skip
    (project / "automation.py").write_text(broken)
    (project / "broken").touch()
    [port] = free_ports(1)
    base = f"http://127.0.0.1:{port}"
    with running(
        forks, project, ["serve", "--port", str(port)], AUTOMATE_SERVE_EVENTS_TOKEN="t0ken"
    ) as run:

        def told() -> bool:
            status, text = ask(f"{base}/readyz")
            return status == 503 and "ended with exit code 3" in text

        run.until(told, "the reason")
        # Of one look: while they begin anew for long, nothing is wrong until they end again.
        (problem,) = run.until(lambda: problems(project), "what the doctor reads")
        assert "ended with exit code 3" in problem
        assert "is started again" in run.log()
        event = b'{"name": "go", "payload": {"x": "hi"}}'
        assert ask(f"{base}/events", event, Authorization="Bearer t0ken")[0] == 202
        (project / "broken").unlink()
        run.until(lambda: ask(f"{base}/readyz")[0] == 200, "the workers")
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
