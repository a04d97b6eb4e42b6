"""The check of a plugin: its faults, each with its remedy, and the level that follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.monitoring.diagnosis import connection_answer
from automate_kernel.operations.plugin import Plugin, create
from automate_kernel.operations.schemas.checks import compile_schema
from automate_kernel.operations.schemas.example import example_of
from automate_kernel.operations.schemas.fields import field_description
from automate_kernel.plugins.kinds import KINDS
from automate_kernel.plugins.targets import describe_failure, load_target, remedy_for
from automate_testing.authoring.contracts import ContractRun, quietly
from automate_testing.authoring.description import describe
from automate_testing.authoring.example import has_own_operations
from automate_testing.authoring.levels import REQUIREMENTS, PluginLevel, reached
from automate_testing.authoring.packaging import PACKAGING
from automate_testing.authoring.project import PluginProject

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.plugins.discovery import Found

Fault = tuple[str, str]
"""A problem and its remedy."""

_NOT_IMPORTED = ("the plugin is not imported", "mend that first")
_SECRETIVE = ("token", "password", "passwd", "secret", "api_key", "apikey", "private_key")


@dataclass(frozen=True, slots=True)
class CheckProblem:
    """A requirement that is not met."""

    requirement: str
    level: PluginLevel
    text: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "requirement": self.requirement,
            "level": self.level.word,
            "problem": self.text,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class CheckReport:
    """
    The result of a check. *notes* are what was found beside the problems.

    *unseen* are the parts that nothing looked at, each with the way to have it looked at.
    """

    name: str
    version: str
    plugins: list[str]
    problems: list[CheckProblem]
    unseen: list[CheckProblem]
    notes: list[str]

    @property
    def level(self) -> PluginLevel:
        """The level, computed from the problems."""
        return reached(each.requirement for each in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "distribution": self.name,
            "version": self.version,
            "plugins": self.plugins,
            "level": self.level.word,
            "problems": [each.to_json() for each in self.problems],
            "not_looked_at": [each.to_json() for each in self.unseen],
            "notes": self.notes,
        }


@dataclass
class PluginCheck:
    """
    A check of the plugins of *project* against `REQUIREMENTS`.

    *config* is the application's, by key. With *test_connection* each plugin's `check` is called.
    *show* is called with the test that runs now, a few times a second.
    """

    project: PluginProject
    kernel: Kernel
    config: Mapping[str, Any] = field(default_factory=dict)
    test_connection: bool = False
    show: Callable[[str], None] = quietly
    notes: list[str] = field(default_factory=list)
    failures: dict[Found, BaseException] = field(default_factory=dict)

    def report(self) -> CheckReport:
        """Look at everything, and return what was found."""
        problems: list[CheckProblem] = []
        unseen: list[CheckProblem] = []
        is_imported = True
        for name, requirement in REQUIREMENTS.items():
            faults = self._faults(name) if is_imported else []
            problems += [CheckProblem(name, requirement.level, *each) for each in faults]
            # The rest would be consequences.
            gaps = list(self._gaps(name)) if is_imported else [_NOT_IMPORTED]
            unseen += [CheckProblem(name, requirement.level, *each) for each in gaps]
            is_imported = is_imported and not (name == "imported" and problems)
        plugins = [f"{each.kind} {each.key}" for each in self.project.found]
        return CheckReport(
            self.project.name, self.project.version, plugins, problems, unseen, self.notes
        )

    @cached_property
    def loaded(self) -> dict[Found, Any]:
        """The plugins that can be imported."""
        loaded = {}
        for found in self.project.found:
            try:
                plugin = load_target(found.target)
                KINDS[found.kind].require_fit(plugin, found.target)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too: a plugin must not end its host
                self.failures[found] = error
            else:
                loaded[found] = plugin
        return loaded

    @cached_property
    def descriptions(self) -> dict[Found, dict[str, Any]]:
        """The descriptions of those that can be described."""
        made = {}
        for found, plugin in self.loaded.items():
            try:
                made[found] = describe(KINDS[found.kind], found.key, found.target, plugin)
            except Exception as error:
                self.failures[found] = error
        return made

    @cached_property
    def contract_run(self) -> ContractRun:
        """The run of the contract suites."""
        configs = {
            found.target: self.config_of(found, plugin)
            for found, plugin in self.callable_plugins
            # A config that is made up names a server or a document that isn't there.
            if found.key in self.config or not has_own_operations(plugin)
        }
        return ContractRun.of(self.project, configs, self.show)

    @property
    def callable_plugins(self) -> Iterator[tuple[Found, type[Plugin]]]:
        """The connectors and providers."""
        for found, plugin in self.loaded.items():
            if isinstance(plugin, type) and issubclass(plugin, Plugin):
                yield found, plugin

    def config_of(self, found: Found, plugin: type[Plugin]) -> Mapping[str, Any]:
        """
        Return the application's config of a plugin, or else one that it would take.

        That is none at all, the model's own example, or one made up from its fields.
        """
        if found.key in self.config:
            return dict(self.config[found.key])
        try:
            plugin.parse_config({})
        except ConfigError:
            made_up: Mapping[str, Any] = example_of(plugin.config_json_schema(), "config")
            return made_up
        except Exception:  # noqa: S110  (`made` says what is wrong)
            pass
        return {}

    def _faults(self, requirement: str) -> list[Fault]:
        look = _OWN.get(requirement)
        try:
            return list(look(self) if look is not None else self._packaging(requirement))
        except AutomateError:
            raise
        except Exception as error:  # of the plugin's own code, which is asked for what it has
            text = f"it can't be looked at: {describe_failure(error)[0]}"
            return [(text, "correct the plugin's code that raises it")]

    def _gaps(self, requirement: str) -> Iterator[Fault]:
        """Yield the parts of a requirement that nothing looks at, each with the remedy."""
        if requirement == "connection" and not self.test_connection:
            if any(plugin.check is not Plugin.check for _, plugin in self.callable_plugins):
                yield "no service is asked", "add --test-connection"
        elif requirement == "contract":
            operations = {
                each.target: [one["name"] for one in about.get("operations", ())]
                for each, about in self.descriptions.items()
            }
            yield from self.contract_run.contract_gaps(operations)
        elif requirement == "tests" and self.project.folder is None:
            yield "an installed plugin comes without its tests", self.project.folder_hint

    def _packaging(self, name: str) -> Iterator[Fault]:
        yield from PACKAGING[name](self.project, list(self.descriptions.values()))


def _installed(check: PluginCheck) -> Iterator[Fault]:
    if problem := check.project.difference():
        yield problem, check.project.install_hint
    elif not check.project.found:
        yield (
            f"{check.project.name} announces no plugin",
            "add an entry point to pyproject.toml, and install it again",
        )


def _imported(check: PluginCheck) -> Iterator[Fault]:
    loaded = check.loaded
    for found, error in check.failures.items():
        origin = f"{found.distribution} {found.version}"
        remedy = remedy_for(
            error, kind=found.kind, key=found.key, origin=origin, target=found.target
        )
        text, _ = describe_failure(error)
        yield f"{found.kind} {found.key}: {text}", remedy
    for found in loaded:
        for record in check.kernel.plugins.records(found.kind):
            if record.key == found.key and record.target == found.target and not record.usable:
                text = record.error or f"{record.replaced_by} has its key"
                yield f"{found.kind} {found.key}: {text}", record.remedy or "choose another key"


def _key(check: PluginCheck) -> Iterator[Fault]:
    for found, plugin in check.callable_plugins:
        if plugin.key != found.key:
            yield (
                f"{found.kind} {found.key} calls itself {plugin.key!r}",
                f'write key = "{found.key}" in the class, or rename the entry point',
            )
        if not plugin.display_name.strip():
            yield f"{found.kind} {found.key} has no name for people", "set display_name"


def _specs(check: PluginCheck) -> Iterator[Fault]:
    described = check.descriptions
    for found, error in check.failures.items():
        text, _ = describe_failure(error)
        yield f"{found.kind} {found.key} can't be described: {text}", "correct its specs"
    for found, about in described.items():
        for what in ("operations", "triggers", "polls"):
            names = Counter(each["name"] for each in about.get(what, ()))
            for name in (name for name, count in names.items() if count > 1):
                yield f"{found.key} has {name!r} twice in its {what}", "rename one of them"
        for place, schema in _schemas(about):
            try:
                compile_schema(schema, f"{found.key}.{place}")
            except AutomateError as error:
                yield error.message, error.hint or "correct the schema"


def _schemas(about: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "config", about.get("config") or {}
    for operation in about.get("operations", ()):
        yield f"{operation['name']}.input", operation["input"]
        yield f"{operation['name']}.output", operation["output"] or {}
    for trigger in (*about.get("triggers", ()), *about.get("polls", ())):
        yield f"{trigger['name']}.payload", trigger["payload"] or {}


def _made(check: PluginCheck) -> Iterator[Fault]:
    for found, plugin in check.callable_plugins:
        config = check.config_of(found, plugin)
        try:
            if found.key in check.config:
                check.kernel.operations.instance(found.kind, found.key)
            else:
                create(plugin, config, plugin.context_class(key=found.key))
        except Exception as error:
            problem = check.kernel.operations.clean_error(error, f"{found.kind} {found.key!r}")
            remedy = problem.hint or f"give its config: [config.{found.key}] in automate.toml"
            yield problem.message, remedy


def _connection(check: PluginCheck) -> Iterator[Fault]:
    if not check.test_connection:
        return
    for found, plugin in check.callable_plugins:
        if plugin.check is Plugin.check:
            continue  # said by `probe`
        try:
            answer = connection_answer(check.kernel, found.kind, found.key)
        except AutomateError as problem:
            yield (
                f"{found.key}: {problem.code}: {problem.message}",
                problem.hint or f"correct [config.{found.key}] in automate.toml, or its secrets",
            )
        else:
            check.notes.append(f"{found.key}: {answer}")


def _contract(check: PluginCheck) -> Iterator[Fault]:
    yield from check.contract_run.contract_faults()


def _tests(check: PluginCheck) -> Iterator[Fault]:
    yield from check.contract_run.test_faults()
    check.notes.extend(check.contract_run.notes())


def _inputs(check: PluginCheck) -> Iterator[Fault]:
    for found, about in check.descriptions.items():
        for operation in about.get("operations", ()):
            for name, one in operation["input"].get("properties", {}).items():
                if not field_description(one):
                    yield (
                        f"{found.key}.{operation['name']}: the field {name!r} has no description",
                        f'write {name}: Annotated[…, Field(description="…")]',
                    )


def _outputs(check: PluginCheck) -> Iterator[Fault]:
    for found, about in check.descriptions.items():
        for operation in about.get("operations", ()):
            if operation["output"] is None:
                yield (
                    f"{found.key}.{operation['name']} has no output schema",
                    "return a pydantic model, and say so in the annotation",
                )


def _webhooks(check: PluginCheck) -> Iterator[Fault]:
    for found, plugin in check.callable_plugins:
        for spec in getattr(plugin, "triggers", list)():
            place = f"webhook {found.key}.{spec.name}"
            if spec.signature is None:
                yield f"{place} has no signature scheme", "give its TriggerSpec a signature"
            if spec.payload_schema is None:
                yield f"{place} has no payload schema", "give its TriggerSpec a payload_schema"


def _secrets(check: PluginCheck) -> Iterator[Fault]:
    for found, about in check.descriptions.items():
        config = about.get("config") or {}
        for name, one in config.get("properties", {}).items():
            called = name.lower().removesuffix("s")
            if called.endswith(_SECRETIVE) and not _hides(one):
                yield (
                    f"config.{found.key}.{name} looks like a secret, and pages would show it",
                    f"write {name}: SecretStr (its .get_secret_value() is the text), or SecretKey",
                )


def _hides(schema: Mapping[str, Any]) -> bool:
    if schema.get("format") in {"password", "secret-key"}:
        return True
    inner = [*schema.get("anyOf", ())]
    if "items" in schema:
        inner.append(schema["items"])
    return any(map(_hides, inner))


def _probe(check: PluginCheck) -> Iterator[Fault]:
    for found, plugin in check.callable_plugins:
        if plugin.check is Plugin.check:
            yield (
                f"{found.kind} {found.key} can't say whether its service can be reached",
                "override check(): ask the service for no more than the operations need",
            )


_OWN: dict[str, Callable[[PluginCheck], Iterator[Fault]]] = {
    "installed": _installed,
    "imported": _imported,
    "key": _key,
    "specs": _specs,
    "made": _made,
    "connection": _connection,
    "contract": _contract,
    "tests": _tests,
    "inputs": _inputs,
    "outputs": _outputs,
    "webhooks": _webhooks,
    "secrets": _secrets,
    "probe": _probe,
}
