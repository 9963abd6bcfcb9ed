"""Power of servers by generation of their processor, as published."""

from __future__ import annotations

import os

from capacity.record import Record
from capacity.toml_file import read_toml

_NEWER = "newer"
# A server's processor: desktops of the same family draw otherwise.
_SERVERS = ("epyc", "xeon")
# The newest with results of their own: AMD's family, Intel's model of family 6. Later ones take those of recent servers.
_LAST_AMD, _LAST_INTEL = 25, 143


class CorePower(Record):
    """Watts of a whole server at the wall for each of its cores: (5, 50, 95 %) of the published results.

    idle_w: nothing runs; busy_w: every core at full load. results: how many servers; source: where they were published.
    """

    processor: str
    idle_w_per_core: tuple[float, float, float]
    busy_w_per_core: tuple[float, float, float]
    results: int
    source: str


def core_power(name: str, vendor: str, family: int | None, model: int | None) -> CorePower | None:
    """By the processor's name and CPUID; None for what is no server's, and for servers older than the table."""
    if family is None or model is None or not any(word in name.lower() for word in _SERVERS):
        return None
    table = read_toml(os.path.join(os.path.dirname(__file__), "servers.toml"))
    later = (
        family > _LAST_AMD
        if vendor == "AuthenticAMD"
        else vendor == "GenuineIntel" and (family, model) > (6, _LAST_INTEL)
    )
    for key, row in table.items():
        if key == "sources":
            continue
        known = row["vendor"] == vendor and row["family"] == family and model in row["models"]
        if known or (key == _NEWER and later):
            idle, busy = (tuple(row[name]["value"]) for name in ("idle_w_per_core", "busy_w_per_core"))
            return CorePower(row["name"], idle, busy, row["results"], table["sources"]["specpower"]["title"])
    return None
