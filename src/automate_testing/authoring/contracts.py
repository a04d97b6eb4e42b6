"""A run of the contract suites of a project, in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automate_kernel.plugins.targets import load_target, target_of
from automate_kernel.secrets.redaction import redact_text

if TYPE_CHECKING:
    from automate_kernel.plugins.discovery import Found
    from automate_testing.authoring.project import PluginProject

_REPORTER = "automate_testing.contracts.contract_report"
_PATIENCE_SECONDS = 900
_LOOKS_A_SECOND = 4
_LINGER_SECONDS = 10
_LONG_SECONDS, _SLOWEST = 60, 3
_SHOWN = 5
_LONGEST = 300
_SUITE = """\
import json

from automate_kernel.plugins.targets import load_target
from automate_testing import {contract}


class Test{number}({contract}):
    plugin_class = load_target({target!r})
    config = json.loads({config!r})
"""
_CONTRACTS = {"connector": "ConnectorContract", "provider": "ProviderContract"}
"""The contracts that need no more than the plugin's class."""
_TESTED = {
    *_CONTRACTS,
    "secrets_backend",
    "outbox_store",
    "output_store",
    "step_executor",
    "relay",
    "subscription",
    "filter",
}
"""The kinds that have a contract."""


def quietly(text: str) -> None:
    """Show nothing."""


@dataclass
class ContractRun:
    """
    The outcomes of a run of tests by target; the ids of failed tests, each with its reason.

    *called* has the operations that a contract calls with an example, by target. *skipped* has the
    number of skipped tests by reason, and *seconds* the time that each test took.
    *remedy* is that of a *problem* with the run itself, *advice* that of tests that failed.
    """

    project: PluginProject
    advice: str = ""
    targets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    called: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    skipped: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None
    remedy: str = ""
    show: Callable[[str], None] = quietly
    unconfigured: Sequence[Found] = ()

    @classmethod
    def of(
        cls,
        project: PluginProject,
        configs: Mapping[str, Mapping[str, Any]],
        show: Callable[[str], None] = quietly,
    ) -> ContractRun:
        """
        Run the tests in a project's folder; for an installed one, suites made for its plugins.

        *configs* are the configs with which the latter are made, by target; there is no suite for a
        plugin without a config. *show* is called with the test that runs now, a few times a second.
        """
        run = cls(project, show=show)
        if project.folder is None:
            run.unconfigured = [
                each for each in project.found
                if each.kind in _CONTRACTS and each.target not in configs
            ]  # fmt: skip
        if project.folder is not None or configs:
            run._run(configs)
        return run

    def contract_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the plugins that have not passed their contract, each with the remedy."""
        if self.problem is not None:
            yield self.problem, self.remedy
            return
        if self.failures and not self.targets:
            return  # nothing ran: the tests that could not be read say why
        for found in self.project.found:
            here = _TESTED if self.project.folder else _CONTRACTS
            if found.kind not in here or found in self.unconfigured:
                continue
            outcomes = self.targets.get(target_of(load_target(found.target)), {})
            bad = {name: count for name, count in outcomes.items() if name != "passed"}
            # A store says which features it has; a skipped test is a feature that it lacks.
            bad.pop("skipped" if found.kind == "outbox_store" else "", None)
            if not outcomes:
                yield (
                    f"no contract suite tests {found.kind} {found.key}",
                    "subclass the contract of its kind (automate_testing) in tests/",
                )
            elif bad:
                counts = ", ".join(f"{count} {name}" for name, count in bad.items())
                yield f"the contract of {found.kind} {found.key}: {counts}", self.advice

    def contract_gaps(self, operations: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
        """Yield the parts of contracts that nothing tried; *operations* are those by target."""
        for found in () if self.problem is not None else self.project.found:
            if self.project.folder is None and found.kind in _TESTED - {*_CONTRACTS}:
                text = f"the contract of {found.kind} {found.key}: only its own tests can make it"
                yield text, self.project.folder_hint
            elif found in self.unconfigured:
                name, place = f"{found.kind} {found.key}", self.project.folder_hint
                text = f"the contract of {name}: its operations follow from its config, and"
                remedy = f"give it one, [config.{found.key}] in automate.toml; or {place}"
                yield f"{text} here it has none", remedy
            elif found.kind in _CONTRACTS:
                called = self.called.get(target_of(load_target(found.target)), ())
                names = [name for name in operations.get(found.target, ()) if name not in called]
                if names:
                    listed = f"{found.key}.{', '.join(names)}"
                    text = f"the output of {listed}, and blocking calls: nothing calls them"
                    here = "add them to the example_inputs of the contract's class"
                    yield text, self.project.folder_hint if self.project.folder is None else here

    def test_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the tests that failed."""
        alike: dict[str, list[str]] = {}
        for name, reason in self.failures:
            alike.setdefault(reason, []).append(name)
        for reason, names in list(alike.items())[:_SHOWN]:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"{names[0]}{others} failed: {redact_text(reason)[:_LONGEST]}", self.advice
        if left := [name for names in list(alike.values())[_SHOWN:] for name in names]:
            yield f"{len(left)} more tests failed", self.advice

    def notes(self) -> Iterator[str]:
        """Yield the tests that were skipped, by reason, and the slowest if all took long."""
        for reason, count in self.skipped.items():
            yield f"{count} test{'s' * (count != 1)} skipped: {redact_text(reason)[:_LONGEST]}"
        total = sum(self.seconds.values())
        if total > _LONG_SECONDS:
            slow = sorted(self.seconds.items(), key=lambda each: -each[1])[:_SLOWEST]
            named = ", ".join(f"{name.rpartition('/')[2]} {taken:.0f} s" for name, taken in slow)
            yield f"the tests took {total:.0f} s; the slowest: {named}"

    def _run(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        store = any(found.kind == "outbox_store" for found in self.project.found)
        needed = ("pytest", "hypothesis") if store else ("pytest",)
        if missing := [name for name in needed if find_spec(name) is None]:
            self.problem = f"the contract suites can't run here: {missing[0]} is not installed"
            self.remedy = "pip install 'automate-kernel[testing]'"
            return
        with tempfile.TemporaryDirectory(prefix="automate-check-") as scratch:
            folder, report = self.project.folder, Path(scratch) / "report.json"
            options = ["-q", "-p", _REPORTER, f"--contract-report={report}"]
            if folder is not None:
                self.advice = f"cd {shlex.quote(str(folder))} && pytest"
            else:  # here, where the relative paths of an application's config lead somewhere
                self.advice = "correct its config in automate.toml, or report it to its author"
                _write_suites(Path(scratch), configs)
                options.append(scratch)
            options += ["-p", "no:cacheprovider"]
            if find_spec("xdist") is not None:
                options += ["-n", "0"]  # its workers would each write a report of their part
            environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
            with (Path(scratch) / "printed").open("w+b") as printed:
                process = subprocess.Popen(  # noqa: S603  (our own Python)
                    [sys.executable, "-m", "pytest", *options],
                    cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT,
                )  # fmt: skip
                try:
                    self._await(process, report)
                except subprocess.TimeoutExpired:
                    now = _text_of(progress_file(report)) or "none had begun"
                    self.problem = f"the tests did not end in 15 minutes; it ran {now}"
                    self.remedy = self.advice
                    return
                finally:
                    process.kill()
                    process.wait()
                printed.seek(0)
                self._read(report, printed.read().decode("utf-8", "replace"))

    def _await(self, process: subprocess.Popen[bytes], report: Path) -> None:
        lingering = 0
        for left in range(_PATIENCE_SECONDS * _LOOKS_A_SECOND, -1, -1):
            try:
                process.wait(1 / _LOOKS_A_SECOND)
            except subprocess.TimeoutExpired:
                if not left:
                    raise
            if now := _text_of(progress_file(report)):
                self.show(f"running the plugin's tests: {now}")
            # All tests have run; what is left, a thread that doesn't end, say, tells nothing more.
            lingering += report.exists()
            if process.returncode is not None or lingering > _LINGER_SECONDS * _LOOKS_A_SECOND:
                return

    def _read(self, report: Path, printed: str) -> None:
        if not report.exists():
            lines = [line for line in printed.splitlines() if line.strip()]
            self.problem = f"the tests could not be run: {lines[-1] if lines else 'no output'}"
            self.remedy = self.advice
            return
        found = json.loads(report.read_text("utf-8"))
        self.targets, self.called = found["targets"], found["called"]
        self.failures = [tuple(each) for each in found["failures"]]
        self.skipped, self.seconds = found["skipped"], found["seconds"]


def progress_file(report: Path) -> Path:
    """Return the file beside a *report* in which the run writes the test that runs now."""
    return report.with_suffix(".progress")


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""


def _write_suites(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    # The settings of the folder in which the command was called are not theirs.
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    for number, (target, config) in enumerate(configs.items()):
        kind = "connector" if hasattr(load_target(target), "triggers") else "provider"
        text = _SUITE.format(
            contract=_CONTRACTS[kind], number=number, target=target, config=json.dumps(config)
        )
        (folder / f"test_contract_{number}.py").write_text(text, "utf-8")
