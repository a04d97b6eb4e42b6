"""A kernel that can't work says so where it is made, with the remedy."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from automate_kernel import ConfigError, Kernel, MemoryStorage, WorkflowError
from automate_kernel.base.errors import PluginError
from automate_sqlalchemy import SqlAlchemyStorage

URL = "postgresql+psycopg://me:hunter2@db/app"


@pytest.mark.parametrize(
    "storage", [URL, Path("x.db"), MemoryStorage, create_engine("sqlite://"), {}, 7]
)
def test_what_is_no_storage_is_refused_at_once(storage):
    """A URL, an engine, a class: not at the first event, and without showing a password."""
    with pytest.raises(ConfigError, match="a kernel's storage can't be") as caught:
        Kernel(storage)
    assert "SqlAlchemyStorage" in str(caught.value.hint)
    assert "hunter2" not in str(caught.value)


def test_a_secrets_backend_takes_options_beside_its_key(tmp_path):
    """As in the settings; what is wrong with them is said without their values."""
    (tmp_path / "TOKEN").write_text("of-a-file")
    path = "automate_kernel.secrets.FileSecretsBackend"
    with Kernel(secrets=[{"backend": path, "directory": tmp_path}]) as kernel:
        assert kernel.secrets.get("TOKEN") == "of-a-file"
        assert list(kernel.secrets.backends) == ["file"]
    with pytest.raises(ConfigError, match="these options: got .* argument 'folder'") as caught:
        Kernel(secrets=[{"backend": path, "folder": "hunter2"}])
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="names no backend"):
        Kernel(secrets=[{"directory": tmp_path}])


@pytest.mark.parametrize("given", ["sqlite:///{}", None])
def test_a_storage_takes_a_url(tmp_path, given):
    """As text, or SQLAlchemy's own; its engine is closed with the kernel."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    storage = SqlAlchemyStorage(url if given else make_url(url))
    storage.create_tables()
    with Kernel(storage) as kernel:
        kernel.emit("order.placed", {"id": 7})
    with create_engine(url).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM automate_outbox")).scalar() == 1
    assert storage.engine.pool.checkedin() == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (create_async_engine("sqlite+aiosqlite://"), "the engine is asynchronous"),
        ("postgresql+asyncpg://me:hunter2@db/app", "postgresql.asyncpg is an asynchronous driver"),
        ("me:hunter2@db", "URL can't be read"),
        ("nothing://me:hunter2@db/app", "URL can't be read"),
        (Session(), "not of Session"),
        (None, "not of NoneType"),
    ],
)
def test_what_is_no_engine_is_refused_at_once(given, message):
    """With the remedy, and without showing a password."""
    with pytest.raises(ConfigError, match=message) as caught:
        SqlAlchemyStorage(given)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_app_that_passes_its_session_can_be_tested_in_memory(tmp_path):
    """The app's code stays as it is: its session is of another database, and is left alone."""
    kernel = Kernel(discover=False)
    seen = []
    kernel.handler("mail")(lambda item: seen.append(item.payload["to"]))
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with Session(engine) as session:
        kernel.emit("order.placed", {"id": 1}, transaction=session)
        kernel.outbox.enqueue("mail", {"to": "ada"}, transaction=session)
        assert session.execute(select(1)).scalar() == 1
        session.commit()
    kernel.run_until_idle()
    assert seen == ["ada"]
    assert engine.pool.checkedin() <= 1


def test_steps_in_one_transaction_of_memory_still_stand_or_fall_together():
    """The rows that `begin` gives are joined, not opened anew."""
    storage = MemoryStorage()
    kernel = Kernel(storage, discover=False)
    with pytest.raises(ZeroDivisionError), storage.begin() as rows:
        kernel.emit("order.placed", {"id": 1}, transaction=rows)
        1 / 0  # noqa: B018
    assert kernel.outbox.find() == []


def test_a_strict_kernel_raises_for_a_broken_plugin_at_once():
    """Where it is made, not at the first call; without strict the others go on."""
    listed = {"connector": {"gone": "no_such_module:Gone"}}
    with pytest.raises(PluginError, match="gone"):
        Kernel(discover=False, strict=True, listed=listed)
    assert Kernel(discover=False, listed=listed).plugins.keys("connector") == ["gone"]


def test_a_cron_line_is_refused_where_it_can_not_be_read(monkeypatch):
    """When the workflow is added, not by a worker at night; other schedules need nothing."""
    definition = {
        "name": "nightly",
        "trigger": [{"type": "schedule", "cron": "0 3 * * *"}],
        "steps": [{"id": "a", "action": "note"}],
    }
    kernel = Kernel(discover=False)
    kernel.action("note")(lambda: {})
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(WorkflowError, match=r"'nightly': cron lines need .* cronsim") as caught:
        kernel.workflows.add(definition)
    assert "automate-kernel[schedule]" in str(caught.value.hint)
    every = {**definition, "trigger": [{"type": "schedule", "every": "1h"}]}
    assert [one.name for one in kernel.workflows.add(every)] == ["nightly"]


def test_contract_suites_warn_of_nothing(tmp_path):
    """In an author's run, with assertions that show what they compared."""
    (tmp_path / "test_own.py").write_text(
        textwrap.dedent(
            """
            import pytest
            from automate_kernel.plugins.connectors import Connector, action
            from automate_testing import ConnectorContract

            class Own(Connector):
                key = "own"
                display_name = "Own"

                @action
                def ping(self) -> dict[str, str]:
                    return {}

            class TestOwn(ConnectorContract):
                @pytest.fixture
                def connector(self):
                    return Own({})

            def test_values_are_shown():
                from automate_testing.contracts.plugin_contract import require_unique
                with pytest.raises(AssertionError, match="'a'"):
                    require_unique(["a", "a"])
            """
        )
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "PytestAssertRewriteWarning" not in run.stdout
