# ruff: noqa: INP001 - a script, not a package
"""Write docs/cli.md from the parsers themselves: `python docs/generate_cli.py > docs/cli.md`."""

from __future__ import annotations

import sys

from capacity.cli import COMMANDS, command, overview
from capacity.cli.parsing import Parser

HEAD = """# Command line

Made by `python docs/generate_cli.py > docs/cli.md`; a test holds it up to date.

Results go to stdout, everything else to stderr. Exit status: 0 answered, also when the answer is *does not fit*; 2 bad
input, in one line that says what to do; 130 interrupted. Output is coloured only on a terminal, and never when `NO_COLOR`
is set; it is as wide as the terminal (or `COLUMNS`), up to 120. Quantities are read as people write them (`7e9`, `7B`,
`140B`, `$2.50/h`); what could be read in two ways is refused.

`--json` prints one document with its schema version; the schema of an estimate ships with the package as
`capacity/schema/estimate-1.json`. `--plain` prints `key: value` lines in base units.
"""


def reference() -> str:
    """The whole page."""
    commands = [f"## capacity {name}\n\n```\n{Parser(command(name).COMMAND).format_help()}```\n" for name in COMMANDS]
    return "\n".join([HEAD, f"## capacity\n\n```\n{overview()}```\n", *commands])


if __name__ == "__main__":
    sys.stdout.write(reference())
