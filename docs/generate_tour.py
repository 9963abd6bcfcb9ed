# ruff: noqa: INP001 - a script, not a package
"""Paste the output of the commands of README.md and of the pages below into them anew: `python docs/generate_tour.py`.

A block that begins with `$ capacity ...` is run and replaced; after `<!-- output: N -->` only its first N lines are kept.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("serving", "serving-examples", "platform", "planning", "training", "sweeping", "importing")
    ),
)
BLOCK = re.compile(
    r"(?:<!-- output: (?P<lines>\d+) -->\n)?```console\n\$ capacity (?P<command>.+)\n(?P<output>(?s:.*?))```\n"
)
CUT = "…\n"
# Commands on files that only the reader has, or that go on in other programs.
ELSEWHERE = re.compile(r"--onnx |--checkpoint | \| ")


def blocks(text: str) -> list[re.Match[str]]:
    """The blocks of a page whose output is pasted."""
    return [block for block in BLOCK.finditer(text) if not ELSEWHERE.search(block["command"])]


def run(command: str) -> str:
    """What a command prints on a screen of 80 columns."""
    from capacity.cli import main

    os.environ["COLUMNS"] = "80"
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # as a terminal that can show what it is sent
    with contextlib.redirect_stdout(out), contextlib.chdir(ROOT):
        status = main(shlex.split(command))
    if status:
        raise SystemExit(f"capacity {command}: exit status {status}")
    out.seek(0)
    return "\n".join(line.rstrip() for line in out.read().splitlines()) + "\n"


def pasted(block: re.Match[str]) -> str:
    """A block with its output as it is now."""
    if ELSEWHERE.search(block["command"]):
        return block[0]
    lines = run(block["command"]).splitlines(keepends=True)
    limit = int(block["lines"] or 0)
    if limit and len(lines) > limit:
        lines = [*lines[:limit], CUT]
    mark = f"<!-- output: {limit} -->\n" if limit else ""
    return f"{mark}```console\n$ capacity {block['command']}\n{''.join(lines)}```\n"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(BLOCK.sub(pasted, page.read_text(encoding="utf-8")), encoding="utf-8")
        sys.stdout.write(f"{page.name}: {len(blocks(page.read_text(encoding='utf-8')))} blocks\n")
