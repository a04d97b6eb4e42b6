"""
What the base classes and the mixins are made of.

Behaviour stands in private classes that both a base class and its mixin inherit, and that sleep
until they are asked for. So a class that has both, in any order, has one valid order of methods,
and the behaviour comes before that of Django REST framework in each of them.
"""
