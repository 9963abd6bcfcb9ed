"""`capacity calibrate`: laws fitted to measurements."""

from __future__ import annotations

import os

from capacity.cli.options import Command, Option
from capacity.cli.terminal import style, write
from capacity.errors import InputError, UnknownNameError
from capacity.rendering import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.rendering.style import Style

KINDS = {
    "kernels": "devices, from tables of measured kernels",
    "training": "training stacks, from tables of measured runs",
    "serving": "engines that serve, from tables of measured runs",
    "local": "this machine, from what `capacity bench` measured",
    "platform": "its disk, ciphers and preparation of data, from the same; `local` does that too",
}
STORE, PROFILES = "capacity-bench.jsonl", "capacity-profiles"

COMMAND = Command(
    "calibrate",
    usage="KIND [DATA] [options]",
    description="Fit kernel laws to measurements. `kernels` writes a profile a device:\n"
    "parameters with their uncertainty, errors of rows kept from the fit, the range\n"
    "they hold for. `training` writes training stacks, for `--stack FILE`, from runs\n"
    "with the columns of `validate training`; `serving` engines, for `--engine FILE:NAME`.\n"
    "`local` fits this machine's, after which `capacity estimate\n"
    "--device this-machine` uses them. Needs the `calibrate` extra, `local` `bench`.",
    examples=(
        "capacity calibrate local",
        "capacity calibrate local --data server.jsonl",
        "capacity calibrate kernels measured/kernels --output profiles",
        "capacity validate kernels --data measured/kernels --profiles profiles",
        "capacity calibrate training our-runs.csv",
        "capacity estimate --params 7e9 --stack capacity-profiles/stacks.toml:fsdp",
        "capacity calibrate serving our-servers.csv",
    ),
    words=("KIND", "; ".join(f"{name}: {said}" for name, said in KINDS.items())),
    groups=(
        ("the measurements", (
            Option("--data", metavar="PATH", help=f"a folder of tables, or what `capacity bench` kept: {STORE}"),
        )),
        ("the profiles of `kernels`, `training` and `serving`", (
            Option("--output", metavar="DIR", help=f"the folder they are written to: {PROFILES}"),
            Option("--source", metavar="TEXT", help="what they say of their origin"),
            Option("--date", metavar="TEXT", help="when it was measured: 2026-11"),
            Option("--fresh", help="not near the project's stacks or engines, but made as they were"),
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
    if len(words) not in (1, 2):
        raise InputError(f"{len(words)} words given: name a kind and its data, as in `capacity calibrate kernels DIR`")
    kind = words[0].lower()
    if kind not in KINDS:
        raise UnknownNameError("kind", words[0], KINDS, f"known are {', '.join(KINDS)}")
    data = options["data"] or (words[1] if len(words) > 1 else None)
    kinds = {"kernels": _kernels, "training": _training, "serving": _serving, "local": _local, "platform": _platform}
    done, lines = kinds[kind](data, options)
    if options["json"]:
        from capacity.rendering.record import json

        write(json({"schema": 1, "kind": kind, **done}))
        return
    write("\n".join(lines) + "\n")


def _kernels(data: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    if data is None:
        raise InputError("the data are missing: name a folder of tables, as in `capacity calibrate kernels DIR`")
    try:
        from capacity.calibration.kernels import calibrate
    except ModuleNotFoundError as error:
        raise InputError(f'calibration needs {error.name}: pip install "model-capacity[calibrate]"') from None
    done = calibrate(
        data, options["output"] or PROFILES,
        source=options["source"] or "", date=options["date"] or "", talk=_talk,
    )  # fmt: skip
    chosen = style(plain=options["plain"])
    header = [["", "rows", "set", "median error"], ["", "", "aside", "of unseen rows"]]
    rows = [
        [
            f"{one['op']} {one['dtype']} {one['device']}", str(one["rows"]), str(one["set_aside"]),
            "-" if one["mdape"] is None else f"{one['mdape']:.1%}",
        ]
        for one in done["profiles"]
    ]  # fmt: skip
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    return done, [*lines, "", *_written(done["files"], chosen)]


def _platform(data: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Storage, ciphers and preparation of data: laws by family, and their errors at sizes kept from the fit."""
    try:
        from capacity.calibration.platform import calibrate, write_platform
    except ModuleNotFoundError as error:
        raise InputError(f'calibration needs {error.name}: pip install "model-capacity[bench]"') from None
    laws, told = calibrate(data or STORE)
    files = write_platform(laws, told)
    chosen = style(plain=options["plain"])
    off = sorted(abs(value) for value in told["errors"].values())
    held = ""
    if off:
        held = f"; {len(off)} sizes kept from the fit: median error {off[len(off) // 2]:.1%}, 90 % below {off[int(0.9 * len(off))]:.1%}"
    header = [["", "a call", "pace", "beyond"]]
    rows = [
        [name, f"{law.call_s * 1e6:,.3g} us", _pace(law.bytes_per_s), _pace(law.far_bytes_per_s)]
        for name, law in sorted(laws.items())
    ]
    lines = [
        chosen.text(one)
        for one in layout.wrap(f"{told['families']} kinds of work beside the devices{held}", chosen.width - 1)
    ]
    lines += ["", *layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen), ""]
    return {"files": files, **told}, [*lines, *_written(files, chosen)]


def _pace(bytes_per_s: float) -> str:
    return "-" if bytes_per_s == float("inf") else f"{bytes_per_s / 1e9:.3g} GB/s"


def _fitted(kind: str, data: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Stacks or engines fitted to a table of runs, their files written."""
    if data is None:
        raise InputError(f"the data are missing: name a table of runs, as in `capacity calibrate {kind} runs.csv`")
    from importlib import import_module

    try:
        module = import_module(f"capacity.calibration.{kind}")
    except ModuleNotFoundError as error:
        raise InputError(f'calibration needs {error.name}: pip install "model-capacity[calibrate]"') from None
    done: dict[str, Any] = module.calibrate(
        data, options["output"] or PROFILES,
        source=options["source"] or "", date=options["date"] or "", fresh=options["fresh"], talk=_talk,
    )  # fmt: skip
    return done


def _training(data: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    done = _fitted("training", data, options)
    chosen = style(plain=options["plain"])
    header = [["", "runs", "in sample", "left out", "left out"], ["", "", "median", "median", "within 20 %"]]
    rows = [
        [
            name, f"{pair['left_out']['rows']:.0f}", f"{pair['in_sample']['median']:.1f} %",
            f"{pair['left_out']['median']:.1f} %", f"{pair['left_out']['within_20']:.0f} %",
        ]
        for name, pair in done["scores"].items()
    ]  # fmt: skip
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    return done, [*lines, "", *_written(done["files"], chosen)]


def _serving(data: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    done = _fitted("serving", data, options)
    chosen = style(plain=options["plain"])
    header = [["median error of", "next token", "first token"]]
    names = {"before": "the project's fit", "in_sample": "this fit, in sample", "left_out": "this fit, model left out"}
    rows = [
        [names[name], f"{score['tpot_ms']:.1%}", f"{score['ttft_ms']:.1%}"]
        for name, score in done["scores"].items()
        if score is not None
    ]
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    return done, [*lines, "", *_written(done["files"], chosen)]


def _local(data: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    path = data or STORE
    try:
        from capacity.calibration.local import calibrate
        from capacity.calibration.machine import write_machine
    except ModuleNotFoundError as error:
        raise InputError(f'calibration needs {error.name}: pip install "model-capacity[bench]"') from None
    laws, fit = calibrate(path)
    files = write_machine(laws, path)
    off = sorted(abs(value) for value in fit["residuals"].values())
    chosen = style(plain=options["plain"])
    worst = sorted(fit["residuals"].items(), key=lambda item: -abs(item[1]))[:5]
    lines = [
        f"{fit['kernels']} kernels fitted: median error {off[len(off) // 2]:.1%}, 90 % below {off[int(0.9 * len(off))]:.1%}",
        "",
        chosen.paint("furthest off", "dim"),
        *(f"  {value:+7.1%}  {name}" for name, value in worst),
        "",
    ]
    done: dict[str, Any] = {"files": files, **fit}
    told = [*(chosen.text(line)[: chosen.width] for line in lines), *_written(files, chosen)]
    from capacity.measurement.amounts import families
    from capacity.measurement.measured import Measured

    if families(Measured(path)):
        done["platform"], more = _platform(path, options)
        told += ["", *more]
    return done, told


def _written(files: list[str], chosen: Style) -> list[str]:
    shown = [os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file for file in files]
    return [chosen.text(f"written: {file}") for file in shown]


def _talk(line: str) -> None:
    import sys

    print(line, file=sys.stderr, flush=True)
