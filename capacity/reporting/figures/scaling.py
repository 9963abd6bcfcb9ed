"""How an answer grows: over devices, over the batch, over the length of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.errors import CapacityError
from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import INK, QUIET, RULE, SERIES, Sheet, named_above, quiet, round_numbers

if TYPE_CHECKING:
    from capacity.reporting.figures.shown import Shown

_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Which option turns each axis, by kind of work, and what it is called.
_TRAINING = (("devices", "devices"), ("batch", "sequences in a batch"), ("seq_len", "tokens in a sequence"))
_SERVING = (("devices", "devices"), ("concurrency", "requests in flight"), ("prompt_len", "tokens in a prompt"))
# What follows from the number of devices, so must not be held while that is turned.
_FOLLOWS = {"devices": ("dp", "nodes", "replicas", "request_rate", "ttft_slo", "tpot_slo", "percentile", "night")}
_LAYOUT = ("tp", "pp", "ep", "attention_dp")  # which serving chooses anew on other devices
_NAMES = {
    "devices": "devices",
    "batch": "global batch",
    "seq_len": "sequence length",
    "concurrency": "concurrency",
    "prompt_len": "prompt length",
}


def scaling(shown: Shown) -> Drawing | None:
    """Tokens a second over each axis, an estimate a point."""
    if shown.request is None or "tokens_per_s" not in shown.part.quantities:
        return None
    rows: list[dict[str, Any]] = []
    axes = _TRAINING if shown.training else _SERVING
    for option, label in axes:
        start = base(shown, option)
        if start is None:
            continue
        turned = [
            round(start * factor) for factor in _FACTORS if start * factor >= 1.0 and (start * factor).is_integer()
        ]
        found = [row for value in turned for row in _row(shown, option, label, value, chosen=value == start)]
        rows += found if len(found) > 2 else []
    if not rows:
        return None
    return Drawing(
        name="scaling",
        title="How it grows",
        caption="Tokens a second as one setting is turned and the others stay; the band is the 90 % interval, the ring what was asked, hollow marks do not fit. "
        "Where no layout was given the best is chosen anew at each point; the dotted line would be growth in proportion.",
        alt="Tokens a second over " + ", over ".join(dict.fromkeys(row["axis"] for row in rows)) + ".",
        rows=tuple(rows),
        draw=draw,
    )


def base(shown: Shown, option: str) -> float | None:
    """The value of a setting in the answer: as asked, or as assumed."""
    if option == "devices":
        number = shown.part.setting.partition(" x ")[0]
        if number.isdigit():
            return float(number)
    asked = (shown.request or {}).get(option)
    if isinstance(asked, (int, float)):
        return float(asked)
    for one in shown.answer.assumptions:
        if one.name == _NAMES[option] and isinstance(one.value, (int, float)):
            return float(one.value)
    return None


def asked_again(shown: Shown, **changes: Any) -> Any:
    """The section of the same question with some settings changed; None where that makes no sense."""
    from capacity.estimators.answer import estimate

    dropped = {name for option in changes for name in _FOLLOWS.get(option, ())}
    # Beside training the devices and layout asked for are its own, and a replica takes what it needs.
    beside = not shown.training and len(shown.answer.sections) > 1
    if beside or ("devices" in changes and not shown.training):
        dropped |= set(_LAYOUT)
    request = {name: value for name, value in (shown.request or {}).items() if name not in dropped}
    if beside:
        request["devices"] = base(shown, "devices")
    try:
        return estimate(**{**request, "mode": shown.mode, **changes}).sections[shown.mode]
    except CapacityError:
        return None


def _row(shown: Shown, option: str, label: str, value: int, *, chosen: bool) -> list[dict[str, Any]]:
    part = shown.part if chosen else asked_again(shown, **{option: value})
    if part is None:
        return []
    rate = part.quantities["tokens_per_s"]
    return [
        {
            "axis": label,
            "value": value,
            "low": rate.low,
            "tokens_per_s": rate.mid,
            "high": rate.high,
            "fits": part.fits,
            "asked": chosen,
        }
    ]


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """A panel for each axis, all with one scale."""
    names = list(dict.fromkeys(row["axis"] for row in rows))
    sheet = Sheet(2.5)
    first = None
    for place, name in enumerate(names):
        own = sorted((row for row in rows if row["axis"] == name), key=lambda row: row["value"])
        axes = sheet.axes(1, len(names), place + 1, sharey=first)
        first = first or axes
        across, mid = [row["value"] for row in own], [row["tokens_per_s"] for row in own]
        axes.fill_between(
            across, [row["low"] for row in own], [row["high"] for row in own], color=SERIES[0], alpha=0.18, linewidth=0
        )
        axes.plot(across, mid, color=SERIES[0])
        start = next(row for row in own if row["asked"])
        if place == 0:
            axes.plot(
                across,
                [start["tokens_per_s"] * value / start["value"] for value in across],
                color=QUIET,
                linewidth=0.8,
                linestyle=(0, (1, 2)),
            )
        for row in own:
            mark = axes.plot(
                row["value"],
                row["tokens_per_s"],
                marker="o",
                markersize=5,
                color=SERIES[0],
                markerfacecolor=SERIES[0] if row["fits"] is not False else "white",
            )
            sheet.tip(
                mark[0],
                f"{row['value']:g} {name}: {said.value(row['tokens_per_s'], '1/s')} tokens"
                + ("" if row["fits"] is not False else ", does not fit"),
            )
        axes.plot(
            start["value"],
            start["tokens_per_s"],
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.1,
        )
        axes.set(xscale="log", yscale="log", xlabel=name)
        shown = across[:: max(1, (len(across) + 2) // 4)] if len(across) > 4 else across
        axes.set_xticks(shown, [said.value(float(value)) for value in shown])
        axes.minorticks_off()
        axes.grid(axis="y", color=RULE)
        quiet(axes)
        if place:
            axes.tick_params(labelleft=False)
    lowest, highest = min(row["low"] for row in rows), max(row["high"] for row in rows)
    ticks = round_numbers(lowest, highest)
    if first is not None:
        first.set_yticks(ticks, [said.value(tick) for tick in ticks])
        first.minorticks_off()
        named_above(first, "tokens a second")
    return sheet
