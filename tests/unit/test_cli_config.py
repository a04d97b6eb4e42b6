"""Where settings come from, and what is said about wrong ones."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from automate_cli.commands.config import shown
from automate_cli.database import open_storage
from automate_cli.session import Session, host_of, load_app, set_up
from automate_cli.settings import SETTINGS, load_settings, toml_lines
from automate_kernel.base.errors import ConfigError, PluginError, SecretNotFoundError, StorageError
from automate_kernel.kernel import Kernel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def write(folder: Path, text: str, name: str = "automate.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def load(folder: Path, environ=None, **flags):
    return load_settings(None, flags, environ=environ or {}, folder=folder)


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    """The one that is nearest to the call counts, and each value tells where it came from."""
    write(tmp_path, "[worker]\nslots = 1\nbatch = 2\npoll_seconds = 3\n")
    settings = load_settings(
        None,
        {"worker.slots": 9},
        environ={"AUTOMATE_WORKER_SLOTS": "8", "AUTOMATE_WORKER_BATCH": "7"},
        folder=tmp_path,
    )
    values = {
        n: settings.values[f"worker.{n}"] for n in ("slots", "batch", "poll_seconds", "listen")
    }
    assert {name: value.value for name, value in values.items()} == {
        "slots": 9, "batch": 7, "poll_seconds": 3, "listen": True,
    }  # fmt: skip
    assert [value.source for value in values.values()] == [
        "--slots", "AUTOMATE_WORKER_BATCH", "automate.toml:4", "default",
    ]  # fmt: skip


def test_the_nearest_file_counts_and_its_folder_is_the_base(tmp_path: Path) -> None:
    """Run from a folder below, the project's file is found."""
    write(tmp_path, 'app = "far"')
    below = tmp_path / "x" / "y"
    below.mkdir(parents=True)
    write(tmp_path / "x", 'app = "near"')
    settings = load(below)
    assert settings["app"] == "near"
    assert settings.folder == tmp_path / "x"


def test_a_pyproject_counts_only_with_our_table(tmp_path: Path) -> None:
    """Settings may stand in [tool.automate]; a pyproject without it is somebody else's."""
    write(
        tmp_path,
        '[tool.automate]\napp = "shop"\n[tool.automate.serve]\nport = 1\n',
        "pyproject.toml",
    )
    below = tmp_path / "below"
    below.mkdir()
    write(below, '[project]\nname = "other"\n', "pyproject.toml")
    settings = load(below)
    assert settings["app"] == "shop"
    assert settings.values["serve.port"].source == "pyproject.toml:4"


def test_every_wrong_setting_is_told_with_its_line_and_what_was_meant(tmp_path: Path) -> None:
    """One run shows all problems, and a misspelt key is never passed over."""
    write(
        tmp_path,
        'databse = "x"\nslots = 3\nworkflows = "one"\n\n[worker]\nslot = 1\nprocesses = true\n'
        "lease_seconds = 0.1\n[srve]\nport = 1\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    told = caught.value.message
    assert "7 problems" in told
    assert "automate.toml:1: databse: there is no such setting (did you mean database?)" in told
    assert "automate.toml:2: slots: there is no such setting (did you mean worker.slots?)" in told
    assert "automate.toml:3: workflows: must be a list in brackets" in told
    assert (
        "automate.toml:6: worker.slot: there is no such setting (did you mean worker.slots?)"
        in told
    )
    assert "automate.toml:7: worker.processes: must be a whole number" in told
    assert "automate.toml:8: worker.lease_seconds: must be at least 0.5" in told
    assert "automate.toml:9: srve: there is no such setting (did you mean serve?)" in told


def test_a_problem_never_shows_the_value(tmp_path: Path) -> None:
    """A token of the wrong type doesn't end up on the screen."""
    write(tmp_path, '[serve]\nevents_token = ["hunter2hunter2"]\n')
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert "hunter2" not in str(caught.value)


def test_toml_that_does_not_parse_is_told_with_its_line(tmp_path: Path) -> None:
    """Not a traceback of the parser."""
    write(tmp_path, 'app = "x"\nworkflows = [\n"a"\n')
    with pytest.raises(ConfigError, match="automate.toml is not valid TOML: .*(line|end)"):
        load(tmp_path)


def test_a_config_file_that_is_named_and_missing_is_an_error(tmp_path: Path) -> None:
    """It is not replaced by the nearest one, nor by defaults."""
    write(tmp_path, 'app = "x"')
    with pytest.raises(ConfigError, match="no config file 'nope.toml'"):
        load_settings("nope.toml", {}, environ={}, folder=tmp_path)


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("AUTOMATE_WORKFLOWS", "a, b/c.yaml,", "workflows", ["a", "b/c.yaml"]),
        ("AUTOMATE_DISCOVER", "no", "discover", False),
        ("AUTOMATE_WORKER_POLL_SECONDS", "0.5", "worker.poll_seconds", 0.5),
        ("AUTOMATE_SERVE_PORT", "0", "serve.port", 0),
        ("AUTOMATE_APP", "", "app", None),
    ],
)
def test_environment_variables_have_the_type_of_their_setting(
    tmp_path: Path, variable: str, text: str, name: str, value: object
) -> None:
    """Lists are separated by commas, and an empty variable is none."""
    assert load(tmp_path, {variable: text})[name] == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("AUTOMATE_WORKER_SLOTS", "many"),
        ("AUTOMATE_DISCOVER", "perhaps"),
        ("AUTOMATE_SERVE_PORT", "70000"),
        ("AUTOMATE_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(
    tmp_path: Path, variable: str, text: str
) -> None:
    """It is not ignored in favour of the default."""
    with pytest.raises(ConfigError, match=variable):
        load(tmp_path, {variable: text})


def test_a_misspelt_variable_is_noticed_and_a_secret_is_none(tmp_path: Path) -> None:
    """AUTOMATE_DATABSE would otherwise be passed over without a word."""
    environ = {"AUTOMATE_DATABSE": "x", "AUTOMATE_SECRET_DATABASE": "y", "AUTOMATE_ZZZ": "z"}
    assert load(tmp_path, environ).strays == [
        ("AUTOMATE_DATABSE", "AUTOMATE_DATABASE"), ("AUTOMATE_ZZZ", None),
    ]  # fmt: skip


_names = st.sampled_from(["a", "b2", "c-d", '"e f"', "'g.h'"])
_values = st.sampled_from(
    ["1", '"x = 1"', "[\n  1,\n  2, # [\n]", '"""\n[no]\nkey = 1\n"""', "'''a\nb = '''", "{ x = 1 }",
     '["[x]",\n"y"]', '"a \\" # b"']
)  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.lists(_names, min_size=1, max_size=2),
            st.lists(
                st.tuples(_names, _values, st.booleans()), max_size=4, unique_by=lambda e: e[0]
            ),
        ),
        max_size=4,
        unique_by=lambda each: tuple(each[0]),
    )
)
def test_lines_of_keys_are_right_whatever_stands_between_them(tables) -> None:
    """Text and lists over several lines, comments and quoted keys don't lead it astray."""
    lines: list[str] = []
    expected = {}
    for header, pairs in tables:
        path = tuple(name.strip("\"'") for name in header)
        lines.append(f"[{'.'.join(header)}] # [x]")
        expected[path] = len("\n".join(lines).split("\n"))
        for key, value, comment in pairs:
            lines += ["# key = 1"] if comment else [""]
            number = len("\n".join(lines).split("\n")) + 1
            expected[(*path, key.strip("\"'"))] = number
            lines.append(f"{key} = {value}")
    text = "\n".join(lines) + "\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a table and a key of one name
    assert toml_lines(text) == expected


# -- what is shown ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("database", "postgresql://u:hunter2@h/d", "postgresql://u:***@h/d"),
        ("serve.events_token", "hunter2", "(hidden)"),
        ("serve.events_token", "$secret:EVENTS", "$secret:EVENTS"),
        ("config", {"x": {"api_key": "hunter2", "n": 3}}, {"x": {"api_key": "(hidden)", "n": 3}}),
        ("config", {"x": {"token": "$secret:T"}}, {"x": {"token": "$secret:T"}}),
        ("config", {"x": {"token": "$secret:T hunter2"}}, {"x": {"token": "(hidden)"}}),
        ("config", {"x": {"at": "https://u:hunter2@h"}}, {"x": {"at": "(hidden)"}}),
        (
            "secrets",
            [{"backend": "v", "token": "hunter2"}],
            [{"backend": "v", "token": "(hidden)"}],
        ),
        (
            "secrets",
            ["env", {"backend": "v", "directory": "/run", "opener": "s3same"}],
            ["env", {"backend": "v", "directory": "/run", "opener": "(hidden)"}],
        ),
        (
            "config",
            {"x": {"hook": "hunter2", "unknown": "h3llo"}},
            {"x": {"hook": "(hidden)", "unknown": "(hidden)"}},
        ),
        ("database", "postgresql://u:hun@ter2@h/d", "postgresql://u:***@h/d"),
        ("database", "postgresql://u:h/u?n#t@er2@h/d", "postgresql://u:***@h/d"),
    ],
)
def test_config_shows_no_password_and_no_token(name: str, value: object, expected: object) -> None:
    """A reference to a secret is shown, since it is none."""
    assert shown(SETTINGS[name], value) == expected


class Deep(BaseModel):
    """A part of a plugin's config."""

    pin: int = 0
    region: str = ""


class Whole(BaseModel):
    """A plugin's config."""

    signer: SecretStr | None = None
    extra: dict[str, SecretStr] = {}
    base_url: str = ""
    webhook: str = ""
    header: str = ""
    region: str = ""
    note: str | None = None
    retries: int = 0
    hosts: list[str] = []
    deep: list[Deep] = []


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("signer", "hunter2", "(hidden)"),
        ("signer", "$secret:SIGNER", "$secret:SIGNER"),
        ("extra", {"Accept": "x", "Auth": "y"}, {"Accept": "(hidden)", "Auth": "(hidden)"}),
        ("base_url", "https://api.example.com/v1", "https://api.example.com/v1"),
        ("base_url", "https://u:hunter2@h", "(hidden)"),
        ("base_url", "https://hooks.example.com/services/T0A1/x8K2mQ9zL4vB7nC3", "(hidden)"),
        ("webhook", "https://example.com/hunter2", "(hidden)"),
        ("header", "X-Token: hunter2", "(hidden)"),
        ("region", "eu-central-1", "eu-central-1"),
        ("note", "Bearer hunter2345", "(hidden)"),
        ("note", "sk_live_9d41b7c2e0aa4f", "(hidden)"),
        ("note", "a plain word", "a plain word"),
        ("retries", 3, 3),
        ("hosts", ["a.example", "b.example"], ["a.example", "b.example"]),
        ("deep", [{"pin": 7431, "region": "eu"}], [{"pin": "(hidden)", "region": "eu"}]),
        ("mistyped", "hunter2", "(hidden)"),
        ("mistyped", {"a": [1, True, "hunter2"]}, {"a": [1, True, "(hidden)"]}),
    ],
)
def test_a_plugins_config_is_shown_by_its_model(
    field: str, value: object, expected: object
) -> None:
    """What the model doesn't know is hidden, and so is what it calls secret or looks like one."""
    schemas = {"x": Whole.model_json_schema()}
    found = shown(SETTINGS["config"], {"x": {field: value}}, schemas)
    assert found == {"x": {field: expected}}


def test_a_password_that_is_not_escaped_is_refused(tmp_path: Path) -> None:
    """Else the driver would tell its tail as the name of a host."""
    with pytest.raises(ConfigError, match="%40") as caught:
        open_storage("postgresql://u:hun@ter2@h/d", folder=tmp_path)
    assert "ter2" not in str(caught.value)


# -- the database ------------------------------------------------------------------------------------


def test_sqlite_is_opened_so_that_finished_work_survives_a_power_cut(tmp_path: Path) -> None:
    """WAL, synchronous FULL, and 30 seconds of patience; the tables are made."""
    storage = open_storage("sqlite:///a.sqlite3", folder=tmp_path)
    with storage.engine.connect() as connection:
        pragma = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()  # noqa: E731
        assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)
        assert pragma("busy_timeout") == 30_000
    storage.engine.dispose()
    with sqlite3.connect(tmp_path / "a.sqlite3") as connection:
        assert connection.execute("select count(*) from automate_outbox").fetchone() == (0,)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("automate.sqlite3", "not given as a URL"),
        ("nosuch://x", "no kind of database"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite+aiosqlite:///x", "asynchronous"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_with_the_remedy(
    tmp_path: Path, url: str, told: str
) -> None:
    """Each of these would fail later, and say less."""
    with pytest.raises(ConfigError, match=told) as caught:
        open_storage(url, folder=tmp_path)
    assert caught.value.hint


def test_a_file_that_is_no_database_is_told_so(tmp_path: Path) -> None:
    """And it is left as it is."""
    path = write(tmp_path, "this is a text file, and longer than a header\n" * 9, "notes.txt")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a database"):
        open_storage("sqlite:///notes.txt", folder=tmp_path)
    assert path.read_bytes() == before


# -- the host's code -----------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name: str, text: str):
        write(tmp_path, text, f"{name}.py")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    yield made
    for name in [each for each in sys.modules if each.startswith("cliapp_")]:
        del sys.modules[name]


def test_the_functions_of_a_module_become_actions(module) -> None:
    """A module of plain functions is enough; imported and private ones stay out."""
    name = module(
        "cliapp_orders",
        "from json import dumps\ndef total(lines: list[int]) -> int:\n    return sum(lines)\n"
        "def _own(): ...\n",
    )
    kernel = Kernel(discover=False)
    set_up(kernel, load_app(name))
    assert kernel.invoke("cliapp_orders.total", {"lines": [1, 2]}) == 3
    for absent in ("dumps", "_own"):
        with pytest.raises(Exception, match="no action"):
            kernel.operation(f"cliapp_orders.{absent}")


def test_a_function_or_a_kernel_can_be_named(module) -> None:
    """module:function is called with the kernel, module:kernel is used, a factory is called."""
    name = module(
        "cliapp_many",
        "from automate_kernel import Kernel\nkernel = Kernel(discover=False)\n"
        "def add(k): k.action('it.works')(lambda: 'yes')\n"
        "def make(): return kernel\n",
    )
    kernel = Kernel(discover=False)
    assert host_of(load_app(f"{name}:add")) is None
    set_up(kernel, load_app(f"{name}:add"))
    assert kernel.invoke("it.works") == "yes"
    own = load_app(f"{name}:kernel")
    assert host_of(own) is host_of(load_app(f"{name}:make")) is host_of(load_app(name)) is own


@pytest.mark.parametrize(
    ("text", "target", "told"),
    [
        ("raise RuntimeError('at import')", "cliapp_bad", "RuntimeError: at import"),
        ("raise SystemExit(3)", "cliapp_bad", "can't be imported"),
        ("import cliapp_missing", "cliapp_bad", "cliapp_missing"),
        ("", "cliapp_none.py", "cliapp_none"),
        ("x = 1", "cliapp_bad:y", "'y'"),
    ],
)
def test_an_app_that_does_not_import_is_told_in_a_line(
    module, text: str, target: str, told: str
) -> None:
    """Whatever it raises, SystemExit too, it is a mistake in the settings."""
    module("cliapp_bad", text)
    with pytest.raises(ConfigError, match=told) as caught:
        load_app(target)
    assert caught.value.hint


def test_a_database_beside_a_kernel_that_has_one_is_refused(tmp_path: Path, module) -> None:
    """Which of the two was meant is for nobody to guess."""
    name = module(
        "cliapp_own", "from automate_kernel import Kernel\nkernel = Kernel(discover=False)\n"
    )
    path = write(tmp_path, f'app = "{name}"\n')
    with pytest.raises(ConfigError, match="database is set, and app is a kernel"):
        Session(str(path), {"database": "sqlite:///x"}).build()


def test_secrets_backends_are_set_up_with_their_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked in the order of the list, and a file's folder is below the config's."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "KEY").write_text("from-file")
    monkeypatch.setitem(os.environ, "AUTOMATE_SECRET_OTHER", "from-env")
    path = write(tmp_path, 'secrets = [{backend = "file", directory = "run"}, "env"]\n')
    kernel = Session(str(path)).build()
    assert (kernel.secrets.get("KEY"), kernel.secrets.get("OTHER")) == ("from-file", "from-env")


def test_a_backend_of_a_plugin_takes_its_options_by_its_key(tmp_path: Path) -> None:
    """The kernel finds it among the plugins."""
    path = write(tmp_path, 'secrets = [{backend = "nosuch", address = "https://x"}]\n')
    with pytest.raises(PluginError, match="no secrets backend 'nosuch'"):
        Session(str(path)).build()


@pytest.mark.parametrize("given", ['[{backend = "file"}]', '[{directory = "x"}]', "[3]"])
def test_a_secrets_backend_that_cannot_be_made_is_told(tmp_path: Path, given: str) -> None:
    """With what it needs."""
    path = write(tmp_path, f"secrets = {given}\n")
    with pytest.raises(ConfigError, match="secrets: ") as caught:
        Session(str(path)).build()
    assert caught.value.hint


# -- the output store ----------------------------------------------------------------------------


STORE = '[output_store]\nstore = "automate_kernel:FileOutputStore"\nfolder = "$secret:FOLDER"\n'


def test_an_output_store_is_named_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that only look at rows reach it too, and read its secrets only when they need it."""
    write(tmp_path, STORE)
    monkeypatch.chdir(tmp_path)
    session = Session()
    stores = [kernel.executions.outputs.store for kernel in (session.plain, session.in_memory())]
    with pytest.raises(SecretNotFoundError, match="FOLDER"):
        stores[0].put("a/b", b"1")
    monkeypatch.setenv("AUTOMATE_SECRET_FOLDER", str(tmp_path / "outputs"))
    stores[0].put("a/b", b"1")
    assert stores[1].get("a/b") == b"1"
    session.close()


def test_an_output_store_may_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is below the folder of the file; a variable, which wins, names one too."""
    file = str(write(tmp_path, 'output_store = "outputs"\n'))
    for folder, variable in (("outputs", None), ("elsewhere", str(tmp_path / "elsewhere"))):
        if variable is not None:
            monkeypatch.setenv("AUTOMATE_OUTPUT_STORE", variable)
        session = Session(file)
        session.in_memory().executions.outputs.store.put("a/b", b"1")
        session.close()
        assert [each.name for each in (tmp_path / folder).iterdir()] == ["a"]


def test_an_output_store_is_a_folder_or_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output_store: must be a folder in quotes, or a table"):
        Session(str(write(tmp_path, "output_store = 3\n"))).in_memory()


def test_an_output_store_is_shown_without_its_secrets() -> None:
    """What is called a key or a token is hidden, and so is what nobody knows."""
    given = {"store": "s3", "bucket": "b", "access": {"secret_access_key": "hunter2-hunter2"}}
    assert "hunter2" not in str(shown(SETTINGS["output_store"], given))
    assert shown(SETTINGS["output_store"], given)["bucket"] == "b"
    assert shown(SETTINGS["output_store"], "outputs") == "outputs"
