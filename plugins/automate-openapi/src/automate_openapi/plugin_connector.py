"""The files of a plugin that is written from a document: connector, tests, README, example."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from automate_openapi.plugin_actions import WrittenAction
from automate_openapi.plugin_credentials import ConfigField, Credential
from automate_openapi.python_source import Bracket, docstring, line, literal, names_in, noted
from automate_openapi.samples import sample_of
from automate_testing.authoring.scaffold import Scaffold

_SAFE_PATH = re.compile(r"/[\w/{}.:~@-]*", re.ASCII)
_CONFIG = "config: dict[str, Any] | None = None"
_ADDRESS = "https://api.example.com"
_BOUNDS = '''\
    allow_private_networks: PrivateNetworks = False
    allow_plain_http: PlainHttp = False
    ca_file: CaFile = None
    timeout_seconds: float = Field(default=30.0, gt=0, le=3_600)
    """The most seconds of a request."""
    max_response_bytes: AnswerBytes = 5 * 1024 * 1024'''
_PARTS: Mapping[str, str] = {
    "_once": '''\
    async def _once(self, request: Awaitable[T]{keyed}) -> T:
        """Await what must not be done twice: if it may have been done, nobody repeats it."""
        try:
            return await request
        except AutomateError as error:
            {condition}forbid_repeat(error, "it is unknown whether it was done: look there")
            raise''',
    "_given": '''\
def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that were given."""
    return {name: value for name, value in values.items() if value is not None}''',
    "_texts": '''\
def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that were given, as text."""
    given = _given(values).items()
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given
    }''',
    "_sent": '''\
def _sent(given: BaseModel, *left_out: str, **more: Any) -> dict[str, Any]:
    """Return the fields for the body that were given, by the service's names."""
    fields = given.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={*left_out})
    return {**fields, **{name: value for name, value in more.items() if value is not None}}''',
    "_sent_if_any": '''\
def _sent_if_any(given: BaseModel, *left_out: str, **more: Any) -> dict[str, Any] | None:
    """Return the same, or None where the body may be left out, and is."""
    return _sent(given, *left_out, **more) or None''',
    "_joined": '''\
def _joined(values: Iterable[Any] | None, joint: str = ",") -> str | None:
    """Return a list as the service takes it."""
    return None if values is None else joint.join(map(str, values))''',
    "_json": '''\
def _json(value: Any) -> str | None:
    """Return a value as JSON."""
    return None if value is None else json.dumps(to_jsonable_python(value, by_alias=True))''',
    "_deep": '''\
def _deep(name: str, value: Any) -> dict[str, Any]:
    """Return the fields of an object, each as a parameter of its own."""
    given = to_jsonable_python(value, by_alias=True, exclude_none=True) or {}
    return {f"{name}[{field}]": each for field, each in given.items()}''',
}
_NEEDS = {"_texts": {"_given"}, "_sent_if_any": {"_sent"}}


@dataclass
class PluginFiles:
    """The texts of a plugin's own files."""

    names: Scaffold
    title: str
    service: str
    """The document's title, in one line."""
    address: str
    """The service's address; empty if it has to be given."""
    actions: Sequence[WrittenAction]
    credentials: Sequence[Credential]
    methods: Sequence[str]
    uses: frozenset[str]
    unchecked: frozenset[str]
    left_out: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for each in tuple(self.uses):
            self.uses |= _NEEDS.get(each, set())
        self._samples = dict(self._sampled())
        if not self.credentials:
            self.notes.append("it sends no credentials: give its client an auth, if it needs any")
        if not self._samples:
            self.notes.append("no input could be made up: write example.yaml, and a hostile test")

    def written(self, models: str) -> dict[str, str]:
        """Return the texts, by their paths."""
        package, key = self.names.package, self.names.name
        return {
            f"src/{package}/models.py": noted(models),
            f"src/{package}/config.py": noted(self._config()),
            f"src/{package}/connector.py": noted(self._connector()),
            f"tests/test_{key}_connector.py": noted(self._tests()),
        }

    def parts(self) -> dict[str, str]:
        """Return the parts of the files that all plugins have."""
        return {
            "README.md": self._readme(),
            "example.yaml": self._example(),
            "extra": "[oauth]" if any(each.oauth for each in self.credentials) else "",
        }

    # -- the config --------------------------------------------------------------------------

    @property
    def _fields(self) -> list[ConfigField]:
        about = "The address of the service."
        default = literal(self.address) if self.address else None
        address = ConfigField("base_url", "BaseUrl", about, default, example=_ADDRESS)
        return [*(own for each in self.credentials for own in each.fields), address]

    @property
    def _needed(self) -> dict[str, Any]:
        return {each.name: each.example for each in self._fields if each.default is None}

    def _config(self) -> str:
        options: list[str | Bracket] = ['extra="forbid"', "use_attribute_docstrings=True"]
        if self._needed:
            options.append(
                Bracket("json_schema_extra={", _entries({"examples": [self._needed]}), "}")
            )
        lines = [Bracket("model_config = ConfigDict(", options).written("    "), ""]
        for each in self._fields:
            lines += [each.source(), *docstring(each.about, "    ")]
        fields = "AnswerBytes, BaseUrl, CaFile, PlainHttp, PrivateNetworks"
        keys = any(each.type == "SecretKey" for each in self._fields)
        secret = "from automate_kernel.secrets.keys import SecretKey\n" if keys else ""
        return "\n".join(
            [
                '"""The config: the address, credentials and bounds."""',
                "",
                f"from automate_http.fields import {fields}",
                f"{secret}from pydantic import BaseModel, ConfigDict, Field",
                "",
                "",
                f"class {self._class}Config(BaseModel):",
                f'    """{self.title}\'s address, the credentials, and the bounds of requests."""',
                "",
                *lines,
                _BOUNDS,
                "",
            ]
        )

    @property
    def _class(self) -> str:
        return self.names.filled("Acme")

    # -- the connector -----------------------------------------------------------------------

    def _connector(self) -> str:
        methods = [self._init(), self._config_schema(), *self._auth(), self._check(), _CLOSE]
        methods += self.methods
        keyed = any(each.key for each in self.actions)
        if "_once" in self.uses:
            text = _PARTS["_once"]
            condition = 'if not keyed or call_key("POST") is None:\n                ' * keyed
            text = text.replace("{keyed}", ", *, keyed: bool = False" * keyed)
            methods.append(text.replace("{condition}", condition))
        helpers = [text for name, text in _PARTS.items() if name in self.uses and name != "_once"]
        body = "\n\n".join(methods)
        count = len(self.actions)
        about = f"{count} action{'s' * (count != 1)} of {self.title}."
        text = "\n".join(
            [
                f"class {self._class}Connector(Connector):",
                f'    """{about}"""',
                "",
                f"    key = {literal(self.names.name)}",
                f"    display_name = {literal(self.title)}",
                "",
                body,
                *(f"\n\n{each}" for each in helpers),
                "",
            ]
        )
        head = docstring(f"The connector: actions of {self.service}.", "")
        return "\n".join([*head, "", *self._imports(text), "", "", text])

    def _imports(self, text: str) -> Iterator[str]:
        read = names_in(text)

        def used(module: str, *names: str) -> list[str]:
            found = [name for name in names if name in read]
            return [Bracket(f"from {module} import ", found, "").written()] if found else []

        standard = ["import json"] if "_json" in self.uses else []
        standard += used("base64", "b64encode")
        standard += used("collections.abc", "Awaitable", "Iterable", "Mapping")
        standard.append(f"from typing import Any{', TypeVar' * ('_once' in self.uses)}")
        yield from standard
        yield ""
        found = used(
            "automate_http", "AllOf", "Auth", "BasicAuth", "BearerAuth", "CookieAuth", "Cursor",
            "HeaderAuth", "NextLink", "OAuth2", "Offset", "PageNumber", "QueryAuth",
            "ServiceClient",
        )  # fmt: skip
        found += used("automate_http.failures", "forbid_repeat")
        found += used("automate_http.headers", "call_key")
        found += used("automate_kernel", "AutomateError", "Connector", "action")
        found += used("automate_kernel.operations.account", "Account")
        found += used("automate_kernel.plugins.connectors", "ConnectorContext")
        found += used("pydantic", "BaseModel")
        found += used("pydantic_core", "to_jsonable_python")
        yield from found
        yield ""
        if "models" in read:
            yield f"from {self.names.package} import models"
        yield f"from {self.names.package}.config import {self._class}Config"
        if "_once" in self.uses:
            yield '\nT = TypeVar("T")'

    def _init(self) -> str:
        options = ["self.settings.base_url", "ctx=self.ctx"]
        options += ["auth=self.auth"] if self.credentials else []
        names = ("timeout_seconds", "max_response_bytes", "allow_private_networks",
                 "allow_plain_http", "ca_file")  # fmt: skip
        options += [f"{each}=self.settings.{each}" for each in names]
        key = next((each.key for each in self.actions if each.key), None)
        options += [f"idempotency_header={literal(key)}"] if key else []
        return "\n".join(
            [
                "    def __init__(",
                f"        self, {_CONFIG}, *, ctx: ConnectorContext | None = None",
                "    ) -> None:",
                '        """Make the client; its requests open the connections."""',
                "        super().__init__(config, ctx=ctx)",
                f"        self.settings: {self._class}Config = self.parse_config(config)",
                *(["        self.auth = self.make_auth()"] if self.credentials else []),
                Bracket("self.client = ServiceClient(", options).written("        "),
            ]
        )

    def _config_schema(self) -> str:
        return "\n".join(
            [
                "    @classmethod",
                f"    def config_schema(cls) -> type[{self._class}Config]:",
                '        """Return the model of the config."""',
                f"        return {self._class}Config",
            ]
        )

    def _auth(self) -> Iterator[str]:
        if not self.credentials:
            return
        calls = [each.call for each in self.credentials]
        call = calls[0] if len(calls) == 1 else Bracket("AllOf(", [Bracket("[", calls, "]")])
        yield "\n".join(
            [
                "    def make_auth(self) -> Auth:",
                '        """Return the credentials of the requests, by the keys of secrets."""',
                Bracket(f"return {call.head}", call.parts, call.tail).written("        "),
            ]
        )
        if any(each.person for each in self.credentials):
            yield _OAUTH

    def _check(self) -> str:
        for each in self.actions:
            place, given = each.action.place, each.action.spec.input_schema
            free = place.method == "get" and isinstance(given, Mapping)
            if free and not given.get("required") and _is_plain(place.path):  # type: ignore[union-attr]
                request = Bracket("await self.client.asend(", ['"GET"', literal(place.path)])
                return "\n".join(
                    [
                        "    async def check(self) -> str:",
                        f'        """Ask for what `{each.name}` asks for."""',
                        request.written("        "),
                        '        return "the service answers, and takes the credentials"'
                        if self.credentials
                        else '        return "the service answers"',
                    ]
                )
        return _CHECK

    # -- tests, README, example --------------------------------------------------------------

    def _sampled(self) -> Iterator[tuple[str, tuple[WrittenAction, dict[str, Any], Any, bool]]]:
        """Yield actions with an input, an answer, and whether that is typed; the best first."""
        found = []
        for each in self.actions:
            if not _is_plain(each.action.place.path):
                continue
            try:
                schema: Any = each.spec.input_schema
                given = sample_of(schema)
            except LookupError:
                continue
            given |= {"max_items": 1} if each.paging is not None else {}
            output: Any = each.spec.output_schema
            answer: Any = None
            if each.answer == "json" and isinstance(output, Mapping):
                try:
                    answer = sample_of(output, each.paging.items if each.paging is not None else "")
                except LookupError:
                    continue
            # A value that may be anything tells no wrong answer from a right answer.
            item = answer[0] if isinstance(answer, list) and answer else answer
            typed = isinstance(item, dict) and each.name not in self.unchecked
            found.append((each.name, (each, given, answer, typed)))
        found.sort(key=lambda each: (
            each[1][0].guarded, not each[1][3], not each[1][0].spec.read_only,
            len(json.dumps(each[1][1:3])),
        ))  # fmt: skip
        yield from found

    def _tests(self) -> str:
        best = next(iter(self._samples.values()), None)
        needed = [_assigned("config", self._needed)] if self._needed else []
        lines = [
            '"""The kernel\'s contracts, and the service when it misbehaves."""',
            "",
            "from typing import Any, ClassVar",
            "",
        ]
        guarded = best is not None and best[0].guarded
        oauth = best is not None and any(each.oauth for each in self.credentials)
        lines = lines[:2] + ["from collections.abc import Awaitable"] * guarded + lines[2:]
        lines += ["from automate_http import Auth, BearerAuth"] if oauth else []
        contracts = "ConnectorContract, HostileAnswersContract" if best else "ConnectorContract"
        lines += [
            f"from automate_testing import {contracts}",
            "",
            f"from {self.names.package}.connector import {self._class}Connector",
            "",
            "",
            f"class Test{self._class}Connector(ConnectorContract):",
            f"    plugin_class = {self._class}Connector",
            *needed,
        ]
        if best is not None:
            lines += self._hostile(*best, oauth=oauth, guarded=guarded)
        text = "\n".join([*lines, ""])
        return (
            text
            if "ClassVar" in text.replace("import Any, ClassVar", "")
            else text.replace("from typing import Any, ClassVar\n\n", "")
        )

    def _hostile(
        self,
        action: WrittenAction,
        given: dict[str, Any],
        answer: Any,
        typed: bool,
        *,
        oauth: bool,
        guarded: bool,
    ) -> Iterator[str]:
        plugin = f"{self._class}Connector"
        if oauth or guarded:
            plugin = "Double"
            yield from ["", "", f"class Double({self._class}Connector):"]
        if oauth:
            yield from ["    def make_auth(self) -> Auth:", '        return BearerAuth("TOKEN")']
        if guarded:
            keyed = ", *, keyed: bool = False" if any(each.key for each in self.actions) else ""
            yield from [
                *([""] if oauth else []),
                "    # Errors are final where it may have been done: here the client's count.",
                f"    async def _once(self, request: Awaitable[Any]{keyed}) -> Any:",
                "        return await request",
            ]
        yield from ["", "", "class TestAgainstHostileAnswers(HostileAnswersContract):"]
        yield f"    plugin, operation = {plugin}, {literal(action.name)}"
        yield _assigned("example_input", given)
        if answer is not None:
            yield _assigned("answer", answer)
        if not typed:
            yield "    reads_json = False"
        here: dict[str, Any] = {"allow_private_networks": ["127.0.0.1"], **self._needed}
        here.pop("base_url", None)
        entries = ['"base_url": url', *_entries(here), '"timeout_seconds": self.timeout_seconds']
        yield from ["", "    def config(self, url: str) -> dict[str, Any]:"]
        yield Bracket("return {", entries, "}").written("        ")

    def _readme(self) -> str:
        key = self.names.name
        rows = [f"| `{key}.{each.name}` | {_markdown(each.title)} |" for each in self.actions]
        fields = [
            f"| `{each.name}` | {'required' if each.default is None else _default(each)} | "
            f"{each.about} |"
            for each in self._fields
        ]
        lines = [
            f"## The connector `{key}`", "",
            f"Written from the OpenAPI document of {_markdown(self.service)}.", "",
            "| Action | |", "|---|---|", *rows, "",
            "| Config | Default | |", "|---|---|---|", *fields,
            "| `timeout_seconds` | 30 | The most seconds of a request. |", "",
            *_FAILURES, "",
        ]  # fmt: skip
        paged = [f"`{each.name}`" for each in self.actions if each.paging is not None]
        if paged:
            lines += [f"Lists of all pages, up to `max_items`: {', '.join(paged)}.", ""]
        if any(each.person for each in self.credentials):
            lines += [f"A person connects the account: `automate connect {key}`.", ""]
        if self.left_out:
            lines += ["Not written, to be added by hand:", ""]
            lines += [f"- {_markdown(each)}" for each in self.left_out] + [""]
        return "\n".join(lines)

    def _example(self) -> str:
        key = self.names.name
        head = f"name: {key.replace('_', '-')}-example\ntrigger: {{type: manual}}\nsteps:\n"
        for name, (_, given, *_) in self._samples.items():
            text = json.dumps(given)
            if "{{" not in text and "{%" not in text and "{#" not in text and "$" not in text:
                step = f"  - id: call\n    action: {key}.{name}\n    input: {text}\n"
                return head + step
        return f"{head}  - {{id: pause, sleep: 1s}}  # a call of {key}, please\n"


_FAILURES = (
    "Failures have their codes, with the service's own words; `Retry-After` is obeyed. A call that",
    "may have been done is not repeated, unless the service can tell by a key.",
)
_OAUTH = '''\
    def oauth(self) -> Account | None:
        """Return the account, which ``automate connect`` connects."""
        return self.auth if isinstance(self.auth, OAuth2) else None'''
_CLOSE = '''\
    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        self.client.close()'''
_CHECK = '''\
    async def check(self) -> str:
        """Reach the service, with any answer: no action can be called without input."""
        try:
            await self.client.asend("HEAD", "/")
        except AutomateError as error:
            if "status" not in error.details:
                raise
        return "the service answers; nothing says whether the credentials are good"'''


def _is_plain(path: str) -> bool:
    """Return True for a path that tests and workflows may name: it leads nowhere else."""
    return bool(_SAFE_PATH.fullmatch(path)) and "//" not in path and ".." not in path


def _python(value: Any, before: str = "") -> str | Bracket:
    """Return a JSON value as a literal of Python, with what stands *before* it."""
    if isinstance(value, dict):
        return Bracket(f"{before}{{", _entries(value), "}")
    if isinstance(value, list):
        return Bracket(f"{before}[", list(map(_python, value)), "]")
    return f"{before}{literal(value)}"


def _entries(value: Mapping[str, Any]) -> list[str | Bracket]:
    return [_python(each, f"{literal(name)}: ") for name, each in value.items()]


def _assigned(name: str, value: Any) -> str:
    found = _python(value, f"{name}: ClassVar[Any] = ")
    return found.written("    ") if isinstance(found, Bracket) else f"    {found}"


def _default(field: ConfigField) -> str:
    return f"`{field.secret or _markdown(str(field.default).strip(chr(34)))}`"


def _markdown(text: str) -> str:
    """Return *text* in one line, with no sign that means something in Markdown."""
    plain = line(text, 300).replace("`", "'").replace("{{", "{ {")
    return re.sub(r"([\[\]<>|*_#!&~])", r"\\\1", plain)
