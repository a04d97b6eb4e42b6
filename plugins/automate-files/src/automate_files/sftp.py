"""Folders of SFTP servers."""

from __future__ import annotations

import base64
import errno
import io
import posixpath
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import paramiko

from automate_files.config import SftpConfig
from automate_files.failures import failure_of
from automate_files.paths import joined, parent_of
from automate_files.place import FileEntry, FilePlace, Kind
from automate_kernel import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.context import SecretReader
from automate_kernel.operations.drafts import Draft

T = TypeVar("T")

_NS = 1_000_000_000
_KEYS: tuple[type[paramiko.PKey], ...] = (
    paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey,
)  # fmt: skip


class SftpPlace(FilePlace):
    """
    A folder of an SFTP server.

    The server's host key is checked before anything is sent to it. A connection serves one call at
    a time and is kept for the next; one that was lost is made anew. There are at most four. The
    secrets are read for each connection. A path that a link leads out of the root is refused.
    """

    def __init__(self, name: str, config: SftpConfig, secrets: SecretReader) -> None:
        super().__init__(name, max_entries=config.max_entries)
        self._config, self._secrets = config, secrets
        # Paramiko's client mixes up the answers to calls of several threads.
        self._free = threading.Semaphore(_MOST_CONNECTIONS)
        self._idle: list[_Connection] = []
        if config.host_key is not None:
            _public_key(config.host_key)  # a wrong one is known before anything is called

    def stat(self, path: str) -> FileEntry:
        """Look at a file or folder."""
        return self._run(lambda it: _entry(path, it.sftp.lstat(it.full(path))))

    def entries(self, folder: str, most: int) -> list[FileEntry]:
        """Read a folder."""

        def read(it: _Connection) -> list[FileEntry]:
            found: list[FileEntry] = []
            for each in it.sftp.listdir_iter(it.inner(folder)):
                if each.filename not in (".", ".."):
                    found.append(_entry(joined(folder, each.filename), each))
                if len(found) > most:
                    break
            return found

        return self._run(read)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a file."""

        def read(it: _Connection) -> bytes:
            full = it.full(path)
            size = _file_size(it.sftp.lstat(full))
            with it.sftp.open(full, "rb") as file:
                # Asked for ahead: else each 32 KiB would wait for the one before.
                wanted = range(offset, min(offset + length, size), _PART)
                if len(wanted) > 1:
                    end = min(offset + length, size)
                    return b"".join(file.readv([(at, min(_PART, end - at)) for at in wanted]))
                file.seek(offset)
                return bytes(file.read(length))

        return self._run(read)

    def write(self, path: str, parts: Iterable[bytes], *, overwrite: bool) -> None:
        """Write a file under another name, and give it its own when all is there."""

        def write(it: _Connection) -> None:
            full = it.made(path)
            folder, draft = posixpath.dirname(full), Draft.of(path)
            for name in it.sftp.listdir(folder) if draft.left is not None else ():
                if draft.is_left(name):
                    with suppress(FileNotFoundError):
                        it.sftp.remove(posixpath.join(folder, name))
            unfinished = posixpath.join(folder, draft.name)
            try:
                with it.sftp.open(unfinished, "wx") as file:
                    # Each part is confirmed: of those sent ahead, Paramiko loses the refusals.
                    for part in parts:
                        file.write(part)
                it.rename(unfinished, full, overwrite=overwrite)
            except BaseException:
                with suppress(Exception):
                    it.sftp.remove(unfinished)
                raise

        self._run(write)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Rename a file or a folder."""

        def rename(it: _Connection) -> None:
            it.rename(it.full(source), it.made(target), overwrite=overwrite)

        self._run(rename)

    def delete(self, path: str) -> None:
        """Delete a file, a link or an empty folder."""

        def delete(it: _Connection) -> None:
            full = it.full(path)
            if not stat.S_ISDIR(it.sftp.lstat(full).st_mode or 0):
                it.sftp.remove(full)
            elif next(iter(it.sftp.listdir(full)), None) is not None:
                # Protocol 3 has no code for it.
                raise OSError(errno.ENOTEMPTY, "not empty")
            else:
                it.sftp.rmdir(full)

        self._run(delete)

    def mkdir(self, path: str) -> None:
        """Make a folder and those above it."""
        self._run(lambda it: it.make(path))

    def location(self, path: str) -> str:
        """Return the server, its user and the real path."""
        config = self._config
        real = self._run(lambda it: it.real(path))
        return f"sftp://{config.user}@{config.host}:{config.port}{real}"

    def close(self) -> None:
        """Close the connections that aren't in use."""
        while self._idle:
            self._idle.pop().close()

    # -- the connection ----------------------------------------------------------------------

    def _run(self, call: Callable[[_Connection], T]) -> T:
        """Do *call* within the time limit; a connection that has failed isn't used again."""
        seconds = self._config.timeout_seconds
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError(errno.ETIMEDOUT, "all connections are in use")
        try:
            with _deadline(seconds) as watch:
                return self._tried(call, watch)
        finally:
            self._free.release()

    def _tried(self, call: Callable[[_Connection], T], watch: _Alarm) -> T:
        connection: _Connection | None = None
        try:
            connection = self._connected(watch)
            watch.over(connection.close)
            result = call(connection)
        except Exception as error:
            found = self._explained(error, late=watch.defused())
            if connection is not None:
                # What the server refused is no fault of the connection.
                self._keep(connection, lost=found is not error or isinstance(error, TimeoutError))
            if found is error:
                raise
            raise found from error
        self._keep(connection, lost=watch.defused())
        return result

    def _keep(self, connection: _Connection, *, lost: bool) -> None:
        if lost or not connection.alive:
            connection.close()
        else:
            self._idle.append(connection)

    def _explained(self, error: Exception, *, late: bool) -> Exception:
        """Return *error*, or a better one where it is of the connection."""
        if late:
            return TimeoutError(errno.ETIMEDOUT, "it took too long")
        if isinstance(error, paramiko.SSHException) or not isinstance(error, OSError):
            return failure_of(error, f"the place {self.name!r} can't be reached")
        if error.errno is None and not isinstance(error, TimeoutError):
            # Paramiko's word for SSH_FX_FAILURE: a server needs no better for a full disk.
            return AutomateError(
                ErrorCodes.UNAVAILABLE, f"the server of the place {self.name!r} says: failure",
                hint="it may be out of space, or not allow it",
            )  # fmt: skip
        return error

    def _connected(self, watch: _Alarm) -> _Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break  # another thread has it
            if connection.alive:
                return connection
            connection.close()
        return self._connect(watch)

    def _connect(self, watch: _Alarm) -> _Connection:
        config = self._config
        password, key = self._credentials()
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(_Refuse(self.name))
        self._load_host_keys(client)
        address = (config.host, config.port)
        sock = socket.create_connection(address, timeout=config.timeout_seconds)
        watch.over(sock.close)
        # Each part of a file waits for its answer; without this 40 ms longer than it has to.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            client.connect(
                config.host,
                config.port,
                config.user,
                password=password,
                pkey=key,
                sock=sock,
                # No key of this machine's user is tried, only what the config names.
                allow_agent=False,
                look_for_keys=False,
                timeout=config.timeout_seconds,
                banner_timeout=config.timeout_seconds,
                auth_timeout=config.timeout_seconds,
                channel_timeout=config.timeout_seconds,
            )
            sftp = client.open_sftp()
            channel = sftp.get_channel()
            if channel is not None:
                channel.settimeout(config.timeout_seconds)
            return _Connection(client, sftp, config.folder)
        except BaseException:
            client.close()
            sock.close()
            raise

    def _load_host_keys(self, client: paramiko.SSHClient) -> None:
        config = self._config
        if config.host_key is None:
            try:
                client.load_system_host_keys(config.known_hosts)
            except OSError as error:
                raise ConfigError(
                    f"the place {self.name!r}: the file known_hosts can't be read: {error.strerror}"
                ) from None
            return
        kind, key = _public_key(config.host_key)
        host = config.host if config.port == _SSH else f"[{config.host}]:{config.port}"
        client.get_host_keys().add(host, kind, key)

    def _credentials(self) -> tuple[str | None, paramiko.PKey | None]:
        config, get = self._config, self._secrets.get
        password = get(config.password_secret) if config.password_secret else None
        passphrase = get(config.passphrase_secret) if config.passphrase_secret else None
        if config.private_key_secret is None:
            return password, None
        return password, _private_key(get(config.private_key_secret), passphrase)


_SSH, _PART, _MOST_CONNECTIONS = 22, 32_768, 4


class _Connection:
    """A session with the server, and the root's real path there."""

    def __init__(self, client: paramiko.SSHClient, sftp: paramiko.SFTPClient, folder: str) -> None:
        self._client, self.sftp = client, sftp
        self._root: str = sftp.normalize(folder)

    @property
    def alive(self) -> bool:
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    def close(self) -> None:
        self._client.close()

    def inner(self, path: str) -> str:
        """Return the full path of *path*, of which no part may be a link out of the root."""
        full = posixpath.join(self._root, path) if path else self._root
        real = self.sftp.normalize(full)
        if real != self._root and not real.startswith(self._root.rstrip("/") + "/"):
            raise OSError(errno.ELOOP, "a link")
        return full

    def full(self, path: str) -> str:
        """Return the full path of *path*: its folder is in the root, itself it may be a link."""
        return posixpath.join(self.inner(parent_of(path)), posixpath.basename(path))

    def real(self, path: str) -> str:
        """Return the full path of *path* without links above it."""
        try:
            folder = self.sftp.normalize(self.inner(parent_of(path)))
        except FileNotFoundError:
            folder = posixpath.join(self._root, parent_of(path))
        return posixpath.join(folder, posixpath.basename(path))

    def made(self, path: str) -> str:
        """Return the full path of *path*, after its folder was made."""
        self.make(parent_of(path))
        return self.full(path)

    def make(self, path: str) -> None:
        missing: list[str] = []
        while path:
            try:
                if not stat.S_ISDIR(self.sftp.stat(self.full(path)).st_mode or 0):
                    raise NotADirectoryError(errno.ENOTDIR, "no folder")
                break
            except FileNotFoundError:
                missing.append(path)
                path = parent_of(path)
        self.inner(path)
        for each in reversed(missing):
            try:
                self.sftp.mkdir(self.full(each))
            except OSError:
                # Somebody else may have made it meanwhile: protocol 3 has no code for that.
                if not stat.S_ISDIR(self.sftp.stat(self.full(each)).st_mode or 0):
                    raise

    def rename(self, old: str, new: str, *, overwrite: bool) -> None:
        if overwrite:
            try:
                self.sftp.posix_rename(old, new)
            except OSError as error:
                if error.errno is not None or "support" not in str(error).lower():
                    raise
                # A server without the extension: between these two there is no file.
                with suppress(FileNotFoundError):
                    self.sftp.remove(new)
                self.sftp.rename(old, new)
            return
        self._must_be_free(new)
        try:
            self.sftp.rename(old, new)  # of protocol 3: it replaces nothing
        except OSError as error:
            if error.errno is None:
                self._must_be_free(new)  # somebody was quicker
            raise

    def _must_be_free(self, path: str) -> None:
        try:
            self.sftp.lstat(path)
        except FileNotFoundError:
            return
        raise FileExistsError(errno.EEXIST, "it exists")


class _Alarm:
    """Ends a call that has no time left: `over` says how."""

    def __init__(self) -> None:
        self.late = False
        self._end: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def over(self, end: Callable[[], object]) -> None:
        with self._lock:
            self._end = end
            late = self.late
        if late:
            end()

    def defused(self) -> bool:
        """Let it end nothing from now on, as others may have that; return True if it was late."""
        with self._lock:
            self._end = None
            return self.late

    def ring(self) -> None:
        with self._lock:
            self.late, end = True, self._end
        if end is not None:
            end()


@contextmanager
def _deadline(seconds: float) -> Iterator[_Alarm]:
    """Bound the block: a server that sends a byte now and then never makes a read time out."""
    watch = _Alarm()
    timer = threading.Timer(seconds, watch.ring)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Refuses a server whose key isn't known, and shows what it has."""

    def __init__(self, place: str) -> None:
        self._place = place

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"the place {self._place!r}: the host key of {hostname} isn't known",
            hint=f"it says {key.get_name()} {key.fingerprint}; if its operator confirms that, give "
            "the key as host_key, or put it in known_hosts",
        )


def _public_key(text: str) -> tuple[str, paramiko.PKey]:
    """Read a public key: a line of known_hosts, with or without the host's name."""
    words = text.split()
    for kind, data in zip(words, words[1:], strict=False):  # noqa: RUF007 - Python 3.10 has it
        try:
            return kind, paramiko.PKey.from_type_string(kind, base64.b64decode(data, validate=True))
        except Exception:  # noqa: S112 - these two words are no key, and the next may be
            continue
    raise ConfigError("host_key is no public key", hint="write it as ssh-ed25519 AAAA…")


def _private_key(text: str, passphrase: str | None) -> paramiko.PKey:
    needs_passphrase = False
    for cls in _KEYS:
        try:
            return cls.from_private_key(io.StringIO(text), passphrase)
        except paramiko.PasswordRequiredException:
            needs_passphrase = True
        except Exception:  # noqa: S112 - its words may quote the key, and another kind is tried
            continue
    raise ConfigError(
        "the private key is encrypted" if needs_passphrase else "the private key can't be read",
        hint="set passphrase_secret" if needs_passphrase else "it is text that begins -----BEGIN",
    )


def _file_size(found: paramiko.SFTPAttributes) -> int:
    mode = found.st_mode or 0
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a link")
    if not stat.S_ISREG(mode):
        raise IsADirectoryError(errno.EISDIR, "no file")
    return found.st_size or 0


def _entry(path: str, found: paramiko.SFTPAttributes) -> FileEntry:
    mode = found.st_mode or 0
    kind: Kind = (
        "folder" if stat.S_ISDIR(mode)
        else "link" if stat.S_ISLNK(mode)
        else "file" if stat.S_ISREG(mode)
        else "other"
    )  # fmt: skip
    size = found.st_size or 0 if kind == "file" else 0
    return FileEntry(path, kind, size, int(found.st_mtime or 0) * _NS)
