"""The project, set up: for servers, and for what is forked from a process that has imported it."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
