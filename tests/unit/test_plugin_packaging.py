"""What a distribution ships beside its code: dependencies, and a README that is true."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from automate_testing.authoring import packaging
from automate_testing.authoring.packaging import PACKAGING
from automate_testing.authoring.project import PluginProject


class Installed(Distribution):
    """A distribution that nobody has written to a disk."""

    def __init__(self, name: str, *requires: str) -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nProvides-Extra: more\n" + "".join(
            f"Requires-Dist: {line}\n" for line in requires
        )

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


class Project(PluginProject):
    """A project with one package."""

    def packages(self) -> list[str]:
        return ["automate_imported"]


@pytest.mark.parametrize(
    ("requires", "code", "found"),
    [
        ((), "import pytest", "imports pytest, and no dependency brings pytest"),
        ((), "from pytest import fail", "imports pytest, and no dependency brings pytest"),
        (("pytest>=8",), "import pytest", None),
        (('pytest>=8; extra == "more"',), "import pytest", None),
        (("pytest>=8",), "import pluggy", None),
        ((), "try:\n    import pytest\nexcept ImportError:\n    pass", None),
        ((), "def use():\n    import pytest", None),
        ((), "import json\nfrom automate_imported import code", None),
    ],
)
def test_what_is_imported_at_once_is_a_dependency(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requires: tuple[str, ...],
    code: str,
    found: str | None,
) -> None:
    """Its own or one of a dependency's: where the plugin is installed alone, it would not import."""
    package = tmp_path / "automate_imported"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "code.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    project = Project("automate-imported", Installed("automate-imported", *requires), ())
    faults = list(PACKAGING["dependencies"](project, []))
    if found is None:
        assert faults == []
    else:
        ((text, remedy),) = faults
        assert text == f"automate_imported/code.py {found}"
        assert '"pytest"' in remedy


def test_a_readme_names_no_operation_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scaffold's text stays where its action was replaced, and would mislead."""
    monkeypatch.setattr(packaging, "load_target", lambda target: object)
    monkeypatch.setattr(packaging, "has_own_operations", lambda plugin: False)
    described = {"kind": "connector", "key": "sky", "target": "", "operations": [{"name": "look"}]}
    described |= {"triggers": [{"name": "storm"}], "polls": []}
    (tmp_path / "README.md").write_text(
        "pip install automate-sky: `sky.look`, `sky.storm`, `sky.send`, sky.md and `other.send`"
    )
    project = PluginProject("automate-sky", None, (), tmp_path)
    faults = [text for text, _ in PACKAGING["readme"](project, [described])]
    assert faults == ["the README names sky.send, which isn't there"]
