"""What all drawings share: paper, ink, colours, and how a drawing becomes SVG or PNG, the same bytes each time.

Colours are Tol's bright scheme, which people with colour-blindness tell apart; nothing is told by colour alone. Words are
never read as TeX, so a hostile name stays a name.
"""

from __future__ import annotations

import re
from html import escape
from io import BytesIO, StringIO
from math import floor, log10
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Paper

from capacity.quantities import format as show
from capacity.rendering.style import harmless

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

INK, QUIET, RULE, PAPER, BAND = "#1b1e23", "#5b626c", "#c9ced6", "#ffffff", "#e9ecf1"
SERIES = ("#4477aa", "#c94f5d", "#228833", "#a8912b", "#3fa7c4", "#aa3377", "#7f8792", "#8c5a2b")
MARKS = ("o", "s", "D", "^", "v", "P", "X", "<")
WIDTH = 5.6  # inches: readable on a phone when it fills the screen, and on paper when it fills a column
DPI = 200
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "axes.unicode_minus": True, "font.family": ["DejaVu Sans"], "font.size": 8.5,
    "axes.titlesize": 9.0, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.edgecolor": RULE, "axes.linewidth": 0.8,
    "axes.labelcolor": INK, "axes.labelsize": 8.5, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK,
    "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "grid.color": RULE,
    "grid.linewidth": 0.5, "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "lines.linewidth": 1.6,
    "legend.frameon": False, "legend.fontsize": 8.0,
}  # fmt: skip


def styled() -> Any:
    """The house's style, while a block runs."""
    return mpl.rc_context(_SETTINGS)


class Sheet:
    """A drawing in the making: a matplotlib figure, and what each of its marks says when it is pointed at."""

    def __init__(self, height: float, width: float = WIDTH) -> None:
        self.paper = Paper(figsize=(width, height), layout="constrained")
        self.tips: dict[str, str] = {}

    def axes(self, *place: Any, **more: Any) -> Axes:
        """A pair of axes."""
        axes: Axes = self.paper.add_subplot(*place, **more)
        return axes

    def tip(self, artist: Artist, text: str) -> None:
        """Say something of a mark to who points at it."""
        name = f"tip{len(self.tips)}"
        artist.set_gid(name)
        self.tips[name] = harmless(text)

    def svg(self, name: str) -> str:
        """The drawing as SVG without a header; ids begin with `name`, so several share a page."""
        out = StringIO()
        with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name, "svg.id": None}):
            self.paper.savefig(
                out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
            )
        text = out.getvalue()
        text = text[text.index("<svg") :]
        for key, said in self.tips.items():
            text = text.replace(f'<g id="{key}">', f'<g id="{key}"><title>{escape(said)}</title>', 1)
        text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'(?<=[\s"])id="([^"]+)"', rf'id="{name}-\1"', text)
        text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
        text = re.sub(r"(\d\.\d{2})\d+", r"\1", text)  # a hundredth of a point is enough
        return re.sub(r"\n\s*", "\n", text)

    def png(self, dots_per_inch: float = DPI) -> bytes:
        """The drawing as a picture."""
        out = BytesIO()
        FigureCanvasAgg(self.paper)
        with mpl.rc_context(_SETTINGS):
            self.paper.savefig(out, format="png", dpi=dots_per_inch, metadata={"Software": None})
        return out.getvalue()


def words(text: object) -> str:
    """Words from anywhere, fit to be drawn."""
    return harmless(str(text))


def shortened(text: str, most: int) -> str:
    """Words cut to a length."""
    text = words(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def named_above(axes: Axes, text: str) -> None:
    """Name the upright axis where it can be read without turning the head."""
    axes.set_title(text, loc="left", fontsize=8.5, fontweight="normal", color=QUIET)


def quiet(axes: Axes, *, keep: str = "bottom") -> None:
    """Leave the axes only the lines that carry something."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep.split())
    axes.tick_params(length=0)


def plain_ticks(axis: Any, unit: str = "1", *, most: int = 7) -> None:
    """Ticks of a logarithmic axis as people write quantities."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(base=10.0, numticks=most))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _place: tick(value, unit)))


def tick(value: float, unit: str = "1") -> str:
    """A round number as the label of a tick; seconds stay seconds, for 100 s is no round number of minutes."""
    if not value:
        return "0"
    return f"{value:g} s" if unit == "s" and value >= 1.0 else show(value, unit, digits=1)


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers over a range, three to six of them."""
    tens = range(floor(log10(low)), floor(log10(high)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        found = [step * 10.0**ten for ten in tens for step in steps if low <= step * 10.0**ten <= high]
        if len(found) >= 3:
            return found
    return found or [low, high]


def themed(svg: str) -> str:
    """The drawing in the colours of the page it stands in: CSS variables, light or dark."""
    names = {INK: "ink", QUIET: "quiet", RULE: "rule", PAPER: "paper", BAND: "band"}
    names |= {colour: f"series-{number}" for number, colour in enumerate(SERIES)}
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: f"var(--{names[found[0]]})" if found[0] in names else found[0], svg)
