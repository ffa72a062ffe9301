"""Every public name is used by a test, and the programs of the README run."""

import dataclasses
import enum
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import esolm


def public() -> Iterator[str]:
    """Functions, methods and fields."""
    for name in esolm.__all__:
        value = getattr(esolm, name)
        if not isinstance(value, type):
            yield name
        # (To Python 3.9 an alias of Mapping is a type, too.)
        elif value.__module__.startswith("esolm") and not issubclass(value, (enum.Enum, Exception)):
            yield from (field.name for field in dataclasses.fields(value)) if dataclasses.is_dataclass(value) else ()
            yield from vars(value)


def test_every_public_name_is_tested() -> None:
    words = set()
    for file in Path(__file__).parent.glob("*.py"):
        words |= set(re.findall(r"\w+", file.read_text()))
    assert {name for name in public() if name.islower() and not name.startswith("_")} <= words


def test_every_name_of_the_modules_is_exported() -> None:
    assert sorted(esolm.__all__) == sorted(set(esolm.__all__))
    assert set(esolm.__all__) <= set(vars(esolm))


def programs(source: Path) -> list[str]:
    text = (source / "bindings/python/README.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_programs_of_the_readme(source: Path, path: str, tmp_path: Path, number: int) -> None:
    found = programs(source)
    assert len(found) == 3
    program = tmp_path / "prog.py"
    program.write_text(found[number])
    run = subprocess.run(
        [sys.executable, program, path, "Once upon a time"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "Once upon a time" in run.stdout
