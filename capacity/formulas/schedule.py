"""How priced parts become a step, a run, a request."""

from capacity import ops
from capacity.formula import formula


@formula(unit="s", symbol="t_exp")
def exposed_time_s(compute_s: float, communication_s: float, overlap: float, degree: float = 6.0) -> float:
    """Communication that compute does not hide.

    1. Only the fraction `overlap` of the communication can run beside compute.
    2. Perfect overlap would leave max(0, hidden - compute); a smooth maximum (the 6-norm) replaces the
       sharp one, because near the balance neither hides the other wholly.
    3. With r = hidden / compute the norm is longer by root = (1 + r^6)^(1/6); root^6 - 1 = r^6 is divided by its factors
       so that little left exposed is not lost in the difference of long times.
    Valid for: compute above nought; the norm's degree is 6.
    """
    hidden = communication_s * overlap
    squared = (hidden / compute_s) * (hidden / compute_s)
    sixth = squared * squared * squared
    root = (1.0 + sixth) ** (1.0 / degree)
    longer = sixth / ((root + 1.0) * (root * root * (root * root + 1.0) + 1.0))
    exposed: float = compute_s * longer + communication_s - hidden
    return exposed


@formula(unit="s", symbol="t_wait")
def launch_wait_s(device_s: float, host_s: float) -> float:
    """How much longer a stretch of kernels takes because one host thread launches them while the device works.

    1. The slower of device and launching host, as a smooth maximum (the 4-norm): queues drain and fill.
    2. Less the device's own time: with r = host / device and root = (1 + r^4)^(1/4), root - 1 = r^4 / ((root + 1) (root^2 + 1)).
    Valid for: device time above nought.
    """
    squared = (host_s / device_s) * (host_s / device_s)
    fourth = squared * squared
    root = (1.0 + fourth) ** 0.25
    wait: float = device_s * fourth / ((root + 1.0) * (root * root + 1.0))
    return wait


@formula(unit="s", symbol="t_host", cite="rajbhandari2021")
def host_update_time_s(
    sent_bytes: float,
    link_bytes_per_s: float,
    touched_bytes: float,
    host_bytes_per_s: float,
    swapped_bytes: float = 0.0,
    drive_bytes_per_s: float = 1.0,
) -> float:
    """An optimizer's update on the host.

    1. Gradients go down the link and new weights come up.
    2. The host reads and writes states, gradients and weights in its memory.
    3. Where they live on drives these read ahead and write behind: the slower of host and drives counts.
    """
    return sent_bytes / link_bytes_per_s + ops.maximum(
        touched_bytes / host_bytes_per_s, swapped_bytes / drive_bytes_per_s
    )


@formula(unit="1", symbol="m", cite="narayanan2021")
def micro_batches(global_batch: float, data_parallel: float, micro_batch: float) -> float:
    """Micro-batches each pipeline works through in one step."""
    return ops.ceil(global_batch / (data_parallel * micro_batch))


@formula(unit="s", symbol="t_pipe", cite="narayanan2021")
def pipeline_time_s(
    micro_batches: float, slowest_stage_s: float, mean_stage_s: float, stages: float, interleave: float = 1.0
) -> float:
    """One step of a 1F1B pipeline, before gradient reduction and optimizer.

    1. The slowest stage works through all micro-batches.
    2. Filling and draining costs stages - 1 further passes of a mean stage, divided by the number of
       chunks a device interleaves.
    """
    return micro_batches * slowest_stage_s + (stages - 1.0) * mean_stage_s / interleave


@formula(unit="1", symbol="L_max", cite="narayanan2021")
def fullest_stage_layers(layers: float, stages: float, interleave: float = 1.0) -> float:
    """Layers of the device that holds most: each of its `interleave` chunks is whole layers."""
    return ops.ceil(layers / (stages * interleave)) * interleave


@formula(unit="1", symbol="L_spare", cite="herd2024")
def spare_layers(layers: float, stages: float, interleave: float = 1.0) -> float:
    """Layers that the last stage holds fewer than the fullest, where layers do not divide evenly.

    1. The stages together are short of `missing` layers.
    2. The last stage is, so that the head has room, but one of two or more is the first's, for the embedding (Llama 3.1
       405B: 126 layers over 16 stages, 7 on the first and on the last).
    """
    missing = fullest_stage_layers(layers, stages, interleave) * stages - layers
    return ops.where(missing > 1.0, missing - 1.0, missing)


@formula(unit="1", symbol="\\beta", cite="huang2019, narayanan2021")
def bubble_fraction(micro_batches: float, stages: float, interleave: float = 1.0) -> float:
    """Share of the pipeline's time spent filling and draining."""
    idle = (stages - 1.0) / interleave
    return idle / (micro_batches + idle)


@formula(unit="1", symbol="S")
def optimizer_steps(tokens: float, global_batch: float, seq_len: float) -> float:
    """Steps that see all tokens once."""
    return ops.ceil(tokens / (global_batch * seq_len))


@formula(unit="s", symbol="T_run")
def run_time_s(steps: float, step_s: float, goodput: float, beside_s: float = 0.0) -> float:
    """Wall time of a run: full steps and what is done beside them, stretched by failures, restarts and checkpoints.

    1. steps of the full batch take step_s each; beside_s is the smaller steps of a batch ramp, and evaluation.
    """
    return (steps * step_s + beside_s) / goodput


@formula(unit="s", symbol="t_seq")
def sequence_time_s(twice_s: float, step_s: float, sequences: float) -> float:
    """What one sequence more adds to a step: twice as many sequences take twice_s."""
    return (twice_s - step_s) / sequences


@formula(unit="1", symbol="S_ramp")
def ramp_steps(sequences: float, first_batch: float, batch: float) -> float:
    """Steps of a batch that rises from first_batch to batch, linearly with the sequences seen.

    1. After s of the sequences the batch is b = first_batch + (batch - first_batch) s / sequences.
    2. A step sees b of them: the sum of ds / b is sequences / (batch - first_batch) x log(batch / first_batch).
    Valid for: first_batch below batch.
    """
    return ops.ceil(sequences / (batch - first_batch) * ops.log(batch / first_batch))


@formula(unit="s", symbol="T_ramp")
def ramp_time_s(
    sequences: float, first_batch: float, batch: float, least_batch: float, step_s: float, sequence_s: float
) -> float:
    """Time of the steps of a batch that rises linearly with the sequences seen.

    1. A step of the full batch takes step_s, and sequence_s less for each sequence it lacks.
    2. Below least_batch (one micro-batch on each replica) devices idle and a step takes no less.
    3. The sum over steps, sequences / (batch - first_batch) x db / b, of what each takes.
    Valid for: first_batch below batch, least_batch at most batch.
    """
    pace = sequences / (batch - first_batch)
    filled = ops.maximum(first_batch, least_batch)
    fixed_s = step_s - sequence_s * batch
    growing = batch - filled + filled * ops.log(filled / first_batch)
    return pace * (fixed_s * ops.log(batch / first_batch) + sequence_s * growing)


@formula(unit="1", symbol="N_eval")
def evaluations(steps: float, eval_interval: float) -> float:
    """Evaluations of a run: one every eval_interval steps, and one at its end."""
    return ops.ceil(steps / eval_interval)


@formula(unit="1", symbol="\\eta_run")
def useful_share(steps: float, step_s: float, run_s: float) -> float:
    """Share of a run's wall time that its tokens would take in steps of the full batch without any interruption."""
    return steps * step_s / run_s


@formula(unit="s", symbol="\\tau^*", cite="young1974, daly2006")
def best_checkpoint_interval_s(checkpoint_s: float, failure_interval_s: float) -> float:
    """The checkpoint interval that loses least time: sqrt(2 x time to save x mean time between failures)."""
    interval: float = (2.0 * checkpoint_s * failure_interval_s) ** 0.5
    return interval


@formula(unit="s", symbol="MTBF")
def failure_interval_s(device_failure_interval_s: float, devices: float) -> float:
    """Mean time between failures of the whole job: any device stops it."""
    return device_failure_interval_s / devices


@formula(unit="1", symbol="\\eta_good", cite="young1974")
def goodput(checkpoint_s: float, checkpoint_interval_s: float, failure_interval_s: float, restart_s: float) -> float:
    """Share of wall time that moves the run forward.

    1. Saving costs checkpoint / interval.
    2. Each failure loses half an interval and a restart.
    Valid for: losses well below one.
    """
    saving = checkpoint_s / checkpoint_interval_s
    losing = (checkpoint_interval_s / 2.0 + restart_s) / failure_interval_s
    return 1.0 / (1.0 + saving + losing)


@formula(unit="1", symbol="MFU", cite="chowdhery2022")
def model_flop_utilisation(model_flop: float, step_s: float, devices: float, peak_flop_per_s: float) -> float:
    """Model FLOPs (no recomputation, attention as the full square) over what the devices could do at dense peak."""
    return model_flop / (step_s * devices * peak_flop_per_s)


@formula(unit="1", symbol="b_max")
def held_requests(cache_bytes: float, request_bytes: float) -> float:
    """Requests whose keys, values and states fit the memory left for them."""
    return cache_bytes / request_bytes


@formula(unit="1", symbol="b")
def running_sequences(concurrency: float, held: float) -> float:
    """Sequences decoded together: as many as asked for, as far as memory holds them."""
    return ops.minimum(concurrency, held)


@formula(unit="s", symbol="TPOT")
def time_per_output_token_s(
    decode_step_s: float,
    prompt_s: float,
    output_len: float,
    running: float,
    share: float = 1.0,
    tokens_per_step: float = 1.0,
) -> float:
    """Time between tokens of one request in a batch that keeps refilling.

    1. A step of the whole batch gives each request tokens_per_step tokens (more than 1 where drafts are accepted).
    2. While a request emits output_len tokens each of the other running - 1 requests is replaced once,
       and its prompt stalls the batch by prompt_s; `share` of that falls between tokens (a half where all requests
       begin together, and the rest before the first token).
    """
    return decode_step_s / tokens_per_step + (running - 1.0) * share * prompt_s / output_len


@formula(unit="1", symbol="f_pipe")
def pipelined_share(chunks: float, stages: float, overlap: float = 0.85) -> float:
    """Time of a prompt over a pipeline, as a share of its time on one device that held everything.

    1. chunks + stages - 1 turns of one stage each, instead of chunks of all stages.
    2. Of what that saves `overlap` is kept: stages hand over through their host (published llama.cpp runs).
    """
    whole = ops.ceil(chunks)
    turns = (whole + stages - 1.0) / (whole * stages)
    return 1.0 - overlap * (1.0 - turns)


@formula(unit="1", symbol="l_mean", cite="kleinrock1975")
def mean_written(output_len: float, variation: float) -> float:
    """Tokens that a request found in flight has written so far, on average.

    1. Half of its answer; but long answers are found in flight more often than short ones: (1 + variation^2) / 2 of
       the mean answer, with the deviation of lengths over their mean (inspection paradox).
    """
    return output_len * 0.5 * (1.0 + variation * variation)


@formula(unit="1", symbol="n_acc", cite="leviathan2023")
def tokens_per_step(drafted: float, acceptance: float) -> float:
    """Tokens a step gives where `drafted` are proposed and each is accepted with probability `acceptance` after the last.

    1. 1 + a + a^2 + ... + a^drafted, the token that corrects the first rejected draft included.
    """
    last: float = acceptance ** (drafted + 1.0)
    return (1.0 - last) / (1.0 - acceptance)


@formula(unit="s", symbol="W_q")
def prompt_queue_wait_s(prompt_s: float, decoding_s: float, running: float) -> float:
    """Wait of a prompt for those before it, where requests come and go evenly.

    1. Prompts keep the device busy for rho = running prompt_s / (decoding_s + running prompt_s) of the time.
    2. M/D/1: half the service time x rho / (1 - rho), but never more than half of all others.
    """
    queue = prompt_s * 0.5 * running * prompt_s / decoding_s
    return ops.minimum(queue, prompt_s * 0.5 * (running - 1.0))


@formula(unit="s", symbol="W_pool")
def pool_wait_s(
    prompt_s: float, share_s: float, workers: float, groups: float, requests: float, decoding_s: float
) -> float:
    """Wait of a prompt for a pool of `workers` that only read prompts, with `requests` in flight in a closed loop.

    1. Alone a prompt takes prompt_s; where more wait they share chunks, and each takes share_s of one of a worker's groups.
    2. Requests come back after prompt_s + decoding_s: a worker's groups read together, so a prompt that finds them reading
       (no more than always) waits for half of that; and M/D/1 on all groups of the pool.
    3. Never less than what the pool cannot keep up with: how long one round of all requests takes it.
    """
    rate = requests / (prompt_s + decoding_s)
    reading = ops.minimum(rate * prompt_s / workers, 1.0)
    each = share_s / (workers * groups)
    busy = ops.minimum(rate * each, 0.95)
    queue = ops.maximum(0.5 * reading * prompt_s, each * 0.5 * busy / (1.0 - busy))
    behind = requests * each - decoding_s - prompt_s
    return ops.maximum(queue, behind)


@formula(unit="s", symbol="W_lock")
def lock_step_wait_s(prompt_s: float, running: float) -> float:
    """Wait where all requests end and begin together and prompts go first: half of the others are before one's own."""
    return prompt_s * 0.5 * (running - 1.0)


# Requests of one length that stay together from answer to answer: half of those before wait for each other. Measured.
TOGETHER = 5.0


@formula(unit="s", symbol="W_g")
def group_wait_s(prompt_s: float, running: float, queue_s: float) -> float:
    """Wait of a prompt where all lengths are the same: prompts read in one step end in one step, and come back so.

    1. Groups of 5 requests stay together, whatever the lengths and the load (fixed-length sweeps of two engines).
    2. Never less than the wait of requests that come and go evenly.
    """
    together = prompt_s * 0.5 * (ops.minimum(running, TOGETHER) - 1.0)
    return ops.maximum(together, queue_s)


@formula(unit="1", symbol="n_join")
def joining_prompts(running: float, output_len: float, steps: float, tokens_per_step: float = 1.0) -> float:
    """Prompts of others that come within `steps` steps, where requests come and go evenly.

    1. Each of the other running - 1 requests is replaced once in output_len / tokens_per_step steps.
    """
    others = running - 1.0
    return ops.minimum(others, others * steps * tokens_per_step / output_len)


@formula(unit="s", symbol="t_look")
def look_wait_s(step_s: float, receive_steps: float, hold_steps: float, held: float) -> float:
    """Wait until a scheduler takes a prompt up.

    1. It looks every receive_steps steps: half of that on average.
    2. It then holds a prompt for hold_steps, that more may come to be read with it: the first waits for all of them, the
       `held` that join it for half.
    """
    holding = hold_steps * (1.0 + 0.5 * held) / (1.0 + held)
    return step_s * (0.5 * receive_steps + holding)


@formula(unit="s", symbol="W_join")
def read_together_wait_s(prompt_s: float, joining: float, together: float) -> float:
    """Wait of a prompt for others that were taken up with it, `together` of which one chunk holds.

    1. All of a chunk end at once; of n prompts in chunks of k the mean ends after (n + k) / 2 of them.
    """
    taken = joining + 1.0
    chunk = ops.minimum(taken, ops.maximum(together, 1.0))
    return prompt_s * (0.5 * (taken + chunk) - 1.0)


@formula(unit="s", symbol="W_0")
def burst_wait_s(prompt_s: float, arriving: float) -> float:
    """Mean wait of `arriving` prompts that come at once, one's own included: half of them are before it."""
    return prompt_s * 0.5 * (arriving + 1.0)


@formula(unit="s", symbol="TTFT")
def time_to_first_token_s(
    prefill_s: float, looks_s: float, waiting_s: float, burst_s: float, burst_share: float, overhead_s: float
) -> float:
    """Mean time from arrival to the first token in a loaded server.

    1. looks_s until the scheduler looks (half a step of decoding, or of as many as it takes at once), the wait for
       others' prompts, then the own.
    2. A share of the requests came in the opening burst and waited for it instead.
    """
    steady = looks_s + prefill_s + waiting_s
    return overhead_s + (1.0 - burst_share) * steady + burst_share * ops.maximum(burst_s, steady)


@formula(unit="s", symbol="TTFT_p")
def tail_wait_s(quiet_s: float, mean_wait_s: float, late_share: float) -> float:
    """Time to the first token that all but late_share of requests stay below.

    1. What does not wait takes quiet_s; waits of a queue have an exponential tail, so all but late_share of them are
       below -ln(late_share) times their mean.
    """
    return quiet_s - mean_wait_s * ops.log(late_share)


@formula(unit="s", symbol="TPOT_p")
def tail_token_s(
    decode_step_s: float,
    prompt_s: float,
    output_len: float,
    running: float,
    percentile: float,
    tokens_per_step: float = 1.0,
) -> float:
    """Time per output token that `percentile` of requests stay below.

    1. While a request decodes, running - 1 prompts of others come on average; such counts scatter by their root.
    2. z deviations lie above the percentile; z from Shore's inverse of the normal distribution.
    """
    z = 5.5556 * (1.0 - ((1.0 - percentile) / percentile) ** 0.1186)
    others = running - 1.0
    prompts = others + z * others**0.5
    slow: float = decode_step_s / tokens_per_step + prompts * prompt_s / output_len
    return slow


@formula(unit="s", symbol="t_host")
def host_layers_s(
    read_bytes: float, host_bytes_per_s: float, share_of_bandwidth: float, layers: float, layer_s: float
) -> float:
    """Time of a step's part that the cores of a host compute: bytes at the reached bandwidth, and a fixed time a layer."""
    return read_bytes / (host_bytes_per_s * share_of_bandwidth) + layers * layer_s


@formula(unit="s", symbol="t_host_p")
def host_prompt_s(
    host_bytes: float,
    link_bytes_per_s: float,
    chunks: float,
    work_flop: float,
    host_flop_per_s: float,
    share_of_peak: float,
) -> float:
    """Time of a prompt's part that a host keeps: its weights are sent to the device for each chunk, or its cores multiply.

    1. Whichever is faster.
    """
    sent = chunks * host_bytes / link_bytes_per_s
    return ops.minimum(sent, work_flop / (host_flop_per_s * share_of_peak))


@formula(unit="s", symbol="W_link")
def link_wait_s(device_s: float, streamed_bytes: float, link_bytes_per_s: float) -> float:
    """Wait of a step for weights that stream in while it computes: what the link takes longer."""
    return ops.maximum(streamed_bytes / link_bytes_per_s - device_s, device_s * 0.0)


@formula(unit="1", symbol="n_rep")
def replicas_needed(requests_per_s: float, finished_per_s: float) -> float:
    """Replicas, each of which finishes so many, that keep up with a rate."""
    return ops.ceil(requests_per_s / finished_per_s)


@formula(unit="1/s", symbol="X")
def requests_per_s(running: float, request_s: float) -> float:
    """Finished requests a second (Little's law)."""
    return running / request_s


@formula(unit="s", symbol="t_req")
def request_time_s(time_to_first_s: float, time_per_token_s: float, output_len: float) -> float:
    """From arrival to the last token."""
    return time_to_first_s + (output_len - 1.0) * time_per_token_s
