"""A plugin that is written from an OpenAPI document: ``automate plugins new --from-openapi``."""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from automate_kernel.base.errors import AutomateError, ConfigError
from automate_kernel.operations.portal import Portal
from automate_openapi.actions import Actions
from automate_openapi.config import OpenApiConfig
from automate_openapi.document import (
    METHODS,
    ApiDocument,
    BrokenReferenceError,
    is_url,
    mapping,
    shown,
)
from automate_openapi.names import OperationPlace, places
from automate_openapi.plugin_actions import (
    ActionSource,
    CannotWriteError,
    WrittenAction,
    method_names,
    prepared,
)
from automate_openapi.plugin_connector import PluginFiles
from automate_openapi.plugin_credentials import Schemes, is_safe_url
from automate_openapi.plugin_models import PluginModels
from automate_openapi.python_source import line
from automate_openapi.servers import base_url
from automate_openapi.source import DocumentSource
from automate_testing.authoring.scaffold import Scaffold

_MOST_UNASKED, _SHOWN_TAGS, _SHOWN_LEFT_OUT = 60, 40, 100
_HALF = re.compile("[\ud800-\udfff]")
_logger = logging.getLogger("automate.openapi")


@dataclass(frozen=True)
class DocumentScaffold(Scaffold):
    """A new plugin whose connector is written from a document."""

    written: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The texts of its own files, by their paths."""
    parts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The parts of the files that all plugins have."""
    operations: tuple[str, ...] = ()
    """The names of its actions."""
    left_out: tuple[str, ...] = ()
    """The operations without an action, each with its place and the reason."""
    notes: tuple[str, ...] = ()
    """The things that its author should look at."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The things that its author should look at, and the operations without an action."""
        return (*self.notes, *(f"no action was written for {each}" for each in self.left_out))

    def files(self) -> dict[str, str]:
        """Return the text of every file, by its path in the distribution's folder."""
        found = {**Scaffold.files(self), **self.written}
        for old, new in (
            (_NEEDS, _NEEDS.replace("[", f'["automate-http{self.parts["extra"]}>=0.1,<2", ')),
            ('["D", "S"]', f'["D", "S"]\n"src/*" = ["S104", "S105", "S106", "S108"]{_WORDS}'),
        ):
            found["pyproject.toml"] = found["pyproject.toml"].replace(old, new, 1)
        return found

    def _parts(self, name: str) -> Iterator[str]:
        yield from [self.parts[name]] if name in self.parts else []

    def _example(self) -> str:
        return self.parts["example.yaml"]


_NEEDS = 'dependencies = ["automate-kernel'
_WORDS = "  # the service's own words"


def scaffold_of(
    name: str,
    source: str,
    *,
    operations: Sequence[str] = (),
    tags: Sequence[str] = (),
    show: Callable[[str], None] = lambda text: None,
) -> DocumentScaffold:
    """
    Return the plugin *name*, written from the document at *source*, a file or a URL.

    *operations* are patterns of the operations to have, as ``issues.*`` or ``GET /pets*``, *tags*
    those of the document. *show* is called with the work that is done now. Raises `AutomateError`.
    """
    named = Scaffold.named(name, ["connector"])
    show("reading the document")
    document = read_document(source)
    config = OpenApiConfig(document=source)
    actions = Actions(document, config, _logger)
    chosen = choose(document, places(document, config), operations, tags)
    written, left_out = _written(document, actions, chosen, config, show)
    show("writing the plugin")
    address, notes = _address(document, config, written)
    schemes = Schemes(document, named.name)
    credentials = schemes.chosen([each.action.place for each in written], address)
    title = named.filled("Acme Inc")
    specs = [each.spec for each in written]
    asked = {name for each in specs for name in mapping(mapping(each.input_schema).get("$defs"))}
    given = {name for each in specs for name in mapping(mapping(each.output_schema).get("$defs"))}
    # In two passes: the first finds the names that several types would have.
    claims = None
    for _ in range(2):
        models = PluginModels(specs, asked & given, claims)
        code = ActionSource(models, title)
        methods = [code.method(each) for each in written]
        claims = models.claims
    files = PluginFiles(
        named, title, line(document.title), address, written, credentials, methods,
        frozenset(code.uses), frozenset(code.unchecked), tuple(left_out[:_SHOWN_LEFT_OUT]),
    )  # fmt: skip
    return DocumentScaffold(
        named.name, named.kinds, files.written(models.source()), files.parts(),
        tuple(each.name for each in written), tuple(left_out),
        (*notes, *schemes.notes, *files.notes),
    )  # fmt: skip


def read_document(source: str) -> ApiDocument:
    """Return the document at *source*, a file or a URL, within the bounds of the connector's."""
    if not is_url(source) and not Path(source).is_file():
        raise ConfigError(f"there is no file {source!r}", hint="give a file, or a URL with https:")
    portal = Portal()
    try:
        reader = DocumentSource(OpenApiConfig(document=source, external_refs=True), _logger)

        async def read() -> ApiDocument:
            try:
                return await reader.document()
            finally:
                await reader.aclose()

        document = portal.run(read())
    except AutomateError as error:
        if is_url(source):
            error.hint = error.hint or "download it, and give the file"
        raise
    finally:
        portal.close()
    _check(document)
    return document


def _check(document: ApiDocument) -> None:
    """Raise `ConfigError` for a document whose frame is broken, with the place."""
    for pointer, value, wanted in _frame(document.content):
        if not isinstance(value, dict):
            raise ConfigError(
                f"the document {shown(document.place)} is wrong at {line('#' + pointer, 200)}: "
                f"{wanted}",
                hint="correct the document, or ask its author to",
            )


def _frame(content: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield the pointers of what must be an object, its value, and the words if it isn't."""
    for pointer in _broken_texts(content):
        yield pointer, None, "a text has half a surrogate pair, which is no character"
    for name in ("info", "components"):
        if name in content:
            yield f"/{name}", content[name], "it is no object"
    paths = content.get("paths")
    yield "/paths", paths, "it is no object" if "paths" in content else "it is missing"
    for path, item in mapping(paths).items():
        if path.startswith("/"):
            place = f"/paths/{_escaped(path)}"
            yield place, item, "it is no object"
            for method in METHODS:
                if method in mapping(item):
                    yield f"{place}/{method}", item[method], "it is no object"


def _broken_texts(content: Any) -> Iterator[str]:
    """Yield the pointers of texts that can't be written, and of names that can't."""
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        pointer, node = waiting.pop()
        if isinstance(node, str):
            if not node.isascii() and _HALF.search(node):
                yield pointer
        elif isinstance(node, (dict, list)):
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            for key, each in pairs:
                place = f"{pointer}/{_escaped(str(key))}"
                waiting += [(place, each), (place, str(key))]


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def choose(
    document: ApiDocument,
    known: Mapping[str, OperationPlace],
    operations: Sequence[str],
    tags: Sequence[str],
) -> list[str]:
    """
    Return the names of the wanted operations.

    Raises `ConfigError` for a pattern or a tag that no operation has, and for a document with many
    operations of which none are chosen.
    """
    if not known:
        raise ConfigError(
            f"the document {shown(document.place)} has no operations",
            hint="see its field 'paths': a path begins with a slash, and has get or post",
        )
    counts = Counter(tag for place in known.values() for tag in _tags(place))
    for tag in tags:
        if tag not in counts:
            raise ConfigError(f"no operation has the tag {tag!r}", hint=_tags_hint(counts))
    for pattern in operations:
        if not any(_is_of(pattern, name, place) for name, place in known.items()):
            close = difflib.get_close_matches(pattern, known, 3, 0.5)
            hint = f"did you mean {', '.join(close)}?" if close else _tags_hint(counts)
            raise ConfigError(f"no operation is called {pattern!r}", hint=hint)
    if not operations and not tags and len(known) > _MOST_UNASKED:
        raise ConfigError(
            f"the document has {len(known):,} operations, too many for a plugin that people read:"
            " choose some of them with --operation or --tag",
            hint=f"--operation '{next(iter(known))}', --operation 'GET /*'; {_tags_hint(counts)}",
        )
    return [
        name
        for name, place in known.items()
        if (not operations or any(_is_of(pattern, name, place) for pattern in operations))
        and (not tags or not set(tags).isdisjoint(_tags(place)))
    ]


def _tags(place: OperationPlace) -> list[str]:
    tags = place.operation.get("tags")
    return [each for each in tags if isinstance(each, str)] if isinstance(tags, list) else []


def _tags_hint(counts: Mapping[str, int]) -> str:
    if not counts:
        return "the document has no tags"
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    more = f" and {len(ordered) - _SHOWN_TAGS} more" if len(ordered) > _SHOWN_TAGS else ""
    listed = ", ".join(f"{line(tag, 40)} ({count})" for tag, count in ordered[:_SHOWN_TAGS])
    return f"its tags, with the number of operations: {listed}{more}"


def _is_of(pattern: str, name: str, place: OperationPlace) -> bool:
    known = [name, f"{place.method.upper()} {place.path}", place.operation.get("operationId")]
    return any(isinstance(each, str) and fnmatchcase(each, pattern) for each in known)


def _written(
    document: ApiDocument,
    actions: Actions,
    chosen: Sequence[str],
    config: OpenApiConfig,
    show: Callable[[str], None],
) -> tuple[list[WrittenAction], list[str]]:
    """Return the actions that can be written, and the others with the reason."""
    found: list[WrittenAction] = []
    left_out: list[str] = []
    names = method_names(chosen)
    for number, each in enumerate(chosen):
        show(f"reading operation {number + 1} of {len(chosen)}")
        action = actions.action(each)
        place = action.place
        try:
            if any(isinstance(h.get("servers"), list) for h in (place.operation, place.item)):
                _require_same_server(document, config, place)
            found.append(prepared(document, action, names[each]))
        except (CannotWriteError, BrokenReferenceError) as problem:
            pointer = f"#/paths/{_escaped(place.path)}/{place.method}"
            left_out.append(line(f"{each} at {pointer}: {problem}", 300))
    if not found:
        raise ConfigError(
            f"no plugin can be written of the chosen operations: {'; '.join(left_out[:3])}",
            hint="choose others, or write them by hand: docs/howto/write-a-connector.md",
        )
    return found, left_out


def _require_same_server(
    document: ApiDocument, config: OpenApiConfig, place: OperationPlace
) -> None:
    if not document.content.get("servers"):
        return
    try:
        same = base_url(document, config, place) == base_url(document, config)
    except ConfigError:
        same = False
    if not same:
        raise CannotWriteError("it has a server of its own")


def _address(
    document: ApiDocument, config: OpenApiConfig, written: Sequence[WrittenAction]
) -> tuple[str, list[str]]:
    """Return the service's address, or nothing if the config has to give it, and notes on that."""
    try:
        address = base_url(document, config, written[0].action.place)
    except ConfigError as error:
        return "", [f"{line(error.message, 200)}: give it as base_url in the config"]
    if not is_safe_url(address) or not re.fullmatch(r"[!-~]{1,200}", address):
        return "", [f"{line(address)!r} is no address for credentials: give base_url in the config"]
    return address, []
