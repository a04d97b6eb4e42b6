"""A kernel that was used before its process was forked, as servers do that load it first."""

from __future__ import annotations

import collections
import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import processes
import pytest
import sqlalchemy as sa
from automate_kernel.base import forks, runtime
from automate_kernel.storage import MemoryStorage
from automate_sqlalchemy import metadata
from database_servers import fresh_database
from ports import free_ports
from waiting import PATIENCE, until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")

ACTIONS = """
@kernel.action("sum.up")
async def sum_up(numbers: list) -> int:
    return sum(numbers)

@kernel.action("sum.plainly")
def sum_plainly(numbers: list) -> int:
    return sum(numbers)
"""
SCRIPT = (
    """
import json, os, sys
from automate_kernel import Kernel
from automate_kernel.plugins.connectors import Connector, action
from automate_sqlalchemy import SqlAlchemyStorage

class Shop(Connector):
    key = "shop"
    display_name = "Shop"

    def __init__(self, config=None, *, ctx=None):
        super().__init__(config, ctx=ctx)
        self.pid = os.getpid()

    @action
    async def owner(self) -> int:
        return self.pid

kernel = Kernel(SqlAlchemyStorage(sys.argv[1]), plugins=[Shop], discover=False, secrets={})

"""
    + ACTIONS
    + """
kernel.add_workflow({
    "name": "sums",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "each", "for_each": [1, 2, 3], "concurrency": 3, "action": "sum.up",
         "input": {"numbers": ["{{ item }}", 10]}},
        {"id": "beside", "needs": [], "action": "sum.plainly", "timeout": 60,
         "input": {"numbers": [1, 2]}},
    ],
    "output": "{{ steps.each.output }}",
})

def use():
    execution = kernel.run("sums")
    for number in range(20):
        kernel.outbox.enqueue("note", {"number": number})
    owner = kernel.invoke("shop.owner")
    return [str(execution.status), execution.output, owner == os.getpid()]

told = [use()]
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, json.dumps(use()).encode())
    os._exit(0)
os.close(writing)
told.append(use())
with os.fdopen(reading) as pipe:
    told.append(json.loads(pipe.read()))
told.append(os.waitpid(child, 0)[1])
told.append(use())
told.append(kernel.outbox.stats().counts["note"]["PENDING"])
kernel.close()
print(json.dumps(told))
"""
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'forks.sqlite3'}"
    else:
        url = request.getfixturevalue("postgresql_url")
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    return url


def test_parent_and_child_go_on(url: str) -> None:
    """Each with its own threads, connections and instances, at the same time."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, url],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = ["COMPLETED", [11, 12, 13], True]
    assert json.loads(done.stdout) == [whole, whole, whole, 0, whole, 80]


APPLICATION = (
    """
import os, sqlalchemy as sa
from automate_kernel import Kernel
from automate_sqlalchemy import SqlAlchemyStorage

engine = sa.create_engine(os.environ["SHOP_URL"])
kernel = Kernel(SqlAlchemyStorage(engine), discover=False, secrets={})

"""
    + ACTIONS
    + """
kernel.add_workflow({
    "name": "sums",
    "trigger": {"type": "manual"},
    "steps": [
        {"id": "one", "action": "sum.up", "input": {"numbers": [1, 10]}},
        {"id": "two", "needs": [], "action": "sum.plainly", "timeout": 60,
         "input": {"numbers": [1, 2]}},
    ],
    "output": "{{ steps.one.output }}",
})

def order():
    with engine.begin() as connection:
        sent = kernel.emit("order.created", transaction=connection)
        connection.execute(sa.text("INSERT INTO orders VALUES (:id)"), {"id": sent})
    return kernel.run("sums").output, kernel.invoke("sum.up", {"numbers": [1, 2]})

order()  # in the process that is forked

def app(environ, start_response):
    told = order()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {told}".encode()]
"""
)
UWSGI = "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])"
SERVERS = {
    "gunicorn": ["-m", "gunicorn", "--preload", "--workers", "2"],
    "gunicorn-threads": ["-m", "gunicorn", "--preload", "--workers", "2", "--threads", "4"],
    "uwsgi": ["-c", UWSGI, "--master", "--processes", "2"],
    "uwsgi-threads": ["-c", UWSGI, "--master", "--processes", "2", "--threads", "4"],
    "uwsgi-hooks": ["-c", UWSGI, "--master", "--processes", "2", "--py-call-osafterfork"],
    "uwsgi-alone": ["-c", UWSGI, "--processes", "2", "--enable-threads"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_servers_that_load_an_application_before_they_fork(
    server: str, postgresql_url: str, tmp_path: Path
) -> None:
    """Each of its processes answers, emits in its own transactions, and ends when it is told to."""
    pytest.importorskip(server.partition("-")[0].replace("uwsgi", "pyuwsgi"))
    (tmp_path / "forked_shop.py").write_text(APPLICATION)
    engine = sa.create_engine(postgresql_url, poolclass=sa.NullPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        for line in ("DROP TABLE IF EXISTS orders", "CREATE TABLE orders (event text)"):
            connection.exec_driver_sql(line)
        connection.exec_driver_sql("DELETE FROM automate_outbox")
    (port,) = free_ports(1)
    options = (
        ["--bind", f"127.0.0.1:{port}", "forked_shop:app"]
        if server.startswith("gunicorn")
        else ["--http-socket", f"127.0.0.1:{port}", "--module", "forked_shop:app",
              "--callable", "app", "--die-on-term"]
    )  # fmt: skip
    environment = {**os.environ, "SHOP_URL": postgresql_url, "PYTHONPATH": str(tmp_path)}
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        processes.running(
            [sys.executable, *SERVERS[server], *options],
            cwd=tmp_path, env=environment, stdout=output, stderr=output,
        ) as running,
    ):  # fmt: skip
        until(lambda: _answer(port) or running.poll() is not None, 4 * PATIENCE)
        answers: collections.Counter[str] = collections.Counter()
        with ThreadPoolExecutor(8) as clients:
            # By the clock: one that begins late leaves hundreds of them to the other.
            end = time.monotonic() + 2 * PATIENCE
            while len(answers) < 2:
                assert time.monotonic() < end, (answers, log.read_text()[-2000:])
                answers.update(clients.map(_answer, [port] * 40))
        assert {each.partition(" ")[2] for each in answers} == {"(11, 3)"}, log.read_text()[-2000:]
        running.terminate()
        # uWSGI kills a worker that does not end only after a minute.
        running.wait(2 * PATIENCE)
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
    with engine.connect() as connection:
        orders = connection.exec_driver_sql("SELECT event FROM orders").scalars().all()
        events = connection.exec_driver_sql(
            "SELECT count(*) FROM automate_outbox WHERE payload::text LIKE '%%order.created%%'"
        ).scalar_one()
    assert len(orders) == len(set(orders)) == events
    assert events >= sum(answers.values())


DJANGO_APPLICATION = """
import os
import django, sqlalchemy as sa
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

url = sa.make_url(os.environ["SHOP_URL"])
settings.configure(
    SECRET_KEY="k" * 50, ALLOWED_HOSTS=["*"], USE_TZ=True, ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "automate_django"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username,
        "PASSWORD": url.password or "", "HOST": url.query.get("host") or url.host,
        "PORT": url.port or "", "CONN_MAX_AGE": 0 if os.environ["SHOP_POOL"] else 600,
        "OPTIONS": {"pool": True} if os.environ["SHOP_POOL"] else {},
    }},
)
django.setup()

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection, transaction
from automate_django import emit

def order(request):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (%s)", [emit("order.created")])
    return HttpResponse(f"{os.getpid()} done")

urlpatterns = [path("", order)]
app = get_wsgi_application()
call_command("migrate", verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE orders (event text)")
order(None)  # in the process that is forked
"""


@pytest.mark.parametrize("pool", ["", "pool"], ids=["kept-connections", "pool"])
def test_a_django_project_that_is_loaded_before_its_server_forks(
    pool: str, postgresql_server: str, tmp_path: Path
) -> None:
    """No process writes on the connection, and so in the transaction, of another one."""
    pytest.importorskip("gunicorn")
    (tmp_path / "forked_project.py").write_text(DJANGO_APPLICATION)
    (port,) = free_ports(1)
    command = [
        sys.executable, *SERVERS["gunicorn-threads" if pool else "gunicorn"],
        "--bind", f"127.0.0.1:{port}", "forked_project:app",
    ]  # fmt: skip
    log = tmp_path / "log"
    with fresh_database(postgresql_server) as url, log.open("wb") as output:
        environment = {
            **os.environ, "SHOP_URL": url, "SHOP_POOL": pool, "PYTHONPATH": str(tmp_path)
        }  # fmt: skip
        with processes.running(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=output
        ) as running:
            until(lambda: _answer(port) or running.poll() is not None, 4 * PATIENCE)
            with ThreadPoolExecutor(8) as clients:
                answers = [*clients.map(_answer, [port] * 400)]
            running.terminate()
            running.wait(2 * PATIENCE)
        assert {each.partition(" ")[2] for each in answers} == {"done"}, log.read_text()[-2000:]
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            orders = connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()
            events = connection.exec_driver_sql("SELECT count(*) FROM automate_outbox")
            assert orders == events.scalar_one() >= 400


def _answer(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", "/")
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else f"- {answer.status}"
    except OSError:
        return ""
    finally:
        connection.close()


STORM = """
import json, os, signal, sys, threading, time
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import AutomateError
from automate_kernel.outbox import NewItem
from automate_sqlalchemy import SqlAlchemyStorage

url, children, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
engine = sa.create_engine(url, connect_args={"timeout": 50}) if url else None
if way == "wal":
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
kernel = Kernel(SqlAlchemyStorage(engine) if url else None, discover=False, secrets={})

@kernel.handler("note")
def note(item):
    pass

worker = kernel.worker(slots=2)
threading.Thread(target=worker.run, daemon=True).start()
stop, fed = threading.Event(), threading.Event()

def feed():
    while not stop.is_set():
        kernel.outbox.enqueue_many([NewItem("note", {"text": "x" * 500}) for _ in range(5)])
        fed.set()
        stop.wait(0.002)  # SQLite is not fair: else nobody else would come in

feeder = threading.Thread(target=feed, daemon=True)
feeder.start()
fed.wait()
ended = []
for number in range(children):
    fed.clear()
    fed.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        kernel.outbox.enqueue("child", {"number": number})
        with kernel.storage.begin() as rows:
            assert rows.count("automate_outbox")
        os._exit(0)
    ended.append(os.waitpid(child, 0)[1])
stop.set()
feeder.join()
worker.stop()
print(json.dumps(ended))
if url:
    check = engine.connect().exec_driver_sql
    print(check("PRAGMA integrity_check").scalar())
    print(check("SELECT count(*) FROM automate_outbox WHERE kind = 'child'").scalar())
os._exit(0)
"""


@pytest.mark.parametrize("way", ["delete", "wal", "memory"])
def test_a_fork_while_other_threads_write(way: str, tmp_path: Path) -> None:
    """SQLite has locks of its own, which would stay locked in the child: its first write hung."""
    url = ""
    if way != "memory":
        url = f"sqlite:///{tmp_path / 'forks.sqlite3'}"
        engine = sa.create_engine(url)
        metadata.create_all(engine)
        engine.dispose()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STORM, url, "30", way],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ended, *found = done.stdout.splitlines()
    assert json.loads(ended) == [0] * 30, done.stderr
    assert found == ([] if way == "memory" else ["ok", "30"])


TORN = """
import os, sys
import sqlalchemy as sa
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError
from automate_sqlalchemy import SqlAlchemyStorage

engine = sa.create_engine(sys.argv[1])
kernel = Kernel(SqlAlchemyStorage(engine), discover=False, secrets={})
inside = kernel.storage.begin() if sys.argv[2] == "ours" else engine.begin()

def seen():
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM automate_outbox").scalar()

import automate_kernel.base.forks
automate_kernel.base.forks._PATIENCE_SECONDS = 0.2
with inside:
    child = os.fork()
    if child == 0:
        try:
            kernel.emit("order.created")
        except StorageError as error:
            os.write(1, f"{error.code} {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
print("|", kernel.emit("order.created") and seen())
"""


@pytest.mark.parametrize("whose", ["ours", "the application's"])
def test_a_fork_within_a_transaction_on_sqlite_is_refused(whose: str, tmp_path: Path) -> None:
    """The child says what to do instead of working on its parent's locks; the parent goes on."""
    url = f"sqlite:///{tmp_path / 'forks.sqlite3'}"
    metadata.create_all(sa.create_engine(url))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TORN, url, whose],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, _, count = done.stdout.partition("|")
    assert refused.startswith("FAILED_PRECONDITION this process was forked while SQLite was in use")
    assert "spawn" in refused and count.strip() == "1"


BEGUN = """
import os, signal, sys, threading
made = []
if sys.argv[2] == "made meanwhile":  # runs once the guards are closed
    os.register_at_fork(before=lambda: made.append(SqlAlchemyStorage(engine)))

import sqlalchemy as sa
import automate_kernel.base.forks
from automate_kernel.base.errors import StorageError
from automate_kernel.storage.memory import MemoryStorage
from automate_sqlalchemy import SqlAlchemyStorage

signal.alarm(60)
automate_kernel.base.forks._PATIENCE_SECONDS = 1000.0  # who waits where it is no use, is killed
automate_kernel.base.forks._IDLE_PATIENCE_SECONDS = 1000.0
engine = sa.create_engine(sys.argv[1])
storage, memory, other = SqlAlchemyStorage(engine), MemoryStorage(), MemoryStorage()

def fork(used):
    child = os.fork()
    if child == 0:
        try:
            with used.begin() as rows:
                rows.count("automate_outbox")
            os.write(1, b"used ")
        except StorageError as error:
            os.write(1, f"{error.code} ".encode())
        os._exit(0)
    return os.waitpid(child, 0)[1]

def use(*storages):
    for each in storages:
        with each.begin() as rows:
            rows.count("automate_outbox")

def made_meanwhile():
    assert fork(storage) == 0
    use(*made)

def held_by_a_session():
    with sa.orm.Session(engine) as session:
        session.execute(sa.text("SELECT 1"))
        assert fork(storage) == 0

def held_without_a_pool():
    unpooled = sa.create_engine(sys.argv[1], poolclass=sa.NullPool)
    used = SqlAlchemyStorage(unpooled)
    with unpooled.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        assert fork(used) == 0

def waited_for():
    with memory.begin():
        thread = threading.Thread(target=use, args=(memory,))
        thread.start()
        while thread.ident not in [each for _, each in automate_kernel.base.forks._inside.values()]:
            pass
        assert fork(memory) == 0
    thread.join()

def ended_elsewhere():
    block = storage.begin()
    thread = threading.Thread(target=block.__enter__)
    thread.start()
    thread.join()
    block.__exit__(None, None, None)
    assert fork(storage) == 0

globals()[sys.argv[2].replace(" ", "_")]()
use(storage, memory, other)
print("went on")
"""


@pytest.mark.parametrize(
    ("case", "child"),
    [
        ("made meanwhile", "used"),
        ("held by a session", "FAILED_PRECONDITION"),
        ("held without a pool", "FAILED_PRECONDITION"),
        ("waited for", "FAILED_PRECONDITION"),
        ("ended elsewhere", "used"),
    ],
)
def test_a_fork_waits_where_it_is_of_use(case: str, child: str, tmp_path: Path) -> None:
    """And the parent goes on with its storages, whatever was begun when it forked."""
    url = f"sqlite:///{tmp_path / 'forks.sqlite3'}"
    metadata.create_all(sa.create_engine(url))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGUN, url, case],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.split() == [child, "went", "on"]


DJANGO_ON_SQLITE = """
import os, signal, sqlite3, sys, threading
import django
from django.conf import settings
settings.configure(
    USE_TZ=True, SECRET_KEY="k" * 50,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "automate_django"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1],
        "OPTIONS": {"timeout": 50, "init_command": "PRAGMA journal_mode=WAL"},
    }},
)
django.setup()
from django.core.management import call_command
from django.db import connection, connections, transaction
import automate_kernel.base.forks
from automate_django.storage import DjangoStorage
from automate_kernel import Kernel
from automate_kernel.base.errors import StorageError

call_command("migrate", verbosity=0)  # on a connection that is older than the storage
signal.alarm(90)
automate_kernel.base.forks._PATIENCE_SECONDS = 1000.0  # who waits where it is no use, is killed
outbox = Kernel(DjangoStorage(), discover=False, secrets={}).outbox
ready, go, ended = threading.Event(), threading.Event(), threading.Event()

def in_other_thread():
    if sys.argv[2] == "block":
        with transaction.atomic():
            outbox.enqueue("note", {"by": "another thread's block"})
            ready.set()
            go.wait()
    elif sys.argv[2] == "kept":
        kept = connection.cursor()
        kept.execute("SELECT 1")
        kept.fetchall()
        ready.set()
        ended.wait()
        kept.execute("SELECT 2")
        assert kept.fetchall() == [(2,)], "the parent's own goes on"
        kept.close()
    elif sys.argv[2] == "rows":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 UNION SELECT 2")
            read = [cursor.fetchone()]
            ready.set()
            go.wait()
            assert [*read, *cursor] == [(1,), (2,)]
        del cursor
        outbox.enqueue("note", {"by": "another thread"})
    else:
        outbox.enqueue("note", {"by": "another thread"})
        ready.set()
    ended.wait()
    connections.close_all()

def fork():
    told, tell = os.pipe()
    first, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outbox.enqueue("note", {"by": "the child"})
            os.write(say, b"1")
            os.read(told, 1)
            outbox.enqueue("note", {"by": "the child, without a parent"})
        except StorageError as error:
            os.write(1, f"{error.code} ".encode())
            if "thread importer" in error.message and "in in_other_thread" in error.message:
                os.write(1, b"held by the importer ")
            os.write(say, b"1")
        os._exit(0)
    os.read(first, 1)
    return child, tell

if sys.argv[2] == "mine":
    with transaction.atomic():
        outbox.enqueue("note", {"by": "this block"})
        child, tell = fork()
else:
    thread = threading.Thread(target=in_other_thread, name="importer")
    thread.start()
    ready.wait()
    os.register_at_fork(before=lambda: threading.Timer(0.2, go.set).start())
    child, tell = fork()
    ended.set()
    thread.join()
connections.close_all()  # the parent's last: SQLite removes the WAL, if it sees nobody else
os.write(tell, b"1")
assert os.waitpid(child, 0)[1] == 0
(count,) = sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM automate_outbox").fetchone()
print(count)
"""


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("idle", "3"),
        ("block", "3"),
        ("rows", "3"),
        ("mine", "FAILED_PRECONDITION 1"),
        ("kept", "FAILED_PRECONDITION held by the importer 0"),
    ],
)
def test_a_fork_of_django_on_sqlite(case: str, told: str, tmp_path: Path) -> None:
    """What the child commits is there, whatever connections the threads of its parent had."""
    pytest.importorskip("django")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DJANGO_ON_SQLITE, str(tmp_path / "wal.db"), case],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.strip() == told


MADE = """
import os, threading
from automate_kernel.base import forks, runtime
from automate_kernel.base.forks import ForkGuard, new_lock
from automate_kernel.storage.memory import MemoryStorage

forks._PATIENCE_SECONDS = forks._IDLE_PATIENCE_SECONDS = 1000.0  # nothing is to be waited for
storage, kept, stop, begun = MemoryStorage(), [], threading.Event(), threading.Event()

def make():
    while not stop.is_set():
        kept.append((new_lock(), ForkGuard()))
        if len(kept) > 50:
            kept.clear()
        begun.set()

thread = threading.Thread(target=make)
thread.start()
begun.wait()
for _ in range(60):
    child = os.fork()
    if child == 0:
        with storage.begin():
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
"""


def test_a_fork_waits_for_nobody_where_nothing_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server forks often, and what it has used before is no reason to wait."""
    waits: list[float] = []
    monkeypatch.setattr(runtime, "sleep", waits.append)
    storage = MemoryStorage()
    with storage.begin() as rows:
        assert rows.count("automate_outbox") == [{"n": 0}]
    forks._close_guards()
    forks._open_guards()
    assert waits == []


def test_a_fork_while_another_thread_makes_guards() -> None:
    """Nothing is left closed in the parent, and no lock of the child's is forgotten."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MADE],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED = """
import os, signal, sys
from automate_kernel.base import forks, runtime
from automate_kernel.storage.memory import MemoryStorage

signal.alarm(60)
storage, handled, interrupting = MemoryStorage(), [], False

def interrupt(frame, event, argument):
    # As a signal handler does, between any two lines of this module.
    global interrupting
    if frame.f_code.co_filename == forks.__file__ and not interrupting:
        interrupting = True
        with storage.begin() as rows:
            handled.append(rows.count("automate_outbox"))
        interrupting = False
    return interrupt

sys.settrace(interrupt)
with storage.begin() as rows:
    rows.count("automate_outbox")
child = os.fork()
if child == 0:
    with storage.begin() as rows:
        rows.count("automate_outbox")
    os._exit(0)
sys.settrace(None)
print(os.waitpid(child, 0)[1], len(handled) > 10, len(forks._inside), forks._closed)
"""


def test_a_signal_handler_emits_while_its_thread_is_at_the_gate() -> None:
    """It would wait for a lock that its own thread holds."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 True 0 []\n", done.stderr


LOCKED = """
import json, os, signal, sys, threading

made = []
def noting(new):
    def note(*arguments):
        frame = sys._getframe(1)
        lock = new(*arguments)
        while frame and frame.f_code.co_filename.endswith(("forks.py", "threading.py")):
            frame = frame.f_back
        # A fork waits for those who are in SQLite.
        gate = frame and "memory.py" in frame.f_code.co_filename
        if frame and "automate_kernel" in frame.f_code.co_filename and not gate:
            place = frame.f_code.co_filename.partition("automate_kernel")[2]
            made.append((f"{place}:{frame.f_lineno}", lock))
        return lock
    return note

import threading
threading.Lock, threading.RLock = noting(threading.Lock), noting(threading.RLock)

from automate_kernel import Kernel
from automate_kernel.plugins.connectors import Connector, action

class Shop(Connector):
    key = "shop"

    @action
    def owner(self, sku: str = "") -> int:
        return 1

kernel = Kernel(plugins=[Shop], discover=True, secrets={"KEY": "a-long-secret-value"})
kernel.add_workflow({
    "name": "w", "trigger": {"type": "manual"},
    "steps": [
        {"id": "each", "for_each": [1, 2], "concurrency": 2, "action": "shop.owner"},
        {"id": "text", "action": "shop.owner", "timeout": 60, "input": {"sku": "{{ 'x' | upper }}"}},
    ],
})

def use():
    kernel.emit("order.created", {"n": 1})
    kernel.run("w")
    kernel.outbox.stats()
    kernel.redactor.redact_value({"a": "b"})
    return kernel.invoke("shop.owner")

use()
hung = []
for place, lock in made:
    held, let = threading.Event(), threading.Event()
    def hold():
        if lock.acquire(timeout=5):
            held.set()
            let.wait()
            lock.release()
    threading.Thread(target=hold, daemon=True).start()
    if not held.wait(6):
        continue
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        use()
        os._exit(0)
    let.set()
    if os.waitpid(child, 0)[1]:
        hung.append(place)
print(json.dumps([len(made), hung]))
os._exit(0)
"""


@pytest.mark.slow
def test_a_fork_while_another_thread_holds_any_lock_of_ours() -> None:
    """The child has no thread that would ever free it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOCKED],
        capture_output=True, text=True, timeout=1000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, hung = json.loads(done.stdout.splitlines()[-1])
    assert count > 15
    assert hung == []
