"""A report as one HTML file: nothing is fetched, nothing is needed but the file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from typing import Any

from capacity.errors import InputError
from capacity.rendering.style import harmless
from capacity.reporting.content import Report, tree
from capacity.reporting.figures.canvas import themed

HOME = os.path.join(os.path.dirname(__file__), "templates")
MOST_BYTES = 1_000_000


def html(report: Report) -> str:
    """The page. Raises InputError without jinja2."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise InputError(f'a page needs {error.name}: pip install "model-capacity[report]"') from None

    def drawing(block: dict[str, Any]) -> Markup:
        """SVG that our own canvas wrote: its words were escaped there."""
        said = str(Markup.escape(harmless(block["alt"])))
        return Markup(themed(re.sub("<svg ", f'<svg role="img" aria-label="{said}" ', block["svg"], count=1)))  # noqa: S704

    def embedded(what: Any) -> Markup:
        """JSON that cannot end the script it stands in."""
        text = json.dumps(what, ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=str, sort_keys=False)
        return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704

    environment = Environment(
        loader=FileSystemLoader(HOME),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "drawing": drawing, "embedded": embedded, "exact": lambda number: f"{number:.6g}",
        "unbroken": lambda text: text.replace(" ", "\N{NO-BREAK SPACE}"),
    }  # fmt: skip
    script, style = _text("report.js"), _text("report.css")
    # White space in a page is squeezed at the end; what the policy's hash is of must not change then.
    script = re.sub(r"\n{2,}", "\n", script)
    page: str = environment.get_template("report.html.j2").render(
        report=finite(tree(report)),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return re.sub(r"\n{2,}", "\n", page)


def _shown(value: Any) -> Any:
    """Words with no control or invisible characters; markup of our own as it is."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else harmless(value)


def finite(what: Any) -> Any:
    """The content without infinities: JSON has no word for what is unlimited."""
    if isinstance(what, dict):
        return {name: finite(value) for name, value in what.items()}
    if isinstance(what, list):
        return [finite(value) for value in what]
    return None if isinstance(what, float) and not abs(what) < float("inf") else what


def _text(name: str) -> str:
    with open(os.path.join(HOME, name), encoding="utf-8") as file:
        return file.read()
