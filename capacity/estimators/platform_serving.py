"""The platform under a service: weights to load, keys and values kept for prompts that come again, protected traffic."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators.case import PLATFORM_KEYS
from capacity.estimators.intervals import Uncertain, Value, with_intervals
from capacity.estimators.protection import AT_REST, IN_TRANSIT, read_protection
from capacity.estimators.service import WARM_UP_S
from capacity.estimators.upkeep_case import host_of, storage_of
from capacity.formula import scaled, sourced, total
from capacity.formulas import security, storage
from capacity.quantities import format
from capacity.record import Record
from capacity.spec.estimate import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from capacity.estimators.case import Case
    from capacity.estimators.intervals import Account
    from capacity.estimators.protection import Protection
    from capacity.estimators.replica import Load
    from capacity.spec.platform import Enclave, Host, Storage

# Of the platform's options those that say something of a service.
_OF_SERVICE = (
    "storage", "storage_units", "redundancy", "host", "repair_time", "kv_keep",
    "encrypt", "cipher", "digest", "transit", "keys", "cipher_cores",
)  # fmt: skip
# A token as text over the wire, and headers of a request and of its answer.
TEXT_BYTES, HEADER_BYTES = 4.0, 2048.0
# What an engine copies to the device for a sequence in a step: a few words, and a row of its block table.
WORD_BYTES, TOKEN_WORDS, PAGE_TOKENS = 4.0, 8.0, 16.0


class Under(Record):
    """What a service stands on."""

    storage: Storage
    units: float
    host: Host
    protection: Protection | None
    kv_keep_s: float | None


def read_under(case: Case) -> Under:
    """The platform a request asks for under a service; raises InputError for options that are of a training run."""
    for name in PLATFORM_KEYS:
        if name in case.request and name not in _OF_SERVICE:
            raise InputError(f"--{name.replace('_', '-')} is of a training run, not of --mode serve; drop one of them")
    host, under = host_of(case), storage_of(case)
    units = case.number("storage_units", "1", 1.0, 1e9)
    if units is None:
        units = float(case.cluster.nodes) if not under.shared else 1.0
    protection = (
        read_protection(case.request, case.assumptions, case.cluster, host) if "encrypt" in case.request else None
    )
    keep = case.number("kv_keep", "s", 1.0, 1e8)
    if keep is not None:
        case.assumptions.note("keys and values are kept for", keep, "s", "user")
    return Under(under, units, host, protection, keep)


def serving_platform_section(case: Case) -> tuple[Section, dict[str, dict[str, float]]]:
    """The platform under the service that this case has priced already."""
    load, values = case.kept["serve"]
    under = read_under(case)
    account = _account(load, values, under)
    uncertain = [Uncertain("storage pace", 0.5, 1.0, "shared file systems deliver half to all of their datasheet")]
    if under.protection is not None and under.protection.enclave is not None:
        uncertain.append(Uncertain("crossings", 2.0 / 3.0, 4.0 / 3.0, "two to four copies a step, by engine"))
    quantities, sensitivities = with_intervals(account, tuple(uncertain))
    pressed = _pressure({name: float(one.mid) for name, one in quantities.items()}, under)
    name, share, remedy = max(pressed, key=lambda one: one[1])
    text = f"a replica starts in {format(quantities['start_time'].mid, 's')}; "
    text += f"bound by {name}, {share:.3g} times what is there: {remedy}" if share > 1.0 else f"nothing binds; nearest {name}, {share:.1%} of what is there"  # fmt: skip
    kept = {"weights": quantities["weights_stored"].mid}
    if "kv_kept" in quantities:
        kept["keys and values"] = quantities["kv_kept"].mid
    protected = (
        "" if under.protection is None else f"; {', '.join(under.protection.parts)}: {under.protection.cipher.name}"
    )
    return (
        Section(
            title="Platform",
            verdict=text,
            fits=share <= 1.0,
            binding=name if share > 0.5 else "none",
            setting=f"{under.storage.name}{protected}",
            quantities=quantities,
            breakdowns={"storage": kept, "pressure": {one: part for one, part, _ in pressed}},
        ),
        sensitivities,
    )


def serving_platform_values(case: Case) -> dict[str, float]:
    """Every quantity's mid value, traced when a ledger is open."""
    load, values = case.kept["serve"]
    return {name: value.mid for name, value in _account(load, values, read_under(case))({}).items()}


def _account(load: Load, values: Mapping[str, Value], under: Under) -> Account:
    workload, plan, cluster = load.workload, load.plan, load.cluster
    one, protection = under.storage, under.protection
    each = plan.tp * plan.pp * plan.attention_dp
    weights = scaled(load.memory["weights"], each)
    rate = values["requests_per_s"].mid

    def quantities(factor: Mapping[str, float]) -> dict[str, Value]:
        pace = factor.get("storage pace", 1.0)
        units = sourced(under.units, one.units)

        def delivered(unit: float, most: float | None, clients: float) -> float:
            unlimited = unit * units
            given = storage.delivered_bytes_per_s(
                unit, units, most or unlimited, one.client_bytes_per_s or unlimited, sourced(clients, "nodes")
            )
            return scaled(given, pace)

        read = delivered(one.read_bytes_per_s, one.most_read_bytes_per_s, float(cluster.nodes))
        write = delivered(one.write_bytes_per_s, one.most_write_bytes_per_s, float(cluster.nodes))
        engine = read
        if protection is not None and protection.has(AT_REST):
            engine = protection.saving_bytes_per_s * protection.cores * float(cluster.nodes)
        if protection is not None and protection.bounce_bytes_per_s is not None:
            engine = min(engine, scaled(protection.bounce_bytes_per_s, each))
        loading = storage.save_time_s(weights, read, engine)
        start = total(
            {"weights": loading, "warm-up": sourced(WARM_UP_S, "graphs and kernels", "logs of engines", "default")}
        )
        found = {
            "weights_stored": Value(storage.redundant_bytes(weights, one.copies, one.data_parts, one.parity_parts), "byte", "of one replica, on disks"),
            "weights_load": Value(loading, "s", "read, checked and deciphered, to all devices of a replica"),
            "start_time": Value(start, "s", "of a replica, with the engine's warm-up"),
            "storage_read": Value(read, "byte/s", "given to a replica's nodes"),
            "storage_write": Value(write, "byte/s", "given to a replica's nodes"),
        }  # fmt: skip
        if under.kv_keep_s is not None and "kv_bytes_per_token" in values:
            token = values["kv_bytes_per_token"].mid
            tokens = sourced(workload.prompt_len + workload.output_len, "tokens of a request")
            prompt_bytes = scaled(token, workload.prompt_len)
            reload_s = storage.save_time_s(prompt_bytes, read, engine)
            compute_s = workload.prompt_len / values["prefill_tokens_per_s"].mid
            found |= {
                "kv_kept": Value(storage.kept_cache_bytes(rate, tokens, token, sourced(under.kv_keep_s, "kept for", "given", "user")), "byte", "of all requests"),
                "kv_write": Value(rate * tokens * token, "byte/s", "as requests end"),
                "kv_read": Value(rate * prompt_bytes * load.service.prefix_hit, "byte/s", "for prompts that come again"),
                "kv_reload_time": Value(reload_s, "s", "of one prompt's keys and values, alone"),
                "kv_recompute_time": Value(compute_s, "s", "to read that prompt again instead"),
            }  # fmt: skip
        if protection is not None:
            crossings = factor.get("crossings", 1.0)
            found |= _protected(under, rate, workload.prompt_len + workload.output_len, values, crossings)
        return found

    return quantities


def _protected(
    under: Under, rate: float, tokens: float, values: Mapping[str, Value], crossings: float
) -> dict[str, Value]:
    protection, work = under.protection, under.host.work
    assert protection is not None
    found: dict[str, Value] = {}
    if protection.has(IN_TRANSIT):
        each = sourced(TEXT_BYTES * tokens + HEADER_BYTES, "bytes of a request and its answer", "assumed", "default")
        busy = {
            "handshakes": rate * work("tls-handshake").call_s,
            "records": security.protecting_cores(rate * each, work("tls").bytes_per_s),
        }
        found["tls_cores"] = Value(total(busy), "1", "busy with TLS 1.3, a handshake a request, both ends")
    if protection.enclave is not None:
        found |= _confidential(protection.enclave, values, crossings, tokens)
    return found


def _confidential(enclave: Enclave, values: Mapping[str, Value], crossings: float, tokens: float) -> dict[str, Value]:
    """Steps of a confidential device: each waits for its copies. crossings: a factor on how many they are."""
    running = values["running"].mid if "running" in values else 1.0
    each = sourced(TOKEN_WORDS * WORD_BYTES, "a token's entries", "identifier, position, slot, temperature", "default")
    pages = sourced(WORD_BYTES * tokens / PAGE_TOKENS, "a row of its block table", "pages of 16 tokens", "default")
    copied = running * total({"token": each, "block table": pages})
    count = scaled(enclave.crossings, crossings)

    def step(plain: float) -> float:
        return security.confidential_step_s(
            plain, enclave.inside_share, count, enclave.crossing_s, copied, enclave.bounce_bytes_per_s
        )

    found = {}
    if "tpot" in values:
        plain = values["tpot"].mid
        closed = step(plain)
        slower = security.slowdown_share(closed, plain)
        found["confidential_tpot"] = Value(closed, "s", f"where {format(float(plain), 's')} without")
        found["confidential_slowdown"] = Value(slower, "fraction", "of a step, by copies that it waits for")
        found["confidential_tokens_per_s"] = Value(
            values["tokens_per_s"].mid / (1.0 + slower), "1/s", "with these steps"
        )
    if "ttft" in values:
        found["confidential_ttft"] = Value(step(values["ttft"].mid), "s", "with the copies of one step")
    return found


def _pressure(found: Mapping[str, float], under: Under) -> list[tuple[str, float, str]]:
    """What is needed over what is given, and what to do about it."""
    one, pressed = under.storage, [("loading", found["weights_load"] / LOADED_WITHIN_S, "keep the weights on drives of the node (--storage dgx-h100-nvme)")]  # fmt: skip
    if "kv_kept" in found:
        if one.capacity_bytes is not None:
            pressed.append(("capacity", found["kv_kept"] / (one.capacity_bytes * under.units), "a shorter --kv-keep"))
        pressed += [
            ("writing keys and values", found["kv_write"] / found["storage_write"], "more --storage-units, or keep only prompts that come again"),
            ("reading keys and values", found["kv_read"] / found["storage_read"], "more --storage-units"),
            ("reloading", found["kv_reload_time"] / found["kv_recompute_time"], "reading the prompt again is faster: keep none"),
        ]  # fmt: skip
    return pressed


# A replica whose weights take longer to come cannot follow the hour.
LOADED_WITHIN_S = 300.0
