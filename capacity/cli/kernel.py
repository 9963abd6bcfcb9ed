"""`capacity kernel`: how long one kernel takes on a device."""

from __future__ import annotations

from capacity.cli.options import Command, Option
from capacity.cli.terminal import style, write
from capacity.errors import InputError
from capacity.quantities import format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.kernel import Kernel
    from capacity.rendering.style import Style

COMMAND = Command(
    "kernel",
    usage="OP NAME=VALUE ... [options]",
    description="How long one kernel takes on a device or several, with a 90 % interval, from\n"
    "laws fitted on measured kernels. OP is gemm, prefill, decode, expert or\n"
    "collective; what a shape does not say is usual (batch 1, head size 128, ...).",
    examples=(
        "capacity kernel gemm m=16 n=8192 k=8192 --dtype fp8 --device b200",
        "capacity kernel decode batch=32 context_len=8192 n_heads=64 n_kv_heads=8",
        "capacity kernel prefill seq_len=8192 n_heads=32 n_kv_heads=8 window=1024",
        "capacity kernel expert tokens=8 hidden=4096 expert_ffn=768 topk=8 n_experts=64",
        "capacity kernel collective collective=alltoall n_devices=8 message_bytes=1e7",
    ),
    words=("OP", "what is run, and its shape as NAME=VALUE"),
    groups=(
        ("the kernel", (
            Option("--dtype", metavar="NAME", help="bf16, fp8, fp8_block, nvfp4, int8, int4: bf16"),
            Option("--hot", help="repeated at once, what fits is still in the cache"),
        )),
        ("the machines", (
            Option("--device", metavar="NAME", many=True, help="a device; may be repeated: h100-sxm"),
            Option("--catalogue", metavar="DIR", many=True, help="a folder of your own devices; may be repeated"),
            Option("--profiles", metavar="DIR", help="profiles that `capacity calibrate kernels` wrote"),
        )),
        ("the answer", (
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="the kernels as JSON (schema 1)"),
        )),
    ),
)  # fmt: skip

# What a basis means to the reader of a screen.
BASES = {
    "fitted": "fitted on this device",
    "sibling": "carried from a sibling",
    "architecture": "carried from another architecture",
    "generic": "carried from measured GPUs",
}


def run(options: dict[str, Any]) -> None:
    """Price, and print."""
    words = options["words"]
    if not words:
        raise InputError("no kernel is named: `capacity kernel gemm m=16 n=8192 k=8192`")
    shape = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise InputError(f"{word[:40]!r} is no NAME=VALUE, like m=16")
        shape[name] = value
    from capacity.estimators.kernel import kernel
    from capacity.laws.kernels.profile import FOLDER

    found = [
        kernel(
            words[0], device, options["dtype"] or "bf16", cold=not options["hot"],
            catalogue=tuple(options["catalogue"] or ()), profiles=options["profiles"] or FOLDER, **shape,
        )
        for device in options["device"] or ("h100-sxm",)
    ]  # fmt: skip
    if options["json"]:
        from capacity.rendering.record import json

        write(json({"schema": 1, "kernels": [_plain(one) for one in found]}))
        return
    write("\n".join(_screen(found, style(plain=options["plain"]))) + "\n")


def _plain(one: Kernel) -> dict[str, Any]:
    return {
        "op": one.op, "device": one.device, "dtype": one.dtype, "shape": one.shape,
        "time_s": [one.time.low, one.time.mid, one.time.high],
        "regime": one.regime, "basis": one.basis, "source": one.source,
    }  # fmt: skip


def _screen(found: list[Kernel], chosen: Style) -> list[str]:
    from capacity.rendering import layout

    words = [value if isinstance(value, str) else f"{name} {value:,.0f}" for name, value in found[0].shape.items()]
    header = [["", "time", "90 % interval"]]
    rows = [
        [one.device, format(one.time.mid, "s"), f"{format(one.time.low, 's')} – {format(one.time.high, 's')}"]
        for one in found
    ]
    lines = layout.table(header, [[chosen.text(cell) for cell in row] for row in rows], chosen)
    notes = ["", *(f"{'mostly launch; ' if one.regime == 'launch' else ''}{BASES[one.basis]}" for one in found)]
    sources = sorted({one.source for one in found})
    return [
        chosen.text(f"{found[0].op}: {', '.join(words)}"),
        *(
            line if not note else f"{line}  {chosen.paint(chosen.text(note), 'dim')}"
            for line, note in zip(lines, notes, strict=True)
        ),
        *(line for source in sources for line in layout.wrap(chosen.text(source), chosen.width)),
    ]
