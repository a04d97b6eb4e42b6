"""CloudEvents 1.0: the form in which events travel between systems."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from automate_kernel.base.errors import PayloadError
from automate_kernel.storage.codec import JsonText
from automate_kernel.storage.values import encode_around, read_json

__all__ = ["BATCH_TYPE", "CONTENT_TYPE", "CloudEvent"]

CONTENT_TYPE = "application/cloudevents+json"
"""The content type of an event in the structured mode."""
BATCH_TYPE = "application/cloudevents-batch+json"
"""The content type of a list of events."""

_NAME = re.compile(r"[a-z0-9]{1,64}")
_CORE = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
_OWN = ("tenantid", "partitionkey", "labels", "traceparent", "tracestate")
_LONGEST, _LONGEST_LABELS = 1_000, 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """
    An event of CloudEvents 1.0: *id* and *source* together are unique.

    *type* is its name and *data* its payload. Events with the same *partition_key* come in
    order. The extensions of our own are ``tenantid`` and ``labels``, a JSON object as text;
    ``partitionkey``, ``traceparent`` and ``tracestate`` are CloudEvents' extensions. *extensions*
    holds the other attributes.
    """

    id: str
    source: str
    type: str
    data: Any = None
    time: str | None = None
    tenant_id: str | None = None
    partition_key: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    trace: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The W3C trace context: ``traceparent`` and ``tracestate``."""
    extensions: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object, in the structured mode."""
        own = {
            "specversion": "1.0", "id": self.id, "source": self.source, "type": self.type,
            "time": self.time, "datacontenttype": "application/json",
            "tenantid": self.tenant_id, "partitionkey": self.partition_key,
            "labels": json.dumps(dict(self.labels), ensure_ascii=False) if self.labels else None,
        }  # fmt: skip
        given = {**self.extensions, **self.trace, **own}
        present = {name: value for name, value in given.items() if value is not None}
        return {**present, "data": self.data}

    def to_text(self) -> JsonText:
        """Return the JSON text of the event; raises `PayloadError` for data that is no JSON."""
        return encode_around(self.to_json(), self.data)

    @classmethod
    def from_text(cls, text: str | bytes) -> CloudEvent:
        """Read the event in *text*; raises `PayloadError` for anything else."""
        try:
            return cls.from_json(read_json(text.decode() if isinstance(text, bytes) else text))
        except (ValueError, RecursionError):
            raise PayloadError("not a CloudEvent: the message is no JSON") from None

    @classmethod
    def from_json(cls, found: Any) -> CloudEvent:
        """
        Read the event of a JSON object in the structured mode.

        Raises `PayloadError` if it is none, another version, or has binary data.
        """
        if not isinstance(found, Mapping):
            raise PayloadError("not a CloudEvent: the message is no JSON object")
        if found.get("specversion") != "1.0":
            raise PayloadError("not a CloudEvent: its specversion is not 1.0")
        if "data_base64" in found:
            raise PayloadError("a CloudEvent with binary data can't be taken", hint="send JSON")
        texts = {name: _text(found, name) for name in found if name != "data"}
        for name in ("id", "source", "type"):
            if not texts.get(name):
                raise PayloadError(f"not a CloudEvent: it has no {name}")
        return cls(
            id=texts["id"], source=texts["source"], type=texts["type"], data=found.get("data"),
            time=texts.get("time"), tenant_id=texts.get("tenantid"),
            partition_key=texts.get("partitionkey"), labels=_labels(texts.get("labels")),
            trace={name: texts[name] for name in ("traceparent", "tracestate") if name in texts},
            extensions={
                name: text for name, text in texts.items() if name not in (*_CORE, *_OWN)
            },
        )  # fmt: skip


def source_uri(text: str) -> str:
    """Return *text* as the URI reference that the source of a CloudEvent has to be."""
    return quote(text, safe="/:@!$&'()*+,;=-._~?#[]%") or "automate"


def _text(found: Mapping[str, Any], name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PayloadError("not a CloudEvent: an attribute's name is lower-case letters and digits")
    value = found[name]
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int):
        value = str(value)
    most = _LONGEST_LABELS if name == "labels" else _LONGEST
    if not isinstance(value, str) or len(value) > most:
        raise PayloadError(f"not a CloudEvent: {name} is no text of at most {most:,} characters")
    return value


def _labels(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if isinstance(found, dict) and all(isinstance(each, str) for each in found.values()):
        return found
    return {}  # another system's own meaning of the word
