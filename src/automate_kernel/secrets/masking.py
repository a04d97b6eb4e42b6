"""Masking: it hides values that are secrets by their name, their shape or a config's schema."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from automate_kernel.secrets.handles import SecretRef

Strength = Literal["none", "weak", "strong"]

SHORTEST_ANYWHERE = 4
"""The fewest characters of a secret that is taken out wherever it stands."""
_SHORTEST_PLAIN = 8
# What JSON, YAML and forms are made of.
_EVERYWHERE = {
    "false", "n", "nan", "nil", "no", "none", "null", "off", "ok", "on", "true", "undefined", "y",
    "yes",
}  # fmt: skip
_COMMON = {
    "administrator", "anonymous", "application", "authorization", "changeme", "database",
    "development", "localhost", "password", "postgres", "postgresql", "production", "username",
}  # fmt: skip
_NUMBER_OR_DATE = re.compile(r"[+-]?\d[\d.,:/ -]*")
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}")


def strength_of(value: str) -> Strength:
    """
    Return the places where *value* can be taken out of data without ruining it.

    ``strong`` means everywhere, in parts and encoded. ``weak``, for a word or number such as
    ``2024`` or ``admin``, means where it stands alone. ``none``, for ``true`` say, means nowhere.
    """
    text = value.strip()
    word = text.casefold()
    if len(text) < 2 or word in _EVERYWHERE:
        return "none"
    if len(text) < SHORTEST_ANYWHERE or word in _COMMON or _DATE.fullmatch(text):
        return "weak"
    if len(text) < _SHORTEST_PLAIN and text.isalpha():
        return "weak"
    if _NUMBER_OR_DATE.fullmatch(text) and sum(map(str.isdigit, text)) < _SHORTEST_PLAIN:
        return "weak"
    return "strong"


def weakness_of(value: str) -> str:
    """Return a sentence on the weakness of *value*, without showing it; empty if strong."""
    return {
        "none": "stands in nearly every text, so it can't be hidden",
        "weak": "is so short or common that it is only hidden where it stands alone",
        "strong": "",
    }[strength_of(value)]


HIDDEN = "[hidden]"
"""The text in the place of a secret's value."""

# Each of these means a secret wherever it stands in a name.
_STRONG = {
    "apikey", "authorization", "bearer", "cookie", "credential", "credentials", "cvc", "cvv", "jwt",
    "otp", "passcode", "passphrase", "passwd", "password", "passwords", "pin", "pwd", "salt",
    "secret", "secrets", "ssn", "token", "tokens", "totp",
}  # fmt: skip
# These mean one beside a word of the next set: a key may be a business key, a hash a picture's.
_WEAK = {"auth", "hash", "key", "keys", "pass", "seed", "session", "signature"}
_WITH = {
    "access", "account", "admin", "api", "auth", "client", "db", "encryption", "hmac", "license",
    "master", "private", "recovery", "service", "session", "shared", "signing", "ssh", "user",
    "webhook",
}  # fmt: skip
# A field whose name ends with one of these holds the name of a secret, and not its value.
_TOLD = {"alias", "id", "ids", "kind", "label", "name", "names", "type"}
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")

# Deeper than anything that can be stored, and shallow enough for a recursion.
_DEEPEST, _MOST_VALUES = 200, 10_000_000

# Greedy: a password may hold what ought to be escaped, another @ too. A long name alone is a token.
_IN_URL = re.compile(r"(?<=[\w+.-])://(?:([^\s:/@]*):|[^\s:/@]{16,}@)")
_WORD_OF_TEXT = re.compile(r"\S+")
_IN_HEADER = re.compile(
    r"\b(bearer|basic|token)(\s+)(?:(?=[\w.~+/-]*\d)[\w.~+/-]{8,}|[\w.~+/-]{20,})=*", re.IGNORECASE
)
_ASSIGNED = re.compile(
    # Behind a letter it is a part of a word; behind "_" the last word of a name.
    r"""(?<![^\W_])(password|passwd|pwd|secret|token|api[_-]?key|(?:access|private)[_-]?key"""
    r"""|(?:access|refresh|id|session)[_-]?token|client[_-]?secret|authorization)"""
    r"""(["']\s*:\s*["']|=["']?)([^\s"'&;,]+)""",
    re.IGNORECASE,
)


def words_of(name: str) -> set[str]:
    """Return the words of *name*, however they are joined, in lower case."""
    return {word.lower() for word in _SPLIT.split(name) if word}


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Return True if secrets have names like *name*: ``api_key``, ``apiKey``, ``stripe_token``."""
    words = words_of(name)
    return bool(words & _STRONG) or bool(words & _WEAK and words & _WITH and len(words) > 1)


def hide_named(value: Any, *, deepest: int = _DEEPEST) -> Any:
    """
    Return *value* with `HIDDEN` under every key of a mapping that means a secret.

    It is *value* itself if nothing is hidden. A text replaces all that is below *deepest* levels,
    beyond ten million values or inside itself.
    """
    return _hidden(value, deepest, [_MOST_VALUES], frozenset())


def _hidden(value: Any, deepest: int, left: list[int], above: frozenset[int]) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if id(value) in above:
        return "[circular]"
    left[0] -= len(value) + 1
    if len(above) >= deepest or left[0] < 0:
        return "[too large]"
    above = above | {id(value)}
    if isinstance(value, Mapping):
        shown = {
            key: HIDDEN if _is_secret_pair(key, each) else _hidden(each, deepest, left, above)
            for key, each in value.items()
        }
        changed = any(shown[key] is not each for key, each in value.items())
        return shown if changed else value
    elements = [_hidden(each, deepest, left, above) for each in value]
    changed = any(new is not old for new, old in zip(elements, value, strict=True))
    return elements if changed else value


def _is_secret_pair(key: Any, value: Any) -> bool:
    # Yes, no and nothing are no secrets.
    nothing = value is None or value == "" or isinstance(value, bool)
    return not nothing and is_secret_name(str(key))


def _without_password(match: re.Match[str]) -> str:
    """Return a word without the credentials in its URLs, up to its last @."""
    word = match[0]
    last, position = word.rfind("@"), 0
    if last < 0 or "://" not in word:
        return word
    pieces: list[str] = []
    for found in _IN_URL.finditer(word, 0, last + 1):
        if found[1] is None:
            pieces += word[position : found.start() + 3], f":{HIDDEN}@"
            position = found.end()
        else:
            pieces += word[position : found.end()], HIDDEN
            position = last
            break
    return "".join(pieces) + word[position:]


def hide_shapes(text: str) -> str:
    """Return *text* without credentials in URLs, in headers and after ``password=``."""
    if "://" in text and "@" in text:
        text = _WORD_OF_TEXT.sub(_without_password, text)
    if " " in text:
        text = _IN_HEADER.sub(rf"\1\2{HIDDEN}", text)
    if "=" in text or ":" in text:
        text = _ASSIGNED.sub(rf"\1\2{HIDDEN}", text)
    return text


_HIDDEN = "(hidden)"
# Beside the names that secrets have anywhere: in a config, these hold credentials as a rule.
_TELLING = {
    "auth", "dsn", "header", "headers", "hook", "hooks", "key", "keys", "pass", "private",
    "signature", "signing", "webhook", "webhooks",
}  # fmt: skip
_REFERENCE = re.compile(r"\$(secret|env):(\{[\w./-]+\}|[\w./-]+)")
# A word that only begins so, or ends so as "task-list" does, doesn't count.
_ISSUED = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|whsec|gh[a-z]|github_pat|glpat|xox[a-z])[-_]|AKIA|eyJ)"
    r"[-_A-Za-z0-9]{8,}"
)
_SCHEME = re.compile(r"(?:bearer|basic|token)\s+", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9_+=-]{16,}")
_BITS_OF_RANDOM = 3.3

_Schemas = list[Mapping[str, Any]]


def reference_or_hidden(value: Any) -> Any:
    """Return *value* if it is only a reference to a secret, which is no secret itself."""
    text = str(value)
    return text if not text or _REFERENCE.fullmatch(text) else _HIDDEN


def masked_by_schema(value: Any, schema: Mapping[str, Any] | None, name: str = "") -> Any:
    """
    Return *value* as it may be seen, by its JSON Schema; without one, texts are hidden.

    A text is shown if the schema knows it and doesn't call it a password. Its name must mean no
    secret, and it must not look like a secret.
    """
    schema = schema or {}
    return _masked(value, [schema], name, schema.get("$defs", {}))


def literal_secrets(value: Any, schema: Mapping[str, Any] | None) -> Iterator[str]:
    """
    Yield the texts in a config that are secrets themselves, not references.

    Only those that certainly are secrets: a text that `masked_by_schema` hides may be honest words.
    """
    yield from _strong(_literals(value, schema, _looks_secret))


def secrets_of_input(value: Any, schema: Mapping[str, Any] | None) -> Iterator[str]:
    """
    Yield the texts in the input of an operation that are secrets themselves.

    A text that is only as random as one isn't: inputs are full of ids.
    """
    yield from _strong(_literals(value, schema, _is_credential))


def secret_fields(value: Any, schema: Mapping[str, Any] | None) -> list[str]:
    """
    Return the names of the fields of an operation's input that have a secret in them.

    A field that is called ``…_name`` or ``…_id`` has the name of a secret, unless its value looks
    like a secret itself.
    """
    return sorted({name for name, _ in _literals(value, schema, _is_credential)})


def with_keys(value: Any, schema: Mapping[str, Any] | None) -> Any:
    """
    Return a config with the keys of secrets where a `SecretKey` is asked for.

    ``$secret:KEY`` is how all other fields are written, and its value would be taken for a key.
    """
    return _with_keys(value, [schema], schema.get("$defs", {})) if schema is not None else value


def _with_keys(value: Any, schemas: _Schemas, models: Mapping[str, Any]) -> Any:
    forms = _forms(schemas, models)
    if isinstance(value, Mapping):
        return {key: _with_keys(each, _within(forms, key), models) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_keys(each, _items(forms), models) for each in value]
    asked = any(form.get("format") == "secret-key" for form in forms)
    return value.key if asked and isinstance(value, SecretRef) else value


def _strong(found: Iterator[tuple[str, str]]) -> Iterator[str]:
    for _, text in found:
        bare = _SCHEME.sub("", text, count=1)
        yield from {each for each in (text, bare) if strength_of(each) == "strong"}


def _masked(value: Any, schemas: _Schemas, name: str, models: Mapping[str, Any]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    forms = _forms(schemas, models)
    password = any(map(_is_password, forms))
    if isinstance(value, Mapping):
        return {
            key: _masked(each, forms if password else _within(forms, key), str(key), models)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = forms if password else _items(forms)
        return [_masked(each, items, name, models) for each in value]
    if password or is_secret_name(name) or words_of(name) & _TELLING:
        return reference_or_hidden(value)
    if isinstance(value, (int, float)):
        return value
    known = any(form.keys() & {"type", "enum", "const"} for form in forms)
    return value if known and not _looks_secret(str(value)) else reference_or_hidden(value)


def _literals(
    value: Any, schema: Mapping[str, Any] | None, looks_secret: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    """Yield the texts that are secrets by name, schema or their looks, each with its name."""
    models = (schema or {}).get("$defs", {})

    def within(
        value: Any, schemas: _Schemas, name: str, *, named: bool = True
    ) -> Iterator[tuple[str, str]]:
        forms = _forms(schemas, models)
        if isinstance(value, Mapping):
            for key, each in value.items():
                known = any(key in form.get("properties", ()) for form in forms)
                yield from within(each, _within(forms, key), str(key), named=known)
        elif isinstance(value, (list, tuple)):
            for each in value:
                yield from within(each, _items(forms), name, named=named)
        elif isinstance(value, str) and "$secret:" not in value and "{{" not in value:
            # A mapping, such as that of headers, also has values that are no secrets, though none
            # is shown.
            password = named and any(map(_is_password, forms))
            secret = is_secret_name(name) and not _is_told(name, value)
            if password or secret or looks_secret(value):
                yield name, value

    return within(value, [schema or {}], "")


def _is_told(name: str, text: str) -> bool:
    """
    Return True if *text* only says which secret is meant: ``token_name``, ``key_id``.

    Return False if *text* looks like a secret itself: some ids, such as those of sessions, are
    credentials.
    """
    words = [word for word in _SPLIT.split(name) if word]
    return bool(words) and words[-1].lower() in _TOLD and not _looks_secret(text)


def _is_password(form: Mapping[str, Any]) -> bool:
    return bool(form.get("writeOnly")) or form.get("format") == "password"


def _forms(schemas: _Schemas, models: Mapping[str, Any]) -> _Schemas:
    """Return every plain schema that *schemas* may mean, with references followed."""
    found: _Schemas = []
    seen: set[str] = set()
    pending: list[Any] = list(schemas)
    while pending:
        schema = pending.pop()
        if not isinstance(schema, Mapping):
            continue
        found.append(schema)
        for word in ("anyOf", "oneOf", "allOf"):
            pending += schema.get(word, [])
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            pending.append(models.get(reference.rpartition("/")[2]))
    return found


def _within(forms: _Schemas, key: Any) -> _Schemas:
    """Return the schemas of the value under *key*."""
    found = []
    for form in forms:
        properties: Any = form.get("properties")
        known = isinstance(properties, Mapping) and key in properties
        found.append(properties[key] if known else form.get("additionalProperties"))
    return [each for each in found if isinstance(each, Mapping)]


def _items(forms: _Schemas) -> _Schemas:
    return [form["items"] for form in forms if isinstance(form.get("items"), Mapping)]


def _looks_secret(text: str) -> bool:
    """Return True if *text* has the shape of a credential, or holds a word as random."""
    return _is_credential(text) or any(_is_random(word[0]) for word in _WORD.finditer(text))


def _is_credential(text: str) -> bool:
    """Return True if *text* has the shape of a credential in it."""
    return hide_shapes(text) != text or _ISSUED.search(text) is not None


def _is_random(word: str) -> bool:
    if not (re.search(r"\d", word) and re.search(r"[A-Za-z]", word)):
        return False
    length = len(word)
    bits = -sum(n / length * math.log2(n / length) for n in Counter(word).values())
    return bits >= _BITS_OF_RANDOM
