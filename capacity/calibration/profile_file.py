"""Profiles of kernels as files: what was fitted, with what is known of its errors."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.record import Record
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Fitted(Record):
    """One section of a profile: parameters of an op and dtype, with what is known of their errors.

    errors: median and 90th percentile of the absolute error on rows no fit has seen, by what was predicted from
    what: "unseen" shapes of a device; for the pool each device whose architecture was left out, by name.
    """

    parameters: dict[str, float]
    uncertainty: dict[str, float]
    residuals: dict[str, tuple[float, ...]]
    range: dict[str, tuple[float, float]]
    rows: int
    errors: dict[str, tuple[float, float]]


def write_profile(path: str, ops_: dict[str, dict[str, Fitted]], extra: dict[str, Any], source: str, date: str) -> str:
    """A profile as TOML, whole or not at all."""

    def text(value: object) -> str:
        return '"' + str(value).replace("\\", "/").replace('"', "'") + '"'

    lines = ["schema = 2", f"source = {text(source)}", f"date = {text(date)}"]
    for op, by_sub in ops_.items():
        for sub, one in by_sub.items():
            head = f'{op}."{sub}"'
            lines += ["", f"[{head}]", f"rows = {one.rows}", "", f"[{head}.parameters]"]
            lines += [f"{name} = {value:.5g}" for name, value in one.parameters.items()]
            lines += ["", f"[{head}.uncertainty]"]
            lines += [f"{name} = {value:.2g}" for name, value in one.uncertainty.items()]
            lines += ["", f"[{head}.residuals]"]
            lines += [f"{name} = [{', '.join(f'{q:.4f}' for q in values)}]" for name, values in one.residuals.items()]
            lines += ["", f"[{head}.range]"]
            lines += [f"{name} = [{low:.12g}, {high:.12g}]" for name, (low, high) in one.range.items()]
            lines += ["", f"[{head}.errors]"]
            lines += [f'"{name}" = [{middle:.4f}, {most:.4f}]' for name, (middle, most) in one.errors.items()]
    for op, widths in extra.get("widening", {}).items():
        lines += ["", f"[widening.{op}]"]
        lines += [f"{name} = {value:.3f}" for name, value in widths.items()]
    for brand, by_op in extra.get("engines", {}).items():
        for op, factors in by_op.items():
            lines += ["", f"[engines.{brand}.{op}]"]
            lines += [f'"{sub}" = [{slower:.3f}, {wider:.3f}]' for sub, (slower, wider) in factors.items()]
    try:
        write_whole(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise InputError(f"{path[:200]}: cannot be written ({error.strerror or error})") from None
    return path
