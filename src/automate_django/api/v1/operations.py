"""``/operations``: the actions and capabilities that clients may call."""

from __future__ import annotations

from typing import Any, NoReturn

from rest_framework.response import Response

from automate_django.api.bases.idempotency import LOCK_SECONDS, owner_of
from automate_django.api.problems import Problem
from automate_django.api.schema import described
from automate_django.api.v1 import serializers
from automate_django.api.v1.resource import Resource
from automate_django.models import OutboxItem
from automate_django.operations import call_seconds, exposed_operations
from automate_kernel.base.errors import AutomateError
from automate_kernel.http.operations import ExposedOperations, OperationProblem


class _LockSeconds:
    """The time for which a request holds its key if its process dies: longer than any call."""

    def __get__(self, view: object, owner: type | None = None) -> float:
        return LOCK_SECONDS + call_seconds()


class OperationViewSet(Resource):
    """
    The operations that ``AUTOMATE_OPERATIONS["API"]`` names; by default none.

    A call is made for the tenant of its client. The text in its input is taken literally.
    """

    required_scopes = {  # noqa: RUF012
        "list": "operations:read",
        "retrieve": "operations:read",
        "choices": "operations:read",
        "call": "operations:call",
    }
    model_permissions = dict.fromkeys(required_scopes, "call_operation")
    serializer_class = serializers.OperationSerializer
    lookup_url_kwarg = "name"
    pagination_class = None
    # A call may take its time, and must not hold a transaction for so long.
    idempotency_atomic = False
    idempotency_lock_seconds: Any = _LockSeconds()
    # For schemas and permissions: operations have no rows.
    queryset = OutboxItem._default_manager.none()

    @property
    def exposed(self) -> ExposedOperations:
        """The operations that are offered here."""
        return exposed_operations("API")

    @described(responses=serializers.OperationSerializer(many=True))
    def list(self, request: Any) -> Response:
        """List the operations that can be called, with the JSON Schemas of input and output."""
        found = self.exposed.described()
        return Response(serializers.OperationSerializer(found, many=True).data)

    @described(responses=serializers.OperationSerializer)
    def retrieve(self, request: Any, name: str) -> Response:
        """Read one operation."""
        try:
            found = self.exposed.describe(name)
        except AutomateError as error:
            _refuse(error, name)
        return Response(serializers.OperationSerializer(found).data)

    @described(request=serializers.CallSerializer, responses=serializers.OutputSerializer)
    def call(self, request: Any, name: str) -> Response:
        """
        Call an operation, and answer with its output.

        A failure of the service behind it is answered with 409, 422, 429 or 5xx, and its own code:
        its 401 or 404 says nothing of this request.
        """
        given = self.read(serializers.CallSerializer)
        tenant = self.tenant_for(given.get("tenant_id"))
        key = request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is not None and "," in key:  # by which servers join two such headers
            raise Problem(400, "Give one Idempotency-Key, without a comma.")
        try:
            output = self.exposed.call(
                name, given["input"], tenant_id=tenant, idempotency_key=key, caller=self.caller
            )
        except AutomateError as error:
            _refuse(error, name)
        return Response({"output": output})

    @described(
        request=serializers.ChoicesQuerySerializer,
        responses=serializers.ChoiceSerializer(many=True),
    )
    def choices(self, request: Any, name: str, field: str) -> Response:
        """List what a field of an operation may be, given what the other fields are."""
        given = self.read(serializers.ChoicesQuerySerializer)
        given["tenant_id"] = self.tenant_for(given.get("tenant_id"))
        try:
            found = self.exposed.choices(name, field, **given)
        except AutomateError as error:
            _refuse(error, name)
        return Response(serializers.ChoiceSerializer(found, many=True).data)

    @property
    def caller(self) -> str:
        """The client, so that two of them never share an idempotency key."""
        return owner_of(self.request)


def _refuse(error: AutomateError, name: str) -> NoReturn:
    """Raise the problem that *error* of an operation is."""
    found = OperationProblem.of(error, f"the operation {name[:80]}")
    raise Problem(
        found.status,
        "The request is not valid." if found.errors else found.detail,
        code=found.code,
        headers=found.headers,
        errors=found.errors,
    ) from None
