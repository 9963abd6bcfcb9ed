"""`capacity calibrate`: laws fitted to measurements."""

from __future__ import annotations

import os

from capacity.cli.options import Command, Option
from capacity.cli.terminal import style, write
from capacity.errors import InputError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = {"local": "this machine, from what `capacity bench` measured"}

COMMAND = Command(
    "calibrate",
    usage="KIND [options]",
    description="Fit kernel laws to measurements. `local` fits this machine's, after which\n"
    "`capacity estimate --device this-machine` uses them. Needs the `bench` extra.",
    examples=(
        "capacity calibrate local",
        "capacity calibrate local --data server.jsonl",
    ),
    words=("KIND", "; ".join(f"{name}: {said}" for name, said in KINDS.items())),
    groups=(
        ("the measurements", (
            Option("--data", metavar="PATH", help="what `capacity bench` kept: capacity-bench.jsonl"),
        )),
        ("the answer", (
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="the fit as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Fit, write, and say how well it fits."""
    words = options["words"]
    if len(words) != 1:
        raise InputError(f"{len(words)} kinds given: name one of {', '.join(KINDS)}, as in `capacity calibrate local`")
    if words[0].lower() not in KINDS:
        raise UnknownNameError("kind", words[0], KINDS, f"known are {', '.join(KINDS)}")
    _local(options["data"] or "capacity-bench.jsonl", options)


def _local(path: str, options: dict[str, Any]) -> None:
    try:
        from capacity.calibration.local import calibrate
        from capacity.calibration.machine import write_machine
    except ModuleNotFoundError as error:
        raise InputError(f'calibration needs {error.name}: pip install "model-capacity[bench]"') from None
    laws, fit = calibrate(path)
    files = write_machine(laws, path)
    off = sorted(abs(value) for value in fit["residuals"].values())
    if options["json"]:
        from capacity.rendering.record import json

        write(json({"schema": 1, "kind": "local", "files": files, **fit}))
        return
    chosen = style(plain=options["plain"])
    worst = sorted(fit["residuals"].items(), key=lambda item: -abs(item[1]))[:5]
    lines = [
        f"{fit['kernels']} kernels fitted: median error {off[len(off) // 2]:.1%}, 90 % below {off[int(0.9 * len(off))]:.1%}",
        "",
        chosen.paint("furthest off", "dim"),
        *(f"  {value:+7.1%}  {name}" for name, value in worst),
        "",
        *(f"written: {os.path.relpath(file) if file.startswith(os.getcwd()) else file}" for file in files),
    ]
    write("\n".join(chosen.text(line)[: chosen.width] for line in lines) + "\n")
