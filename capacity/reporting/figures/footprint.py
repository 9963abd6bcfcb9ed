"""What energy, carbon and money go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capacity.rendering import words as said
from capacity.reporting.figures import Drawing
from capacity.reporting.figures.canvas import INK, QUIET, SERIES, Sheet, quiet
from capacity.reporting.figures.shown import calls

if TYPE_CHECKING:
    from capacity.reporting.figures.shown import Shown

_NAMES = (("energy", "carbon", "cost"), ("energy_per_token", "carbon_per_million_tokens", "cost_per_million_tokens"))
# What the time of a step, and so its rent, is spent on.
_KINDS = {
    "arithmetic": ("GEMM", "attention", "expert products", "head and loss", "recomputation"),
    "memory": (
        "weights",
        "attention and KV cache",
        "activations",
        "element-wise",
        "optimizer",
        "gradient accumulation",
        "casts",
    ),
}
_WAITING = "network and waiting"
_LETTERS, _WORTH = 64.0, 0.15  # letters that a whole bar has room for; a share worth naming anyway


def footprint(shown: Shown) -> Drawing | None:
    """Energy and carbon by who draws the power, money by what the time is spent on."""
    names = next((names for names in _NAMES if names[0] in shown.part.quantities), None)
    site = next(
        (
            call
            for call, _, _ in calls(shown.found.get(f"{shown.mode}.{names[0] if names else ''}"))
            if call.formula.name == "site_power_w"
        ),
        None,
    )
    if names is None or site is None:
        return None
    inputs = site.inputs
    devices, hosts = (
        float(inputs["device_w"]) * float(inputs["devices"]),
        float(inputs["host_w"]) * float(inputs["nodes"]),
    )
    drawn = {
        "devices": devices,
        "hosts": hosts,
        "cooling, conversion": (devices + hosts) * (float(inputs["pue"]) - 1.0),
    }
    rows: list[dict[str, Any]] = []
    for name in names:
        quantity = shown.part.quantities.get(name)
        if quantity is None:
            continue
        shares = _of_time(shown.part.breakdowns.get("time", {})) if "cost" in name else _shares(drawn)
        rows += [
            {
                "quantity": name,
                "part": part,
                "share": share,
                "value": quantity.mid * share,
                "unit": quantity.unit,
                "low": quantity.low,
                "high": quantity.high,
            }
            for part, share in shares.items()
        ]
    return Drawing(
        name="footprint",
        title="Energy, carbon and money",
        caption="Energy and carbon by who draws the power; rent by what the devices spend the time on. In brackets the 90 % interval.",
        alt="; ".join(
            f"{said.label(name)}: "
            + ", ".join(f"{row['part']} {row['share']:.0%}" for row in rows if row["quantity"] == name)
            for name in dict.fromkeys(row["quantity"] for row in rows)
        ),
        rows=tuple(rows),
        draw=draw,
    )


def _shares(parts: dict[str, float]) -> dict[str, float]:
    whole = sum(parts.values())
    return {name: value / whole for name, value in parts.items() if value > 0.0}


def _of_time(time: dict[str, float]) -> dict[str, float]:
    sums = dict.fromkeys((*_KINDS, _WAITING), 0.0)
    for name, value in time.items():
        sums[next((kind for kind, names in _KINDS.items() if name in names), _WAITING)] += value
    return _shares(sums)


def draw(rows: tuple[dict[str, Any], ...]) -> Sheet:
    """A bar for each, as long as its whole; parts named above."""
    names = list(dict.fromkeys(row["quantity"] for row in rows))
    sheet = Sheet(0.15 + 0.68 * len(names))
    axes = sheet.axes(1, 1, 1)
    for place, name in enumerate(names):
        start = 0.0
        own = [row for row in rows if row["quantity"] == name]
        for number, row in enumerate(own):
            colour = SERIES[number] if "cost" not in name else SERIES[number + 3]
            bar = axes.barh(
                place, row["share"], left=start, height=0.42, color=colour, edgecolor="white", linewidth=0.8
            )
            sheet.tip(
                bar[0], f"{said.label(name)}: {row['part']} {said.value(row['value'], row['unit'])}, {row['share']:.0%}"
            )
            text = f"{row['part']} {row['share']:.0%}"
            last, clear = number == len(own) - 1, row["share"] * _LETTERS > len(text)
            above = clear or not last
            if clear or last or row["share"] > _WORTH:
                axes.annotate(
                    text, (1.0 if last else start, place + (-0.23 if above else 0.23)), xytext=(0, 1 if above else -1), textcoords="offset points",
                    ha="right" if last else "left", va="bottom" if above else "top", color=QUIET, fontsize=7.5,
                )  # fmt: skip
            start += row["share"]
        whole = sum(row["value"] for row in own)
        axes.annotate(
            said.label(name),
            (0.0, place),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=INK,
        )
        low, high = (said.value(own[0][side], own[0]["unit"]) for side in ("low", "high"))
        text = f"{said.value(whole, own[0]['unit'])}\n({low} – {high})"
        axes.annotate(
            text,
            (1.0, place),
            xytext=(6, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            color=INK,
            fontsize=7.5,
        )
    axes.set(xlim=(-0.26, 1.26), ylim=(len(names) - 0.62, -0.72), xticks=[], yticks=[])
    quiet(axes, keep="")
    return sheet
