"""Where the rows of a sweep are kept: a folder of Parquet files, each there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from capacity.errors import FileFormatError, InputError
from capacity.record import Record
from capacity.sweeps.frame import completed
from capacity.whole_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    import pyarrow as pa

# Kinds of files that are not written: a folder of such a name would be a surprise.
OTHER_FILES = (
    ".xlsx",
    ".xls",
    ".ods",
    ".json",
    ".jsonl",
    ".tsv",
    ".txt",
    ".pq",
    ".feather",
    ".arrow",
    ".gz",
    ".zip",
    ".html",
)
MANIFEST = "_sweep.json"  # readers of a data set skip names that begin so


class Store(Record):
    """A folder of parts. target: the file that they become in the end, or the folder itself."""

    folder: str
    target: str

    @classmethod
    def at(cls, target: str) -> Store:
        """The store of an output: a .parquet or .csv file by way of a folder beside it, anything else a folder."""
        single = target.endswith((".parquet", ".csv"))
        if target.lower().endswith(OTHER_FILES):
            raise InputError(f"--output is '{target}': end it in .parquet or .csv, or name a folder")
        return cls(f"{target}.parts" if single else target, target)

    def begin(self, told: dict[str, Any], *, resume: bool) -> None:
        """Open the folder for a sweep that is described so; raises InputError where another one's rows are in the way."""
        if self.folder != self.target and os.path.exists(self.target) and not (resume and os.path.isdir(self.folder)):
            raise InputError(f"{self.target} exists, whole; give another --output, or move it away")
        manifest = os.path.join(self.folder, MANIFEST)
        if os.path.isdir(self.folder) and os.listdir(self.folder):
            try:
                with open(manifest, encoding="utf-8") as file:
                    known = json.load(file)
            except (OSError, ValueError):
                raise InputError(f"{self.folder} holds something else; give another --output") from None
            if known != json.loads(json.dumps(told)):
                raise InputError(f"{self.folder} holds another sweep's rows; give another --output")
            if not resume:
                raise InputError(f"{self.folder} holds rows of this sweep; --resume goes on with them")
            return
        try:
            os.makedirs(self.folder, exist_ok=True)
            write_whole(manifest, json.dumps(told, indent=1))
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror or error})") from None

    def path(self, number: int) -> str:
        """The file of a block of rows."""
        return os.path.join(self.folder, f"part-{number:08d}.parquet")

    def done(self) -> set[int]:
        """Blocks that are there."""
        names = os.listdir(self.folder)
        return {int(name[5:13]) for name in names if name.startswith("part-") and name.endswith(".parquet")}

    def write(self, number: int, frame: pd.DataFrame) -> None:
        """Keep a block of rows; a writer that is killed leaves nothing that counts."""
        write_parquet(self.path(number), arrow(frame))

    def read(self, number: int, columns: list[str] | None = None) -> pd.DataFrame:
        """A block of rows."""
        import pandas as pd

        return pd.read_parquet(self.path(number), columns=columns)

    def names(self, number: int) -> list[str]:
        """Names of a block's columns."""
        from pyarrow.parquet import read_schema

        return list(read_schema(self.path(number)).names)

    def finish(self, numbers: Iterable[int]) -> None:
        """Give all blocks the same columns, and make the one file of them where one was asked for."""
        ordered = sorted(numbers)
        names: dict[str, None] = {}
        for number in ordered:
            names |= dict.fromkeys(self.names(number))
        for number in ordered:
            if self.names(number) != list(names):
                frame = completed(self.read(number), names)[list(names)]
                write_parquet(self.path(number), arrow(frame))
        if self.folder != self.target:
            self._join(ordered)
            shutil.rmtree(self.folder)

    def _join(self, numbers: list[int]) -> None:
        """One file of all blocks, a block in memory at a time."""
        import pyarrow.parquet as pq
        from pyarrow import csv

        partial = f"{self.target}.{os.getpid()}"
        writer: Any = None
        try:
            for number in numbers:
                table = pq.read_table(self.path(number))
                if writer is None:
                    schema = table.schema
                    as_csv = self.target.endswith(".csv")
                    writer = csv.CSVWriter(partial, schema) if as_csv else pq.ParquetWriter(partial, schema, **_FORMAT)
                writer.write_table(table.cast(schema))
            if writer is None:
                raise InputError("no cases: nothing is written")
            writer.close()
            _onto_disk(partial)
            os.replace(partial, self.target)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)


# Floats of a sweep hardly repeat: dictionaries and statistics cost more than they bring.
_FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
}


def arrow(frame: pd.DataFrame) -> pa.Table:
    """A frame as columns of floats and text, whatever a block of it looked like."""
    import pandas as pd
    import pyarrow as pa

    columns = {}
    for name in frame.columns:
        values = frame[name]
        if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
            columns[name] = pa.array(values.to_numpy(dtype="float64", na_value=float("nan")))
        else:
            columns[name] = pa.array(values.astype("string"), type=pa.string())
    return pa.table(columns)


def write_parquet(path: str, table: pa.Table) -> None:
    """Write a table by way of a file beside it, on the disk before it takes the name. Raises FileFormatError."""
    from pyarrow.parquet import write_table

    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        write_table(table, partial, **_FORMAT)
        _onto_disk(partial)
        os.replace(partial, path)
    except OSError as error:
        if os.path.exists(partial):
            os.unlink(partial)
        raise FileFormatError(f"{path}: cannot be written ({error.strerror or str(error)[:80]})") from None


def _onto_disk(path: str) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
