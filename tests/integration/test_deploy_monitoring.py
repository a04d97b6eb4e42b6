"""Rules for Prometheus and the dashboard for Grafana, beside a Prometheus that scrapes a worker."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml
from exported_metrics import exported
from ports import free_ports
from tools import DEPLOY, ROOT, output_of, tool
from waiting import until

from automate_kernel import Kernel
from automate_kernel.http.probes import Probes
from automate_kernel.storage import MemoryStorage

RULES = DEPLOY / "prometheus" / "rules.yml"
_NAME = re.compile(r"\b(?:automate_\w+|up)\b(?!\s*\()")


def _rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def _queries() -> dict[str, str]:
    """Each query of the dashboard by the title of its panel, with Grafana's variables filled in."""
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }
    filled = {"$job": "automate", "$__rate_interval": "1m"}
    return {
        title: re.sub("|".join(map(re.escape, filled)), lambda m: filled[m[0]], query)
        for title, query in found.items()
    }


def _names(query: str) -> set[str]:
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', query)))


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    """A rule with a misspelt metric would never fire; its page says what to do about it."""
    asked = _names(rule["expr"])
    assert asked
    assert asked <= exported()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^### (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}


@pytest.mark.parametrize("panel", _queries())
def test_a_panel_asks_for_metrics_that_exist(panel: str) -> None:
    """A panel with a misspelt metric would be empty for ever."""
    asked = _names(_queries()[panel])
    assert asked
    assert asked <= exported()


def test_each_alert_fires_and_keeps_quiet() -> None:
    """Each has a case in which it fires, and one that is like it in which it does not."""
    promtool = tool("promtool", "prometheus")
    folder = RULES.parent
    output_of(promtool, "check", "config", folder / "prometheus.yml")
    output_of(promtool, "test", "rules", folder / "rules.test.yml")
    tried = {
        (alert["alertname"], bool(alert["exp_alerts"]))
        for case in yaml.safe_load((folder / "rules.test.yml").read_text())["tests"]
        for alert in case["alert_rule_test"]
    }
    assert tried == {(rule["alert"], fires) for rule in _rules() for fires in (True, False)}


@pytest.fixture
def scraped(tmp_path: Path, free: list[int]) -> Iterator[str]:
    """The address of a Prometheus with our rules, which scrapes a worker."""
    prometheus = tool("prometheus")
    for name in ("prometheus.yml", "rules.yml"):
        shutil.copy(RULES.parent / name, tmp_path)
    config = tmp_path / "prometheus.yml"
    text = config.read_text().replace("15s", "1s").replace("127.0.0.1:9100", f"127.0.0.1:{free[0]}")
    config.write_text(text)
    with processes.running(
        [prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
         f"--web.listen-address=127.0.0.1:{free[1]}"],
        stdout=processes.DEVNULL, stderr=processes.DEVNULL,
    ):  # fmt: skip
        yield f"http://127.0.0.1:{free[1]}/api/v1/"


@pytest.fixture
def free() -> list[int]:
    """Ports of the worker and of Prometheus."""
    return free_ports(2)


def _asked(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


@pytest.mark.long
def test_prometheus_takes_rules_and_queries(scraped: str, free: list[int]) -> None:
    """Prometheus scrapes a worker as configured, evaluates each rule, and answers each panel."""
    kernel = Kernel(MemoryStorage(), discover=False)
    with Probes(kernel, metrics_port=free[0]):
        up = scraped + "query?query=" + urllib.parse.quote('automate_up{job="automate"}')
        until(lambda: (_asked(up) or {}).get("result"), 60)
        until(lambda: _evaluated(scraped), 60)
        for title, query in _queries().items():
            assert _asked(scraped + "query?query=" + urllib.parse.quote(query)) is not None, title
        until(lambda: "AutomateNoWorker" in _alerts(scraped), 60)
    assert "AutomateDatabaseUnusable" not in _alerts(scraped)


def _alerts(api: str) -> set[str]:
    return {each["labels"]["alertname"] for each in _asked(api + "alerts")["alerts"]}


def _evaluated(api: str) -> bool:
    groups = (_asked(api + "rules") or {"groups": []})["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert not [rule for rule in rules if rule["health"] == "err"]
    return bool(rules) and all(rule["health"] == "ok" for rule in rules)
