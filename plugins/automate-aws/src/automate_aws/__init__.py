"""AWS: S3 and SQS as connectors, secrets in Secrets Manager and Parameter Store, outputs in S3."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automate_aws.access import AwsAccess
    from automate_aws.output_store import S3OutputStore
    from automate_aws.s3_connector import S3Connector
    from automate_aws.secrets_backends import ParameterStoreBackend, SecretsManagerBackend
    from automate_aws.sqs_connector import SqsConnector

__all__ = [
    "AwsAccess",
    "ParameterStoreBackend",
    "S3Connector",
    "S3OutputStore",
    "SecretsManagerBackend",
    "SqsConnector",
]

_PLACES = {
    "AwsAccess": "access",
    "ParameterStoreBackend": "secrets_backends",
    "S3Connector": "s3_connector",
    "S3OutputStore": "output_store",
    "SecretsManagerBackend": "secrets_backends",
    "SqsConnector": "sqs_connector",
}


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        # Who needs one service does not wait for the others.
        if name in _PLACES:
            return getattr(import_module(f"automate_aws.{_PLACES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
