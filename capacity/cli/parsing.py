"""argparse with the house's manners: one-line errors, the nearest name suggested, help in 80 columns."""

from __future__ import annotations

import argparse
import re

from capacity.errors import InputError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from capacity.cli.options import Command

HELP_WIDTH = 80


class _Help(argparse.HelpFormatter):
    """Examples stay as they were written; the width is fixed, so argparse need not ask the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=HELP_WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # noqa: ARG002 - argparse's own signature
        return "\n".join(indent + line for line in text.splitlines())


class Parser(argparse.ArgumentParser):
    """A parser of one command that raises CapacityError instead of printing its usage."""

    def __init__(self, command: Command) -> None:
        super().__init__(
            prog=f"capacity {command.name}",
            usage=f"capacity {command.name} {command.usage}",
            description=command.description,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in command.examples),
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
