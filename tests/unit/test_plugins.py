"""Plugins: found without import, loaded at first use, each failure contained and explained."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distributions
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from logged import logged
from waiting import PATIENCE, at_once
from automate_kernel import Kernel
from automate_kernel.plugins.connectors import Connector
from automate_kernel.base.errors import AutomateError, ErrorCodes, PluginError, TemplateError
from automate_kernel.plugins import (
    ConnectorRegistry,
    Plugins,
    PluginState,
    Policy,
    ProviderRegistry,
    Registry,
    discovery,
    hookimpl,
)
from automate_kernel.plugins.providers import BaseProvider
from automate_kernel.templates import TemplateContext

Install = Callable[..., None]

CONNECTOR = """
    from automate_kernel.plugins.connectors import Connector, action

    class Pinger(Connector):
        key = "{key}"
        display_name = "Pinger"

        @action
        def ping(self) -> dict[str, str]:
            return {{"from": __name__}}
"""


def _home(entry: discovery.Announced) -> Path:
    return Path(str(entry.dist.locate_file("")))


def connector(key: str) -> str:
    return CONNECTOR.format(key=key)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with entry points, as pip leaves it, in a directory of the test."""
    place = tmp_path / "site"
    place.mkdir()
    before = set(sys.modules)
    read = discovery._entry_points
    monkeypatch.setattr(
        discovery,
        "_entry_points",
        # Whatever else is installed here is none of a test's business.
        lambda: [entry for entry in read() if _home(entry) == place],
    )

    def write(
        name: str,
        entry_points: dict[str, dict[str, str]],
        modules: dict[str, str] | None = None,
        *,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
    ) -> None:
        info = place / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        text = ""
        for group, entries in entry_points.items():
            text += f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        (info / "entry_points.txt").write_text(text)
        for module, source in (modules or {}).items():
            path = place / (module.replace(".", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        monkeypatch.setattr(discovery, "_scans", {})
        monkeypatch.syspath_prepend(str(place))

    yield write
    for module in set(sys.modules) - before:
        if str(place) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]


def record(plugins: Plugins, key: str) -> Any:
    return next(record for record in plugins.records() if record.key == key)


class Local(Connector):
    key = "local"
    display_name = "Local"


class Other(Connector):
    key = "local"
    display_name = "Other"


def test_nothing_is_imported_until_it_is_asked_for(install: Install) -> None:
    """Listing plugins tells their distribution and imports none; asking for one imports it."""
    install(
        "automate-ping",
        {"automate.connectors": {"ping": "lazy_ping:Pinger"}},
        {"lazy_ping": connector("ping")},
        version="1.2",
    )
    plugins = Plugins()
    found = record(plugins, "ping")
    assert (found.state, found.source) == (PluginState.DISCOVERED, "automate-ping 1.2")
    assert (found.kind, found.target) == ("connector", "lazy_ping:Pinger")
    assert "lazy_ping" not in sys.modules

    assert plugins.get("connector", "ping").display_name == "Pinger"
    assert record(plugins, "ping").state is PluginState.LOADED
    assert plugins.connectors.create("ping").call_action("ping", {}) == {"from": "lazy_ping"}


def test_a_target_under_two_groups_is_one_plugin(install: Install) -> None:
    """A distribution that announces itself to old and new hosts is no conflict with itself."""
    target = {"ping": "twice:Pinger"}
    install(
        "twice",
        {"automate.connectors": target, "django_automate.connectors": target},
        {"twice": connector("ping")},
    )
    plugins = Plugins()
    assert [r.group for r in plugins.records() if r.key == "ping"] == ["automate.connectors"]
    assert plugins.get("connector", "ping")


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("import nothing_like_this", "install what provides the module 'nothing_like_this'"),
        ("raise RuntimeError('boom')", "see the traceback"),
        ("import sys; sys.exit(3)", "ends the process when imported"),
        ("class Pingr: ...", "correct the target"),
        ("class Pinger: ...", "derive the class from automate_kernel.plugins.connectors.Connector"),
        ("def broken(:", "see the traceback"),
    ],
    ids=["missing module", "raises", "exits", "misspelt", "no connector", "syntax"],
)
def test_a_broken_plugin_harms_nobody_else(
    install: Install, caplog: pytest.LogCaptureFixture, source: str, remedy: str
) -> None:
    """A plugin that can't be imported is logged and says the remedy; the others work."""
    install(
        "two-plugins",
        {"automate.connectors": {"bad": "bad_plugin:Pinger", "good": "good_plugin:Pinger"}},
        {"bad_plugin": source, "good_plugin": connector("good")},
    )
    plugins = Plugins()
    assert plugins.keys("connector") == ["bad", "good"]
    assert list(plugins.connectors.load_all()) == ["good"]
    assert plugins.keys("connector") == ["good"]

    broken = record(plugins, "bad")
    assert broken.state is PluginState.BROKEN
    assert remedy in broken.remedy
    assert "disabled=['connector:bad']" in broken.remedy
    assert broken.traceback
    assert "'bad' from two-plugins 1.0 is broken" in caplog.text
    with pytest.raises(PluginError, match=r"'bad' from two-plugins 1\.0 is broken") as caught:
        plugins.get("connector", "bad")
    assert remedy in str(caught.value)
    told = [each for each in logged(caplog, "automate_kernel.plugins") if "is broken" in each]
    assert len(told) == 1, "logged once"


@pytest.mark.parametrize(
    ("group", "target", "remedy"),
    [
        ("connectors", "odd_targets", "write odd_targets:Pinger, odd_targets:Second, or"),
        ("connectors", "odd_targets.Pinger", "write odd_targets:Pinger, or reinstall"),
        ("connectors", "odd_targets:INSTANCE", "name its class, odd_targets:Pinger"),
        ("connectors", "odd_targets.gone:Pinger", "odd_targets has no module 'gone'"),
        ("providers", "odd_targets:Pinger", "in the entry-point group automate.connectors"),
        (
            "connectors",
            "odd_targets:function",
            "derive the class from automate_kernel.plugins.connectors",
        ),
    ],
)
def test_a_wrong_target_is_told_with_the_right_one(
    install: Install, group: str, target: str, remedy: str
) -> None:
    """Its author names the module, the instance, or the group of another kind."""
    more = """
    class Second(Pinger):
        key = "second"

    INSTANCE = Pinger()

    def function(): ...
"""
    source = connector("odd") + more
    install("odd-targets", {f"automate.{group}": {"odd": target}}, {"odd_targets": source})
    with pytest.raises(PluginError) as caught:
        Plugins().get(group.rstrip("s"), "odd")
    assert remedy in str(caught.value)


def test_a_wrong_key_is_told_with_the_rule(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install(
        "odd-keys",
        {"automate.connectors": {"Bad": "k:X"}, "automate.filters": {"my-filter": "k:x"}},
        {},
    )
    Plugins().records()
    assert "must rename the entry point, with lower-case letters, digits" in caplog.text
    assert "must rename the entry point, with letters, digits and _" in caplog.text


def test_a_connector_and_a_provider_of_one_key_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The operations of one were not found, and nobody knew why."""

    class One(Connector):
        key = "twin"

    class Other(BaseProvider):
        key = "twin"

    kernel = Kernel(plugins=[One, Other], discover=False)
    assert kernel.plugins.hidden() == [
        "there are a connector and a provider 'twin': actions are looked for in the connector"
        " alone, and both read the config of that key"
    ]
    assert "a connector and a provider 'twin'" in caplog.text
    caplog.clear()
    Kernel(plugins=[One], discover=False)
    assert logged(caplog, "automate_kernel.plugins", "automate_kernel.kernel") == []


def test_ctrl_c_at_import_still_interrupts(install: Install) -> None:
    """An interrupt is the user's, and is not held for a plugin's failure."""
    install(
        "interrupted",
        {"automate.connectors": {"ping": "interrupted:Pinger"}},
        {"interrupted": "raise KeyboardInterrupt"},
    )
    plugins = Plugins()
    with pytest.raises(KeyboardInterrupt):
        plugins.get("connector", "ping")
    assert record(plugins, "ping").state is PluginState.DISCOVERED


def test_strict_mode_raises_for_a_broken_plugin(install: Install) -> None:
    """A host that wants all or nothing gets the first failure when everything is loaded."""
    install(
        "bad-one",
        {"automate.connectors": {"bad": "bad_one:Pinger"}},
        {"bad_one": "raise ValueError('x')"},
    )
    with pytest.raises(PluginError, match="ValueError: x"):
        Plugins(strict=True).load_all()
    assert Plugins().load_all()


def test_two_claims_on_a_key_disable_it(install: Install) -> None:
    """A contested key belongs to nobody, and the error names both and the remedy."""
    for name in ("first", "second"):
        install(
            f"{name}-ping",
            {"automate.connectors": {"ping": f"{name}_ping:Pinger"}},
            {f"{name}_ping": connector("ping")},
        )
    plugins = Plugins()
    assert plugins.keys("connector").count("ping") == 0
    with pytest.raises(PluginError, match="more than one connector claims") as caught:
        plugins.get("connector", "ping")
    assert "first-ping 1.0 (first_ping:Pinger)" in str(caught.value)
    assert "winners={'connector:ping'" in str(caught.value)
    assert "first_ping" not in sys.modules
    with pytest.raises(PluginError, match="more than one"):
        Plugins(strict=True).load_all()


@pytest.mark.parametrize("winner", ["second-ping", "second_ping:Pinger", "second_ping.Pinger"])
@pytest.mark.parametrize("name", ["ping", "connector:ping"])
def test_the_host_may_name_the_winner(install: Install, name: str, winner: str) -> None:
    """The distribution or target that the host names gets the contested key."""
    for dist in ("first", "second"):
        install(
            f"{dist}-ping",
            {"automate.connectors": {"ping": f"{dist}_ping:Pinger"}},
            {f"{dist}_ping": connector("ping")},
        )
    plugins = Plugins(winners={name: winner})
    assert plugins.get("connector", "ping").__module__ == "second_ping"
    loser = next(r for r in plugins.records() if r.target == "first_ping:Pinger")
    assert loser.replaced_by == "second-ping 1.0"
    assert not plugins.unmatched()


def test_what_the_host_says_wins(install: Install) -> None:
    """Registered goes before listed in the settings, that before installed, that before ours."""
    install(
        "levels",
        {"automate.connectors": {"local": "installed_level:Pinger"}},
        {
            "installed_level": connector("local"),
            "settings_level": connector("local"),
            "builtin_level": connector("local"),
        },
    )

    def registry(*settings: str) -> ConnectorRegistry:
        made = ConnectorRegistry(settings)
        made.register("builtin_level.Pinger", key="local", source="builtin")
        return made

    assert registry().get("local").__module__ == "installed_level"
    listed = registry("settings_level.Pinger")
    assert listed.get("local").__module__ == "settings_level"
    replaced = {r.target: r.replaced_by for r in listed.records() if r.key == "local"}
    assert replaced == {
        "settings_level:Pinger": None,
        "installed_level:Pinger": "settings",
        "builtin_level:Pinger": "settings",
    }
    listed.register(Local)
    assert listed.get("local") is Local


def test_a_broken_replacement_does_not_bring_back_the_replaced() -> None:
    """A key whose holder fails stays unusable: the host meant something else than the built-in."""
    registry = ConnectorRegistry({"local": "no_such_module.Thing"}, discover=False)
    registry.register(Local, source="builtin")
    with pytest.raises(PluginError, match="broken"):
        registry.get("local")


def test_a_winner_that_fails_does_not_hand_over_its_key(install: Install) -> None:
    """Not even when another claim comes in later: nobody asked for the others."""
    install(
        "rivals",
        {},
        {"rival_bad": "raise RuntimeError", "rival_good": connector("local")},
    )
    registry = ConnectorRegistry(
        {"local": "rival_bad:Pinger"},
        discover=False,
        policy=Policy.of(winners={"local": "rival_bad:Pinger"}),
    )
    with pytest.raises(PluginError, match="RuntimeError"):
        registry.get("local")
    registry.register("rival_good:Pinger", key="local", source="settings")
    with pytest.raises(PluginError, match="RuntimeError"):
        registry.get("local")


def test_a_second_registration_of_a_key_is_refused() -> None:
    """Registering another class under a taken key is an error, unless it is meant to replace."""
    registry = ConnectorRegistry(discover=False)
    registry.register(Local)
    registry.register(Local)
    with pytest.raises(PluginError, match="registered already") as caught:
        registry.register(Other)
    assert caught.value.code is ErrorCodes.ALREADY_EXISTS
    assert registry.get("local") is Local
    registry.register(Other, replace=True)
    assert registry.get("local") is Other
    registry.register(Other, key="other")
    assert registry.keys() == ["local", "other"]


@pytest.mark.parametrize("off", ["ping", "connector:ping", "automate_ping"])
def test_a_plugin_can_be_switched_off(install: Install, off: str) -> None:
    """By key, by kind and key, or by distribution, without being imported."""
    install(
        "automate-ping",
        {"automate.connectors": {"ping": "off_ping:Pinger"}},
        {"off_ping": "raise SystemExit"},
    )
    plugins = Plugins(disabled=[off])
    assert record(plugins, "ping").state is PluginState.DISABLED
    assert "ping" not in plugins.keys("connector")
    with pytest.raises(PluginError, match="is switched off"):
        plugins.get("connector", "ping")
    assert not plugins.unmatched()


def test_misspelt_names_in_the_settings_are_told(install: Install) -> None:
    """What is disabled or named a winner and does not exist is found, not passed over."""
    install(
        "automate-ping",
        {"automate.connectors": {"ping": "told_ping:Pinger"}},
    )
    plugins = Plugins(disabled=["pong"], winners={"ping": "nobody", "slak": "x:Y"})
    assert plugins.unmatched() == ["nobody", "pong", "slak"]


@pytest.mark.parametrize(
    ("requires", "declares"),
    [(("automate-kernel>=99",), ""), ((), ">=99"), ((), "<0.0.1"), ((), "nonsense")],
)
def test_an_incompatible_plugin_is_told_apart(
    install: Install, requires: tuple[str, ...], declares: str
) -> None:
    """A plugin for another kernel says so: in its distribution's requirements, or in its class."""
    install(
        "future-ping",
        {"automate.connectors": {"ping": "future_ping:Pinger"}},
        {"future_ping": connector("ping") + f"        automate_requires = {declares!r}\n"},
        requires=requires,
    )
    plugins = Plugins()
    with pytest.raises(PluginError, match="does not fit this version"):
        plugins.get("connector", "ping")
    assert record(plugins, "ping").state is PluginState.INCOMPATIBLE
    assert ("future_ping" in sys.modules) == (not requires)


@pytest.mark.parametrize(
    ("requires", "declares"),
    [(("automate-kernel>=0.0.1,<99",), ""), ((), ">=0.0.1"), ((), "~=0.1"), (("other>=99",), "")],
)
def test_a_plugin_for_this_kernel_is_loaded(
    install: Install, requires: tuple[str, ...], declares: str
) -> None:
    """One that states versions to which this kernel belongs is as good as one that states none."""
    install(
        "fitting-ping",
        {"automate.connectors": {"ping": "fitting_ping:Pinger"}},
        {"fitting_ping": connector("ping") + f"        automate_requires = {declares!r}\n"},
        requires=requires,
    )
    plugins = Plugins()
    assert plugins.get("connector", "ping").key == "ping"
    assert record(plugins, "ping").state is PluginState.LOADED


def test_a_target_may_be_a_module_of_a_package(install: Install) -> None:
    """``package:module`` names a submodule that the package itself does not import."""
    source = """
        from automate_kernel.plugins.hooks import hookimpl

        @hookimpl
        def automate_configure(kernel):
            kernel.seen = True
    """
    install(
        "hooked",
        {"automate.hooks": {"hooked": "hooked_package:listeners"}},
        {"hooked_package.__init__": "", "hooked_package.listeners": source},
    )
    plugins = Plugins()
    kernel = type("K", (), {})()
    plugins.hook.automate_configure(kernel=kernel)
    assert kernel.seen
    assert record(plugins, "hooked").state is PluginState.LOADED


def test_a_misspelt_key_gets_a_suggestion() -> None:
    """An unknown key is NOT_FOUND, and the error says what was meant and what there is."""
    plugins = Plugins(discover=False)
    plugins.register(Local)
    with pytest.raises(PluginError, match="there is no connector 'locl'") as caught:
        plugins.get("connector", "locl")
    assert caught.value.code is ErrorCodes.NOT_FOUND
    assert "did you mean 'local'?" in str(caught.value)
    with pytest.raises(PluginError, match="did you mean 'connector'"):
        plugins.get("conector", "local")


def test_an_unknown_key_names_the_settings_that_failed() -> None:
    """A listed path that does not import has no key, so the error for its key points at it."""
    registry = ProviderRegistry(["no_such_app.providers.Mine"], discover=False)
    with pytest.raises(PluginError, match=r"can't be used: no_such_app\.providers\.Mine"):
        registry.get("mine")


def test_settings_may_hold_paths_or_keys(install: Install) -> None:
    """A path is imported to learn its key; one with a key stays unimported till it is used."""
    install("paths", {}, {"path_one": connector("one"), "path_two": connector("two")})
    assert ConnectorRegistry(["path_one.Pinger"], discover=False).keys() == ["one"]
    keyed = ConnectorRegistry({"second": "path_two.Pinger"}, discover=False)
    assert keyed.keys() == ["second"]
    assert "path_two" not in sys.modules
    assert keyed.get("second").key == "two"
    assert ConnectorRegistry("path_one:Pinger", discover=False).keys() == ["one"]


def test_the_kind_is_told_from_the_class() -> None:
    """A class is registered as what it derives from; anything else needs to be told."""
    plugins = Plugins(discover=False)

    class Mine(BaseProvider):
        key = "mine"

    plugins.register(Mine)
    plugins.register(f"{__name__}:Local" if __name__ in sys.modules else Local)
    plugins.register(len, kind="filter", key="count")
    assert plugins.keys("provider") == ["mine"]
    assert plugins.keys("connector") == ["local"]
    assert plugins.filters.get("count")([1, 2]) == 2
    with pytest.raises(PluginError, match="of no known kind"):
        plugins.register(dict)
    with pytest.raises(PluginError, match=r"'nowhere\.Plugin' can't be registered: ModuleNotFound"):
        plugins.register("nowhere.Plugin")
    with pytest.raises(PluginError, match="can't tell the kind"):
        plugins.register(Local())


def test_a_secrets_backend_without_a_key_is_named_after_its_class() -> None:
    """The specification's backends have no key of their own."""
    from automate_kernel.secrets import SecretsBackend

    class VaultBackend(SecretsBackend):
        def get_secret(self, key: str) -> str:
            return key

    plugins = Plugins(discover=False)
    plugins.register(VaultBackend)
    assert plugins.secrets_backends.get("vault_backend") is VaultBackend


@pytest.mark.parametrize("key", ["", "Has Space", "UPPER", "a.b", "ä", "x" * 65])
def test_a_key_that_workflows_could_not_write_is_refused(key: str) -> None:
    """Keys are lower-case words: `connector.action` must stay readable."""
    with pytest.raises(PluginError):
        ConnectorRegistry(discover=False).register(type("Bad", (Connector,), {"key": key}))


def test_one_damaged_distribution_hides_no_other(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Entry points that can't be parsed are logged, and everybody else's are found."""
    install("fine", {"automate.connectors": {"ping": "fine_ping:Pinger"}})
    info = tmp_path / "site" / "damaged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1\n")
    (info / "entry_points.txt").write_bytes(b"[automate.connectors]\n\xff\xfe = no\n")
    assert "ping" in Plugins().keys("connector")
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    "folder", ["one_name-1.0", "One.Name-1.0", "one__name-1.0", "One_Name-1.0", "one_name"]
)
def test_of_two_places_with_one_distribution_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """However an installer wrote its name in each of them: it is the one that imports."""
    monkeypatch.setattr(discovery, "_scans", {})
    for place, name in (("behind", "one_name-2.0"), ("first", folder)):
        suffix = ".dist-info" if "-" in name else ".egg-info"
        info = tmp_path / place / f"{name}{suffix}"
        info.mkdir(parents=True)
        about = "Metadata-Version: 2.1\nName: one-name\nVersion: " + place + "\n"
        (info / "METADATA").write_text(about)
        (info / "entry_points.txt").write_text(f"[automate.connectors]\nshown = {place}:X\n")
        monkeypatch.syspath_prepend(str(tmp_path / place))
    found = record(Plugins(), "shown")
    assert (found.target, found.version) == ("first:X", "first")
    assert found.location == str(tmp_path / "first")


def test_entry_points_are_read_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many registries look, the installed distributions are read one time."""
    install("once", {"automate.connectors": {"ping": "once_ping:Pinger"}})
    reads: list[int] = []
    real = discovery._entry_points

    def read() -> list[discovery.Announced]:
        reads.append(1)
        return real()

    monkeypatch.setattr(discovery, "_entry_points", read)
    for _ in range(3):
        plugins = Plugins()
        plugins.records()
    assert reads == [1]


def test_importing_is_light() -> None:
    """A host that uses no plugin pays for no pluggy, metadata, template engine or validation."""
    code = """
        import os, sys, types
        from importlib.util import find_spec

        # Without the package's own imports: here it is about these modules alone.
        package = types.ModuleType("automate_kernel")
        package.__path__ = [os.path.dirname(find_spec("automate_kernel").origin)]
        sys.modules["automate_kernel"] = package
        import automate_kernel.operations.spec, automate_kernel.plugins.providers, automate_kernel.plugins.connectors
        from automate_kernel.plugins import Plugins
        from automate_kernel.plugins.connectors import Connector, action

        class Quick(Connector):
            key = "quick"
            @action
            def go(self, n: int) -> int:
                return n

        plugins = Plugins()
        heavy = {"importlib.metadata", "pydantic", "jinja2", "pluggy", "tenacity", "jsonschema"}
        print(sorted(heavy & set(sys.modules)))
    """
    run = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_imports_that_ask_for_plugins_do_not_lock_each_other_out(install: Install) -> None:
    """While one thread imports a plugin, its module may ask for another, in every thread."""
    source = """
        import automate_test_meeting as meeting
        from automate_kernel.plugins.connectors import Connector

        meeting.arrive()
        other = meeting.registry.get("{other}")

        class Pinger(Connector):
            key = "{key}"
    """
    meeting = """
        import threading
        barrier = threading.Barrier(2)
        arrived = set()
        registry = None

        def arrive():
            if (me := threading.get_ident()) not in arrived:
                arrived.add(me)
                barrier.wait(20)
    """
    install(
        "crossed",
        {"automate.connectors": {"one": "crossed_one:Pinger", "two": "crossed_two:Pinger"}},
        {
            "automate_test_meeting": meeting,
            "crossed_one": source.format(key="one", other="two"),
            "crossed_two": source.format(key="two", other="one"),
        },
    )
    import automate_test_meeting  # type: ignore[import-not-found]

    registry = automate_test_meeting.registry = ConnectorRegistry()
    outcomes: list[object] = []

    def ask(key: str) -> None:
        try:
            outcomes.append(registry.get(key))
        except PluginError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask, args=(key,), daemon=True) for key in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert len(outcomes) == 2, "a thread hangs"


def test_many_threads_get_one_class(install: Install) -> None:
    """A plugin that is first asked for by many threads at once is imported a single time."""
    install(
        "crowd",
        {"automate.connectors": {"ping": "crowd_ping:Pinger"}},
        {
            "crowd_ping": "import sys\nsys.crowd = getattr(sys, 'crowd', 0) + 1\n"
            + textwrap.dedent(connector("ping"))
        },
    )
    registry = ConnectorRegistry()
    start = threading.Barrier(8)
    got: list[object] = []

    def ask() -> None:
        start.wait(PATIENCE)
        got.append(registry.get("ping"))

    at_once(*[ask] * 8)
    try:
        assert len(got) == 8
        assert len(set(got)) == 1
        assert sys.crowd == 1  # type: ignore[attr-defined]
    finally:
        del sys.crowd  # type: ignore[attr-defined]


def test_asking_for_oneself_at_import_breaks_nothing(install: Install) -> None:
    """A module that asks for its own plugin too early is told so, and works once it is imported."""
    install(
        "eager",
        {"automate.connectors": {"ping": "eager_ping:Pinger"}},
        {
            "eager_ping": """
                import sys
                from automate_kernel.base.errors import PluginError
                try:
                    sys.eager.get("ping")
                except PluginError as error:
                    sys.eager_said = str(error)
            """
            + connector("ping").replace("\n    ", "\n                ")
        },
    )
    registry = ConnectorRegistry()
    sys.eager = registry  # type: ignore[attr-defined]
    try:
        assert registry.get("ping").key == "ping"
        assert "is being imported" in sys.eager_said  # type: ignore[attr-defined]
    finally:
        del sys.eager  # type: ignore[attr-defined]


class Recorder:
    """A hook plugin of the host."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def automate_before_call(self, call: object) -> None:
        self.seen.append(call)

    @hookimpl
    def automate_after_call(self, output: object) -> None:
        self.seen.append(output)


def test_hooks_have_many_receivers(install: Install) -> None:
    """Installed modules and objects of the host all receive; each takes the arguments it needs."""
    install(
        "hooked",
        {"automate.hooks": {"hooked": "hooked_plugin"}},
        {
            "hooked_plugin": """
                from automate_kernel.plugins import hookimpl
                seen = []

                @hookimpl
                def automate_before_call(call, input):
                    seen.append((call, input))
            """
        },
    )
    plugins, mine = Plugins(), Recorder()
    plugins.register(mine, kind="hook", key="mine")
    plugins.hook.automate_before_call(call="a", input={"x": 1})
    late = Recorder()
    plugins.register(late, kind="hook", key="late")
    plugins.hook.automate_before_call(call="b", input={})
    assert sys.modules["hooked_plugin"].seen == [("a", {"x": 1}), ("b", {})]
    assert (mine.seen, late.seen) == (["a", "b"], ["b"])


def test_a_hook_object_that_is_switched_off_receives_nothing() -> None:
    """The host's settings hold for what it registers itself, and for two objects of a class."""
    plugins, mine, other = Plugins(discover=False, disabled=["hook:mine"]), Recorder(), Recorder()
    assert plugins.hook
    plugins.register(mine, kind="hook", key="mine")
    plugins.register(other, kind="hook")
    plugins.hook.automate_before_call(call="a", input={})
    assert (mine.seen, other.seen) == ([], ["a"])
    with pytest.raises(PluginError, match="registered already"):
        plugins.register(Recorder(), kind="hook")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def automate_befor_call(call): ...", "did you mean 'automate_before_call'"),
        ("def automate_before_call(no_such_argument): ...", "no_such_argument"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_broken_hook_plugin_leaves_the_others(
    install: Install, source: str, problem: str
) -> None:
    """A hook plugin that does not import, or implements what nobody calls, is left out and told."""
    marked = source if source.startswith("raise") else f"@hookimpl\n{source}"
    install(
        "bad-hooks",
        {"automate.hooks": {"bad": "bad_hooks"}},
        {"bad_hooks": f"from automate_kernel.plugins import hookimpl\n{marked}\n"},
    )
    plugins, mine = Plugins(), Recorder()
    plugins.register(mine, kind="hook", key="mine")
    plugins.hook.automate_before_call(call="a", input={})
    assert mine.seen == ["a"]
    broken = record(plugins, "bad")
    assert broken.state is PluginState.BROKEN
    assert problem in f"{broken.error} {broken.remedy}"
    with pytest.raises(PluginError):
        Plugins(strict=True).hook  # noqa: B018


def test_a_failing_receiver_of_a_notice_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """What a hook tells of has happened, so every receiver hears of it, and failures are logged."""

    class Failing:
        @hookimpl
        def automate_after_call(self) -> None:
            raise ValueError("not today")

    plugins, first, last = Plugins(discover=False), Recorder(), Recorder()
    for key, receiver in {"first": first, "failing": Failing(), "last": last}.items():
        plugins.register(receiver, kind="hook", key=key)
    errors = plugins.hooks.notify("automate_after_call", call=None, output=7, error=None)
    assert [str(error) for error in errors] == ["not today"]
    assert (first.seen, last.seen) == ([7], [7])
    assert "'failing'" in caplog.text


def test_a_registry_of_ones_own_kind_needs_no_facade() -> None:
    """A single registry can be used by itself, with a policy."""
    registry: Registry[Any] = Registry("filter", discover=False, policy=Policy.of(disabled="shout"))
    registry.register(str.upper, key="shout")
    registry.register(str.lower, key="whisper")
    assert list(registry) == ["whisper"]
    assert "shout" not in registry
    with pytest.raises(PluginError, match="can't be called"):
        registry.register(3, key="three")


def test_a_misspelt_hook_is_refused_where_it_is_registered() -> None:
    """A hook that nobody would ever call is an error of the line that brings it, with a hint."""
    from automate_kernel import Kernel, hookimpl

    class Misspelt:
        @hookimpl
        def automate_befor_call(self, call, input):
            """Would refuse a call, if it were ever called."""

    class Argument:
        @hookimpl
        def automate_before_call(self, cal):
            """Wants what nobody gives."""

    kernel = Kernel(discover=False)
    for plugin, hint in (
        (Misspelt(), "'automate_before_call'"),
        (Misspelt, "'automate_before_call'"),
        (Argument(), "'call'"),
    ):
        with pytest.raises(PluginError) as caught:
            kernel.register(plugin, "hook", key="quiet")
        assert caught.value.hint == f"did you mean {hint}?"
    kernel.action("f")(lambda: 1)
    assert kernel.invoke("f") == 1


def test_config_of_no_plugin_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt key of the config is a warning with a hint, and again where a worker starts."""
    from automate_kernel import Connector, Kernel
    from automate_kernel.monitoring.diagnosis import plugin_findings

    class Slack(Connector):
        key = "slack"
        display_name = "Slack"

    config = {"slak": {"token": "t"}, "crm": {}, "slack": {}}
    kernel = Kernel(plugins=[Slack], config=config, discover=False)
    slip = "config has 'slak', which is no connector and no provider (did you mean 'slack'?)"
    told = ("automate_kernel.plugins", "automate_kernel.kernel")
    assert logged(caplog, *told) == [slip]
    kernel.worker()
    later = logged(caplog, *told)[1:]
    assert later == [slip, "config has 'crm', which is no connector and no provider"]
    found = [each.text for each in plugin_findings(kernel) if each.state == "warn"]
    assert found == later
    assert "token" not in " ".join(found)


@pytest.mark.parametrize(
    ("group", "remedy"),
    [
        ("automate.connector", "did you mean 'automate.connectors'?"),
        ("automate_kernel.providers", "did you mean 'automate.providers'?"),
        ("automate-connectors", "did you mean 'automate.connectors'?"),
        ("automate.completely_different", "there are: "),
    ],
)
def test_a_misspelt_group_is_told(
    install: Install, caplog: pytest.LogCaptureFixture, group: str, remedy: str
) -> None:
    """Nobody would read it, and its author would look for the mistake in the code."""
    install("automate-ping", {group: {"ping": "ping_mod:Pinger"}})
    [wrong] = [each for each in discovery.misspelt() if each.distribution == "automate-ping"]
    assert str(wrong) == f"automate-ping announces plugins in {group!r}"
    assert wrong.remedy.startswith(remedy)
    assert f"{wrong}, which nobody reads; {wrong.remedy}" in caplog.text


def test_groups_of_others_are_none_of_ours(install: Install) -> None:
    """Those of other tools whose names begin alike, too."""
    install("other", {"automated.tests": {"a": "b:c"}, "pytest11": {"a": "b:c"}})
    assert [each for each in discovery.misspelt() if each.distribution == "other"] == []


STORE = """
    from automate_kernel.outbox import RowsOutboxStore

    class Counting(RowsOutboxStore):
        added = 0

        def enqueue_many(self, items, *, transaction=None):
            found = super().enqueue_many(items, transaction=transaction)
            Counting.added += len(found)
            return found
"""


def test_an_installed_outbox_store_is_chosen_by_its_key(install: Install) -> None:
    """``Kernel(outbox="key")`` makes the store that an entry point announces, and uses it."""
    install(
        "counting-store",
        {"automate.outbox_stores": {"counting": "counting_store:Counting"}},
        {"counting_store": STORE},
    )
    kernel = Kernel(outbox="counting", secrets={}, lease_seconds=30, retention_seconds=60)
    kernel.emit("order.created")
    assert type(kernel.outbox).added == 1  # type: ignore[attr-defined]
    assert (kernel.outbox.lease_seconds, kernel.outbox.retention_seconds) == (30, 60)
    assert kernel.outbox.stats().total("PENDING") == 1
    by_path = Kernel(outbox="counting_store.Counting", secrets={}, discover=False)
    assert type(by_path.outbox) is type(kernel.outbox)


@pytest.mark.parametrize(
    ("key", "message"),
    [("countng", "did you mean 'counting'"), ("hungry", "can't be made from a storage")],
)
def test_an_outbox_store_that_can_not_be_had_is_refused(
    install: Install, key: str, message: str
) -> None:
    """A misspelt key is named, and a store that needs other arguments says what to do."""
    hungry = STORE + "\n    class Hungry(Counting):\n        def __init__(self, url): ...\n"
    stores = {"counting": "counting_store:Counting", "hungry": "counting_store:Hungry"}
    install("counting-store", {"automate.outbox_stores": stores}, {"counting_store": hungry})
    with pytest.raises(AutomateError, match=message):
        Kernel(outbox=key, secrets={})


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper"])
def test_a_wrapper_of_a_hook_that_is_never_wrapped_is_refused(option: str) -> None:
    """Hooks that report what has happened call each receiver by itself: no wrapper would run."""

    class Wrapping:
        @hookimpl(**{option: True})  # type: ignore[call-overload]
        def automate_after_call(self, call: Any) -> Any:
            yield

    with pytest.raises(PluginError, match="'automate_after_call' can't have a wrapper"):
        Plugins(discover=False).register(Wrapping(), "hook", key="wrapping")


def test_a_wrapper_of_a_hook_before_a_call_is_called() -> None:
    """Where pluggy itself calls, a wrapper is what pluggy says it is."""
    seen: list[str] = []

    class Wrapping:
        @hookimpl(wrapper=True)
        def automate_before_call(self, call: Any) -> Any:
            seen.append(call.operation)
            return (yield)

    kernel = Kernel(discover=False, secrets={})
    kernel.register(Wrapping(), "hook", key="wrapping")
    kernel.action("double")(lambda: 2)
    assert kernel.invoke("double") == 2
    assert seen == ["double"]


def test_a_broken_hook_plugin_that_replaces_another_stops_it() -> None:
    """Its place was taken before the error; the replaced plugin was called on."""
    sent: list[str] = []

    class First:
        @hookimpl
        def automate_before_enqueue(self, items: Any) -> None:
            sent.append("first")

    with Kernel(discover=False, secrets={}, strict=True) as kernel:
        kernel.register(First(), "hook", key="mine")
        kernel.outbox.enqueue("anything")
        assert sent == ["first"]
        with pytest.raises(PluginError):
            kernel.plugins.hooks.add(object(), "mine")
        kernel.outbox.enqueue("anything")
        assert sent == ["first"]


@pytest.mark.parametrize("strict", [True, False])
def test_a_broken_hook_is_reported_where_it_is_registered(strict: bool) -> None:
    """On a kernel that had no hooks, too: not at the first call, which it would fail."""

    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no")

        @hookimpl
        def automate_before_enqueue(self, items: Any) -> None: ...

    with Kernel(discover=False, secrets={}, strict=strict) as kernel:
        with pytest.raises(PluginError) if strict else nullcontext():
            kernel.register(Broken, "hook", key="broken")
        (record,) = kernel.plugins.registry("hook").records()
        assert record.state is PluginState.BROKEN
        kernel.outbox.enqueue("anything")


@pytest.mark.parametrize("config", [{"port": "none"}, {"port": "$secret:MISSING"}])
def test_a_connector_that_can_not_start_leaves_no_logger(config: dict[str, str]) -> None:
    """Logging keeps a logger for as long as the process lives."""
    key = f"failing-{config['port'].strip('$').replace(':', '-').lower()}"

    class Config(BaseModel):
        port: int

    class Failing(Connector):
        @classmethod
        def config_schema(cls) -> type[BaseModel]:
            return Config

    kernel = Kernel(discover=False, secrets={}, config={key: config})
    kernel.register(Failing, "connector", key=key)
    with pytest.raises(AutomateError):
        kernel.connector(key)
    assert f"automate.plugins.{key}" not in logging.Logger.manager.loggerDict


def test_a_filter_is_imported_when_a_template_uses_it(install: Install) -> None:
    """Not with the kernel; an application's own of that name would be refused all the same."""
    install(
        "shouting",
        {"automate.filters": {"shout": "shout_mod:shout"}},
        {"shout_mod": "def shout(value):\n    return value.upper()\n"},
    )
    with Kernel() as kernel:
        assert "shout_mod" not in sys.modules
        assert "shout" in kernel.filters.names()
        with pytest.raises(AutomateError, match="exists already: an installed plugin"):
            kernel.filters.register("shout", str.upper)
        assert kernel.templates.compile("{{ 'a' | shout }}").render(TemplateContext()) == "A"
        assert "shout_mod" in sys.modules


@pytest.mark.parametrize(
    "code", ["raise SystemExit(1)", "shout = 1", "async def shout(value): ..."]
)
def test_a_broken_filter_fails_the_templates_that_use_it(install: Install, code: str) -> None:
    """With its name and the remedy; the kernel and other templates work."""
    install("shouting", {"automate.filters": {"shout": "shout_mod:shout"}}, {"shout_mod": code})
    with Kernel() as kernel:
        assert kernel.templates.compile("{{ 'a' | upper }}").render(TemplateContext()) == "A"
        with pytest.raises(TemplateError, match="filter 'shout'") as caught:
            kernel.templates.compile("{{ 'a' | shout }}")
        assert caught.value.hint


def test_the_scan_parses_no_entry_points_of_others(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment has hundreds of distributions, and few of them have plugins."""
    install("automate-ours", {"automate.connectors": {"ours": "ours:Ours"}})
    install("theirs", {"console_scripts": {"theirs": "theirs:main"}})
    read: list[str] = []
    parse = discovery._announced

    def watched(distribution: Distribution, text: str) -> Any:
        read.append(distribution.metadata["Name"])
        return parse(distribution, text)

    monkeypatch.setattr(discovery, "_announced", watched)
    assert "ours" in [each.key for each in discovery.scan(refresh=True)]
    assert "automate-ours" in read
    assert "theirs" not in read


def test_entry_points_are_read_as_the_standard_library_reads_them(install: Install) -> None:
    """Spaces, comments, blank lines, Windows's line ends, and groups that aren't ours between."""
    install("odd", {})
    text = (
        "# [automate.connectors]\r\n[console_scripts]\r\nx = y:z\r\n\r\n"
        "[automate.connectors]\r\n  one=odd:One  \r\n# two = odd:Two\r\n\r\nthree = odd:Three\r\n"
        "[automate.other]\nfour = odd:Four\n[automate.providers]\nfive.six = odd:Five [extra]\n"
    )
    (place,) = [each for each in sys.path if (Path(each) / "odd-1.0.dist-info").is_dir()]
    (Path(place) / "odd-1.0.dist-info" / "entry_points.txt").write_bytes(text.encode())
    known = [each for each in distributions() if each.metadata["Name"] == "odd"][0].entry_points
    wanted = [(e.group, e.name, e.value) for e in known if e.group != "console_scripts"]
    assert [tuple(each[:3]) for each in discovery._entry_points()] == wanted
    assert len(wanted) == 4
