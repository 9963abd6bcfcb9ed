"""One question, one answer: the function behind `capacity estimate`."""

from __future__ import annotations

from capacity.estimators.case import read_case
from capacity.estimators.lowering import Tokens, active_parameter_count, lower, parameter_count
from capacity.spec.estimate import Estimate
from capacity.spec.workload import DEPLOY

# The section of what is under the devices, where it is asked about.
PLATFORM = "platform"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.formula import Traced
    from capacity.spec.estimate import Section


def estimate(**request: Any) -> Estimate:
    """What a model costs to train and to serve.

    Give one of `params` (7e9 or "7B"), `model` (a preset's name), `config` (a config.json), or of any network `module` (an
    nn.Module or "package.module:factory", with `input` or `example_inputs`) and `onnx` (a file), or `checkpoint` (files of weights); everything else has a
    default that the answer lists. The options are those of `capacity estimate --help`, with underscores.
    Returns an Estimate: sections "train" (or "finetune", "lora") and "serve", each quantity with its 90 % interval.
    Raises CapacityError, in one line, for input that makes no sense; a model that does not fit is an answer.
    """
    if request.get("mode") == DEPLOY:
        from capacity.estimators.deployment_answer import deployment

        return deployment(**{key: value for key, value in request.items() if value is not None})
    if request.get("module") is not None or request.get("onnx") is not None:
        from capacity.estimators.network_answer import network_estimate

        return network_estimate(request)
    if request.get("checkpoint") is not None:
        from capacity.estimators.checkpoint_answer import checkpoint_estimate

        return checkpoint_estimate(request)
    return answer(read_case(request))


def answer(case: Case, *, alone: bool = False) -> Estimate:
    """The answer to a checked question. alone: without other devices beside it."""
    sections: dict[str, Section] = {}
    sensitivities: dict[str, dict[str, float]] = {}
    modes = case.modes
    for mode in (*modes, PLATFORM) if case.on_platform else modes:
        section, shares = _section(case, mode, alone=alone)
        sections[mode] = section
        sensitivities |= {f"{mode}.{name}": share for name, share in shares.items()}
    return Estimate(
        request={key: _plain(value) for key, value in case.request.items()},
        model=model_facts(case),
        sections=sections,
        assumptions=case.assumptions.all(),
        sensitivities=sensitivities,
    )


def _section(case: Case, mode: str, *, alone: bool) -> tuple[Section, dict[str, dict[str, float]]]:
    if mode == "serve":
        from capacity.estimators.serving import serving_section

        return serving_section(case, alone=alone)
    if mode == PLATFORM:
        if "train" not in case.kept:
            from capacity.estimators.platform_serving import serving_platform_section

            return serving_platform_section(case)
        from capacity.estimators.platform import platform_section

        return platform_section(case)
    from capacity.estimators.training import training_section

    return training_section(case, alone=alone)


def values(**request: Any) -> dict[str, float]:
    """The mid value of every quantity by its full name (`train.step_time`), traced when a ledger is open."""
    if request.get("module") is not None or request.get("onnx") is not None:
        from capacity.estimators.network_answer import network_values

        return network_values(request)
    if request.get("checkpoint") is not None:
        from capacity.estimators.checkpoint_answer import checkpoint_values

        return checkpoint_values(request)
    case = read_case(request)
    found: dict[str, float] = {}
    for mode in case.modes:
        if mode == "serve":
            from capacity.estimators.serving import serving_values as read
        else:
            from capacity.estimators.training import training_values as read
        found |= {f"{mode}.{name}": value for name, value in read(case).items()}
    if case.on_platform:
        if "train" in case.kept:
            from capacity.estimators.platform import platform_values as under
        else:
            from capacity.estimators.platform_serving import serving_platform_values as under
        found |= {f"{PLATFORM}.{name}": value for name, value in under(case).items()}
    return found


def derive(name: str, **request: Any) -> Traced | float:
    """How one quantity came about: its value with the tree of formulas and inputs behind it.

    name: as in `values`, or its end where that is unambiguous ("step_time"). Raises UnknownNameError.
    """
    if request.get("mode") == DEPLOY:
        from capacity.errors import InputError

        raise InputError("--explain derives one number: ask it of the place, as in --mode serve --device NAME")
    from capacity.formula import ledger

    with ledger():
        found = values(**request)
    return found[_full_name(name, found)]


def _full_name(name: str, found: Mapping[str, float]) -> str:
    if name in found:
        return name
    spelt = name.replace("-", "_").replace(" ", "_")
    ends = [known for known in found if known.split(".", 1)[1].replace(" ", "_") == spelt.split(".", 1)[-1]]
    ends = [known for known in ends if "." not in spelt or known.replace(" ", "_").endswith(spelt)]
    if ends:
        return ends[0]
    from capacity.errors import UnknownNameError

    raise UnknownNameError("quantity", name, (known.split(".", 1)[1] for known in found), "see --json for all names")


def model_facts(case: Case) -> dict[str, Any]:
    """What the model is, for the head of the answer."""
    model = case.model
    table = lower(model, Tokens())
    return {
        "name": model.name,
        "architecture": model.architecture,
        "parameters": float(parameter_count(table)),
        "active_parameters": float(active_parameter_count(table)),
        "layers": float(sum(block.count for block in model.blocks if block.stack not in ("mtp", "vision"))),
        "hidden": float(model.hidden),
        "vocab_size": float(model.vocab_size),
        "max_positions": float(model.max_positions),
        "source": model.source,
        "inferred": sorted(model.inferred or {}),
        "notes": list(model.notes),
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
