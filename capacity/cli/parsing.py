"""argparse with the house's manners: one-line errors, the nearest name suggested, help in 80 columns."""

from __future__ import annotations

import argparse
import re
from textwrap import fill

from capacity.errors import InputError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from capacity.cli.options import Command

HELP_WIDTH = 80


class _Help(argparse.HelpFormatter):
    """Lines that are broken already stay so; the width is fixed, so argparse need not ask the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=HELP_WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # noqa: ARG002 - argparse's own signature
        return "\n".join(indent + line for line in text.splitlines())


def _filled(text: str) -> str:
    """Paragraphs in lines that fit; one whose lines do already stays as it was written."""
    return "\n\n".join(
        part if all(len(line) <= HELP_WIDTH for line in part.splitlines()) else fill(" ".join(part.split()), HELP_WIDTH)
        for part in text.split("\n\n")
    )


def _broken(text: str, width: int, indent: str, mark: str) -> str:
    """A command line in lines that fit, broken before an option; `mark` ends a line that goes on, as a shell wants it."""
    lines: list[str] = []
    for line in text.splitlines():
        whole = ""
        for piece in re.split(r" (?=--|\| )", line):
            if whole and len(f"{whole} {piece}{mark}") > width:
                lines.append(whole + mark)
                whole = indent + piece
            else:
                whole = f"{whole} {piece}" if whole else piece
        lines.append(whole)
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """A parser of one command that raises CapacityError instead of printing its usage."""

    def __init__(self, command: Command) -> None:
        super().__init__(
            prog=f"capacity {command.name}",
            usage=_broken(f"capacity {command.name} {command.usage}", HELP_WIDTH - len("usage: "), " " * 7, ""),
            description=_filled(command.description),
            epilog="examples:\n"
            + "\n".join(_broken(f"  {line}", HELP_WIDTH, " " * 6, " \\") for line in command.examples),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        # So that `--params -7B` is told it must be positive, not that a value is missing.
        self._negative_number_matcher = re.compile(r"^-(\d|\.\d|inf|nan)", re.IGNORECASE)
        if command.words:
            metavar, said = command.words
            self.add_argument("words", nargs="*", metavar=metavar, help=said)
        for title, options in command.groups:
            group = self.add_argument_group(title)
            for option in options:
                kind: dict[str, Any] = {"action": "store_true"}
                if option.metavar:
                    kind = {
                        "action": "append" if option.many else "store",
                        "metavar": option.metavar,
                        "type": option.read or str,
                    }
                group.add_argument(*option.flags, dest=option.dest, help=option.help, **kind)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Read the command line; raises CapacityError, with the nearest option for a misspelt one."""
        namespace, unknown = self.parse_known_args(arguments)
        for word in unknown:
            if word.startswith("-") and word != "-":
                known = [option for option in self._option_string_actions if option.startswith("--")]
                raise UnknownNameError("option", word.split("=", 1)[0], known, f"see `{self.prog} --help`")
            raise InputError(f"unexpected argument {word!r}: see `{self.prog} --help`")
        return vars(namespace)

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into the one error the command line prints."""
        raise InputError(message)
