"""A task in a module of its own: Django looks it up by its path."""

from django.tasks import task

from benchmarks import counter


@task()
def noop(payload):
    counter.tick()
