"""The base classes and mixins for a project's own views."""

from automate_django.api.v1.base import BaseAPIView as BaseAPIView
from automate_django.api.v1.base import BaseModelViewSet as BaseModelViewSet
from automate_django.api.v1.base import BaseReadOnlyViewSet as BaseReadOnlyViewSet
from automate_django.api.v1.base import BaseViewSet as BaseViewSet
from automate_django.api.v1.base import ConfigurableMixin as ConfigurableMixin
from automate_django.api.v1.base import CORSMixin as CORSMixin
from automate_django.api.v1.base import IdempotencyMixin as IdempotencyMixin
from automate_django.api.v1.base import PaginationMixin as PaginationMixin
from automate_django.api.v1.base import PublicAPIMixin as PublicAPIMixin
from automate_django.api.v1.base import RateLimitMixin as RateLimitMixin
from automate_django.api.v1.base import StaffOnlyMixin as StaffOnlyMixin
from automate_django.api.v1.base import TenantFilterMixin as TenantFilterMixin
