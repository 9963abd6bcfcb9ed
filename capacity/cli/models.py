"""`capacity models`: list, search and show the models of the catalogue."""

from __future__ import annotations

from capacity.cli.options import Command, Option
from capacity.cli.terminal import style, write
from capacity.rendering import layout, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.catalogue.models import ModelPreset
    from capacity.rendering.style import Style
    from capacity.spec.model import Block, ModelSpec

_KV_BYTES = 2.0  # of one number in a bf16 cache


COMMAND = Command(
    "models",
    usage="[SEARCH ...] [options]",
    description="List the published models of the catalogue, or show what one is made of.\n"
    "Every word of SEARCH must be in the id, name, family or organisation.",
    examples=(
        "capacity models",
        "capacity models llama",
        "capacity models --family qwen3",
        "capacity models deepseek-v3 --json",
    ),
    words=("SEARCH", "words to look for; an id shows that model in full"),
    groups=(
        ("which", (
            Option("--family", metavar="NAME", help="llama, qwen3, deepseek, gemma ..."),
            Option("--catalogue", metavar="DIR", many=True, help="a folder of your own models; may be repeated"),
        )),
        ("the answer", (
            Option("--plain", help="no colour, ASCII only"),
            Option("--json", help="the models as JSON, in base units"),
        )),
    ),
)  # fmt: skip


def run(options: dict[str, Any]) -> None:
    """Search, and print what was found."""
    from capacity.catalogue.models import list_models

    search = " ".join(options["words"])
    folders = tuple(options["catalogue"] or ())
    exact = _named(search, folders) if search and not options["family"] else None
    found = (exact,) if exact else list_models(search, options["family"] or "", folders)
    if not found:
        _nothing(options, folders)
    chosen = style(plain=options["plain"])
    if len(found) == 1:
        record = _record(found[0], folders)
        lines = _detail(found[0], record, chosen)
    else:
        record, lines = {}, _listing(found, chosen)
    if options["json"]:
        from capacity.rendering.record import json

        write(json({"schema": 1, "kind": "models", "models": [_brief(preset) | record for preset in found]}))
        return
    write("\n".join(lines) + "\n")


def _named(search: str, folders: tuple[str, ...]) -> ModelPreset | None:
    """The model that is called exactly so; None when it is only a search."""
    from capacity.catalogue.models import load_preset
    from capacity.errors import UnknownNameError

    try:
        return load_preset(search, folders)
    except UnknownNameError:
        return None


def _nothing(options: dict[str, Any], folders: tuple[str, ...]) -> None:
    """Say that nothing was found, with the nearest names when a name was searched."""
    from capacity.errors import InputError

    if not options["family"]:
        from capacity.catalogue.models import load_preset

        load_preset(" ".join(options["words"]), folders)
    asked = " ".join(filter(None, (*options["words"], options["family"])))
    raise InputError(f"no model of the catalogue is {asked!r:.80}: `capacity models` lists them")


def _brief(preset: ModelPreset) -> dict[str, Any]:
    return {
        "id": preset.id, "name": preset.name, "family": preset.family, "organisation": preset.organisation,
        "released": preset.released, "published_params": preset.published_params,
        "published_active_params": preset.published_active_params, "source": preset.source, "origin": preset.origin,
    }  # fmt: skip


def _listing(found: tuple[ModelPreset, ...], chosen: Style) -> list[str]:
    rows = [
        [
            chosen.text(cell)
            for cell in (
                preset.id,
                words.value(preset.published_params),
                words.value(preset.published_active_params),
                preset.released,
                preset.family,
                preset.organisation,
            )
        ]
        for preset in found
    ]
    header = [["model", "parameters", "active", "released", "family", "from"]]
    hint = f"{len(rows)} models; `capacity models ID` shows one, `capacity estimate --model ID` sizes it"
    return [*layout.table(header, rows, chosen), "", chosen.paint(hint, "dim")]


def _record(preset: ModelPreset, folders: tuple[str, ...]) -> dict[str, Any]:
    """What the importer makes of a model, counted from its ops."""
    from capacity.catalogue.models import load_model
    from capacity.estimators.lowering import Tokens, active_parameter_count, lower, parameter_count

    model = load_model(preset.id, folders)
    ops = lower(model, Tokens())
    cache = sum(op.count * op.cache_elements for op in ops)
    return {
        "architecture": model.architecture,
        "parameters": parameter_count(ops),
        "active_parameters": active_parameter_count(ops),
        "layers": sum(block.count for block in model.blocks if block.stack == "decoder"),
        "hidden": model.hidden,
        "vocabulary": model.vocab_size,
        "context": model.max_positions,
        "kv_cache_bytes_per_token": cache * _KV_BYTES,
        "blocks": [_block(block) for block in model.blocks],
        "notes": _notes(model),
    }


def _notes(model: ModelSpec) -> list[str]:
    return list(dict.fromkeys(note for note in model.notes if note))


def _block(block: Block) -> dict[str, Any]:
    """One kind of layer: how many, and what they are made of."""
    return {
        "layers": block.count,
        "stack": block.stack,
        "hidden": block.hidden,
        "parts": [_part(sublayer) for sublayer in block.sublayers],
    }


def _part(layer: Any) -> dict[str, Any]:
    """The facts of a sublayer: its plain numbers, without the linear maps."""
    from capacity.record import fields

    facts = {
        name: value
        for name in fields(layer)
        if isinstance(value := getattr(layer, name), (bool, float, int, str)) and value not in (0, "", float("inf"))
    }
    return {"kind": type(layer).__name__.lower(), **facts}


def _detail(preset: ModelPreset, record: dict[str, Any], chosen: Style) -> list[str]:
    rows = [
        ("from", f"{preset.organisation}, {preset.released}" if preset.released else preset.organisation, ""),
        ("architecture", record["architecture"], ""),
        ("parameters", f"{record['parameters']:,.0f}", _published(preset.published_params)),
        ("active a token", f"{record['active_parameters']:,.0f}", _published(preset.published_active_params)),
        ("layers", words.value(record["layers"]), f"{words.value(record['hidden'])} wide"),
        ("vocabulary", words.value(record["vocabulary"]), ""),
        ("context", words.value(record["context"] or None), "tokens"),
        ("KV cache a token", words.value(record["kv_cache_bytes_per_token"], "byte"), "bf16, no window"),
    ]
    for block in record["blocks"]:
        name = f"{words.value(block['layers'])} {block['stack']} layers"
        rows += [(name if number == 0 else "", _said(part), "") for number, part in enumerate(block["parts"])]
    lines = [chosen.paint(chosen.text(preset.name), "bold") + chosen.text(f"  {preset.id}")]
    lines += layout.facts([(name, chosen.text(value), chosen.text(note)) for name, value, note in rows], chosen)
    lines.append("")
    for text in (*record["notes"], preset.source):
        lines += [chosen.paint(f"  {line}", "dim") for line in layout.wrap(chosen.text(text), chosen.width - 2)]
    return lines


def _published(params: float | None) -> str:
    return f"published {params:,.0f}" if params else ""


def _said(part: dict[str, Any]) -> str:
    """A sublayer in one line: `attention: 32 heads, 8 KV heads, 128 wide`."""
    get = part.get
    said = {
        "attention": (
            (get("heads"), "heads"), (get("kv_heads"), "KV heads"), (get("key_size"), "wide"),
            (get("window"), "keys in its window"), (get("selected"), "keys selected"),
        ),
        "recurrent": ((get("kind"), ""), (get("heads"), "heads"), (get("key_size"), "x"), (get("value_size"), "state")),
        "feedforward": ((get("width"), "wide"),),
        "experts": (
            (get("experts"), "experts"), (get("active"), "active"), (get("width"), "wide"), (get("shared_width"), "shared"),
        ),
    }[part["kind"]]  # fmt: skip
    extra = [word for word in ("gated", "latent", "cross") if part.get(word)]
    if part["kind"] == "attention" and not part.get("causal"):
        extra.append("both ways")
    words_ = [f"{words.value(value)} {name}".strip() for value, name in said if value is not None]
    return f"{part['kind']}: {', '.join([*words_, *extra])}"
