"""
The parts of the base classes and the mixins.

Each behaviour is a class that both the base classes and its mixin inherit, asleep until the mixin
switches it on. So a class with both, in any order, has one valid order of methods, and our
behaviour comes before that of Django REST framework.
"""
