"""docs/cli.md says what the parsers say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(sys.version_info[:2] not in ((3, 11), (3, 12)), reason="argparse words its help otherwise")
def test_the_reference_is_up_to_date():
    page = runpy.run_path(str(DOCS / "generate_cli.py"))["reference"]()
    assert page == (DOCS / "cli.md").read_text(), "run: python docs/generate_cli.py > docs/cli.md"
