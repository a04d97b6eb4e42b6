"""The contract of an output store, as tests that its author inherits."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest

from automate_kernel.base.errors import AutomateError, ErrorCodes
from automate_kernel.storage.output_store import OutputStore

__all__ = ["OutputStoreContract"]


class OutputStoreContract:
    """Subclass it and give it a fixture ``store``: an empty output store."""

    @pytest.fixture
    def store(self) -> OutputStore:
        """Make an empty store."""
        raise NotImplementedError("give the contract a `store` fixture")

    @pytest.fixture
    def key(self) -> str:
        """Return a key as the kernel makes them."""
        return _key()

    def test_is_an_output_store(self, store: OutputStore) -> None:
        """The kernel recognizes it by its class."""
        assert isinstance(store, OutputStore)

    @pytest.mark.parametrize("data", [b"", b"null", bytes(range(256)), b"x" * 3_000_000])
    def test_gives_back_what_was_put(self, store: OutputStore, key: str, data: bytes) -> None:
        """Bytes come back as they are, however many."""
        store.put(key, data)
        assert store.get(key) == data

    def test_what_was_never_put_is_not_found(self, store: OutputStore, key: str) -> None:
        """The error has the code ``NOT_FOUND``, and isn't retryable."""
        with pytest.raises(AutomateError) as raised:
            store.get(key)
        assert raised.value.code is ErrorCodes.NOT_FOUND
        assert not raised.value.retryable

    def test_what_was_deleted_is_not_found(self, store: OutputStore, key: str) -> None:
        """Deleting takes one key, and leaves its neighbours."""
        beside = f"{key.partition('/')[0]}/{uuid4()}"
        store.put(key, b"1")
        store.put(beside, b"2")
        store.delete(key)
        with pytest.raises(AutomateError):
            store.get(key)
        assert store.get(beside) == b"2"

    def test_deleting_twice_is_no_error(self, store: OutputStore, key: str) -> None:
        """A purge that was cut short is done again."""
        store.put(key, b"1")
        store.delete(key)
        store.delete(key)
        store.delete(_key())

    def test_lists_the_keys_of_an_age(self, store: OutputStore) -> None:
        """Keys that are younger are left out."""
        given = {_key() for _ in range(5)}
        for each in given:
            store.put(each, b"1")
        # A minute ahead: the clock of the store may be another.
        assert set(store.keys(older_than_seconds=-60.0)) == given
        assert list(store.keys(older_than_seconds=3600.0)) == []

    def test_keys_may_be_deleted_while_they_are_listed(self, store: OutputStore) -> None:
        """A purge deletes on its way."""
        given = {_key() for _ in range(5)}
        for each in given:
            store.put(each, b"1")
        for each in store.keys(older_than_seconds=-60.0):
            store.delete(each)
        assert list(store.keys(older_than_seconds=-60.0)) == []

    def test_what_is_closed_opens_again(self, store: OutputStore, key: str) -> None:
        """Closing it twice is no error, and another kernel may have the same store."""
        store.close()
        store.put(key, b"1")
        store.close()
        store.close()
        assert store.get(key) == b"1"
        store.close()
        assert list(store.keys(older_than_seconds=-60.0)) == [key]

    def test_threads_share_it(self, store: OutputStore) -> None:
        """Calls of steps end on many threads, some in the same execution."""
        group, kept, errors = str(uuid4()), dict[str, bytes](), list[BaseException]()

        def work(number: int) -> None:
            try:
                for _ in range(10):
                    key = f"{group}/{uuid4()}"
                    store.put(key, f"{number}".encode() * 1000)
                    if number % 2:
                        store.delete(key)
                    else:
                        kept[key] = f"{number}".encode() * 1000
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert {key: store.get(key) for key in kept} == kept


def _key() -> str:
    return f"{uuid4()}/{uuid4()}"
