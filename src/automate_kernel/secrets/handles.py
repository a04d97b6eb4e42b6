"""Handles: they stand for a secret's value until the moment of the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, Protocol, runtime_checkable

from automate_kernel.base.errors import SecretError

_MAX_KEY_LENGTH = 512
LONGEST_SECRET = 65_536
"""The most characters of a secret, and the most bytes of a file that holds one."""
MOST_REVEALED = 4_000_000
"""The most characters of secrets in one input, each counted as often as it stands there."""


@runtime_checkable
class SecretReader(Protocol):
    """A reader of secrets by their keys, which raises `SecretError` if it can't read one."""

    def get(self, key: str) -> str:
        """Return the value of the secret *key*."""

    async def aget(self, key: str) -> str:
        """Return the value of the secret *key*, without blocking the event loop."""


class _Opaque:
    """Neither iterable nor serialisable, and the same under every way of printing it."""

    __slots__ = ()

    in_words: ClassVar[str] = "secret"
    """The name of the type in messages for people."""

    def __repr__(self) -> str:
        return str(self)

    def __format__(self, spec: str) -> str:
        # A width or precision is for the value, which is not here.
        return str(self)

    def __copy__(self, memo: object = None) -> _Opaque:
        return self

    __deepcopy__ = __copy__

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a reference to a secret can't be serialised: store its key")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} can't be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} can't be changed")


class SecretRef(_Opaque):
    """
    A reference to the secret *key*; it holds no value.

    It comes from ``$secret:KEY`` or ``{{ secrets.KEY }}`` in a workflow, or from code. `reveal`
    puts the value in its place.
    """

    __slots__ = ("key",)

    key: str

    def __init__(self, key: str) -> None:
        object.__setattr__(self, "key", check_key(key))

    def __str__(self) -> str:
        return f"[secret {self.key}]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretRef) and other.key == self.key

    def __hash__(self) -> int:
        return hash((SecretRef, self.key))


class Sealed(_Opaque):
    """Text with secrets in it, such as ``Bearer $secret:TOKEN``, before their values are known."""

    __slots__ = ("parts",)

    parts: tuple[str | SecretRef, ...]
    """Plain text, and references to secrets."""

    def __init__(self, *parts: str | SecretRef | Sealed) -> None:
        flat: list[str | SecretRef] = []
        for part in parts:
            flat.extend(part.parts if isinstance(part, Sealed) else (part,))
        object.__setattr__(self, "parts", tuple(flat))

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the secrets in it."""
        return frozenset(part.key for part in self.parts if isinstance(part, SecretRef))

    def unseal(self, values: Mapping[str, str]) -> str:
        """Return the text with the secrets' *values* in it."""
        return "".join(part if isinstance(part, str) else values[part.key] for part in self.parts)

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    @property
    def size(self) -> int:
        """The number of characters where each secret is shown as ``[secret KEY]``."""
        return sum(len(str(part)) for part in self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and other.parts == self.parts

    def __hash__(self) -> int:
        return hash((Sealed, self.parts))


def check_key(key: object) -> str:
    """Return *key* if it can be a secret's name; else raise `SecretError`."""
    if not isinstance(key, str):
        raise SecretError(f"a secret's key is text, not {type(key).__name__}")
    if not key or len(key) > _MAX_KEY_LENGTH or not key.isprintable():
        message = f"a secret's key has 1 to {_MAX_KEY_LENGTH} printable characters"
        raise SecretError(message, code="INVALID_ARGUMENT")
    return key


def secret_keys(tree: Any) -> set[str]:
    """Return the keys of all secrets that *tree* refers to."""
    return _with_keys(tree)[1]


def reveal(tree: Any, resolver: SecretReader) -> Any:
    """
    Return a copy of *tree* with every secret's value in place.

    Call it at the last moment before a call: nothing may store, log or signal the result. Each
    secret is looked up once.
    """
    copy, keys = _with_keys(tree)
    return _revealed(copy, {key: resolver.get(key) for key in sorted(keys)}) if keys else copy


async def areveal(tree: Any, resolver: SecretReader) -> Any:
    """Do the same as `reveal`, without blocking the event loop."""
    copy, keys = _with_keys(tree)
    return (
        _revealed(copy, {key: await resolver.aget(key) for key in sorted(keys)}) if keys else copy
    )


def _with_keys(tree: Any) -> tuple[Any, set[str]]:
    """Return a copy of *tree*, and the keys of all secrets that it refers to."""
    found: set[str] = set()

    def noted(handle: Any) -> Any:
        found.update(Sealed(handle).keys)
        return handle

    return _replaced(tree, noted), found


def _revealed(tree: Any, values: Mapping[str, str]) -> Any:
    left = MOST_REVEALED

    def unsealed(handle: Any) -> str:
        nonlocal left
        sealed = Sealed(handle)
        # Before it is made: a loop may refer to a large secret a thousand times.
        left -= sum(len(values[part.key]) for part in sealed.parts if isinstance(part, SecretRef))
        if left < 0:
            raise SecretError(
                f"the secrets of one call take more than {MOST_REVEALED:,} characters",
                hint="refer to each secret once, and not in a loop",
                code="INVALID_ARGUMENT",
            )
        return sealed.unseal(values)

    return _replaced(tree, unsealed)


def masked(tree: Any) -> Any:
    """Return a copy of *tree* to show or store, with each secret as ``[secret KEY]``."""
    return _replaced(tree, str)


def _replaced(tree: Any, stand_in: Callable[[Any], Any]) -> Any:
    """Return a copy of *tree* in which *stand_in* has replaced each handle."""
    if isinstance(tree, _Opaque):
        return stand_in(tree)
    if isinstance(tree, Mapping):
        return {key: _replaced(value, stand_in) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_replaced(value, stand_in) for value in tree]
    return tree
