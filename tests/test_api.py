"""The public names: typed, documented, and few."""

import ast
import inspect
from pathlib import Path
import subprocess
import sys

import pytest

import augjax
from augjax import augment, compress, data, exchange, losses, method, models, search, study, train

ROOMS = [augment, compress, data, exchange, losses, method, models, search, study, train]
FILES = sorted((Path(augjax.__file__).parent).rglob("*.py"))


def public_functions():
    for room in ROOMS:
        for name in getattr(room, "__all__", None) or [n for n in vars(room) if n[0] != "_"]:
            value = getattr(room, name)
            if inspect.isfunction(value):
                yield pytest.param(value, id=f"{room.__name__}.{name}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_public_functions_are_typed_and_documented(function):
    assert function.__doc__, "a public function says what it does"
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(p.parts[-2:]))
def test_files_say_what_they_hold_and_fit_a_sitting(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)) or not text, f"{path} has no docstring"
    assert len(text.splitlines()) <= 350


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(p.parts[-2:]))
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.name}"


def test_every_room_is_named_but_what_configs_alone_need():
    rooms = {path.stem for path in (Path(augjax.__file__).parent).iterdir() if path.stem[0] != "_"}
    assert set(augjax.__all__) == rooms - {"a2", "builders", "ladder", "pairs", "role_wise"}
    assert [augjax.__getattr__(name).__name__ for name in augjax.__all__] == [
        f"augjax.{name}" for name in augjax.__all__]
    assert not hasattr(augjax, "augmentt")


def test_importing_augjax_costs_nothing_until_a_room_is_used():
    told = "import sys, augjax; print('jax' in sys.modules, augjax.check.ConfigError.exit_code)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "2"]
