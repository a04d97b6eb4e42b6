"""``/approvals``: the steps that wait for a person, and the decisions on them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.db import transaction
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from automate_django.api.bases.pagination import StorePagination
from automate_django.api.schema import described
from automate_django.api.v1 import serializers
from automate_django.api.v1.resource import Resource, uuid_of
from automate_django.models import WorkflowWait
from automate_django.tenants import Person, person_of
from automate_kernel.base.errors import AutomateError
from automate_kernel.workflows.steer.approvals import ApprovalPage, PendingApproval

_READS = ("list", "retrieve")
_COMMANDS = ("approve", "reject")


class ApprovalViewSet(Resource):
    """
    Open approvals, the oldest first.

    A user decides under the user's name, with the names of the groups as roles; a service under
    ``token:`` and its token's name.
    """

    required_scopes = {  # noqa: RUF012
        **dict.fromkeys(_READS, "approvals:read"),
        **dict.fromkeys(_COMMANDS, "approvals:write"),
    }
    model_permissions = {  # noqa: RUF012
        **dict.fromkeys(_READS, "view_workflowwait"),
        **dict.fromkeys(_COMMANDS, "change_workflowwait"),
    }
    serializer_class = serializers.ApprovalSerializer
    pagination_class = StorePagination
    # For schemas and permissions: the kernel reads the rows.
    queryset = WorkflowWait._default_manager.none()

    @cached_property
    def person(self) -> Person:
        """The user or the service that asks."""
        return person_of(self.request)

    @described(parameters=[serializers.ApprovalQuerySerializer])
    def list(self, request: Any) -> Response:
        """List the open approvals."""
        given = self.query(serializers.ApprovalQuerySerializer)
        if given.pop("mine"):
            given |= {"by": self.person.name, "roles": self.person.roles}

        def read(*, look: int, **matching: Any) -> ApprovalPage:
            return self.kernel.approvals.pending(**matching)

        found = self.page(read, **given).approvals
        return self.get_paginated_response([self._shown(each) for each in found])

    @described(
        parameters=[serializers.PositionSerializer], responses=serializers.ApprovalSerializer
    )
    def retrieve(self, request: Any, execution_id: str, step: str) -> Response:
        """Read one, with the JSON Schema of its form."""
        position = self.query(serializers.PositionSerializer)["position"]
        return Response(self._shown(self._approval(execution_id, step, position)))

    @described(request=serializers.DecisionSerializer, responses=serializers.DecidedSerializer)
    def approve(self, request: Any, execution_id: str, step: str) -> Response:
        """Approve what a step waits for; the answer is the step's output."""
        return self._decide("approve", execution_id, step)

    @described(request=serializers.DecisionSerializer, responses=serializers.DecidedSerializer)
    def reject(self, request: Any, execution_id: str, step: str) -> Response:
        """Reject what a step waits for; its workflow says what that means."""
        return self._decide("reject", execution_id, step)

    def _decide(self, decision: str, execution_id: str, step: str) -> Response:
        given, person = self.read(serializers.DecisionSerializer), self.person
        decide = getattr(self.kernel.approvals, decision)
        tenant = None if self.principal.operator else self.principal.tenant_id
        try:
            with transaction.atomic(using=self.alias):
                output = decide(
                    uuid_of(execution_id), step, by=person.name, roles=person.roles,
                    tenant_id=tenant, **given,
                )  # fmt: skip
        except AutomateError as error:
            if problems := error.details.get("fields"):
                raise ValidationError(
                    {"form": {n: [text] for n, text in problems.items()}}
                ) from None
            raise
        return Response(serializers.DecidedSerializer(output).data)

    def _approval(self, execution_id: str, step: str, position: int) -> PendingApproval:
        return self.visible(self.kernel.approvals.get(uuid_of(execution_id), step, position))

    def _shown(self, approval: PendingApproval) -> Any:
        may = approval.may_decide(self.person.name, self.person.roles)
        whole = serializers.Whole(approval, may_decide=may)
        return serializers.ApprovalSerializer(whole).data
