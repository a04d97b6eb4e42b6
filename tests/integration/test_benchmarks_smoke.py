"""The benchmark runs, on a few items: nobody wants to find out on the day of the figures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]


def _benchmarks(server, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--server", server],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run(postgresql_server, tmp_path):
    """A function that measures with what stands on the command line, and returns what it wrote."""
    out = tmp_path / "results.json"

    def measure(*arguments):
        nothing = str(tmp_path / "no-earlier-run.json")
        printed = _benchmarks(
            postgresql_server, "--repetitions", "1", "--items", "300",
            "--out", str(out), "--compare", nothing, *arguments,
        )  # fmt: skip
        return json.loads(out.read_text()), printed

    return measure


def test_ours_are_measured_beside_the_limit(run):
    """Each contender gets a figure for each measure, and the table says what was reached."""
    results, printed = run("--contenders", "ours,ours-django,limit", "--only", "drain-1,enqueue")
    assert not [sample for sample in results["samples"] if "failed" in sample]
    drains = results["summary"]["drain-1"]
    assert set(drains) == {"ours", "ours/async", "ours-django", "limit"}
    for figures in drains.values():
        assert figures["per_second"]["median"] > 0
        assert figures["client_cpu_us"]["median"] > 0
        assert figures["items"]["median"] == 300
    assert set(results["summary"]["enqueue"]) == {"ours", "ours-django", "limit"}
    assert "| drain, 1 worker, of the limit | ≥ 0.70 × |" in printed


def test_rows_that_are_finished_or_due_later_are_left_alone(run):
    """They are put in by SQL, a million of them, as the library would have written them."""
    results, _ = run(
        "--contenders", "ours", "--only", "finished,future,pick-up", "--items", "40"
    )  # fmt: skip
    assert not [sample for sample in results["samples"] if "failed" in sample]
    for measure in ("finished", "future"):
        figures = results["summary"][measure]["ours"]
        assert figures["items"]["median"] == figures["rows"]["median"] == 40
    assert results["summary"]["pick-up"]["ours"]["p50_ms"]["median"] > 0


def test_executions_on_sqlite_and_those_with_a_long_step_are_measured(run):
    """The steps that wait do so side by side, on a worker with four threads."""
    results, printed = run(
        "--contenders", "ours", "--only", "sqlite-workflows,async-steps", "--items", "60"
    )  # fmt: skip
    assert not [sample for sample in results["samples"] if "failed" in sample]
    assert results["summary"]["sqlite-workflows"]["ours"]["per_second"]["median"] > 0
    assert results["summary"]["async-steps"]["ours"]["in_flight"]["median"] > 4
    assert "| 1,500 async steps of 1 s | ≤ 5.00 s |" in printed


def test_the_elements_of_one_workflow_are_measured(run):
    """Each of them is called once, and the table shows their rate and the growth of memory."""
    results, printed = run("--contenders", "ours", "--only", "elements")
    assert not [sample for sample in results["samples"] if "failed" in sample]
    figures = results["summary"]["elements"]["ours"]
    assert figures["per_second"]["median"] > 0
    assert 0.9 < figures["growth"]["median"] < 1.5
    assert "| `for_each` of one workflow, 50 elements at a time | elements/s |" in printed


def test_a_contender_that_cannot_be_installed_is_named(run, monkeypatch, tmp_path):
    """A peer that is missing says why, and the others are measured."""
    monkeypatch.setenv("AUTOMATE_BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    results, printed = run("--contenders", "limit,huey", "--only", "enqueue")
    assert results["contenders"]["huey"]["missing"] == "uv is not installed"
    assert "Missing: huey: uv is not installed." in printed
    assert results["summary"]["enqueue"]["limit"]["per_second"]["median"] > 0


def test_the_long_run_counts_every_item(postgresql_server):
    """Enqueued, worked off and purged at the same time, nothing is left or done twice."""
    printed = _benchmarks(postgresql_server, "million", "--items", "2000")
    assert printed.startswith("2,000 of 2,000 items handled in ")
    assert " 0 left unfinished" in printed


def test_waiting_executions_are_measured(postgresql_server):
    """They sleep, wait, are woken by an event each, and end."""
    printed = _benchmarks(postgresql_server, "waiting", "--items", "20")
    assert printed.startswith("a worker without work: ")
    assert "with 20 executions that sleep and 20 that wait: " in printed
    assert "woken by an event each and ended: " in printed


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc makes what slows the flush down")
def test_commits_beside_notices_are_measured(postgresql_server):
    """Of many clients, with our notices, without them, and with some in their transactions."""
    printed = _benchmarks(postgresql_server, "commits", "--repetitions", "1")
    assert "an idle worker, with ours, after the commit: " in printed
    assert "no worker, with pg_notify in the transaction: " in printed
