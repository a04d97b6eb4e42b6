"""OpenAPI documents whose every word tries to be code, and whose every part may be odd."""

from __future__ import annotations

from random import Random
from typing import Any

WORDS = (
    '"""\nimport os; os.abort()\n"""', "'''", '"', "\\", "\\\"", "{{ secrets.TOKEN }}", "{% if x %}", "$secret:KEY",
    "\u202eevil\u202c", "\u2066x", "line\nbreak", "tab\tand\rreturn", "\x00\x07", "😀 emoji", "漢字" * 30,
    "class", "None", "import", "self", "model_config", "model_dump", "json", "copy", "schema", "list", "dict", "str",
    "int", "id", "type", "filter", "__class__", "_private", "1st", "a-b", "a_b", "a.b", "A", "a", "l", "Any", "Literal",
    "BaseModel", "Field", "RootModel", "given", "config", "close", "check", "actions", "models", "client", "T", "_given",
    "# noqa", "# type: ignore", "]] | [x](javascript:alert(1)) <script>", "`petstore.nothing`", "<!-- plugins -->",
    "# entry points", "/tmp/x", "0.0.0.0", "password", "x" * 300, "", " ", "%s %d {0} {x!r}", "f\"{os.abort()}\"",
    "max_items", "returns", "query", "path", "Ünïcödé", "ｆｕｌｌｗｉｄｔｈ", "a\u0301", "\u200b", "\ufeff", "true", "-", "_",
    "[project]\nname = 'x'", "acme", "Acme Inc", "ACME",
)  # fmt: skip
_PATTERNS = ("^[a-z]+$", "(", "(?=x)", '"', "\\d{3}", "[", "a{1,2}", "^$", "\\p{L}", "(a+)+$")
_METHODS = ("get", "post", "put", "patch", "delete", "head")
_MEDIA = (
    "application/json", "application/vnd.x+json", "text/plain", "application/pdf",
    "application/x-www-form-urlencoded", "multipart/form-data", "*/*", '"evil', "",
)  # fmt: skip


def hostile_document(random: Random, version: str = "3.1.0") -> dict[str, Any]:
    """Return a document made with *random*."""
    return _Maker(random).document(version)


class _Maker:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._schemas = [f"{self.word()}{number or ''}" for number in range(4)]

    def word(self) -> str:
        found = self._random.choice(WORDS)
        return found if self._random.random() < 0.7 else found + self._random.choice(WORDS)

    def maybe(self, chance: float = 0.5) -> bool:
        return self._random.random() < chance

    def document(self, version: str) -> dict[str, Any]:
        random = self._random
        paths: dict[str, Any] = {"/plain": {"get": self.operation([])}}
        for _ in range(random.randint(1, 4)):
            names = [self.word().replace("/", "") for _ in range(random.randint(0, 2))]
            path = "/" + self.word() + "".join(f"/{{{name}}}" for name in names)
            methods = random.sample(_METHODS, random.randint(1, 3))
            paths[path] = {each: self.operation(names) for each in methods}
        schemes = {self.word(): self.scheme() for _ in range(random.randint(0, 3))}
        security = [{each: [self.word()]} for each in schemes]
        return {
            "openapi": version,
            "info": {"title": self.word(), "version": self.word()},
            "servers": [{"url": random.choice(["https://api.example.com/v1", self.word()])}],
            "security": security if self.maybe() else [dict.fromkeys(schemes, [])],
            "paths": paths,
            "components": {
                "schemas": {each: self.schema(0) for each in self._schemas},
                "securitySchemes": schemes,
            },
        }

    def operation(self, names: list[str]) -> dict[str, Any]:
        random = self._random
        found: dict[str, Any] = {
            "summary": self.word(), "description": self.word() + "\n\n" + self.word(),
            "tags": [self.word()],
            "parameters": [
                *({"name": name, "in": "path", "required": True, "description": self.word(),
                   "schema": self.schema(2)} for name in names if self.maybe(0.8)),
                *(self.parameter() for _ in range(random.randint(0, 4))),
            ],
            "responses": {random.choice(["200", "201", "204", "2XX", "default"]): self.response()},
        }  # fmt: skip
        if self.maybe(0.8):
            found["operationId"] = self.word()
        if self.maybe(0.4):
            found["requestBody"] = {"required": self.maybe(), "content": self.content()}
        return found

    def parameter(self) -> dict[str, Any]:
        found = {
            "name": self.word(), "in": self._random.choice(["query", "header", "cookie", "query"]),
            "required": self.maybe(0.2), "description": self.word(), "schema": self.schema(1),
        }  # fmt: skip
        if self.maybe(0.2):
            found |= {"style": self._random.choice(["deepObject", "pipeDelimited", self.word()])}
        if self.maybe(0.2):
            found["name"] = self._random.choice(["page", "limit", "cursor", "Idempotency-Key"])
        return found

    def response(self) -> dict[str, Any]:
        headers = {"headers": {self._random.choice(["Link", self.word()]): {}}}
        return {
            "description": self.word(),
            "content": self.content(),
            **(headers if self.maybe() else {}),
        }

    def content(self) -> dict[str, Any]:
        media = self._random.choice([*_MEDIA, "application/json", "application/json"])
        return {media: {"schema": self.schema(0)}}

    def schema(self, depth: int) -> Any:
        random = self._random
        kind = random.choice(
            [
                "string",
                "integer",
                "number",
                "boolean",
                "enum",
                "object",
                "array",
                "ref",
                "any",
                "odd",
                "object",
            ]
        )
        extra = {"description": self.word()} if self.maybe() else {}
        if depth > 3 or kind == "string":
            bounds = {
                "minLength": random.choice([0, 1, 3, -1, 10**30]),
                "pattern": random.choice(_PATTERNS),
            }
            return {
                "type": random.choice(["string", ["string", "null"]]),
                **(bounds if self.maybe(0.3) else {}),
                **extra,
            }
        if kind in ("integer", "number"):
            return {
                "type": kind,
                "minimum": random.choice([0, 1.5, -(10**40), "x"]),
                "multipleOf": 0.1,
                **extra,
            }
        if kind == "enum":
            return {
                "enum": [self.word() for _ in range(random.randint(1, 9))]
                + random.choice([[], [None], [1, True]])
            }
        if kind == "object":
            names = [self.word() for _ in range(random.randint(0, 5))]
            more = (
                {"additionalProperties": random.choice([True, False, {"type": "string"}])}
                if self.maybe(0.3)
                else {}
            )
            return {
                "type": "object", "properties": {each: self.schema(depth + 1) for each in names},
                "required": [each for each in dict.fromkeys(names) if self.maybe(0.4)], **extra, **more,
            }  # fmt: skip
        if kind == "array":
            return {"type": "array", "items": self.schema(depth + 1), **extra}
        if kind == "ref":
            name = random.choice([*self._schemas, self.word()])
            return {"$ref": f"#/components/schemas/{name.replace('~', '~0').replace('/', '~1')}"}
        if kind == "odd":
            several = [self.schema(depth + 1) for _ in range(random.randint(1, 3))]
            return random.choice(
                [
                    {"anyOf": several},
                    {"oneOf": several},
                    {"allOf": several},
                    True,
                    {"type": self.word()},
                    {"const": self.word()},
                ]
            )
        return {} if kind == "any" else {"type": kind}

    def scheme(self) -> dict[str, Any]:
        flow = {
            "tokenUrl": self.word(),
            "authorizationUrl": self.word(),
            "scopes": {self.word(): ""},
        }
        if self.maybe():
            flow |= dict.fromkeys(("tokenUrl", "authorizationUrl"), "https://login.example.com/x")
        return self._random.choice(
            [
                {"type": "http", "scheme": "bearer"},
                {"type": "http", "scheme": "basic"},
                {"type": "apiKey", "in": "header", "name": self.word()},
                {"type": "apiKey", "in": "query", "name": self.word()},
                {"type": "apiKey", "in": "cookie", "name": "session"},
                {"type": "oauth2", "flows": {"clientCredentials": flow}},
                {"type": "oauth2", "flows": {"authorizationCode": flow}},
                {"type": self.word()},
            ]
        )
