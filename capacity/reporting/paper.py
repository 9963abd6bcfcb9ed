"""A report as a typeset document: selectable text, vector figures, formulas set as formulas."""

from __future__ import annotations

import json
import os
from typing import Any

from capacity.errors import CapacityError, InputError
from capacity.rendering.style import harmless
from capacity.reporting.content import Report, tree
from capacity.reporting.page import HOME, finite

# A document without a clock: the same inputs give the same bytes.
_EPOCH = 0


def pdf(report: Report) -> bytes:
    """The document. Raises InputError without typst."""
    try:
        import typst
    except ModuleNotFoundError as error:
        raise InputError(f'a document needs {error.name}: pip install "model-capacity[report]"') from None
    import matplotlib as mpl

    content = finite(tree(report))
    provenance = json.dumps(content["provenance"], separators=(",", ":"), default=str)
    content["provenance"] = {"versions": content["provenance"]["versions"]}
    try:
        made: bytes = typst.compile(
            os.path.join(HOME, "report.typ"),
            sys_inputs={"report": json.dumps(_clean(content)), "provenance": provenance},
            format="pdf",
            timestamp=_EPOCH,
            font_paths=[os.path.join(mpl.get_data_path(), "fonts", "ttf")],  # what the figures are drawn with
            ignore_system_fonts=True,
        )
    except typst.TypstError as error:
        raise CapacityError(f"the document could not be set: {error}") from None
    return made


def _clean(what: Any, name: str = "") -> Any:
    """Words with no control or invisible characters; drawings are markup of our own."""
    if isinstance(what, dict):
        return {key: _clean(value, key) for key, value in what.items() if key != "rows" or what.get("kind") != "figure"}
    if isinstance(what, list):
        return [_clean(value) for value in what]
    return harmless(what) if isinstance(what, str) and name != "svg" else what
