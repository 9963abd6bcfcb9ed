"""What was measured on this machine: a folder of the user's, beside the catalogue that comes with the package."""

from __future__ import annotations

import os

from capacity.errors import FileFormatError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

THIS_MACHINE = "this-machine"


def own_folder() -> str:
    """Where `capacity calibrate local` writes: $CAPACITY_HOME, else `capacity` in the user's data folder."""
    root = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.environ.get("CAPACITY_HOME") or os.path.join(root, "capacity")


def laws_path() -> str:
    """The fitted laws of this machine's library calls."""
    return os.path.join(own_folder(), f"{THIS_MACHINE}.json")


def platform_laws_path() -> str:
    """The fitted laws of this machine's storage, ciphers and preparation of data."""
    return os.path.join(own_folder(), f"{THIS_MACHINE}-platform.json")


def read_laws_document(path: str) -> Any:
    """What a file of fitted laws holds; raises InputError where there is none, FileFormatError where it is no JSON."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise InputError(f"{path} is not there: run `capacity calibrate local` first") from None
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read ({str(error)[:80]})") from None


def measured_folder() -> str:
    """The folder, once this machine was calibrated; raises InputError before."""
    folder = own_folder()
    if not os.path.isfile(os.path.join(folder, "devices", f"{THIS_MACHINE}.toml")):
        raise InputError(f"{THIS_MACHINE} was not measured yet: run `capacity bench`, then `capacity calibrate local`")
    return folder


def platform_folder() -> str:
    """The folder, once this machine's cores and disk were calibrated; raises InputError before."""
    folder = own_folder()
    if not os.path.isfile(os.path.join(folder, "hosts", f"{THIS_MACHINE}.toml")):
        raise InputError(
            f"cores and disk of {THIS_MACHINE} were not measured yet: run `capacity bench storage security preparation`, "
            "then `capacity calibrate platform`"
        )
    return folder
