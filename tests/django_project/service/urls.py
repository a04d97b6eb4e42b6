"""The service's paths."""

from __future__ import annotations

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from . import views

router = SimpleRouter()
for name, viewset in {
    "projects": views.ProjectViewSet,
    "own-projects": views.OwnQuerysetViewSet,
    "undeclared": views.UndeclaredViewSet,
    "nested": views.NestedViewSet,
    "tasks": views.TaskViewSet,
    "tags": views.TagViewSet,
    "notes": views.NoteViewSet,
    "offset-notes": views.OffsetNoteViewSet,
    "articles": views.ArticleViewSet,
    "profiles": views.ProfileViewSet,
    "named-tags": views.ArticleTagViewSet,
    "codes": views.CodeViewSet,
    "once": views.OnceViewSet,
}.items():
    router.register(name, viewset, name)

urlpatterns = [
    path("", include(router.urls)),
    path("errors/<kind>", views.ErrorView.as_view()),
    path("credentials", views.CredentialsView.as_view()),
    path("any-origin", views.AnyOriginView.as_view()),
    path("limited", views.LimitedView.as_view()),
    path("limited-closed", views.ClosedLimitView.as_view()),
    path("staff", views.StaffView.as_view()),
    path("careless-staff", views.CarelessStaffView.as_view()),
    path("staff-and-public", views.StaffAndPublicView.as_view()),
    path("setting", views.SettingView.as_view()),
    path("scoped", views.ScopedView.as_view()),
]
