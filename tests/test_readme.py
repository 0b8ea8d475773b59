"""Every Python block of the README runs as it stands; every command and path in it exists."""

from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def marks(block):
    return [pytest.mark.parity] if "import torch" in block else []


@pytest.mark.parametrize(
    "number", [pytest.param(i, marks=marks(block)) for i, block in enumerate(BLOCKS)])
def test_python_block_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {"__name__": "readme"})  # noqa: S102
    assert capsys.readouterr().out


def test_the_python_way_fits_fifteen_lines():
    block = next(block for block in BLOCKS if "train.Recipe" in block)
    lines = [line for line in block.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith(("import", "from"))]
    assert len(code) <= 15


def test_the_engine_alone_fits_ten_lines():
    for block in BLOCKS:
        if "augment.augment" in block:
            assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_commands_and_paths_exist():
    for module in set(re.findall(r"python -m (launch\.\w+)", README)):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module
    for path in set(re.findall(r"`((?:augjax|launch|configs|tests)/[\w/.]+)`", README)):
        assert (ROOT / path).exists(), path


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"[A-Z]+_TABLE", README)
