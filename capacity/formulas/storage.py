"""Bytes at rest and the pace at which they are kept, fed and prepared."""

from capacity import ops
from capacity.formula import formula


@formula(unit="byte", symbol="Q_src")
def collected_bytes(samples: float, bytes_per_sample: float, kept_share: float) -> float:
    """Source data that filtering and deduplication bring down to `samples`."""
    return samples * bytes_per_sample / kept_share


@formula(unit="byte", symbol="Q_disk", cite="shvachko2010, reed1960")
def redundant_bytes(kept_bytes: float, copies: float, data_parts: float, parity_parts: float) -> float:
    """What lies on disks for bytes that must survive their failure.

    1. Replication keeps `copies` of each block (3 in HDFS).
    2. An erasure code cuts a block into data_parts and adds parity_parts; any data_parts of them give it back.
    """
    return kept_bytes * copies * (data_parts + parity_parts) / data_parts


@formula(unit="byte", symbol="Q_kept")
def retained_bytes(
    checkpoint_bytes: float, retained: float, run_s: float, interval_s: float, milestone_s: float
) -> float:
    """Checkpoints that lie there at the end of a run.

    1. The last `retained`, or as many as the run writes, one every interval_s and one at its end.
    2. One kept for good every milestone_s.
    """
    last = ops.minimum(retained, run_s / interval_s + 1.0)
    return checkpoint_bytes * (last + run_s / milestone_s)


@formula(unit="byte", symbol="Q_log")
def log_bytes(sources: float, bytes_per_s: float, run_s: float) -> float:
    """Metrics and text that devices leave behind."""
    return sources * bytes_per_s * run_s


@formula(unit="byte", symbol="Q_kv")
def kept_cache_bytes(requests_per_s: float, tokens: float, bytes_per_token: float, kept_s: float) -> float:
    """Keys and values of past requests kept for those that begin with the same tokens (Little's law)."""
    return requests_per_s * kept_s * tokens * bytes_per_token


@formula(unit="1", symbol="n_unit")
def units_needed(kept_bytes: float, unit_bytes: float) -> float:
    """Units (drives, servers, provisioned TiB) that hold the bytes."""
    return ops.ceil(kept_bytes / unit_bytes)


@formula(unit="byte/s", symbol="B_sto")
def delivered_bytes_per_s(
    unit_bytes_per_s: float, units: float, most_bytes_per_s: float, client_bytes_per_s: float, clients: float
) -> float:
    """Pace of a storage system: its units together, what the whole can give, or what its clients can take."""
    served = ops.minimum(unit_bytes_per_s * units, most_bytes_per_s)
    return ops.minimum(served, client_bytes_per_s * clients)


@formula(unit="s", symbol="t_save")
def save_time_s(checkpoint_bytes: float, write_bytes_per_s: float, protect_bytes_per_s: float) -> float:
    """Time to bring a checkpoint to storage, hashed and enciphered on the way: a pipeline as slow as its slower half."""
    return checkpoint_bytes / ops.minimum(write_bytes_per_s, protect_bytes_per_s)


@formula(unit="s", symbol="t_stall")
def snapshot_time_s(device_bytes: float, copy_bytes_per_s: float) -> float:
    """How long training stands still for a copy of a device's states to its host, which is written behind it."""
    return device_bytes / copy_bytes_per_s


@formula(unit="1/s", symbol="n_io")
def reads_per_s(feed_bytes_per_s: float, read_bytes: float) -> float:
    """Random reads a second of a shuffled data set that is read sample by sample."""
    return feed_bytes_per_s / read_bytes


@formula(unit="1", symbol="n_core")
def loader_cores(samples_per_s: float, sample_s: float) -> float:
    """Cores that prepare samples while the devices work on those before."""
    return samples_per_s * sample_s


@formula(unit="s", symbol="T_core")
def preparation_core_s(input_bytes: float, core_bytes_per_s: float) -> float:
    """Core time of one stage over its input."""
    return input_bytes / core_bytes_per_s


@formula(unit="s", symbol="T_rest", cite="soboleva2023")
def around_kernels_s(kernel_s: float, kernel_share: float) -> float:
    """Core time of a pipeline beside its kernels: reading, unpacking, passing rows between processes, pairing, joining, writing.

    1. Of the time that published pipelines hold their cores, kernels as measured here take kernel_share.
    """
    return kernel_s * (1.0 / kernel_share - 1.0)


@formula(unit="1", symbol="n_h")
def core_hour_count(core_s: float, hour_s: float = 3600.0) -> float:
    """Core time as clusters bill it."""
    return core_s / hour_s


@formula(unit="byte", symbol="Q_shuf", cite="broder1997, leskovec2020")
def shuffled_bytes(documents: float, bands: float, entry_bytes: float, kept_bytes: float) -> float:
    """What a cluster moves between its machines to deduplicate and to shuffle.

    1. MinHash with locality-sensitive hashing: each document is sent to the machine of each of its bands, as an entry of
       band hash and document id.
    2. The random order of training is a second shuffle, of every byte that is kept.
    """
    return documents * bands * entry_bytes + kept_bytes


@formula(unit="s", symbol="T_prep", cite="dean2004, zaharia2012")
def preparation_time_s(
    core_s: float, cores: float, skew: float, shuffled_bytes: float, written_bytes: float, cluster_bytes_per_s: float
) -> float:
    """Wall time of a batch job on a cluster.

    1. A stage ends when its fullest partition does: `skew` times the mean.
    2. What is shuffled is written, sent and read once; output is sent to the other copies. Stages do not overlap.
    Ignores: starting tasks, failures, speculative copies.
    """
    return core_s / cores * skew + (shuffled_bytes + written_bytes) / cluster_bytes_per_s * skew


@formula(unit="fraction", symbol="u")
def used_share(needed: float, given: float) -> float:
    """Need over supply of one resource; above one it binds."""
    return needed / given


@formula(unit="USD", symbol="c_sto")
def storage_usd(kept_bytes: float, usd_per_byte: float, run_s: float, month_s: float) -> float:
    """Rent of storage for a run; usd_per_byte is for a month."""
    return kept_bytes * usd_per_byte * run_s / month_s
