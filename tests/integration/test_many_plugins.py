"""
A hundred installed distributions, some of them broken: nothing is imported, and nobody else suffers.

They are wheels that an installer put into a folder, as into an application's environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.slow

WELL = 92
CONNECTOR = """
    from automate_kernel import Connector, action

    class Many(Connector):
        key = "{key}"
        display_name = "Many"

        @action(read_only=True)
        def which(self) -> dict[str, str]:
            "Say which one it is."
            return {{"key": self.key}}
"""
# Of each kind one, and of each way to break one: kind, its group, its code, and what doctor says.
BROKEN = {
    "connector": ("automate.connectors", "import not_there_at_all\n", "install what provides"),
    "provider": ("automate.providers", "raise SystemExit('no')\n", "report that to the author"),
    "secrets_backend": ("automate.secrets_backends", "class Bad:\n    pass\n", "derive the class"),
    "outbox_store": ("automate.outbox_stores", "Good = 1\n", "correct the target"),
    "output_store": (
        "automate.output_stores",
        "from automate_kernel import OutputStore\nclass Bad(OutputStore):\n    pass\n",
        "write the methods",
    ),
    "hook": ("automate.hooks", "class Bad:\n    pass\n", "mark its functions"),
    "command": ("automate.commands", "Bad = 'no command'\n", "names a typer.Typer"),
    "filter": ("automate.filters", "Bad = 'no function'\n", "a filter is a function"),
}


def wheel(folder: Path, name: str, version: str, files: dict[str, str], points: str) -> Path:
    """A wheel, as a builder makes it."""
    info = f"{name}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        "Requires-Dist: automate-kernel<2,>=0.1\n\nA plugin.\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    record = "".join(f"{each},,\n" for each in [*contents, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(each, text)
    return path


def manifest_for(name: str, key: str) -> str:
    operation = {
        "name": "which", "title": "", "description": "Say which one it is.", "idempotent": True,
        "read_only": True, "destructive": False, "input": {"type": "object"}, "output": None,
    }  # fmt: skip
    plugin = {
        "kind": "connector", "key": key, "target": f"{name}:Many", "title": "Many",
        "description": "One of many.", "config": {}, "secrets": [], "operations": [operation],
        "triggers": [],
    }  # fmt: skip
    told = {"manifest": 1, "distribution": name, "version": "1.0", "pydantic": "2.0"}
    return json.dumps({**told, "plugins": [plugin]})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which an installer has put 92 good distributions and 8 bad ones."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    made = []
    for number in range(WELL):
        name, key = f"many_{number:02}", f"many{number:02}"
        files = {
            f"{name}/__init__.py": dedent(CONNECTOR.format(key=key)),
            f"{name}/automate.json": manifest_for(name, key),
        }
        made.append(
            wheel(wheels, name, "1.0", files, f"[automate.connectors]\n{key} = {name}:Many\n")
        )
    # It works, and can't be shown without an import.
    odd = made[0]
    with zipfile.ZipFile(odd) as archive:
        contents = {name: archive.read(name).decode() for name in archive.namelist()}
    contents["many_00/automate.json"] = "{"
    with zipfile.ZipFile(odd, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    for kind, (group, code, _) in BROKEN.items():
        name = f"bad_{kind}"
        made.append(
            wheel(
                wheels,
                name,
                "1.0",
                {f"{name}/__init__.py": code},
                f"[{group}]\n{name} = {name}:Bad\n",
            )
        )
    installer = [shutil.which("uv"), "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    chosen = ["--python", sys.executable] if installer[0] != sys.executable else []
    subprocess.run(
        [*installer, "install", "-q", *chosen, "--no-deps", "--target", site, *made],
        check=True, env={**os.environ, "UV_LINK_MODE": "copy"}, timeout=240,
    )  # fmt: skip
    assert len(list(site.glob("*.dist-info"))) == WELL + len(BROKEN)
    return site


def run(site: Path, code: str) -> str:
    """What *code* prints in a process that has *site* on its path."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], env=environment, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def automate(site: Path, folder: Path, *arguments: str, code: int = 0) -> str:
    """What the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "automate_cli", *arguments], cwd=folder, text=True,
        env={**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"}, capture_output=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_they_are_scanned_and_described_without_an_import(site: Path) -> None:
    """Neither the scan nor 91 manifests import one of them, the broken ones included."""
    printed = run(
        site,
        """
        import sys
        from automate_kernel.plugins import Plugins
        from automate_kernel.plugins.manifest import manifest_of

        records = Plugins().records()
        ours = [each for each in records if each.key.startswith(("many", "bad"))]
        told = [manifest_of(each.target) for each in ours if each.key != "many00"]
        print(len(ours), sum(each is not None for each in told))
        print([name for name in sys.modules if name.startswith(("many_", "bad_"))])
        """,
    )
    assert printed.split("\n")[:2] == ["100 91", "[]"]


def test_the_command_shows_them_without_an_import(site: Path, tmp_path: Path) -> None:
    """A list, a search and one plugin's operations: the broken ones are as good as the others."""
    listed = json.loads(automate(site, tmp_path, "plugins", "ls", "--json"))
    ours = {each["key"]: each for each in listed if each["key"].startswith(("many", "bad"))}
    # A kernel calls its hooks, so it has tried that one.
    assert {key for key, each in ours.items() if each["state"] != "DISCOVERED"} == {"bad_hook"}
    assert ours["many07"]["description"] == "One of many."
    found = json.loads(automate(site, tmp_path, "plugins", "ls", "--search", "which one", "--json"))
    # Other plugins, which may be installed too, have these words somewhere as well.
    assert len([each for each in found if each["source"].startswith("many_")]) == WELL - 1
    assert "action  which()" in automate(site, tmp_path, "plugins", "show", "many07")


def test_one_broken_of_each_kind_leaves_the_others_working(site: Path) -> None:
    """All are called, in the kernel that has the eight others, and none of those is usable."""
    printed = run(
        site,
        """
        from automate_kernel import Kernel

        with Kernel() as kernel:
            called = [kernel.invoke(f"many{number:02}.which") for number in range(92)]
            assert called == [{"key": f"many{number:02}"} for number in range(92)]
            kernel.plugins.registry("command").load_all()  # as the command line does
            records = kernel.plugins.load_all()
            bad = [each for each in records if each.key.startswith("bad")]
            print(sorted(f"{each.kind} {each.state.value}" for each in bad if each.remedy))
        """,
    )
    wanted = sorted(f"{kind} BROKEN" for kind in BROKEN)
    assert printed.strip().splitlines()[-1] == str(wanted)


def test_doctor_names_each_broken_one_with_its_remedy(site: Path, tmp_path: Path) -> None:
    """Eight failures and a manifest that can't be read, and no word of the others."""
    report = json.loads(automate(site, tmp_path, "doctor", "--json", code=1))
    found = [each for each in report["findings"] if each["check"] == "plugins"]
    failed = {each["text"].split()[1]: each for each in found if each["state"] == "fail"}
    assert set(failed) == {f"bad_{kind}" for kind in BROKEN}
    for kind, (_, _, remedy) in BROKEN.items():
        finding = failed[f"bad_{kind}"]
        assert remedy in finding["remedy"]
        assert f"disabled=['{kind}:bad_{kind}']" in finding["remedy"]
    (odd,) = [each for each in found if each["state"] == "warn"]
    assert "many_00/automate.json can't be read" in odd["text"]
    assert odd["remedy"].startswith("reinstall its distribution")
    assert len(found) == len(BROKEN) + 1
