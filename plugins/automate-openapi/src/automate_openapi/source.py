"""The source of a document: a file, or a URL that is asked again by its ETag."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import anyio
import httpx

from automate_http import AddressPolicy, Guard
from automate_http.exchange import Bounds, exchange
from automate_http.failures import failure_of
from automate_http.guard import origin
from automate_http.headers import is_header_text
from automate_http.transports import Transports
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_openapi.config import OpenApiConfig
from automate_openapi.document import ApiDocument, is_url, parse, references, shown

_MOST_DOCUMENTS = 50
_AGAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.01
_NOT_MODIFIED = 304


@dataclass(slots=True)
class _Read:
    """A document that was read, and the marks by which a change is seen."""

    document: ApiDocument
    at: float
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    etag: str | None = None


class DocumentSource:
    """
    The document that the *config* names.

    It is read at its first use. A file is read again when it has changed; a URL is asked after
    `OpenApiConfig.refresh_seconds`, and while it can't be reached the last document counts.
    """

    def __init__(
        self,
        config: OpenApiConfig,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._logger, self._clock = config, logger, clock
        self._read: _Read | None = None
        self._lock = threading.Lock()
        self._is_url = is_url(config.document)
        guard = Guard(AddressPolicy.parse(config.allow_private_networks))
        self._transports = Transports(guard, ca_file=config.ca_file, owner="the document's client")
        if self._is_url:
            guard.check_url(httpx.URL(config.document))
            if urlsplit(config.document).scheme == "http" and not config.allow_private_networks:
                raise ConfigError(
                    "document must be https: it says where your credentials go",
                    hint="or name its private network in allow_private_networks",
                )

    async def document(self) -> ApiDocument:
        """Return the document, the same object while it hasn't changed. Raises `AutomateError`."""
        read = self._read
        if read is not None and self._is_fresh(read):
            return read.document
        # Not asyncio's: an instance serves several event loops.
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110
            await anyio.sleep(_LOOK_SECONDS)
        try:
            read = self._read
            if read is None or not self._is_fresh(read):
                self._read = read = await self._again(read)
            return read.document
        finally:
            self._lock.release()

    async def _again(self, read: _Read | None) -> _Read:
        if self._is_url:
            return await self._refreshed(read)
        # On a thread: it may be large.
        return await asyncio.to_thread(self._from_files)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transports.aclose()

    @property
    def empty(self) -> bool:
        """True if no connection is open."""
        return self._transports.empty

    def _is_fresh(self, read: _Read) -> bool:
        if self._is_url:
            return self._clock() - read.at < self._config.refresh_seconds
        try:
            return all(_mark(name) == mark for name, mark in read.files.items())
        except OSError:
            return False

    # -- files -------------------------------------------------------------------------------

    def _from_files(self) -> _Read:
        place = str(Path(self._config.document).absolute())
        marks: dict[str, tuple[int, int]] = {}
        top = Path(place).parent.resolve()

        def read(name: str) -> Any:
            if not Path(name).resolve().is_relative_to(top):
                raise ConfigError(f"the document refers to {name!r}, which is not below {top}")
            try:
                marks[name] = _mark(name)
                with Path(name).open("rb") as file:
                    text = file.read(self._config.max_document_bytes + 1)
            except OSError as error:
                raise ConfigError(
                    f"the document {name!r} can't be read: {error.strerror}",
                    hint="the path is relative to the folder in which the process was started",
                ) from None
            self._check_length(text, name)
            return parse(text, name)

        content = read(place)
        others: dict[str, Any] = {}
        waiting = self._others(content, place)
        while waiting:
            name = waiting.pop()
            if name not in others and name != place:
                self._check_count(others)
                others[name] = read(name)
                waiting += self._others(others[name], name)
        return _Read(ApiDocument(content, place, others), self._clock(), marks)

    # -- URLs --------------------------------------------------------------------------------

    async def _refreshed(self, read: _Read | None) -> _Read:
        try:
            return await self._from_web(read)
        except AutomateError as error:
            if read is None:
                raise
            text = "the document at %s can't be had again, and the last one counts: %s"
            self._logger.warning(text, origin(httpx.URL(self._config.document)), error.message)
            again = self._clock() - self._config.refresh_seconds + _AGAIN_SECONDS
            return _Read(read.document, again, etag=read.etag)

    async def _from_web(self, read: _Read | None) -> _Read:
        place = self._config.document
        found = await self._get(place, read.etag if read is not None else None)
        if found is None and read is not None:
            return _Read(read.document, self._clock(), etag=read.etag)
        text, etag = found or (b"", None)
        content = await asyncio.to_thread(_fetched, text, place)
        others: dict[str, Any] = {}
        waiting = self._others(content, place)
        while waiting:
            url = waiting.pop()
            if url in others or url == place:
                continue
            if urlsplit(url)[:2] != urlsplit(place)[:2]:
                raise ConfigError(f"the document refers to another host, {urlsplit(url).netloc!r}")
            self._check_count(others)
            more = await self._get(url, None)
            others[url] = await asyncio.to_thread(_fetched, more[0] if more else b"", url)
            waiting += self._others(others[url], url)
        # An ETag is of one document, so with others all are asked for again.
        with _may_pass():
            document = ApiDocument(content, place, others)
        return _Read(document, self._clock(), etag=etag if not others else None)

    async def _get(self, url: str, etag: str | None) -> tuple[bytes, str | None] | None:
        """Return a document and its ETag, or None if it is still the one of *etag*."""
        headers = {
            "accept": "application/json, application/yaml, */*;q=0.5",
            "user-agent": "automate-openapi",
            "accept-encoding": "gzip, deflate",
            **({"if-none-match": etag} if etag else {}),
        }
        config = self._config
        reply = await exchange(
            self._transports.get(),
            httpx.Request("GET", url, headers=headers),
            Bounds(config.timeout_seconds, config.max_document_bytes, config.max_redirects),
        )
        if reply.status == _NOT_MODIFIED and etag is not None:
            return None
        if reply.status != httpx.codes.OK:
            raise failure_of(reply)
        found = reply.headers.get("etag")
        return reply.content, found if found and is_header_text(found) else None

    # -- both --------------------------------------------------------------------------------

    def _others(self, content: Any, place: str) -> list[str]:
        if not self._config.external_refs:
            return []
        found = set()
        for each in references(content):
            # One that is no address is the problem of the actions that need it.
            with suppress(ValueError):
                found.add(urldefrag(urljoin(place, each)).url)
        return list(found)

    def _check_count(self, others: dict[str, Any]) -> None:
        if len(others) >= _MOST_DOCUMENTS:
            raise ConfigError(f"the document refers to more than {_MOST_DOCUMENTS} others")

    def _check_length(self, text: bytes, place: str) -> None:
        if len(text) > self._config.max_document_bytes:
            raise ConfigError(
                f"the document {shown(place)} is larger than "
                f"{self._config.max_document_bytes:,} bytes",
                hint="raise max_document_bytes",
            )


@contextmanager
def _may_pass() -> Iterator[None]:
    """Make the problem of a fetched document one that may pass: a proxy's page, half an answer."""
    try:
        yield
    except ConfigError as error:
        raise AutomateError(ErrorCodes.UNAVAILABLE, error.message, hint=error.hint) from None


def _fetched(text: bytes, place: str) -> Any:
    with _may_pass():
        return parse(text, place)


def _mark(name: str) -> tuple[int, int]:
    found = Path(name).stat()
    return found.st_mtime_ns, found.st_size
