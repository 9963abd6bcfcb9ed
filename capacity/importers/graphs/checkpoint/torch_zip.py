"""Zip archives as torch.save writes them: a pickle and a storage for each tensor, none of them packed."""

from __future__ import annotations

from capacity.errors import FileFormatError
from capacity.importers.graphs.checkpoint.pickled import tensors_of
from capacity.importers.graphs.checkpoint.tensors import MOST_HEADER_BYTES, MOST_TENSORS, Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_torch_zip(path: str, size: int) -> tuple[list[Tensor], dict[str, Any]]:
    """Tensors of an archive of `size` bytes. Raises FileFormatError for what torch would not have written."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_TENSORS:
                raise FileFormatError(f"{path[:200]}: {len(entries)} entries are more than any checkpoint holds")
            pickles = [one for one in entries if one.filename.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise FileFormatError(
                    f"{path[:200]}: a zip archive that is no torch checkpoint (it has {len(pickles)} data.pkl)"
                )
            root = pickles[0].filename.removesuffix("data.pkl")
            # torch stores, it does not pack: whatever would grow when read is refused.
            if any(one.file_size > one.compress_size for one in entries):
                raise FileFormatError(f"{path[:200]}: packed entries, which torch never writes: this may be a zip bomb")
            if sum(one.compress_size for one in entries) > size or pickles[0].file_size > MOST_HEADER_BYTES:
                raise FileFormatError(
                    f"{path[:200]}: its entries are larger than the file, or its data.pkl than {MOST_HEADER_BYTES} bytes"
                )
            sizes = {
                one.filename.removeprefix(f"{root}data/"): one.file_size
                for one in entries
                if one.filename.startswith(f"{root}data/")
            }
            with archive.open(pickles[0]) as file:
                pickle = file.read(MOST_HEADER_BYTES + 1)
    except zipfile.BadZipFile as error:
        raise FileFormatError(f"{path[:200]}: a broken zip archive ({str(error)[:80]})") from None
    return list(tensors_of(pickle, sizes, path)), {}
