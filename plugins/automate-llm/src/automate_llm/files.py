"""Images and documents of messages: found, bounded, and known by their bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from automate_kernel import AutomateError, ErrorCodes
from automate_llm.media import media_type_of, size_of_image

if TYPE_CHECKING:
    from pydantic_ai.messages import BinaryContent

    from automate_llm.config import ChatFile, LlmConfig

_FETCH_SECONDS = 30.0
Read = Callable[[str, dict[str, Any]], Awaitable[Any]]


class ChatFiles:
    """
    The files of requests, within the bounds of *config*.

    *read* calls another plugin's operation as a part of the call that goes on.
    """

    def __init__(self, config: LlmConfig, read: Read | None) -> None:
        self._config, self._read = config, read
        self._http: Any = None

    async def contents(self, files: Sequence[Sequence[ChatFile]]) -> list[list[BinaryContent]]:
        """
        Return the contents of *files*, which are those of one message each.

        Raises `AutomateError` for a file that is none of the known types, that is larger than it
        may be, or that can't be had; no request was made then.
        """
        left = self._config.max_files_bytes
        found: list[list[BinaryContent]] = []
        for message in files:
            found.append([])
            for file in message:
                most = min(self._config.max_file_bytes, left)
                if most <= 0:
                    raise _too_large(0)
                content = await self._content(file, most)
                left -= len(content.data)
                found[-1].append(content)
        return found

    async def _content(self, file: ChatFile, most: int) -> BinaryContent:
        from pydantic_ai.messages import BinaryContent

        data = _decoded(await self._encoded(file, most), most)
        media_type = media_type_of(data)
        if media_type is None:
            raise _refused("a file is no PNG, JPEG, GIF or WebP image, and no PDF", _OTHERS)
        if media_type.startswith("image/") and size_of_image(data, media_type) is None:
            raise _refused(f"a file begins as {media_type}, and is broken", "send another one")
        return BinaryContent.narrow_type(BinaryContent(data, media_type=media_type))

    async def _encoded(self, file: ChatFile, most: int) -> Any:
        """Return the bytes of *file* in Base64."""
        if file.base64 is not None:
            return file.base64
        if file.url is not None:
            return (await self._fetched(file.url, most)).get("base64")
        if file.place is not None:
            given = {"place": file.place, "path": file.path, "encoding": "base64"}
            return (await self._read_by(".read", given)).get("base64")
        given = {"bucket": file.bucket, "key": file.key, "version_id": file.version_id}
        named = {name: value for name, value in given.items() if value is not None}
        found = await self._read_by(".get_object", {**named, "encoding": "base64"})
        return found.get("content")

    async def _read_by(self, ending: str, given: dict[str, Any]) -> dict[str, Any]:
        names = [each for each in self._config.files_from if each.endswith(ending)]
        usual = "files.read" if ending == ".read" else "s3.get_object"
        if not names:
            raise AutomateError(
                ErrorCodes.PERMISSION_DENIED,
                "the config of this provider does not let it read files of other plugins",
                hint=f'add files_from = ["{usual}"] to its config: then whoever may call it may'
                " have any file sent that this operation reads",
            )
        if self._read is None:
            raise AutomateError(
                ErrorCodes.FAILED_PRECONDITION,
                "files of other plugins are read by a kernel, and this provider has none",
                hint="take it from the kernel: kernel.provider('llm')",
            )
        found = await self._read(names[0], given)
        return found if isinstance(found, dict) else {}

    async def _fetched(self, url: str, most: int) -> dict[str, Any]:
        try:
            found = await self._connector().call_action("get", {"url": url, "max_bytes": most})
        except AutomateError as error:
            if error.code in (ErrorCodes.FAILED_PRECONDITION, ErrorCodes.PERMISSION_DENIED):
                # Its own names a connector that nobody has configured.
                error.hint = "see max_file_bytes and allow_private_networks in this config"
            raise
        return found if isinstance(found, dict) else {}

    def _connector(self) -> Any:
        if self._http is None:
            try:
                from automate_http import HttpConnector
            except ImportError:
                raise AutomateError(
                    ErrorCodes.UNIMPLEMENTED,
                    "a file by its url is fetched by automate-http, which is not installed",
                    hint="pip install automate-http, or send its bytes as base64",
                ) from None
            # A client of its own: with no header that belongs to another service.
            self._http = HttpConnector(
                {
                    "timeout_seconds": _FETCH_SECONDS,
                    "max_response_bytes": self._config.max_file_bytes,
                    "allow_private_networks": self._config.allow_private_networks,
                }
            )
        return self._http

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()


_OTHERS = "turn it into one of these; text goes into the prompt"


def _decoded(encoded: Any, most: int) -> bytes:
    """Return the bytes, which are at most so many before they are decoded."""
    if not isinstance(encoded, str):
        raise _refused("a file has text as its content, or none", _OTHERS)
    if len(encoded) // 4 * 3 - 2 > most:
        raise _too_large(most)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _refused(
            "the base64 of a file can't be decoded", "check how it was encoded"
        ) from None
    if len(data) > most:
        raise _too_large(most)
    return data


def _too_large(most: int) -> AutomateError:
    return _refused(
        f"a file has more bytes than the {most:,} that it may have here",
        "send a smaller one, or raise max_file_bytes or max_files_bytes in the config",
    )


def _refused(problem: str, hint: str) -> AutomateError:
    return AutomateError(ErrorCodes.INVALID_ARGUMENT, problem, hint=hint)
