"""The command line: one module a command, imported only when its command is chosen.

Results go to stdout, talk to stderr. Exit status: 0 answered (also when the answer is "does not
fit"), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import sys

from capacity.errors import CapacityError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import NoReturn

# The module `capacity.cli.NAME` gives its declarations, COMMAND, and `run(options)`.
COMMANDS = {
    "estimate": "what it costs to train and to serve one model",
    "plan": "the best layout, or the question backwards",
    "sweep": "thousands to millions of cases, each with every quantity",
    "devices": "list, search and show the devices of the catalogue",
    "models": "list, search and show the models of the catalogue",
    "storage": "list, search and show the storage systems of the catalogue",
    "compress": "ways to make a model smaller, what they bring and what they cost",
    "kernel": "how long one kernel takes on a device",
    "bench": "measure this machine: kernels, training, compressed inference",
    "calibrate": "fit kernel laws to measurements",
    "validate": "hold predictions against measurements",
    "plot": "one figure, with its data",
    "report": "a page or a document: an estimate, or what other commands found",
}


def script() -> NoReturn:
    """Run the one command of this process; what the installed `capacity` calls.

    Nothing outlives it, so nothing is collected and nothing torn down: that would take as long as the estimate.
    """
    import gc
    import os

    gc.disable()
    try:
        status = main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # the reader has gone
            status = status or 1
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; help and version leave by SystemExit(0)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        _dispatch(arguments)
    except CapacityError as error:
        from capacity.cli.terminal import complain

        complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _dispatch(arguments: list[str]) -> None:
    from capacity.cli.terminal import write

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        write(overview())
    elif arguments[0] in ("-V", "--version"):
        from capacity import __version__

        write(f"capacity {__version__}\n")
    else:
        module = command(arguments[0])
        module.run(module.COMMAND.read(arguments[1:]))


def command(name: str) -> ModuleType:
    """The module of a command; raises UnknownNameError."""
    if name not in COMMANDS:
        from capacity.errors import UnknownNameError

        kind = "option" if name.startswith("-") else "command"
        raise UnknownNameError(kind, name, COMMANDS, f"known are {', '.join(COMMANDS)}; see `capacity --help`")
    __import__(f"capacity.cli.{name}")  # importlib itself would have to be imported
    return sys.modules[f"capacity.cli.{name}"]


def overview() -> str:
    """The help of the bare command."""
    lines = [
        "usage: capacity COMMAND [options]",
        "",
        "What large models cost to run, before you pay for it.",
        "",
        "commands:",
        *(f"  {name:<10} {summary}" for name, summary in COMMANDS.items()),
        "",
        "options:",
        "  --help     show this help; `capacity COMMAND --help` shows a command's",
        "  --version  show the version",
        "",
        "examples:",
        "  capacity estimate --params 7e9",
        "  capacity estimate --model llama-3.1-70b --mode serve --devices 4",
        "  capacity devices h100",
    ]
    return "\n".join(lines) + "\n"
