"""Bodies of requests: their media types, and an action's input as their bytes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from automate_http.content import encode_json
from automate_http.headers import check_headers
from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_openapi.document import mapping
from automate_openapi.parameters import query_pairs, text_of

Kind = Literal["json", "form", "multipart", "binary", "text"]

_JSON = re.compile(
    r"application/(json|[a-z0-9.+-]*\+json)\s*(;|\Z)|\*/\*|application/\*", re.IGNORECASE
)
_KINDS: tuple[tuple[Kind, Callable[[str], bool]], ...] = (
    ("json", lambda name: _JSON.match(name) is not None),
    ("form", lambda name: name.lower().startswith("application/x-www-form-urlencoded")),
    ("multipart", lambda name: name.lower().startswith("multipart/form-data")),
    ("text", lambda name: name.lower().startswith("text/") or "xml" in name.lower()),
    ("binary", lambda name: True),
)
_MOST_FILE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """
    The body of an operation.

    *fields* are its properties by their names in the action's input, where it is taken apart;
    else it is the input's field *whole*. *others* is True if further fields belong to it.
    """

    kind: Kind
    media_type: str
    required: bool
    whole: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    others: bool = False
    binary: frozenset[str] = frozenset()
    encoding: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files_from: str | None = None

    def encoded(self, values: Mapping[str, Any], rest: Mapping[str, Any]) -> tuple[bytes, str]:
        """Return the bytes and the content type; no bytes and no type without a body."""
        if self.whole is not None:
            if self.whole not in values:
                return b"", ""
            content = values[self.whole]
        else:
            names = self.fields.items()
            content = {name: values[given] for name, given in names if given in values}
            content |= rest if self.others else {}
            if not content and not self.required:
                return b"", ""
        return self._written(content)

    def _written(self, content: Any) -> tuple[bytes, str]:
        if self.kind == "json":
            return encode_json(content), self.media_type
        if self.kind == "form":
            return self._form(content), self.media_type
        if self.kind == "multipart":
            return self._multipart(content)
        if self.kind == "binary":
            data, _, media_type = self._file(content)
            return data, media_type or self.media_type
        return _utf8(content if isinstance(content, str) else text_of(content)), self.media_type

    def _form(self, content: Any) -> bytes:
        pairs = []
        for name, value in _object(content).items():
            encoding = mapping(self.encoding.get(name))
            style = encoding.get("style", "form")
            json = isinstance(value, Mapping) and style == "form" and "explode" not in encoding
            text = encode_json(value).decode() if json else value
            explode = encoding.get("explode", style in ("form", "deepObject")) is True
            pairs += query_pairs(name, text, style, explode)
        return "&".join(f"{name}={value}" for name, value in pairs).encode("ascii")

    def _multipart(self, content: Any) -> tuple[bytes, str]:
        parts = [
            self._part(name, each)
            for name, value in _object(content).items()
            for each in (value if isinstance(value, list) else [value])
        ]
        digest = hashlib.sha256()
        for head, data in parts:
            digest.update(head + b"\0" + data)
        # From the content, so that a repeated request is the same to its last byte.
        boundary = digest.hexdigest().encode()
        joined = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, *part) for part in parts)
        return (
            joined + b"--%s--\r\n" % boundary,
            f"{self.media_type.partition(';')[0]}; boundary={boundary.decode()}",
        )

    def _part(self, name: str, value: Any) -> tuple[bytes, bytes]:
        wanted = mapping(self.encoding.get(name)).get("contentType")
        media_type = wanted.split(",")[0].strip() if isinstance(wanted, str) else ""
        filename = ""
        if name in self.binary:
            data, filename, given = self._file(value)
            filename, media_type = filename or name, given or media_type
            media_type = media_type or "application/octet-stream"
        elif isinstance(value, (Mapping, list)):
            data, media_type = encode_json(value), media_type or "application/json"
        else:
            data = _utf8(text_of(value))
        if "*" in media_type:
            media_type = "application/octet-stream"
        head = f'Content-Disposition: form-data; name="{_in_quotes(name)}"'
        head += f'; filename="{_in_quotes(filename)}"' if filename else ""
        if media_type:
            check_headers({"content-type": media_type})
            head += f"\r\nContent-Type: {media_type}"
        return head.encode("utf-8", "surrogatepass"), data

    def _file(self, value: Any) -> tuple[bytes, str, str]:
        """Return a file's bytes, its name and its type."""
        given = mapping(value)
        filename, media_type = str(given.get("filename") or ""), given.get("content_type") or ""
        if "base64" in given:
            try:
                data = base64.b64decode(str(given["base64"]), validate=True)
            except (binascii.Error, ValueError):
                raise _wrong("base64 is not valid") from None
            return data, filename, str(media_type)
        path = read_file(str(given.get("path") or ""), self.files_from)
        return path[0], filename or path[1], str(media_type)


def read_file(name: str, folder: str | None) -> tuple[bytes, str]:
    """Return the bytes and the name of the file *name*, which must lie below *folder*."""
    if folder is None:
        raise AutomateError(
            ErrorCodes.PERMISSION_DENIED,
            "a file's path is not taken",
            hint="give the file as base64, or set files_from in the connector's config",
        )
    top = Path(folder).resolve()
    path = Path(os.path.realpath(top / name))
    if not path.is_relative_to(top):
        raise AutomateError(ErrorCodes.PERMISSION_DENIED, "the file's path leads out of files_from")
    try:
        if not path.is_file():
            raise FileNotFoundError
        with path.open("rb") as file:
            data = file.read(_MOST_FILE_BYTES + 1)
    except OSError:
        raise _wrong("the file can't be read") from None
    if len(data) > _MOST_FILE_BYTES:
        raise _wrong(f"the file is larger than {_MOST_FILE_BYTES:,} bytes")
    return data, path.name


def kind_of(media_type: str) -> Kind:
    """Return how a body of *media_type* is written."""
    return next(kind for kind, fits in _KINDS if fits(media_type))


def preferred(content: Mapping[str, Any]) -> str | None:
    """Return the media type to use, of those that an operation takes."""
    order = [kind for kind, _ in _KINDS]
    return min(content, key=lambda name: order.index(kind_of(name)), default=None)


def concrete(media_type: str) -> str:
    """Return a media type without wildcards."""
    if "*" in media_type:
        return "application/json" if _JSON.match(media_type) else "application/octet-stream"
    return media_type


def is_binary(schema: Mapping[str, Any]) -> bool:
    """Return True if a property of a form is a file."""
    items = mapping(schema.get("items"))
    return any(
        each.get("format") == "binary"
        or each.get("type") == "file"
        or ("contentMediaType" in each and "contentEncoding" not in each)
        for each in (schema, items)
    )


def file_schema(files_from: str | None) -> dict[str, Any]:
    """Return the schema of a file in an action's input."""
    properties: dict[str, Any] = {
        "base64": {"type": "string", "description": "The content, in base64."},
        "filename": {"type": "string", "maxLength": 255},
        "content_type": {"type": "string", "maxLength": 255},
    }
    if files_from is None:
        required: dict[str, Any] = {"required": ["base64"]}
    else:
        properties["path"] = {"type": "string", "description": "A file below files_from."}
        required = {"oneOf": [{"required": ["base64"]}, {"required": ["path"]}]}
    return {
        "type": "object", "properties": properties, "additionalProperties": False, **required,
    }  # fmt: skip


def _object(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise _wrong("the body of a form is an object")
    return content


def _in_quotes(text: str) -> str:
    # As browsers do, and else a name could end the header.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise _wrong("a text has half a surrogate pair") from None


def _wrong(problem: str) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, f"the input can't be sent: {problem}")
