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


def _spellings(name: str) -> list[str]:
    text = name.lower().replace("\u2011", "-").strip()
    inside = re.search(r"\(([^)]*)\)", text)
    plain = re.sub(r"\([^)]*\)", "", text).strip()
    found = [text, plain, plain.replace("_", "-")]
    # A card in a small host: the card computes.
    if inside and re.search(r"rtx|radeon|\brx\b|arc|nvidia|amd |h100|a100|\b\d{4}\b", inside[1]):
        card = re.sub(r"\b(nvidia|amd|intel|vulkan|cuda|radeon)\b|[()]", "", inside[1]).strip()
        found = [card, card.replace("rx ", "rx-"), f"rtx-{card}", *found]
    for one in list(found):
        short = re.sub(r"[ -]?\d+ ?g(i)?b\b.*", "", one).strip()
        found.append(short)
        cores = re.search(r"(\d+)[ -]?core", text)
        if "m1" in one or "m2" in one or "m3" in one or "m4" in one or "m5" in one:
            chip = re.search(r"m\d( (pro|max|ultra))?", one.replace("-", " "))
            if chip:
                spelt = "apple-" + chip[0].replace(" ", "-")
                found += [f"{spelt}-{cores[1]}"] if cores else []
                found.append(spelt)
    return [re.sub(r"[\s_]+", "-", one.strip()) for one in found if one.strip()]
