"""Images and documents in messages: each way to give them, the wire of each service, bounds, budgets."""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_support import CITY, SECRET, calls, completion, says, scripted

from automate_files import FilesConnector
from automate_kernel import AutomateError, Kernel, current_call
from automate_llm import LlmProvider
from automate_llm.file_tokens import file_tokens, image_tokens
from automate_llm.media import media_type_of, pages_of_pdf, size_of_image, text_of_pdf


def png(width: int = 3, height: int = 2, extra: int = 0) -> bytes:
    """A real PNG, with so many bytes of noise in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress((b"\0" + b"\x7f" * width) * height)
    parts = (
        chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"tEXt", Random(1).randbytes(extra))
    )
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return (
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc2\0\x0b\x08" + size + b"\1\1\x11\0"
    )


def webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + size


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + b"\0\0\0;"


def pdf(pages: int, *, packed: bool = False) -> bytes:
    objects = b"<< /Type /Pages /Count 1 >>" + b"<< /Type /Page /Parent 1 0 R >>" * pages
    if packed:
        stream = zlib.compress(objects)
        objects = (
            b"<< /Type /ObjStm /N 2 /Filter /FlateDecode >>\nstream\n" + stream + b"\nendstream"
        )
    return b"%PDF-1.7\n1 0 obj\n" + objects + b"\nendobj\n%%EOF\n"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def kernel_for(
    url: str, *plugins: Any, model: str = "openai-chat:gpt-4o", config: Any = None, **more: Any
) -> Kernel:
    main = {"model": model, "base_url": url, "api_key": "$secret:API_KEY", "max_tokens": 100}
    given = {"llm": {"services": {"main": main}, **more}, **(config or {})}
    return Kernel(
        discover=False, plugins=[LlmProvider, *plugins], secrets={"API_KEY": SECRET}, config=given
    )


def files_sent(request: dict[str, Any]) -> list[dict[str, Any]]:
    content = request["messages"][-1]["content"]
    return [each for each in content if each["type"] != "text"]


def test_an_image_and_a_document_go_with_the_prompt():
    image, document = png(), pdf(2)
    with scripted(lambda _: says("A square")) as service:
        kernel = kernel_for(service.url)
        output = kernel.invoke(
            "llm.chat",
            {
                "prompt": "What is it?", "instructions": "Be short",
                "files": [{"base64": encoded(image)}, {"base64": encoded(document)}],
            },
        )  # fmt: skip
    assert output["text"] == "A square"
    system, message = service.requests[0]["messages"]
    assert (system["role"], system["content"]) == ("system", "Be short")
    assert message["content"][0] == {"type": "text", "text": "What is it?"}
    picture, paper = files_sent(service.requests[0])
    assert picture["image_url"]["url"] == f"data:image/png;base64,{encoded(image)}"
    assert paper["file"]["file_data"] == f"data:application/pdf;base64,{encoded(document)}"


def test_files_of_the_talk_before_and_of_structured_output():
    with scripted(lambda _: calls(("final_result", {"name": "Paris", "large": True}))) as service:
        output = kernel_for(service.url).invoke(
            "llm.structured",
            {
                "prompt": "And this?", "output_schema": CITY,
                "files": [{"base64": encoded(gif(4, 4))}],
                "history": [
                    {"role": "user", "content": "This?", "files": [{"base64": encoded(png())}]},
                    {"role": "assistant", "content": "Rome"},
                ],
            },
        )  # fmt: skip
    assert output["output"] == {"name": "Paris", "large": True}
    users = [each for each in service.requests[0]["messages"] if each["role"] == "user"]
    types = [
        part["image_url"]["url"].partition(";")[0]
        for each in users
        for part in each["content"]
        if part["type"] == "image_url"
    ]
    assert types == ["data:image/png", "data:image/gif"]


@pytest.mark.parametrize(
    ("model", "path"), [("openai-responses:gpt-5", "/v1/responses"), ("anthropic:claude-x", "/v1/messages")]
)  # fmt: skip
def test_the_wire_of_other_services(model: str, path: str):
    """The service refuses it: what was sent is what matters."""
    pytest.importorskip(model.partition(":")[0].partition("-")[0])
    image, document = encoded(png()), encoded(pdf(1))
    given = {"prompt": "?", "files": [{"base64": image}, {"base64": document}]}
    with scripted(lambda _: (400, {}, {"error": {"message": "no"}})) as service:
        url = service.url if "responses" in model else service.url.removesuffix("/v1")
        with pytest.raises(AutomateError) as refused:
            kernel_for(url, model=model).invoke("llm.chat", given)
    assert refused.value.code == "INVALID_ARGUMENT" and "image/png" in str(refused.value)
    assert service.paths == [path]
    (request,) = service.requests
    message = (request.get("messages") or request["input"])[-1]
    picture, paper = [each for each in message["content"] if "text" not in each]
    if "responses" in model:
        assert picture["image_url"] == f"data:image/png;base64,{image}"
        assert paper["file_data"] == f"data:application/pdf;base64,{document}"
    else:
        assert picture["source"] == {"type": "base64", "media_type": "image/png", "data": image}
        assert paper["type"] == "document" and paper["source"]["data"] == document


def test_a_model_that_takes_no_images_is_named_and_not_asked_again():
    """llama.cpp answers 500 there, which is tried again elsewhere."""
    answers = [
        (400, {}, {"error": {"message": "unknown part image_url"}}),
        (500, {}, {"error": {"message": "image input is not supported; give an mmproj"}}),
    ]
    with scripted(lambda _: answers[len(service.requests) - 1]) as service:
        kernel = kernel_for(service.url)
        for _ in answers:
            with pytest.raises(AutomateError) as refused:
                kernel.invoke("llm.chat", {"prompt": "?", "files": [{"base64": encoded(png())}]})
            error = refused.value
            assert (error.code, error.retryable) == ("INVALID_ARGUMENT", False)
            assert "take a model that reads images" in str(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG, GIF or WebP image, and no PDF"),
        (b"MZ\x90", "no PNG"),
        (b"", "no PNG"),
        (png()[:20], "begins as image/png, and is broken"),
        (png(0, 5), "is broken"),
        (jpeg(5, 5)[:12], "begins as image/jpeg, and is broken"),
        (b"\xff\xd8\xff" + b"\xff" * 500, "is broken"),
        (png(extra=2_000), "more bytes than the 1,500"),
    ],
)  # fmt: skip
def test_a_file_that_is_refused_before_it_costs(content: bytes, said: str):
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_for(service.url, max_file_bytes=1_500)
        with pytest.raises(AutomateError, match=said) as refused:
            # What somebody calls it counts for nothing.
            named = {"base64": encoded(content), "media_type": "image/png", "path": "a.png"}
            kernel.invoke("llm.chat", {"prompt": "?", "files": [named]})
        assert refused.value.code == "INVALID_ARGUMENT" and not refused.value.retryable
        assert refused.value.hint
    assert service.requests == []


@pytest.mark.parametrize(
    "file",
    [{}, {"place": "inbox"}, {"path": "a.png"}, {"bucket": "b"}, {"base64": "%%%"}, {"base64": "é" * 9}],
)  # fmt: skip
def test_a_reference_that_is_none(file: dict[str, Any]):
    with scripted(lambda _: says("x")) as service:
        with pytest.raises(AutomateError) as refused:
            kernel_for(service.url).invoke("llm.chat", {"prompt": "?", "files": [file]})
        assert refused.value.code == "INVALID_ARGUMENT"
    assert service.requests == []


def test_all_files_of_a_request_have_a_bound_too():
    files = [{"base64": encoded(png(extra=900))} for _ in range(3)]
    turn = {"role": "user", "content": "x", "files": files[:1]}
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_for(service.url, max_files_bytes=2_500)
        kernel.invoke("llm.chat", {"prompt": "?", "files": files[:2]})
        for given in ({"files": files}, {"files": files[:2], "history": [turn]}):
            with pytest.raises(AutomateError, match="more bytes than the"):
                kernel.invoke("llm.chat", {"prompt": "?", **given})
        with pytest.raises(AutomateError, match="no service takes files in an answer"):
            turn = {"role": "assistant", "content": "x", "files": files[:1]}
            kernel.invoke("llm.chat", {"prompt": "?", "history": [turn]})
        assert len(service.requests) == 1


@contextmanager
def pictures(*answers: tuple[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A web server with files, by path."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/inside":
                self.send_response(302)
                self.send_header("Location", "http://169.254.169.254/latest/meta-data")
                self.end_headers()
                return
            kind, content = answers[0]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_file_by_its_url_is_fetched_and_sent():
    """A name and a header say what they like."""
    image = png(9, 9)
    with scripted(lambda _: says("x")) as service, pictures(("application/zip", image)) as (url, _):
        kernel = kernel_for(service.url, allow_private_networks=["127.0.0.1"])
        kernel.invoke("llm.chat", {"prompt": "?", "files": [{"url": f"{url}/a.exe"}]})
    (sent,) = files_sent(service.requests[0])
    assert sent["image_url"]["url"] == f"data:image/png;base64,{encoded(image)}"


@pytest.mark.parametrize(
    ("path", "allowed", "code"),
    [
        ("/a", False, "PERMISSION_DENIED"),
        ("/inside", ["127.0.0.1"], "PERMISSION_DENIED"),
        ("/large", ["127.0.0.1"], "FAILED_PRECONDITION"),
        ("file:///etc/passwd", True, "INVALID_ARGUMENT"),
        ("http://metadata.google.internal@127.0.0.1/", True, "INVALID_ARGUMENT"),
        ("data:image/png;base64,AAAA", True, "INVALID_ARGUMENT"),
    ],
)
def test_an_address_that_leads_inside_or_to_too_much(path: str, allowed: Any, code: str):
    with scripted(lambda _: says("x")) as service:
        with pictures(("image/png", png(extra=5_000))) as (url, asked):
            kernel = kernel_for(service.url, allow_private_networks=allowed, max_file_bytes=2_000)
            whole = f"{url}{path}" if path.startswith("/") else path
            with pytest.raises(AutomateError) as refused:
                kernel.invoke("llm.chat", {"prompt": "?", "files": [{"url": whole}]})
        assert refused.value.code == code, refused.value
        assert len(asked) == (0 if path == "/a" or not path.startswith("/") else 1)
    assert service.requests == []


@pytest.fixture
def inbox(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "a.png").write_bytes(png(5, 5, extra=2_000_000))
    place = {"type": "local", "folder": str(tmp_path)}
    return {"files": {"places": {"inbox": place}}}


def test_a_workflow_sends_what_other_plugins_list(inbox: dict[str, Any]):
    """Its bytes never become a step's output, which they are too many for."""
    steps = [
        {"id": "found", "action": "files.list", "input": {"place": "inbox", "pattern": "*.png"}},
        {
            "id": "seen", "action": "llm.chat",
            "input": {"prompt": "?", "files": "{{ steps.found.output.files }}"},
        },
    ]  # fmt: skip
    with scripted(lambda _: says("A square")) as service:
        kernel = kernel_for(
            service.url, FilesConnector, config=inbox, files_from=["files.read", "s3.get_object"]
        )

        @kernel.action("s3.get_object", read_only=True)
        def get_object(key: str, encoding: str, bucket: str | None = None) -> dict[str, Any]:
            assert (bucket, encoding) == ("scans", "base64")
            call = current_call()
            assert call is not None
            assert (call.operation, call.tenant_id) == ("s3.get_object", "acme")
            return {"bucket": bucket, "key": key, "content": encoded(pdf(1))}

        kernel.add_workflow({"name": "w", "trigger": {"type": "manual"}, "steps": steps})
        execution = kernel.run("w")
        assert execution.status == "COMPLETED", execution.error
        given = {"prompt": "?", "files": [{"bucket": "scans", "key": "a.pdf"}]}
        kernel.invoke("llm.chat", given, tenant_id="acme")
    picture, paper = (files_sent(request)[0] for request in service.requests)
    assert len(picture["image_url"]["url"]) > 2_600_000
    assert paper["file"]["file_data"].endswith(encoded(pdf(1)))


def test_no_caller_reads_files_that_the_provider_may_not(inbox: dict[str, Any]):
    """A model, or a client that may call it alone, could have any file sent to a service."""
    with scripted(lambda _: says("x")) as service:
        kernel = kernel_for(service.url, FilesConnector, config=inbox)
        given = {"prompt": "?", "files": [{"place": "inbox", "path": "a.png"}]}
        with pytest.raises(AutomateError, match="files_from") as refused:
            kernel.invoke("llm.chat", given)
        assert refused.value.code == "PERMISSION_DENIED"
        allowed = kernel_for(service.url, FilesConnector, config=inbox, files_from=["files.read"])
        outside = {"place": "inbox", "path": "../secret.png"}
        with pytest.raises(AutomateError, match="path"):
            allowed.invoke("llm.chat", {**given, "files": [outside]})
    assert service.requests == []


def test_a_budget_reserves_what_an_image_may_cost_and_not_its_bytes():
    def answer(_: Any) -> Any:
        held.append(kernel.budgets.find("llm")[0].reserved["tokens"])
        return completion(says("x"))

    held: list[Any] = []
    image, document = png(4_000, 3_000, extra=300_000), pdf(3)
    with scripted(answer) as service:
        kernel = kernel_for(service.url, budgets={"tenant_day": {"tokens": 50_000}})
        for file in (image, document):
            kernel.invoke("llm.chat", {"prompt": "?", "files": [{"base64": encoded(file)}]})
        many = [{"base64": encoded(image)}] * 12
        with pytest.raises(AutomateError, match="would be passed"):
            kernel.invoke("llm.chat", {"prompt": "?", "files": many})
        with pytest.raises(AutomateError, match="pages of a PDF can't be counted"):
            sealed = {"base64": encoded(b"%PDF-1.7\n<< /Encrypt 1 0 R >>")}
            kernel.invoke("llm.chat", {"prompt": "?", "files": [sealed]})
        assert len(service.requests) == 2
        assert kernel.budgets.find("llm")[0].spent["tokens"] == 50
    assert 6_150 < held[0] < 8_000  # for the image, beside the text and the answer
    assert 3 * 9_150 < held[1] < 3 * 9_150 + 2_000


def test_what_no_service_was_asked_is_not_spent(monkeypatch: pytest.MonkeyPatch):
    """Libraries find while they write a request that a service has no such part of a message."""
    from pydantic_ai.models.openai import OpenAIChatModel

    async def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("only images are supported")

    with scripted(lambda _: says("x")) as service:
        kernel = kernel_for(service.url, budgets={"tenant_day": {"tokens": 50_000}})
        monkeypatch.setattr(OpenAIChatModel, "_map_messages", refuse)
        with pytest.raises(AutomateError, match="takes no message with such files") as refused:
            kernel.invoke("llm.chat", {"prompt": "?", "files": [{"base64": encoded(pdf(1))}]})
        assert refused.value.code == "INVALID_ARGUMENT" and not refused.value.retryable
        assert kernel.budgets.find("llm")[0].spent["tokens"] == 0


@pytest.mark.parametrize(
    ("system", "model", "size", "documented"),
    [
        ("anthropic", "claude", (1_000, 1_000), 1_334),
        ("anthropic", "claude", (200, 200), 54),
        ("anthropic", "claude", (1_568, 728), 1_460),
        ("anthropic", "claude", (2_500, 1), 94),
        ("openai", "gpt-4o", (1_024, 1_024), 765),
        ("openai", "gpt-4o", (2_048, 4_096), 1_105),
        ("openai", "gpt-4.1-nano", (1_024, 1_024), 2_520),
        ("openai", "gpt-4o-mini", (1_024, 1_024), 25_501),
        ("openai", "gpt-5.5", (3_000, 3_000), 10_604),
        ("openai", "gpt-6", (5_000, 5_000), 24_649),
        ("openrouter", "openai/gpt-6", (5_000, 5_000), 24_649),
        ("google-gla", "gemini-2.5-flash", (384, 384), 258),
        ("google-gla", "gemini-2.5-flash", (960, 540), 6 * 258),
    ],
)
def test_no_service_counts_more_than_is_reserved(
    system: str, model: str, size: tuple[int, int], documented: int
):
    """The examples of the services' own documentation."""
    assert documented <= image_tokens(*size, system=system, model=model) <= 73_800


@given(st.integers(1, 60_000), st.integers(1, 60_000))
def test_sizes_are_read_from_the_bytes(width: int, height: int):
    small = (min(width, 16_000), min(height, 16_000))
    for made, type_, size in (
        (png(1, 1)[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big"), "png", (width, height)),
        (jpeg(width, height), "jpeg", (width, height)),
        (gif(width, height), "gif", (width, height)),
        (webp(*small), "webp", small),
    ):  # fmt: skip
        assert media_type_of(made) == f"image/{type_}"
        assert size_of_image(made, f"image/{type_}") == size


@given(st.binary(max_size=400), st.sampled_from([png(), jpeg(9, 9), gif(3, 3), webp(7, 7), pdf(1)]))
@settings(max_examples=300)
def test_no_bytes_break_what_reads_them(noise: bytes, begin: bytes):
    for data in (noise, begin[:12] + noise, begin[:24] + noise):
        found = media_type_of(data)
        if found == "application/pdf":
            pages_of_pdf(data)
        elif found is not None:
            size_of_image(data, found)


def test_pages_are_counted_in_packed_objects_too():
    assert [pages_of_pdf(pdf(7)), pages_of_pdf(pdf(7, packed=True))] == [7, 7]
    bomb = zlib.compress(b"\0" * (40 << 20))
    assert pages_of_pdf(b"%PDF-1.7 /ObjStm >>\nstream\n" + bomb) is None


def test_a_large_image_counts_as_the_model_sees_it():
    """Models up to GPT-5.4 make it smaller, and later ones don't."""
    size = {"width": 9_000, "height": 9_000, "system": "openai"}
    models = ("gpt-4.1-nano", "gpt-5", "gpt-5-mini", "gpt-5.4", "o4-mini", "chatgpt-4o-latest")
    assert {image_tokens(model=each, **size) for each in models} == {6_150}
    models = ("gpt-5.5", "gpt-5.6-sol", "gpt-5.10", "gpt-6-nano", "gpt-10")
    assert {image_tokens(model=each, **size) for each in models} == {73_800}


def test_a_picture_in_a_gif_may_be_larger_than_its_screen():
    picture = b"\x2c\0\0\0\0" + (4_000).to_bytes(2, "little") * 2 + b"\x80" + b"\0" * 6
    extension = b"\x21\xf9\4\0\0\0\0\0"
    made = b"GIF89a\1\0\1\0\x80\0\0" + b"\0" * 6 + extension + picture + b"\2\2\x44\1\0"
    assert size_of_image(made + b";", "image/gif") == (4_000, 4_000)
    assert size_of_image(made + picture[:3], "image/gif") == (4_000, 4_000)


@pytest.mark.parametrize(
    ("objects", "pages"),
    [
        (b"<< /Type /Pages /Kids [3 0 R 4 0 R 5 0 R] /Count 3 >> << /Type /Page >>", 3),
        (b"<</Kids[3 0 R 3 0 R]/Count 2>> <</Type/Page>>", None),
        (b"<< /Kids 9 0 R /Count 2 >> [3 0 R 3 0 R] << /Type /Page >>", None),
        (b"<< /Type /P#61ge >> << /Type%x\n/Page >> << /Type\0/Page >>", 3),
        (b"<< /T (field) /Kids [3 0 R 4 0 R 5 0 R] >> << /Type /Page >>", 1),
    ],
)
def test_a_document_hides_no_page(objects: bytes, pages: int | None):
    packed = b"<</Type/Obj#53tm/Filter/FlateDecode>> stream\r\n" + zlib.compress(objects)
    far = packed.replace(b"/Filter", b"/X (" + b"x" * 9_000 + b")/Filter")
    for made in (objects, packed, far):
        assert pages_of_pdf(b"%PDF-1.7\n1 0 obj " + made + b"\nendstream endobj") == pages


@pytest.mark.parametrize("packed", [True, False])
def test_the_text_of_a_long_page_counts(packed: bool):
    text = b"BT (" + b"word " * 20_000 + b") Tj <" + b"0041" * 5_000 + b"> Tj ET"
    about = b"<< /Filter /FlateDecode >>" if packed else b"<< /Length 9 >>"
    stream = about + b" stream\n" + (zlib.compress(text) if packed else text) + b"\nendstream"
    made = pdf(1) + b"7 0 obj " + stream + b" endobj"
    assert text_of_pdf(made) == 100_002 + 10_000
    short = file_tokens(pdf(1), system="anthropic", model="claude")
    assert file_tokens(made, system="anthropic", model="claude") == short + 110_002 - 3_000


def test_many_small_streams_take_no_time():
    """Each was looked at with all that came after it: minutes for a file of a few megabytes."""
    small = b"<</ObjStm/Filter/x>>stream\n" + zlib.compress(b"BT") + b"\nendstream "
    made = pdf(1) + small * 40_000
    assert (pages_of_pdf(made), text_of_pdf(made)) == (1, 0)


@pytest.mark.parametrize(
    "made",
    [
        b"<< >> stream\n" * 40_000,
        (b"<< /Filter >> stream\n" + zlib.compress(b"0" * 70_000) + b" endstream ") * 4_000,
    ],
    ids=["endless", "packed"],
)
def test_a_pdf_with_more_streams_than_can_be_read_has_more_text_than_a_budget(made: bytes) -> None:
    """Each stream costs as much as all that follows it, or as what it unpacks to."""
    assert text_of_pdf(b"%PDF-1.7\n" + made) == 32 << 20
