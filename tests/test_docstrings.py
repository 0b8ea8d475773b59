"""What public functions refuse is said where they are read: in their docstrings."""

import ast
import inspect
import textwrap

import pytest

from test_api import public_functions

CHECKS = {"require", "one_of", "typed", "filled", "refusing", "sentence"}  # of augjax.check


def refuses(text: str) -> bool:
    """Whether a function's own source raises, a bare `raise` of what came from below apart."""
    for node in ast.walk(ast.parse(textwrap.dedent(text))):
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "check" and node.attr in CHECKS:
                return True
    return False


@pytest.mark.parametrize("function", list(public_functions()))
def test_public_functions_say_what_they_raise(function):
    if refuses(inspect.getsource(function)):
        assert "raises" in function.__doc__.lower()


def test_who_refuses_is_seen():
    assert refuses("def f(x):\n    check.require(x > 0, 'x', 'more', x, 'add')")
    assert refuses("def f():\n    def g():\n        raise ValueError\n    return g")
    assert not refuses("def f():\n    try:\n        g()\n    except OSError:\n        raise")
