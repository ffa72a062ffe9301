import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import esolm

SOURCE = Path(__file__).parents[3]
MODEL = os.environ.get("ESOLM_MODEL") or str(SOURCE / "models/stories-q8_0.gguf")


def pytest_report_header() -> str:
    return f"esolm of {Path(esolm.__file__).parent}, Python {sys.version.split()[0]}"


@pytest.fixture(scope="session")
def source() -> Path:
    return SOURCE


@pytest.fixture(scope="session")
def path() -> str:
    return MODEL


@pytest.fixture(scope="session")
def model() -> Iterator[esolm.Model]:
    with esolm.Model.open(MODEL) as opened:
        yield opened


@pytest.fixture
def context(model: esolm.Model) -> Iterator[esolm.Context]:
    with esolm.Context(model, esolm.ContextOptions(length=64, sequences=2, threads=1)) as made:
        yield made


@pytest.fixture(scope="session")
def prompt(model: esolm.Model) -> esolm.Prompt:
    return esolm.Prompt(model.tokenize("Once upon a time"))


@pytest.fixture
def long(model: esolm.Model) -> Iterator[esolm.Context]:
    """A context whose step of `many` prompts takes most of a second."""
    with esolm.Context(model, esolm.ContextOptions(sequences=16, threads=1)) as made:
        yield made


MANY = ([esolm.Prompt()] * 16, esolm.GenerateParams(alpha_0=1, steps=1))
