"""Tables of measurements as pandas frames: read whole, checked for their columns. Needs the `sweep` extra."""

from __future__ import annotations

import os

from capacity.errors import FileFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

ENDINGS = (".parquet", ".csv")


def read_frame(path: str, columns: Iterable[str] = ()) -> pd.DataFrame:
    """The table of a .parquet or .csv file; FileFormatError where it is none or lacks one of `columns`."""
    import pandas as pd

    try:
        table = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path, low_memory=False)
    except FileNotFoundError:
        raise FileFormatError(f"{path[:200]}: no such file") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise FileFormatError(f"{path[:200]}: cannot be read as a table ({reason})") from None
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise FileFormatError(f"{path[:200]}: lacks the columns {', '.join(lacking)}")
    return table


def read_folder(folder: str, wanted: Mapping[str, tuple[str, Iterable[str]]]) -> dict[str, pd.DataFrame]:
    """The tables a folder holds, by key; wanted: for each key the file's name without its ending, and its columns."""
    found: dict[str, pd.DataFrame] = {}
    for key, (name, columns) in wanted.items():
        paths = [os.path.join(folder, name + ending) for ending in ENDINGS]
        path = next((one for one in paths if os.path.isfile(one)), None)
        if path:
            found[key] = read_frame(path, columns)
    if not found:
        names = ", ".join(name for name, _ in wanted.values())
        raise FileFormatError(f"{folder[:200]}: holds none of the tables {names} as .parquet or .csv")
    return found
