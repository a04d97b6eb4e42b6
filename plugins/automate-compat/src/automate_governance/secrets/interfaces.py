"""The interface of secrets backends, and the errors that they raise."""

from automate_kernel import SecretDeniedError as SecretDeniedError
from automate_kernel import SecretError as SecretError
from automate_kernel import SecretNotFoundError as SecretNotFoundError
from automate_kernel import SecretsBackend as SecretsBackend
from automate_kernel import SecretUnavailableError as SecretUnavailableError
