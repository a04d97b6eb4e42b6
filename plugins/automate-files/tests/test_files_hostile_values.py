"""Hostile values as names of files, at each kind of place, as the place itself has them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from automate_files import FilesConnector
from automate_kernel import Kernel
from automate_testing import HostileValuesContract
from files_support import SECRETS, SftpServer


class HostileNames(HostileValuesContract):
    places = ("name", "name in a folder", "target of a copy")
    accepts = dict.fromkeys(places, {"latin", "astral", "percent_crlf", "percent_twice", "shell"})
    mixtures = 20

    @pytest.fixture(autouse=True)
    def _files(self, place: dict[str, Any]) -> Any:
        config = {"files": {"places": {"main": place}}}
        with Kernel(
            plugins=[FilesConnector], discover=False, config=config, secrets=SECRETS
        ) as kernel:
            self.kernel = kernel
            yield

    def carry(self, place: str, value: str) -> tuple[Any, Any]:
        self.empty()
        path = f"in/{value}" if place == "name in a folder" else value
        given = {"place": "main", "path": path, "text": "x"}
        if place == "target of a copy":
            self.kernel.invoke("files.write", {**given, "path": "from"}, literal=True)
            copied = {"place": "main", "path": "from", "to_path": path}
            self.kernel.invoke("files.copy", copied, literal=True)
        else:
            self.kernel.invoke("files.write", given, literal=True)
        found = self.found()
        found.discard("from")
        (name,) = found
        return name.removeprefix("in/"), (name.startswith("in/"), self.beside())

    def found(self) -> set[str]:
        """Return the paths of all files below the root."""
        raise NotImplementedError

    def empty(self) -> None:
        """Delete them."""
        raise NotImplementedError

    def beside(self) -> Any:
        """Return what there is beside the root."""
        return None


class HostileNamesInFolder(HostileNames):
    """The files lie in a folder *root* of this machine."""

    root: Path

    def found(self) -> set[str]:
        return {
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, _, names in os.walk(self.root)
            for name in names
        }

    def empty(self) -> None:
        shutil.rmtree(self.root)
        self.root.mkdir()

    def beside(self) -> Any:
        return os.listdir(self.root.parent)


class TestLocalNames(HostileNamesInFolder):
    @pytest.fixture
    def place(self, local_config: dict[str, Any]) -> dict[str, Any]:
        self.root = Path(local_config["folder"])
        return local_config


class TestSftpNames(HostileNamesInFolder):
    @pytest.fixture
    def place(self, sftp: SftpServer, sftp_config: dict[str, Any]) -> dict[str, Any]:
        self.root = sftp.root / sftp_config["folder"].strip("/")
        return sftp_config


class TestS3Names(HostileNames):
    @pytest.fixture
    def place(self, s3_config: dict[str, Any]) -> dict[str, Any]:
        keys = {"aws_access_key_id": "AKIA", "aws_secret_access_key": SECRETS["S3_SECRET"]}
        self.client = boto3.client(
            "s3", endpoint_url=s3_config["endpoint_url"], region_name="us-east-1", **keys
        )
        self.bucket = s3_config["bucket"]
        return s3_config

    def keys(self) -> set[str]:
        listed = self.client.list_objects_v2(Bucket=self.bucket)
        return {each["Key"] for each in listed.get("Contents", [])}

    def found(self) -> set[str]:
        return {key.removeprefix("root/") for key in self.keys() if not key.endswith("/")}

    def empty(self) -> None:
        for key in self.keys():
            self.client.delete_object(Bucket=self.bucket, Key=key)


class TestMemoryNames(HostileNames):
    @pytest.fixture
    def place(self, memory_config: dict[str, Any]) -> dict[str, Any]:
        self.root = memory_config["root"]
        self.files = fsspec.filesystem("memory")
        return memory_config

    def found(self) -> set[str]:
        return {each.removeprefix(f"{self.root}/") for each in self.files.find(self.root)}

    def empty(self) -> None:
        self.files.rm(self.root, recursive=True)
        self.files.mkdir(self.root)
