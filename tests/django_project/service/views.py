"""The service's API, made of the base classes."""

from __future__ import annotations

from typing import Any

from automate_django.api import Problem
from automate_django.api.v1.base import (
    BaseAPIView,
    BaseModelViewSet,
    BaseViewSet,
    ConfigurableMixin,
    CORSMixin,
    IdempotencyMixin,
    PaginationMixin,
    PublicAPIMixin,
    RateLimitMixin,
    StaffOnlyMixin,
    TenantFilterMixin,
)
from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.filters import OrderingFilter
from rest_framework.response import Response

from .models import Article, Code, Note, Profile, Project, Tag, Task
from .serializers import (
    ArticleSerializer,
    CodeSerializer,
    NestedProjectSerializer,
    NoteSerializer,
    ProfileSerializer,
    ProjectSerializer,
    TagSerializer,
    TaskSerializer,
)


class ProjectViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    tenant_field = "organization_id"
    tenant_related = {"country": None, "owner": "membership__organization_id"}

    @action(detail=True)
    def by_hand(self, request: Any, pk: str) -> Response:
        """Finds its object without the queryset of the view."""
        project = Project.objects.get(pk=pk)
        self.check_object_permissions(request, project)
        return Response({"name": project.name})

    @action(detail=False, methods=["post"])
    def many(self, request: Any) -> Response:
        """Makes several at once."""
        serializer = self.get_serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)


class OwnQuerysetViewSet(ProjectViewSet):
    """Forgets the tenant in its own get_queryset, and in its own perform_create."""

    def get_queryset(self) -> Any:
        return Project.objects.order_by("-pk")

    def perform_create(self, serializer: Any) -> None:
        serializer.save(rank=7, organization_id=self.request.data.get("organization") or 0)


class UndeclaredViewSet(ProjectViewSet):
    """Doesn't say whose countries and users are."""

    tenant_related = {}


class NestedViewSet(ProjectViewSet):
    serializer_class = NestedProjectSerializer


class TaskViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Task.objects.all()
    serializer_class = TaskSerializer
    tenant_field = "project__organization_id"


class TagViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Tag.objects.all()
    serializer_class = TagSerializer
    tenant_field = "organization"


class NoteViewSet(BaseModelViewSet, PaginationMixin, TenantFilterMixin):
    """The mixins stand last, and work."""

    queryset = Note.objects.all()
    serializer_class = NoteSerializer
    filter_backends = [OrderingFilter]
    ordering_fields = ["text"]


class OffsetNoteViewSet(NoteViewSet):
    pagination_style = "offset"
    page_size = 2
    max_page_size = 5


class ByCode:
    """A filter that trusts what it is given."""

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        given = {k: v for k, v in request.query_params.items() if k in ("code", "place")}
        return queryset.filter(**given)


class ArticleViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Article.objects.all()
    serializer_class = ArticleSerializer
    tenant_field = "organization_id"
    filter_backends = [ByCode]

    @action(detail=False, methods=["post"])
    def many(self, request: Any) -> Response:
        """Makes several at once."""
        serializer = self.get_serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201)

    @action(detail=False, methods=["post"])
    def unseen(self, request: Any) -> Response:
        """Writes what no validation saw."""
        Article.objects.create(organization_id=self.get_tenant_id(), **request.data)
        return Response(status=201)

    @action(detail=False)
    def careless(self, request: Any) -> Response:
        """Breaks a constraint by itself: nobody asked for a change."""
        for _ in range(2):
            Article.objects.create(organization_id=self.get_tenant_id(), code="x", title="x")
        return Response()


class ProfileViewSet(TenantFilterMixin, BaseModelViewSet):
    queryset = Profile.objects.all()
    serializer_class = ProfileSerializer
    tenant_field = "organization_id"


class ArticleTagViewSet(TagViewSet):
    lookup_field = "name"


class CodeViewSet(BaseModelViewSet):
    queryset = Code.objects.all()
    serializer_class = CodeSerializer


class ErrorSerializer(serializers.Serializer):
    class Line(serializers.Serializer):
        price = serializers.DecimalField(max_digits=5, decimal_places=2)

    name = serializers.CharField(max_length=3)
    lines = Line(many=True)

    def validate(self, attrs: Any) -> Any:
        if attrs["name"] == "bad":
            raise serializers.ValidationError("Bad as a whole.")
        return attrs


class ErrorView(CORSMixin, PublicAPIMixin, BaseAPIView):
    """Fails in the way that is asked for."""

    cors_allowed_origins = ["https://app.example"]

    def get(self, request: Any, kind: str) -> Response:
        raise {
            "bug": RuntimeError("the password is hunter2"),
            "config": ConfigError("AUTOMATE_OUTBOX is wrong"),
            "missing": AutomateError(ErrorCodes.NOT_FOUND, "there is no such thing"),
            "busy": AutomateError(ErrorCodes.RESOURCE_EXHAUSTED, "too many", retry_after=17.2),
            "down": AutomateError(ErrorCodes.UNAVAILABLE, "db01.internal refused"),
            "secret": AutomateError(ErrorCodes.INVALID_ARGUMENT, "tok-51d0 is no channel"),
            "own": Problem(418, "A teapot.", code="TEAPOT", headers={"X-Pot": "tea"}),
        }[kind]

    def post(self, request: Any, kind: str) -> Response:
        serializer = ErrorSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response(serializer.data)


class CredentialsView(CORSMixin, PublicAPIMixin, BaseAPIView):
    cors_allowed_origins = ["https://app.example", "https://admin.example"]
    cors_allow_credentials = True
    cors_max_age = 30

    def get(self, request: Any) -> Response:
        return Response({"ok": True})


class AnyOriginView(CORSMixin, PublicAPIMixin, BaseAPIView):
    cors_allowed_origins = ["*"]

    def get(self, request: Any) -> Response:
        return Response({"ok": True})


class LimitedView(RateLimitMixin, PublicAPIMixin, BaseAPIView):
    rate_limit_key_prefix = "limited"
    rate_limit_per_minute = 5

    def get(self, request: Any) -> Response:
        return Response({"ok": True})


class ClosedLimitView(LimitedView):
    rate_limit_fail_open = False


class StaffView(StaffOnlyMixin, BaseAPIView):
    def get(self, request: Any) -> Response:
        return Response({"ok": True})


class CarelessStaffView(StaffView):
    def get_permissions(self) -> Any:
        return []


class StaffAndPublicView(StaffOnlyMixin, PublicAPIMixin, BaseAPIView):
    def get(self, request: Any) -> Response:
        return Response({"ok": True})


class SettingView(ConfigurableMixin, PublicAPIMixin, BaseAPIView):
    settings_name = "INVOICES"

    def get(self, request: Any) -> Response:
        return Response({"most": self.get_setting("MOST", 3)})


class ScopedView(BaseAPIView):
    required_scopes = {"GET": "reports:read", "POST": ["reports:read", "reports:write"]}

    def get(self, request: Any) -> Response:
        return Response({"user": str(request.user)})

    post = put = get


class OnceViewSet(IdempotencyMixin, TenantFilterMixin, BaseViewSet):
    queryset = Note.objects.all()
    serializer_class = NoteSerializer

    def create(self, request: Any) -> Response:
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        if request.data["text"] == "break":
            raise RuntimeError("after the row was written")
        return Response(serializer.data, status=201, headers={"Location": "/there"})
