"""Where the cases of a sweep come from: a grid, a list, or a file; read in blocks, never whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capacity.errors import FileFormatError, InputError, UnknownNameError
from capacity.estimators.case import KEYS
from capacity.quantities import parse
from capacity.record import Record
from capacity.sweeps.frame import ERROR
from capacity.sweeps.grouping import NUMBERS, UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Values of one range of a grid.
MOST_VALUES = 1_000_000
# Rows of a file that a few are taken from.
SAMPLED_ROWS = 4096


def spread(rows: int, few: int) -> np.ndarray:
    """A few row numbers, the first and the last among them, that share no period with any axis of a grid."""
    if rows <= few:
        return np.arange(rows)
    golden = np.arange(1, few - 1) * ((5.0**0.5 - 1.0) / 2.0) % 1.0
    return np.unique(np.concatenate([[0, rows - 1], (golden * rows).astype(np.int64)]))


class Grid(Record):
    """All combinations of the values of some axes; the last axis runs fastest. Rows are made when they are asked for."""

    axes: dict[str, tuple[Any, ...]]

    @property
    def rows(self) -> int:
        """How many combinations."""
        count = 1
        for values in self.axes.values():
            count *= len(values)
        return count

    def frame(self, start: int, stop: int) -> pd.DataFrame:
        """Some rows, by number. Words are categorical columns."""
        left = np.arange(start, min(stop, self.rows), dtype=np.int64)
        columns: dict[str, Any] = {}
        for name, values in reversed(self.axes.items()):
            left, code = np.divmod(left, len(values))
            if all(isinstance(value, float) for value in values):
                columns[name] = np.array(values)[code]
            else:
                columns[name] = pd.Categorical.from_codes(code, categories=list(values))
        return pd.DataFrame({name: columns[name] for name in self.axes})

    def blocks(self, size: int) -> Iterator[pd.DataFrame]:
        """All rows, some at a time."""
        for start in range(0, self.rows, size):
            yield self.frame(start, start + size)

    def sample(self, few: int) -> pd.DataFrame:
        """A few rows from all over."""
        return pd.concat([self.frame(row, row + 1) for row in spread(self.rows, few).tolist()], ignore_index=True)


class Listed(Record):
    """Cases one by one, as frames of a few rows."""

    cases: pd.DataFrame

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.cases)

    def blocks(self, size: int) -> Iterator[pd.DataFrame]:
        """All rows, some at a time."""
        for start in range(0, len(self.cases), size):
            yield self.cases.iloc[start : start + size].reset_index(drop=True)

    def sample(self, few: int) -> pd.DataFrame:
        """A few rows from all over."""
        return self.cases.iloc[spread(self.rows, few)].reset_index(drop=True)


class Filed(Record):
    """Cases of a CSV or Parquet file, read as they are needed; rows: counted beforehand, for what is left to do."""

    path: str
    rows: int

    def blocks(self, size: int) -> Iterator[pd.DataFrame]:
        """All rows, some at a time."""
        try:
            if self.path.endswith(".csv"):
                with pd.read_csv(self.path, chunksize=size) as reader:
                    for frame in reader:
                        yield frame.reset_index(drop=True)
                return
            from pyarrow.parquet import ParquetFile

            with ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=size):
                    yield batch.to_pandas()
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{self.path}: cannot be read ({str(error)[:80]})") from None

    def sample(self, few: int) -> pd.DataFrame:
        """A few rows of the first thousands."""
        head = next(self.blocks(SAMPLED_ROWS), pd.DataFrame())
        return head.iloc[spread(len(head), few)].reset_index(drop=True)


Cases = Grid | Listed | Filed


def read_cases(path: str | None, sweeps: Sequence[str]) -> tuple[Cases, dict[str, Any]]:
    """The cases of a sweep and what they share.

    path: a .toml file with tables [shared], [sweep] and [[case]]; or a .csv or .parquet file, a row a case; or none.
    sweeps: axes of a grid, as "NAME=VALUES" (`values_of`), beside those of a TOML file.
    Raises InputError, UnknownNameError, FileFormatError.
    """
    axes = dict(_axis(text) for text in sweeps)
    if path is None:
        if not axes:
            raise InputError("nothing to sweep: give --sweep tp=1,2,4,8 (it may be repeated), or a file of cases")
        return Grid(axes), {}
    if path.endswith(".toml"):
        return _toml(path, axes)
    if axes:
        raise InputError(f"--sweep and {path}: a grid over a file's rows is not made; give one of them")
    if not path.endswith((".csv", ".parquet", ".pq")):
        raise InputError(f"{path}: cases are read from .toml, .csv and .parquet files")
    return Filed(path, _counted(path)), {}


def values_of(name: str, text: str) -> tuple[Any, ...]:
    """Values of an axis: "1,2,4,8", "1e9:1e12:log20" (so many, evenly in the logarithm), "0:1:lin5", "1:64:x2".

    Numbers are read with their units, and become floats; any other value is a word. Raises InputError.
    """
    parts = text.split(":")
    if len(parts) == 3 and name in NUMBERS:
        low, high = (_number(name, part) for part in parts[:2])
        return _range(f"{name}={text}", low, high, parts[2].strip())
    values = tuple(part.strip() for part in text.split(","))
    if not all(values):
        raise InputError(f"--sweep {name}={text:.60}: a value is missing; write {name}=1,2,4 or {name}=1:64:x2")
    return tuple(_number(name, value) for value in values) if name in NUMBERS else values


def _number(name: str, text: str) -> float:
    return float(parse(text.strip(), UNITS.get(name, "1")))


def _range(said: str, low: float, high: float, step: str) -> tuple[float, ...]:
    kind = next((kind for kind in ("log", "lin", "x") if step.startswith(kind)), "")
    digits = step.removeprefix(kind)
    if not low <= high or (kind != "lin" and low <= 0.0):
        raise InputError(f"--sweep {said}: a range goes up, and by factors only from above 0")
    if kind in ("log", "lin") and digits.isdigit() and 1 <= int(digits) <= MOST_VALUES:
        spaced = np.geomspace if kind == "log" else np.linspace
        return tuple(float(value) for value in spaced(low, high, int(digits)))
    factor = float(digits) if kind == "x" and digits.replace(".", "", 1).isdigit() else 0.0
    if factor <= 1.0:
        raise InputError(f"--sweep {said}: after two ends comes log20, lin20 or x2, not {step!r:.40}")
    found = [low]
    while found[-1] * factor <= high * (1.0 + 1e-12) and len(found) < MOST_VALUES:
        found.append(found[-1] * factor)
    return tuple(found)


def _axis(text: str) -> tuple[str, tuple[Any, ...]]:
    name, equals, values = text.partition("=")
    name = _known(name.strip().lstrip("-").replace("-", "_"))
    if not equals or not values.strip():
        raise InputError(f"--sweep {text:.60}: write NAME=VALUES, such as tp=1,2,4,8")
    return name, values_of(name, values)


def _known(name: str) -> str:
    if name not in KEYS:
        raise UnknownNameError("option to sweep", name, KEYS, "options are those of `capacity estimate --help`")
    return name


def _toml(path: str, axes: dict[str, tuple[Any, ...]]) -> tuple[Cases, dict[str, Any]]:
    import tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read ({str(error)[:80]})") from None
    for name in tables:
        if name not in ("shared", "sweep", "case"):
            raise UnknownNameError(
                "table", name, ("shared", "sweep", "case"), f"{path} may have [shared], [sweep], [[case]]"
            )
    shared = {_known(name): value for name, value in tables.get("shared", {}).items()}
    found = {_known(name): axis(name, value) for name, value in tables.get("sweep", {}).items()} | axes
    cases = tables.get("case", [])
    if bool(cases) == bool(found):
        raise InputError(
            f"{path}: give a [sweep] of ranges, or [[case]] for each case; {'both' if cases else 'none'} given"
        )
    if found:
        return Grid(found), shared
    for case in cases:
        for name in case:
            if name not in ("id", "name"):
                _known(name)
    return Listed(pd.DataFrame(cases)), shared


def axis(name: str, values: Any) -> tuple[Any, ...]:
    """Values of an axis from text (`values_of`), a list or one value; numbers become floats."""
    _known(name)
    if isinstance(values, str):
        return values_of(name, values)
    if not hasattr(values, "__iter__"):
        values = (values,)
    return tuple(_value(name, value) for value in values)


def _value(name: str, value: Any) -> Any:
    if name in NUMBERS or (isinstance(value, (float, int)) and not isinstance(value, bool)):
        return _number(name, value) if isinstance(value, str) else float(value)
    return value


def _counted(path: str) -> int:
    """Rows of a file; of a CSV its lines, which a quoted line break makes too many."""
    if not os.path.isfile(path):
        raise FileFormatError(f"{path}: there is no such file")
    if path.endswith(".csv"):
        with open(path, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return max(lines - 1, 0)
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, ArrowInvalid) as error:
        raise FileFormatError(f"{path}: is no Parquet file ({str(error)[:80]})") from None


def described(cases: Cases, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep is of, in plain types: two sweeps of one description have the same rows in the same places."""
    told: dict[str, Any] = {"rows": cases.rows, "shared": {key: str(value) for key, value in sorted(shared.items())}}
    if isinstance(cases, Grid):
        return told | {"axes": {name: [str(value) for value in values] for name, values in cases.axes.items()}}
    if isinstance(cases, Filed):
        stat = os.stat(cases.path)
        return told | {"file": os.path.abspath(cases.path), "bytes": stat.st_size, "modified": stat.st_mtime}
    return told | {"cases": cases.cases.drop(columns=[ERROR], errors="ignore").to_csv(index=False)}
