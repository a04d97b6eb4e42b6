"""Nobody is answered "accepted" by a request whose COMMIT fails: in each framework, and by us."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from automate_kernel import Connector, Kernel, TriggerSpec
from automate_kernel.http.app import webhook_app
from automate_kernel.triggers.webhooks import GitHubSignature
from automate_sqlalchemy import SqlAlchemyStorage
from fastapi import Depends, FastAPI
from flask import Flask, stream_with_context
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

SECRET = "a-webhook-secret"


class GitHub(Connector):
    key = "github"

    @classmethod
    def triggers(cls) -> list[TriggerSpec]:
        signature = GitHubSignature("HOOK")
        return [TriggerSpec("push", signature=signature, delivery_id_header="X-GitHub-Delivery")]


class Shop:
    """A kernel on SQLite whose commits fail while it says so."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine, self.fails = engine, True
        dialect: Any = engine.dialect
        commit = dialect.do_commit

        def committed(connection: Any) -> None:
            if self.fails:
                raise sqlite3.OperationalError("database or disk is full")
            commit(connection)

        dialect.do_commit = committed
        self.kernel = Kernel(
            SqlAlchemyStorage(engine), plugins=[GitHub], secrets={"HOOK": SECRET}, discover=False
        )

    def events(self) -> int:
        """The events that another client sees; it could write at once."""
        with sqlite3.connect(str(self.engine.url.database), timeout=1) as other:
            other.execute("UPDATE automate_outbox SET kind = kind")
            return int(other.execute("SELECT count(*) FROM automate_outbox").fetchone()[0])

    def emit(self) -> dict[str, str]:
        with Session(self.engine) as session, session.begin():
            return {"event": self.kernel.emit("order.created", transaction=session)}


@pytest.fixture
def shop(sqlite_engine: sa.Engine) -> Iterator[Shop]:
    shop = Shop(sqlite_engine)
    with shop.kernel:
        yield shop
        shop.fails = False


def fastapi(shop: Shop, scope: Any) -> Any:
    async def session() -> AsyncIterator[Session]:
        with Session(shop.engine) as session, session.begin():
            yield session

    app = FastAPI()

    @app.post("/", status_code=201)
    async def create(session: Any = Depends(session, scope=scope)) -> dict[str, str]:
        return {"event": shop.kernel.emit("order.created", transaction=session)}

    return app


def status(app: Any) -> int:
    return TestClient(app, raise_server_exceptions=False).post("/").status_code


def test_a_dependency_of_fastapi(shop: Shop) -> None:
    """It commits before the answer if it ends with the function; by itself it is too late."""
    assert status(fastapi(shop, "request")) == 201, "the page may say less"
    assert status(fastapi(shop, "function")) == 500
    assert shop.events() == 0
    shop.fails = False
    assert status(fastapi(shop, "function")) == 201
    assert shop.events() == 1


def starlette(shop: Shop, *, around: bool) -> Any:
    def create(request: Any) -> JSONResponse:
        answer = shop.kernel.emit("order.created", transaction=request.state.session)
        if not around:
            request.state.session.commit()
        return JSONResponse({"event": answer}, status_code=201)

    app = Starlette(routes=[Route("/", create, methods=["POST"])])

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        with Session(shop.engine) as session:
            scope["state"] = {"session": session}
            await app(scope, receive, send)
            if around:
                session.commit()

    return middleware


def test_a_middleware_around_an_asgi_application(shop: Shop) -> None:
    """Its commit is too late; that of the endpoint isn't."""
    sent: list[int] = []

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            sent.extend([message["status"]] if "status" in message else [])
            await send(message)

        await starlette(shop, around=True)(scope, receive, note)

    status(noted)
    assert sent == [201], "the page may say less"
    assert status(starlette(shop, around=False)) == 500
    assert shop.events() == 0
    shop.fails = False
    assert status(starlette(shop, around=False)) == 201
    assert shop.events() == 1


@pytest.mark.parametrize("place", ["view", "after_request", "teardown"])
def test_flask(shop: Shop, place: str) -> None:
    """Each commits before the server has sent the answer's first byte."""
    app = Flask("shop")
    sessions: list[Session] = []

    @app.post("/")
    def create() -> Any:
        if place == "view":
            return shop.emit(), 201
        sessions.append(Session(shop.engine))
        return {"event": shop.kernel.emit("order.created", transaction=sessions[-1])}, 201

    if place == "after_request":

        @app.after_request
        def commit(response: Any) -> Any:
            sessions[-1].commit()
            return response

    if place == "teardown":

        @app.teardown_request
        def end(error: Any) -> None:
            sessions[-1].commit()

    assert _served(app) == 500
    for session in sessions:
        session.close()
    assert shop.events() == 0
    shop.fails = False
    assert _served(app) == 201
    assert shop.events() == 1


def test_the_generator_of_a_streamed_answer(shop: Shop) -> None:
    """It is too late: the answer has begun."""
    app = Flask("shop")

    @app.post("/")
    def create() -> Any:
        def parts() -> Iterator[str]:
            yield "accepted"
            shop.emit()

        return stream_with_context(parts()), 201

    assert _served(app) == 201, "the page may say less"
    assert shop.events() == 0


def _served(app: Any) -> int:
    """Call a WSGI application as servers do: what it has not sent is an error 500."""
    answers: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/", "SERVER_NAME": "h", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.errors": None, "wsgi.input": None,
    }  # fmt: skip
    sent = 0
    try:
        parts = app(environ, lambda text, *_: answers.append(text))
        for _ in parts:
            sent = int(answers[-1].split()[0])
        parts.close()
    except sa.exc.OperationalError:
        return sent or 500
    return sent


Post = Callable[[TestClient], Any]


def event(client: TestClient) -> Any:
    headers = {"Authorization": "Bearer token-of-events-0123456789", "Idempotency-Key": "one"}
    return client.post("/events", json={"name": "order.created"}, headers=headers)


def webhook(client: TestClient) -> Any:
    body = json.dumps({"ref": "main"}).encode()
    headers = {**GitHubSignature("HOOK").sign(body, SECRET), "X-GitHub-Delivery": "1"}
    return client.post("/webhooks/github/push", content=body, headers=headers)


@pytest.mark.parametrize("post", [event, webhook])
def test_our_own_routes(shop: Shop, post: Post) -> None:
    """The sender is asked to send again, and then it is accepted once."""
    app = webhook_app(shop.kernel, events_token="token-of-events-0123456789")
    client = TestClient(app, raise_server_exceptions=False)
    refused = post(client)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert shop.events() == 0
    shop.fails = False
    assert post(client).status_code == 202
    assert shop.events() == 1
