"""What is shipped: the package with its data, and nothing else."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import capacity

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_the_wheel_holds_only_the_package(wheel):
    names = wheel.namelist()
    info = f"model_capacity-{capacity.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"capacity", info}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    assert f"{info}/licenses/LICENSE" in names


def test_the_wheel_holds_all_of_the_package(wheel):
    """Modules, the typing marker, the catalogue and the schema: every file git would keep."""
    kept = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "capacity").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in wheel.namelist() if name.startswith("capacity/")}
    assert shipped == kept
    assert "capacity/py.typed" in shipped
    assert sum(name.endswith(".toml") for name in shipped) > 100
    assert [name for name in shipped if name.endswith(".json")]


def test_the_core_needs_nothing(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    fields = Parser().parsestr(wheel.read(metadata).decode())
    assert fields["Name"] == "model-capacity"
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.11"
    assert [need for need in fields.get_all("Requires-Dist") if "extra ==" not in need] == []
    (entry,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "capacity = capacity.cli:script" in wheel.read(entry).decode()
