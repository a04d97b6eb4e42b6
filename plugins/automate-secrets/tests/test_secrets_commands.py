"""``automate secret-table``, as an operator calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from automate_cli.app import app
from automate_secrets.key_ring import new_key
from typer.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    backend = '{ backend = "secret_table", url = "sqlite:///app.sqlite3", keys_file = "keys" }'
    Path("automate.toml").write_text(f"secrets = [{backend}]\n")
    Path("keys").write_text(new_key("first"))
    return lambda *words, text="": CliRunner().invoke(app, ["secret-table", *words], input=text)


def test_a_secret_is_set_listed_rotated_and_removed(run: Run) -> None:
    """Its value is in no output."""
    results = [run("create"), run("set", "shop/api-key", text="canary-of-a-key\n")]
    Path("keys").write_text(f"{run('new-key', 'second').stdout}\n{Path('keys').read_text()}")
    results += [run("rotate"), run("ls", "--json"), run("ls"), run("rm", "shop/api-key")]
    assert [each.exit_code for each in results] == [0] * 6
    assert results[2].stdout == "1 encrypted again\nkeys in use: second\n"
    (row,) = json.loads(results[3].stdout)
    assert (row["name"], row["key"], row["version"]) == ("shop/api-key", "second", 2)
    assert "canary" not in "".join(each.output for each in results)
    assert run("ls").stdout == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["rm", "missing"], "no secret 'missing'"),
        (["set", "empty"], "can't be kept"),
        (["new-key", "two words"], "can't be the id"),
    ],
)
def test_what_can_not_be_done_is_an_error(run: Run, words: list[str], problem: str) -> None:
    run("create")
    result = run(*words)
    assert result.exit_code != 0
    assert problem in result.output


def test_without_a_table_in_the_settings_it_says_what_to_write(run: Run) -> None:
    Path("automate.toml").write_text('secrets = ["env"]\n')
    result = run("ls")
    assert result.exit_code == 2
    assert 'backend = "secret_table"' in result.output
