"""Models and devices of other people's tables, by the names people give them."""

from __future__ import annotations

import re
from difflib import get_close_matches

from capacity.catalogue import load_device, load_model
from capacity.catalogue.devices import list_devices
from capacity.catalogue.entry import ids
from capacity.errors import CapacityError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.device import Device
    from capacity.spec.model import ModelSpec

# What publishers append to a name for the format, the tuning or the date of a checkpoint.
_ENDINGS = re.compile(
    r"-(fp8|fp4|nvfp4|mxfp4|bf16|int4|int8|w4a16|awq|gptq|gguf|mlx|dynamic|static|pertensor|block|v\d|instruct|it|chat|base|"
    r"thinking|hf|preview|reasoning|coder|turbo|\d{4}|\d{6}|quantized\.w\w+)$"
)
_models: dict[str, ModelSpec | str] = {}
_devices: dict[str, Device | str] = {}


def model_named(name: str) -> ModelSpec:
    """The model of a table's name; of its nearest relative in the catalogue where only the version is unknown.

    Raises UnknownNameError with the nearest names.
    """
    found = _models.get(name)
    if found is None:
        try:
            found = _model(name)
        except CapacityError as error:
            found = str(error)
        _models[name] = found
    if isinstance(found, str):
        raise UnknownNameError("model", name, ids("models", ()))
    return found


def _model(name: str) -> ModelSpec:
    key = name.strip().lower().replace("_", "-").replace(" ", "-").rpartition("/")[2]
    tried = [name, key]
    while (shorter := _ENDINGS.sub("", key)) != key:
        key = shorter
        tried.append(key)
    tried += [re.sub(r"^(meta-|nvidia-|openai-)", "", spelt).replace("vicuna", "llama") for spelt in tried]
    for spelt in tried:
        try:
            return load_model(spelt)
        except UnknownNameError:
            continue
    # GLM-4.6 has the layers of GLM-4.5: the same family and size, another number behind the point.
    family = re.sub(r"\.\d+", "", key)
    relatives = [one for one in ids("models", ()) if re.sub(r"\.\d+", "", one) == family]
    near = get_close_matches(key, relatives, n=1, cutoff=0.6)
    if near:
        return load_model(near[0])
    raise UnknownNameError("model", name, ids("models", ()))


def model_of_shape(name: str, shape: dict[str, float | None]) -> ModelSpec:
    """The model of a table's name, or a dense decoder of the shape the table gives.

    shape: n_layers, hidden, ffn_hidden, n_heads, n_kv_heads, vocab. Raises UnknownNameError where one is blank too.
    """
    try:
        return model_named(name)
    except UnknownNameError:
        needed = ("n_layers", "hidden", "ffn_hidden", "n_heads", "vocab")
        if any(not shape.get(key) for key in needed):
            raise
    from capacity.importers.huggingface import from_config

    whole = {key: int(value) for key, value in shape.items() if value}
    heads = whole.get("n_kv_heads", whole["n_heads"])
    config = {
        "model_type": "llama",
        "hidden_size": whole["hidden"],
        "intermediate_size": whole["ffn_hidden"],
        "num_hidden_layers": whole["n_layers"],
        "num_attention_heads": whole["n_heads"],
        "num_key_value_heads": heads if whole["n_heads"] % heads == 0 else whole["n_heads"],
        "vocab_size": whole["vocab"],
        "max_position_embeddings": 1_000_000,
        "tie_word_embeddings": False,
    }
    model = from_config(config, source="the table's own columns", name=name.lower())
    _models[name] = model
    return model


def device_named(name: str) -> Device:
    """The device of a table's name, whatever memory size, form or board is written around it. Raises UnknownNameError."""
    found = _devices.get(name)
    if found is None:
        found = _device(name)
        _devices[name] = found
    if isinstance(found, str):
        raise UnknownNameError("device", name, tuple(one.id for one in list_devices()))
    return found


def _device(name: str) -> Device | str:
    for spelt in _spellings(name):
        try:
            return load_device(spelt)
        except CapacityError:
            continue
    return name


_CARD = re.compile(r"rtx|radeon|\brx\b|\barc\b|nvidia|\bamd\b|pro w\d|r9700")
_VENDORS = re.compile(
    r"\b(nvidia|amd|intel|vulkan|cuda|rocm|spark|qualcomm|apple silicon)\b|[()]|\b\d+ ?gi?b\b|\bmaxq\b|\bddr\d.*|\bcluster\b"
)
_CHIP = re.compile(r"\bm\d( (pro|max|ultra))?\b")


def _spellings(name: str) -> list[str]:
    """What a device may be called in the catalogue, most telling first."""
    text = name.lower().replace("\u2011", "-").replace("_", "-").strip()
    whole = re.sub(r"^\d+x ", "", re.sub(r" \d+s$", "", text))
    inside = re.search(r"\((.*)\)", whole)
    note = inside[1] if inside else ""
    plain = re.sub(r"\(.*\)", "", whole).strip()
    plain = re.split(r" - | \+ |,", plain)[0].strip()
    found = [whole, plain, re.sub(r"[ -]\d+ ?gi?b\b.*", "", plain)]
    if _CARD.search(note) and "spark" not in note:
        # A card in a small host: the card computes.
        card = _VENDORS.sub("", note).strip()
        found = [card, f"rtx {card}", f"rx {card}", *found]
    chip = None if _CARD.search(whole) or "cm5" in whole or "pi " in whole else _CHIP.search(whole.replace("-", " "))
    if chip:
        spelt = f"apple {chip[0]}"
        cores = re.search(r"(\d+)[ -]?core gpu", whole)
        found = [f"{spelt} cpu", spelt] if "cpu" in whole else [f"{spelt} {cores[1]}" if cores else spelt, spelt]
    cleaned = [re.sub(r"[\s-]+", "-", one.strip(" -")) for one in (*found, *(_VENDORS.sub("", one) for one in found))]
    return [one for one in dict.fromkeys(cleaned) if one]
