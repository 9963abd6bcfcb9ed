"""A network of --module or --onnx as a question of where it can be put: traced once, priced on each place."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions
from capacity.formula import total

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.deployment import Candidate, Limits, Place, Question

# Of the options of a network those that are not of a device.
_KEYS = ("module", "onnx", "input", "example_inputs", "dim", "pue", "grid", "catalogue", "compiled", "channels_last")


def question(request: dict[str, Any], limits: Limits) -> Question:
    """The network, and how a batch of it is priced on a place, in the format that its device is at its best with."""
    from capacity.estimators.case_cluster import read_cluster
    from capacity.estimators.deployment import Question, candidate
    from capacity.estimators.formats import default_format
    from capacity.estimators.network_answer import FORMATS, account_of, facts_of, infer_job, read_graph

    request = {key: value for key, value in request.items() if value is not None and value is not False}
    for key in request:
        if key not in _KEYS:
            raise InputError(f"--{key.replace('_', '-')} is of language models; with --module or --onnx leave it out")
    assumptions = Assumptions()
    graph = read_graph(request, train=False)
    folders = tuple(request.get("catalogue", ()))
    site = {key: request[key] for key in ("pue", "grid") if key in request}
    compiled, last = bool(request.get("compiled")), bool(request.get("channels_last"))
    assumptions.note("batch", graph.batch, "1", "user", "the first dimension of the first input")

    def price(place: Place, count: int, _: str, __: dict[str, Any], loss: float) -> Candidate:
        cluster, profile, ___ = read_cluster(site | place.request | {"devices": 1}, folders, Assumptions())
        word = default_format(cluster.device)
        if word not in FORMATS:
            raise InputError(f"networks are priced in {', '.join(FORMATS)}")
        account, ____, memory = account_of(infer_job(graph, cluster, profile, word, compiled=compiled, last=last))
        values = {name: float(value.mid) for name, value in account({}).items()}
        held = float(total(memory))
        return candidate(
            place, count, word, limits, loss, cluster=cluster, held=held, fits=held <= place.device.open_bytes,
            timed={"latency": values["latency"]}, energy=values["energy_per_million_samples"] / 1e6, rate=values["samples_per_s"],
        )  # fmt: skip

    return Question(
        "sample",
        float(graph.parameters),
        [("none", {}, 0.0)],
        price,
        facts_of(graph),
        assumptions,
        folders,
        float(graph.batch),
    )
