"""What protection costs: ciphers, hashes, protected links."""

from capacity import ops
from capacity.formula import formula


@formula(unit="s", symbol="t_enc", cite="mcgrew2004")
def cipher_time_s(
    plain_bytes: float,
    calls: float,
    call_s: float,
    core_bytes_per_s: float,
    fresh_bytes: float,
    fresh_bytes_per_s: float,
) -> float:
    """Time of one core to encipher, decipher or hash.

    1. Each call costs call_s, each byte its share of the core's pace.
    2. Output into memory the system has not given yet pays for its pages: fresh_bytes of it.
    """
    return calls * call_s + plain_bytes / core_bytes_per_s + fresh_bytes / fresh_bytes_per_s


@formula(unit="byte/s", symbol="B_enc")
def chunked_bytes_per_s(chunk_bytes: float, call_s: float, core_bytes_per_s: float) -> float:
    """Pace of one core that works through chunks."""
    chunk_s = call_s + chunk_bytes / core_bytes_per_s
    return chunk_bytes / chunk_s


@formula(unit="byte/s", symbol="B_two")
def in_turn_bytes_per_s(first_bytes_per_s: float, second_bytes_per_s: float) -> float:
    """Pace of a core that does both to each byte, one after the other: hash it, then encipher it."""
    return 1.0 / (1.0 / first_bytes_per_s + 1.0 / second_bytes_per_s)


@formula(unit="1", symbol="n_enc")
def protecting_cores(stream_bytes_per_s: float, core_bytes_per_s: float) -> float:
    """Cores that a stream keeps busy."""
    return stream_bytes_per_s / core_bytes_per_s


@formula(unit="byte/s", symbol="B_link", cite="ieee2018, kent2005")
def protected_bytes_per_s(
    link_bytes_per_s: float, frame_bytes: float, overhead_bytes: float, engine_bytes_per_s: float
) -> float:
    """Payload of a link whose frames are enciphered.

    1. Each frame carries overhead_bytes of header and tag beside its payload.
    2. Whatever enciphers (adapter, cores, bounce buffer) has a pace of its own.
    """
    framed = link_bytes_per_s * frame_bytes / (frame_bytes + overhead_bytes)
    return ops.minimum(framed, engine_bytes_per_s)


@formula(unit="1", symbol="n_key", cite="dworkin2007")
def messages_per_key(file_bytes: float, chunk_bytes: float) -> float:
    """Messages under one data key where a file has a key of its own; AES-GCM with random nonces allows 2^32."""
    return ops.ceil(file_bytes / chunk_bytes)


@formula(unit="fraction", symbol="s_enc")
def slowdown_share(protected_s: float, plain_s: float) -> float:
    """By which share work takes longer under protection."""
    return protected_s / plain_s - 1.0


@formula(unit="s", symbol="t_cc", cite="yin2026")
def confidential_step_s(
    plain_s: float,
    inside_share: float,
    crossings: float,
    crossing_s: float,
    crossing_bytes: float,
    bounce_bytes_per_s: float,
) -> float:
    """A step of a confidential device, from a step of an open one.

    1. Inside, work keeps inside_share of its pace: memory of a GPU is not enciphered, that of a processor is.
    2. Each copy between host and device pays crossing_s, whatever its size, and the engine waits for it.
    3. What is copied passes a buffer that processors encipher.
    Ignores: engines that hand copies to a thread of their own, which takes most of 2 away.
    """
    copied_s = crossings * crossing_s + crossing_bytes / bounce_bytes_per_s
    return plain_s / inside_share + copied_s
