"""
Secrets planted wherever one can come from, and looked for wherever one could be seen.

Each canary carries a label beside it. The label must arrive, with the mark where the secret stood:
so the secret did travel that way, and this test can fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from waiting import until

DEADLINE = 60.0
TOKEN = "events-token-5c1de07b"

CODE = '''\
"""A host with log handlers of its own, and a plugin that tells its secrets wherever it can."""

import asyncio, gc, logging, os, threading, warnings
from automate_kernel import AutomateError, Connector, ErrorCodes, TriggerSpec, signals
from automate_kernel.plugins.connectors import action
from pydantic import BaseModel, SecretStr

PLACES = os.environ["PLACES"].split(",")
KNOWN = {}
kernels = []

host = logging.FileHandler("host.log")
FORMAT = "%(levelname)s %(name)s [%(threadName)s] %(message)s %(more)s"
host.setFormatter(logging.Formatter(FORMAT, defaults={"more": ""}))
logging.getLogger().addHandler(host)


def at(place):
    return f"at-{place} {KNOWN[place]} end"


class Config(BaseModel, extra="ignore"):
    signer: SecretStr


class Mole(Connector):
    key = "mole"

    @classmethod
    def config_schema(cls):
        return Config

    @classmethod
    def triggers(cls):
        return [TriggerSpec("call")]

    def verify_webhook(self, headers, raw_body):
        return True

    def parse_webhook(self, trigger, headers, raw_body):
        return {"echo": at("webhook"), "password": "plain-" + "unresolved-77"}

    @action
    def output(self) -> dict:
        return {"text": at("output"), at("key"): [at("list")], "ok": True, "n": 2024,
                "config": "at-config " + self.config["signer"].get_secret_value() + " end"}

    @action
    def fail(self) -> None:
        raise ValueError(at("error"))

    @action
    def refuse(self) -> None:
        raise AutomateError(ErrorCodes.UNAVAILABLE, at("refusal"), hint=at("hint"), retryable=False)

    @action
    def talk(self) -> None:
        self.ctx.logger.warning(at("plugin-log"))
        self.ctx.logger.getChild("wire").warning("%s", {"deep": [at("child-log")]})
        logging.getLogger("elsewhere").warning("x", extra={"more": at("extra")})
        logging.getLogger("named." + at("logger-name")).warning("hello")
        error = ValueError(at("exc-info"))
        if hasattr(error, "add_note"):
            error.add_note(at("note"))
        logging.getLogger("elsewhere").error("traced", exc_info=error)
        warnings.warn(at("warning"))

        def die():
            raise ValueError(at("thread"))

        thread = threading.Thread(target=die, name=at("thread-name"))
        thread.start()
        thread.join()

        class Dying:
            def __del__(self):
                raise ValueError(at("finalizer"))

        Dying()
        gc.collect()

    @action
    async def leave(self) -> None:
        async def fail():
            raise ValueError(at("task"))

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    def close(self):
        raise ValueError(at("close"))


def automate_configure(kernel):
    kernels.append(kernel)
    kernel.register(Mole)
    for place in PLACES:
        KNOWN[place] = kernel.secrets.get(place)
    signals.event_received.connect(heard)

    @kernel.handler("raw")
    def raw(item):
        raise RuntimeError(at("handler"))


def heard(sender, event):
    raise ValueError(at("signal"))
'''

WORKFLOW = """\
name: mole
trigger:
  - {type: event, event: dig}
  - {type: webhook, connector: mole, trigger: call}
steps:
  - {id: out, action: mole.output}
  - {id: talk, action: mole.talk, needs: [out]}
  - {id: leave, action: mole.leave, needs: [talk]}
  - {id: refuse, action: mole.refuse, needs: [leave], on_failure: continue}
  - {id: fail, action: mole.fail, needs: [refuse]}
output: "{{ event.payload }}"
"""

PLACES = [
    "payload", "webhook", "output", "key", "list", "error", "note", "refusal", "hint", "plugin-log",
    "child-log", "extra", "logger-name", "exc-info", "warning", "thread", "thread-name",
    "finalizer", "task", "close", "handler", "signal", "item", "pause", "path",
]  # fmt: skip
CANARIES = {place: f"cnry{index:02}-{place[::-1]}-x9" for index, place in enumerate(PLACES)}
CONFIG = "cnry-config-literal-8842"


class Host:
    """A project in a folder, its processes, and everything that they wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "automate.toml").write_text(
            'app = "automation"\n[worker]\npoll_seconds = 0.05\n'
            f'[serve]\nevents_token = "{TOKEN}"\n'
            f'[config.mole]\nsigner = "{CONFIG}"\nhook = "cnry-config-unknown-1"\n'
        )
        (folder / "automation.py").write_text(CODE)
        (folder / "workflows").mkdir()
        (folder / "workflows" / "mole.yaml").write_text(WORKFLOW)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AUTOMATE_")}
        secrets = {f"AUTOMATE_SECRET_{p.replace('-', '_')}": v for p, v in CANARIES.items()}
        self.environment = {**kept, **secrets, "PLACES": ",".join(PLACES)}
        self.seen: dict[str, str] = {}

    def run(self, *commands: str) -> None:
        """Run commands, all in one process, since that takes half a second to start."""
        script = (
            "from automate_cli.app import app\n"
            f"for each in {commands!r}:\n"
            "    print('\\f' + each, flush=True)\n"
            "    app(each.split(), standalone_mode=False)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=self.folder, env=self.environment, text=True, capture_output=True, check=False,
            timeout=DEADLINE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.seen["commands' stderr"] = done.stderr
        for part in done.stdout.split("\f")[1:]:
            command, _, text = part.partition("\n")
            self.seen[command] = text

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        with (self.folder / "stderr.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "automate_cli", "serve", "--port", "0"],
                cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
            try:
                assert process.stdout is not None
                lines = iter(process.stdout.readline, "")
                found = (re.search(r"listening on (\S+)", line) for line in lines)
                yield next(match[1] for match in found if match)
                process.send_signal(signal.SIGTERM)
                process.wait(DEADLINE)
                self.seen["stdout"] = process.stdout.read()
            finally:
                process.kill()
                process.wait()
        for name in ("stderr.log", "host.log"):
            self.seen[name] = (self.folder / name).read_text()

    def database(self) -> str:
        """All bytes of the database's files."""
        files = sorted(self.folder.glob("automate.sqlite3*"))
        return "".join(file.read_bytes().decode("latin-1") for file in files)

    def ask(self, url: str, body: object = None) -> str:
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        self.seen["http"] = self.seen.get("http", "") + text
        return text


def test_no_canary_gets_out(tmp_path: Path) -> None:
    """Of payloads, outputs, errors, logs, warnings, threads, names and configs, anywhere."""
    from automate_cli.database import open_storage
    from automate_kernel.kernel import Kernel

    host = Host(tmp_path)
    with host.serving() as url:
        told = f"at-payload {CANARIES['payload']} end"
        host.ask(f"{url}/events", {"name": "dig", "payload": {"k": [told], "n": 2024, "ok": True}})
        host.ask(f"{url}/webhooks/mole/call", {})
        host.ask(f"{url}/webhooks/at-path%20{CANARIES['path']}%20end%0aERROR%20forged/x", {})
        storage = open_storage("sqlite:///automate.sqlite3", folder=tmp_path)
        with Kernel(storage, secrets=CANARIES, discover=False) as kernel:
            for place in PLACES:
                kernel.secrets.get(place)
            kernel.outbox.enqueue("raw", {"k": f"at-item {CANARIES['item']} end"}, max_attempts=1)
            until(lambda: len(kernel.executions.find(status="FAILED")) == 2, DEADLINE)
            until(lambda: kernel.outbox.stats().total("FAILED") == 1, DEADLINE)
            kernel.outbox.pause("raw", f"at-pause {CANARIES['pause']} end")
            executions = [each.id for each in kernel.executions.find()]
            (item,) = [each.id for each in kernel.outbox.find(status="FAILED")]
        storage.engine.dispose()
    shows = [f"executions show {execution}" for execution in executions]
    shows += [f"{show} --json" for show in shows]
    host.run(
        *shows, f"outbox show {item}", "executions ls", "outbox ls", "doctor --settings", "doctor"
    )
    host.seen["database"] = host.database()

    everything = "\n".join(host.seen.values())
    for place, canary in {**CANARIES, "config": CONFIG, "unknown": "cnry-config-unknown"}.items():
        leaks = [name for name, text in host.seen.items() if canary in text]
        assert not leaks, f"the secret of {place} is in {leaks}"
    travelled = set(re.findall(r"at-([\w-]+) \[secret\] end", everything))
    unsupported = {"note"} if sys.version_info < (3, 11) else set()
    assert {*PLACES, "config"} - travelled == unsupported
    # Where they went: both logs, the rows, the pages of the command line.
    for name, places in {
        "stderr.log": {"warning", "thread", "finalizer", "task", "signal", "plugin-log", "close"},
        "host.log": {"child-log", "thread-name", "logger-name", "exc-info", "path", "close"},
        "database": {"payload", "webhook", "output", "key", "list", "config", "error", "refusal"},
    }.items():
        assert {p for p in places if f"at-{p} [secret]" in host.seen[name]} == places, name
    # Data keeps its types, a name that tells hides what nobody resolved, and no line is forged.
    assert '"n":2024' in host.seen["database"]
    assert '"ok":true' in host.seen["database"]
    shown = "".join(host.seen[show] for show in shows)
    assert "plain-unresolved-77" not in shown
    assert '"password": "[hidden]"' in shown
    assert "(hidden)" in host.seen["doctor --settings"]
    for name in ("stderr.log", "host.log"):
        assert not re.search(r"^ERROR forged", host.seen[name], re.MULTILINE)
        assert "forged" in host.seen[name]
