"""Files that are there whole or not at all, whatever stops the writing."""

from __future__ import annotations

import os


def write_whole(path: str, content: str | bytes) -> None:
    """Put text or bytes into a file by way of another beside it, on the disk before it takes the name. Raises OSError."""
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
