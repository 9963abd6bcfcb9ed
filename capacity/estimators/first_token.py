"""Time to the first token of one request among those running, before any wait for KV cache."""

from __future__ import annotations

from capacity import ops
from capacity.formula import scaled, sourced, total
from capacity.formulas import schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.estimators.replica import Load


def first_token_s(load: Load, step: float, work: float, prompt: float, decoding: float) -> float:
    """Time to first token of one request among those running, before any wait for KV cache.

    decoding: seconds a request spends on its answer, stalls by prompts left out.
    """
    engine, tokens = load.service.engine, load.workload.prompt_len
    front = sourced(engine.front_end_s, "front end of the server", engine.source, "measured")
    front = total({"front end": front, "tokens": scaled(engine.front_end_token_s, tokens)})
    each = load.each
    service, output, chunk = load.service, load.workload.output_len, engine.chunk_tokens / tokens
    steps, per_step = ops.maximum(service.receive_steps, service.hold_steps), 1.0 + service.accepted
    joining = schedule.joining_prompts(each, output, steps, per_step)
    looks = schedule.look_wait_s(step, service.receive_steps, service.hold_steps, joining)
    spread = ops.anywhere(load.service.spread)
    if engine.prefill_first and not spread:
        waiting = schedule.lock_step_wait_s(work, each)
    else:
        waiting = schedule.prompt_queue_wait_s(work, decoding, each)
        waiting = waiting if spread else schedule.group_wait_s(work, each, waiting)
        waiting = waiting + schedule.read_together_wait_s(work, joining, chunk)
    burst = schedule.burst_wait_s(work, ops.maximum(load.workload.concurrency / load.plan.attention_dp, each))
    return schedule.time_to_first_token_s(prompt, looks, waiting, burst, load.service.burst, front)


def handed_token_s(load: Load, prompt: float, decoding: float) -> float:
    """Time to first token where a pool of its own reads the prompts, before any wait for KV cache."""
    engine, service = load.service.engine, load.service
    front = sourced(engine.front_end_s, "front end of the server", engine.source, "measured")
    front = total(
        {
            "front end": front,
            "tokens": scaled(engine.front_end_token_s, load.workload.prompt_len),
            "hand-over": sourced(engine.hand_over_s, "hand-over to the worker that decodes", engine.source, "measured"),
            "transfer of the cache": load.hand_over_s,
        }
    )
    workers, groups = service.prefill_workers, service.prefill_plan.attention_dp
    requests = scaled(load.running, load.plan.dp)
    # As uncertain as the prompt alone.
    share = scaled(total(load.shared), prompt / total(load.prompt))
    waiting = schedule.pool_wait_s(prompt, share, workers, groups, requests, decoding)
    burst = scaled(schedule.burst_wait_s(share, requests), 1.0 / (workers * groups))
    return schedule.time_to_first_token_s(prompt, 0.0, waiting, burst, service.burst, front)
