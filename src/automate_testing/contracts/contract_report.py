"""
A plugin for pytest: writes which plugins a run of tests has put through a contract.

``automate plugins check`` runs a project's tests with it: ``-p`` and this module's name, and
``--contract-report=FILE``. Beside that file stands a second one with the test that runs now.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

from automate_kernel.plugins.targets import target_of
from automate_testing.authoring.contracts import progress_file

_CONTRACTS = {
    "PluginContract": "plugin",
    "SecretsBackendContract": "backend",
    "OutboxStoreContract": "store",
    "OutputStoreContract": "store",
    "FilterContract": "plugin",
    "StepExecutorContract": "connect",
    "RelayContract": "connect",
    "SubscriptionContract": "subscribe",
}
"""The base class of each contract, with the fixture that is the plugin, or that makes it."""
_MAKERS = ("connect", "subscribe")

_HOME = "automate_testing."


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file."""
    parser.addoption("--contract-report", help="write which plugins passed a contract, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the report, if the option asks for it."""
    if path := config.getoption("--contract-report"):
        config.pluginmanager.register(_ContractReport(Path(path)))


class _ContractReport:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[type, Counter[str]] = {}
        self._targets: dict[type, str] = {}
        self._failures: list[tuple[str, str]] = []
        self._skipped: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._total = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = len(session.items)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._seconds[nodeid] = 0
        text = f"{len(self._seconds)} of {self._total}: {nodeid}"
        progress_file(self._path).write_text(text, "utf-8")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._seconds[report.nodeid] += report.duration
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        if report.when == "call" or outcome != "passed":
            self._count(item, outcome)
            if outcome == "failed":
                self._failures.append((report.nodeid, _reason(report)))
            elif outcome == "skipped":
                self._skipped[_why_skipped(report)] += 1
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failures.append((report.nodeid, _reason(report)))

    def pytest_sessionfinish(self) -> None:
        targets: dict[str, Counter[str]] = {}
        for cls, outcomes in self._outcomes.items():
            if cls in self._targets:
                targets.setdefault(self._targets[cls], Counter()).update(outcomes)
        called: dict[str, set[str]] = {}
        for cls, target in self._targets.items():
            called.setdefault(target, set()).update(getattr(cls, "example_inputs", ()))
        report = {
            "targets": targets,
            "called": {target: sorted(names) for target, names in called.items()},
            "failures": self._failures,
            "skipped": self._skipped,
            "seconds": self._seconds,
        }
        self._path.write_text(json.dumps(report), "utf-8")

    def _count(self, item: pytest.Item, outcome: str) -> None:
        cls: type | None = getattr(item, "cls", None)
        contract = _contract(cls)
        if cls is None or contract is None:
            return
        name = getattr(item, "originalname", item.name)
        inherited = [base for base in cls.__mro__ if name in vars(base)]
        # If the author replaces a contract's test, it proves only what the author says.
        if len(inherited) > 1 and not inherited[0].__module__.startswith(_HOME):
            outcome = "replaced by the author's own"
        self._outcomes.setdefault(cls, Counter())[outcome] += 1
        plugin = getattr(item, "funcargs", {}).get(_CONTRACTS[contract])
        if plugin is not None and _CONTRACTS[contract] in _MAKERS:
            plugin = type(plugin())
        if plugin is not None:
            self._targets[cls] = target_of(plugin if callable(plugin) else type(plugin))


def _contract(cls: type | None) -> str | None:
    """Return the name of the contract that a class of tests derives from, or None."""
    bases = (base.__name__ for base in (cls.__mro__ if cls is not None else ()))
    return next((name for name in bases if name in _CONTRACTS), None)


def _why_skipped(report: pytest.TestReport) -> str:
    place = report.longrepr
    return str(place[2] if isinstance(place, tuple) else place).removeprefix("Skipped: ")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the line of a failure that says most: the exception, or what pytest prints last."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        first, *rest = str(crash.message).splitlines() or [""]
        return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first
    lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
    collecting = isinstance(report, pytest.CollectReport)
    return lines[-1 if collecting else 0].removeprefix("E   ").strip() if lines else ""
