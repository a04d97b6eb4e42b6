"""What each package gives away, and that giving it away stays cheap."""

import importlib
import pkgutil
import subprocess
import sys

import automate_kernel
import pytest

PACKAGES = [
    "automate_kernel",
    "automate_kernel.outbox",
    "automate_kernel.plugins",
    "automate_kernel.secrets",
    "automate_kernel.storage",
    "automate_kernel.templates",
    "automate_kernel.triggers.webhooks",
    "automate_kernel.workflows",
    "automate_kernel.workflows.code",
    "automate_sqlalchemy",
]
HEAVY = [
    "django", "httpx", "jinja2", "jsonschema", "pluggy", "psycopg", "rich", "sqlalchemy",
    "tenacity", "typer", "uvicorn", "yaml",
]  # fmt: skip
# Of ours, for `from automate_kernel import Kernel`; import in the function that needs it.
MOST_MODULES = 60


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_is_there_once_and_in_order(name):
    """`from package import name` works for all of ``__all__``, which is sorted for readers."""
    package = importlib.import_module(name)
    assert len(set(package.__all__)) == len(package.__all__)
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    assert set(package.__all__) <= set(dir(package))


def test_a_wrong_name_is_an_attribute_error():
    """A misspelt import fails as it does for any module."""
    with pytest.raises(AttributeError, match="Kernal"):
        automate_kernel.Kernal  # noqa: B018


def _loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import automate_kernel", "from automate_kernel import Kernel, Connector, BaseProvider"],
)
def test_importing_loads_no_framework_and_nothing_heavy(statement):
    """A script that imports the kernel pays for no database, web, terminal or template library."""
    assert _loaded(statement).isdisjoint(HEAVY)


def test_importing_the_kernel_loads_what_its_class_needs():
    """A process that only names `Kernel` pays for no part of it: making a kernel loads these."""
    loaded = _loaded("from automate_kernel import Kernel")
    parts = {"pydantic", "asyncio", "automate_kernel.worker", "automate_kernel.workflows.drive"}
    assert loaded.isdisjoint({*parts, "automate_kernel.operations", "automate_kernel.templates"})
    ours = sorted(name for name in loaded if name.startswith("automate_"))
    assert len(ours) <= MOST_MODULES, ours


def test_the_first_kernel_builds_no_model_and_no_hooks():
    """Each model is built with the first definition that needs it; without hooks pluggy waits."""
    made = "from automate_kernel import Kernel, Workflow; Kernel(discover=False)"
    loaded = _loaded(f"{made}; assert not Workflow.__pydantic_complete__")
    assert loaded.isdisjoint({*HEAVY, "automate_kernel.triggers.webhooks.signatures"})


def test_the_command_line_loads_no_test_library():
    """Each command would take as long as pytest to start, where that is installed."""
    assert _loaded("import automate_cli.app").isdisjoint({"pytest", "automate_testing"})


def test_a_plugin_module_is_imported_without_pydantic():
    """A plugin author's module that needs `Connector` alone stays light."""
    loaded = _loaded("from automate_kernel import Connector, TriggerSpec, action")
    engine = {"automate_kernel.kernel", "automate_kernel.outbox", "automate_kernel.worker"}
    assert loaded.isdisjoint({*HEAVY, "pydantic", *engine})


@pytest.mark.parametrize("module", ["automate_cli.app", "automate_django.signals"])
def test_what_every_process_imports_at_its_start_is_light(module):
    """A command that prints help, and each process of a Django project, load no engine."""
    loaded = _loaded(f"import {module}")
    assert loaded.isdisjoint(
        {"pydantic", "jinja2", "http.server", "automate_kernel.workflows.drive.runner"}
    )


@pytest.mark.long
def test_every_module_can_be_imported_alone():
    """No module needs another to have been imported first."""
    names = [
        module.name
        for module in pkgutil.walk_packages(automate_kernel.__path__, "automate_kernel.")
        if not module.name.endswith("__main__")
    ]
    code = f"""
import importlib, sys
base = set(sys.modules)
for name in {names!r}:
    for loaded in set(sys.modules) - base:
        if loaded.startswith("automate_"):
            del sys.modules[loaded]
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
