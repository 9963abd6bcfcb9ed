"""Readers of other people's model descriptions; each returns a ModelSpec or refuses in one line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from capacity.spec.model import ModelSpec

# The largest config.json published so far is 3 MB (per-layer quantisation lists).
MAX_CONFIG_BYTES = 32_000_000


def read_config(path: str | Path) -> ModelSpec:
    """Read a Hugging Face config.json (or the folder that holds one).

    Raises FileFormatError, InputError or UnsupportedArchitectureError, each in one line.
    """
    from pathlib import Path

    from capacity.importers.huggingface import from_config

    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    data = _read_json(file)
    # Some quantisers leave config.json as it was and say what they did in a file beside it.
    beside = file.with_name("hf_quant_config.json")
    if file.name == "config.json" and "quantization_config" not in data and beside.is_file():
        data["quantization_config"] = _read_json(beside).get("quantization")
    return from_config(data, source=str(path), name=_model_name(file))


def _read_json(file: Path) -> dict[str, Any]:
    import json

    from capacity.errors import FileFormatError

    try:
        size = file.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise FileFormatError(f"{file}: {size} bytes is too large for a config.json (at most {MAX_CONFIG_BYTES})")
        data = json.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise FileFormatError(f"{file}: cannot be read ({error.strerror or error}); give a config.json") from None
    except UnicodeDecodeError:
        raise FileFormatError(f"{file}: not UTF-8 text; give a Hugging Face config.json") from None
    except RecursionError:
        raise FileFormatError(f"{file}: nested too deeply for a config.json") from None
    except ValueError as error:
        raise FileFormatError(f"{file}: not valid JSON ({error}); is the file whole?") from None
    if not isinstance(data, dict):
        raise FileFormatError(f"{file}: holds a {type(data).__name__}, not the object a config.json is")
    return data


def _model_name(file: Path) -> str:
    """A readable name: the folder for config.json, else the file's stem (org--name as hubs mirror it)."""
    stem = file.resolve().parent.name if file.name == "config.json" else file.stem
    return stem.split("--")[-1] or "model"
