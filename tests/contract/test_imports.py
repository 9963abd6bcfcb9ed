"""What may import what: the floors, and what the single estimate must do without."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "numpy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "torch",
    "transformers",
    "sympy",
    "jsonschema",
    "importlib.metadata",
}


def imported(*arguments):
    """Every module a run of Python imports, by -X importtime."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}, run.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("estimate", "--params", "7e9"),
        ("estimate", "--params", "7e9", "--json"),
        ("estimate", "--model", "llama-3.1-8b"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_the_single_estimate_imports_no_heavy_library(arguments):
    modules, output = imported("-m", "capacity", *arguments)
    assert "capacity.cli" in modules
    assert output.strip()
    assert modules & HEAVY == set()


def test_importing_the_package_imports_nothing_of_it():
    modules, _ = imported("-c", "import capacity")
    assert {name for name in modules if name.startswith("capacity.")} == set()


def test_public_names_are_listed_without_importing_their_homes():
    modules, output = imported("-c", "import capacity; print(*dir(capacity))")
    assert "estimate" in output.split()
    assert "capacity.catalogue" not in modules


def test_no_module_imports_from_a_floor_above():
    """The contracts of pyproject.toml, by import-linter; run apart, because it puts the folder on the path."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout
