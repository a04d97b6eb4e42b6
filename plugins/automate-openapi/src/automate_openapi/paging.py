"""The way from page to page that an operation seems to have, by the names in its document."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from automate_openapi.python_source import literal

_CURSORS = (
    "cursor", "pagetoken", "nextpagetoken", "nexttoken", "nextcursor", "continuationtoken",
    "continuation", "startcursor", "startingtoken", "pagecursor", "after", "aftercursor", "marker",
    "bookmark",
)  # fmt: skip
_NEXT_CURSORS = (
    "nextcursor", "nextpagetoken", "nexttoken", "nextmarker", "continuationtoken", "endcursor",
    "next", "bookmark", "after", "cursor",
)  # fmt: skip
_NEXT_URLS = ("next", "nexturl", "nextlink", "nexthref", "nextpageurl", "nextpagelink", "href")
_PAGES = ("page", "pagenumber", "pageno", "pageindex")
_OFFSETS = ("offset", "skip", "startindex", "startat")
_SIZES = ("perpage", "pagesize", "limit", "size", "count", "maxresults", "top", "take", "pagelimit")
_LISTS = ("data", "items", "results", "records", "values", "entries", "objects", "elements", "list")
_DEEPEST, _MOST_SIZE, _MOST_FIELDS = 3, 100, 2_000


@dataclass(frozen=True, slots=True)
class Paging:
    """
    The pages of a list: the class of their *pager* with its *options*, and the *reason* for it.

    *items* is the dotted name of the list in the answer; *parameters* are those of the query that
    the pager sets.
    """

    pager: str
    options: tuple[str, ...]
    reason: str
    items: str
    parameters: frozenset[str | None]


def paging_of(
    query: Mapping[str, Mapping[str, Any]],
    answer: Mapping[str, Any],
    headers: Collection[str],
) -> Paging | None:
    """
    Return the pages of an operation, or None if it has none that we know.

    *query* are the schemas of its query parameters by name, *answer* is the schema of its answer
    with its definitions, and *headers* are the names of the headers that come with it.
    """
    fields = dict(islice(_fields(answer, answer.get("$defs", {})), _MOST_FIELDS))
    items = _list_in(fields)
    if items is None:
        return None
    known = {_plain(name): name for name in reversed(list(query))}
    counters = _first(known, (*_CURSORS, *_PAGES, *_OFFSETS))
    cursor, page, offset = (_first(known, each) for each in (_CURSORS, _PAGES, _OFFSETS))
    if "link" in {each.lower() for each in headers}:
        reason = "the answer has a Link header."
        return _made("NextLink", [], reason, items, cursor, page, offset)
    if (following := _next_url(fields, counters)) is not None:
        reason = f"the answer has the next page's URL in {following!r}."
        return _made("NextLink", [literal(following)], reason, items, cursor, page, offset)
    following = _next_cursor(fields)
    if cursor is not None and following is not None:
        reason = f"the answer has the next page's {cursor!r} in {following!r}."
        return _made("Cursor", [literal(following), literal(cursor)], reason, items, cursor)
    return _counted(query, known, items, page, offset)


def _counted(
    query: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, str],
    items: str,
    page: str | None,
    offset: str | None,
) -> Paging | None:
    """Return the pages of a list whose pages or items are counted."""
    size = _first(known, _SIZES)
    most = query[size].get("maximum", _MOST_SIZE) if size is not None else _MOST_SIZE
    most = max(1, int(min(most, _MOST_SIZE)))
    if page is not None and _is_number(query[page]):
        first = [query[page].get(key) for key in ("default", "minimum")]
        options = [literal(page), *(["start=0"] if first[0] == 0 or first == [None, 0] else [])]
        if size is not None:
            options += [f"size={most}", f"size_parameter={literal(size)}"]
        reason = f"the query counts pages in {page!r}."
        return _made("PageNumber", options, reason, items, page, size)
    if offset is not None and size is not None and _is_number(query[offset]):
        options = [repr(most), f"parameter={literal(offset)}", f"limit_parameter={literal(size)}"]
        reason = f"the query counts items in {offset!r}, and has {size!r}."
        return _made("Offset", options, reason, items, offset, size)
    return None


def _made(
    pager: str, options: list[str], reason: str, items: str, *parameters: str | None
) -> Paging:
    options = [*options, *([f"items={literal(items)}"] if items else [])]
    return Paging(pager, tuple(options), reason, items, frozenset(parameters))


def _fields(
    schema: Any, definitions: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the dotted names of what is in an answer, and their schemas; the whole has none."""
    schema = settled(schema, definitions)
    yield prefix, schema
    properties = schema.get("properties")
    if depth < _DEEPEST and isinstance(properties, Mapping) and "array" not in types_of(schema):
        for name, each in properties.items():
            if name and "." not in name:
                dotted = f"{prefix}.{name}" if prefix else name
                yield from _fields(each, definitions, dotted, depth + 1)


def settled(schema: Any, definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *schema* without its references, and without null where that is the alternative."""
    for _ in range(20):
        if not isinstance(schema, Mapping):
            return {}
        alternatives = [
            each
            for word in ("anyOf", "oneOf", "allOf")
            for each in schema.get(word, ())
            if not (isinstance(each, Mapping) and each.get("type") == "null")
        ]
        if "$ref" in schema:
            schema = definitions.get(str(schema["$ref"]).removeprefix("#/$defs/"))
        elif len(alternatives) == 1 and "properties" not in schema:
            schema = alternatives[0]
        else:
            return schema
    return {}


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the types of a schema, less null."""
    found = schema.get("type", "object" if "properties" in schema else None)
    return {str(each) for each in (found if isinstance(found, list) else [found])} - {"null"}


def _list_in(fields: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the dotted name of the list that an answer is or has, or None."""
    lists = [name for name, schema in fields.items() if types_of(schema) == {"array"}]
    for depth in range(_DEEPEST):
        here = [name for name in lists if len(name.split(".") if name else []) == depth]
        usual = [name for word in _LISTS for name in here if _last(name) == word]
        if usual or len(here) == 1:
            return (usual or here)[0]
    return None


def _next_url(fields: Mapping[str, Mapping[str, Any]], counter: str | None) -> str | None:
    for name, schema in fields.items():
        if types_of(schema) != {"string"} or _last(name) not in _NEXT_URLS:
            continue
        parents = [_plain(each) for each in name.split(".")[:-1]]
        if _last(name) == "href" and parents[-1:] != ["next"]:
            continue
        is_url = schema.get("format") in ("uri", "url", "uri-reference", "iri")
        told = _last(name) != "next" or "links" in parents
        if is_url or told or counter is None:
            return name
    return None


def _next_cursor(fields: Mapping[str, Mapping[str, Any]]) -> str | None:
    scalars = [name for name, each in fields.items() if types_of(each) & {"string", "integer"}]
    for word in _NEXT_CURSORS:
        for name in scalars:
            if _last(name) == word:
                return name
    return None


def _is_number(schema: Mapping[str, Any]) -> bool:
    return types_of(schema) <= {"integer", "number"}


def _first(known: Mapping[str, str], wanted: Collection[str]) -> str | None:
    return next((known[each] for each in wanted if each in known), None)


def _last(name: str) -> str:
    return _plain(name.rpartition(".")[2])


def _plain(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())
