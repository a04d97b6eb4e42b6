"""
A plugin for pytest: writes which plugins a run of tests has put through a contract.

``automate plugins check`` runs a project's tests with it: ``-p`` and this module's name, and
``--contract-report=FILE``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from automate_kernel.plugins.targets import target_of

_CONTRACTS = {
    "PluginContract": ("plugin",),
    "SecretsBackendContract": ("backend",),
    "OutboxStoreContract": ("store",),
    "FilterContract": ("plugin",),
}
"""The base class of each contract, with the fixture that is the plugin."""

_BAD = ("failed", "error", "skipped", "xfailed", "xpassed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file."""
    parser.addoption("--contract-report", help="write which plugins passed a contract, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the report, if one is asked for."""
    if path := config.getoption("--contract-report"):
        config.pluginmanager.register(_ContractReport(Path(path)))


class _ContractReport:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._failures: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        target = _target(item)
        outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        if report.when == "call" or outcome in _BAD:
            if target is not None:
                self._outcomes[target][outcome] += 1
            if outcome == "failed":
                self._failures.append(report.nodeid)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failures.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(
            json.dumps({"targets": self._outcomes, "failures": self._failures}), "utf-8"
        )


def _target(item: pytest.Item) -> str | None:
    """Return the target of the plugin that *item* tests in a contract, or None."""
    cls: type | None = getattr(item, "cls", None)
    funcargs: dict[str, Any] = getattr(item, "funcargs", {})
    for base in cls.__mro__ if cls is not None else ():
        for name in _CONTRACTS.get(base.__name__, ()):
            if name in funcargs:
                plugin = funcargs[name]
                return target_of(plugin if callable(plugin) else type(plugin))
    return None
