"""Protection of a job: what is enciphered, by what, and the pace it leaves to links and to storage."""

from __future__ import annotations

from capacity.errors import InputError
from capacity.estimators.assumptions import number, one_of
from capacity.formula import Sourced, scaled, sourced
from capacity.formulas import security
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.assumptions import Assumptions
    from capacity.spec.device import Cluster, Device
    from capacity.spec.platform import CoreWork, Enclave, Host

AT_REST, IN_TRANSIT, CONFIDENTIAL = PARTS = ("at-rest", "in-transit", "confidential")
MACSEC, IPSEC, SOFTWARE = TRANSITS = ("macsec", "ipsec", "software")
CIPHERS = ("aes-256-gcm", "aes-128-gcm", "chacha20-poly1305")
DIGESTS = ("sha-256", "blake2b", "blake3", "none")
DEFAULT_HOST = "zen-4"
# Of a node's cores, where nothing is said.
CIPHER_CORES = 16.0
# Files are enciphered in pieces of this size, each with a tag of its own, so that a part can be read.
CHUNK_BYTES = 2.0**20
# A node's processors between the device and the wire instead of the adapter alone.
SOFTWARE_LATENCY_S = 2e-5
# Random nonces may not meet: NIST SP 800-38D, section 8.3.
MOST_MESSAGES = 2.0**32
KEY_SCOPES = ("run", "checkpoint", "file")


class Protection(Record):
    """What is protected and how. cores: of a node; enclave: of a confidential device, None for others."""

    parts: tuple[str, ...]
    cipher: CoreWork
    digest: CoreWork | None
    signature: CoreWork
    transit: str
    cores: float
    keys: str
    enclave: Enclave | None = None

    def has(self, part: str) -> bool:
        """Whether this is protected."""
        return part in self.parts

    @property
    def bounce_bytes_per_s(self) -> float | None:
        """Pace of the buffer of a confidential device; None where nothing passes one."""
        if self.enclave is None or not self.enclave.crossings:
            return None
        return self.enclave.bounce_bytes_per_s

    @property
    def core_bytes_per_s(self) -> float:
        """Pace of one core that enciphers pieces of a file."""
        return _pace(self.cipher)

    @property
    def saving_bytes_per_s(self) -> float:
        """Pace of one core that digests a file, and enciphers it."""
        if self.digest is None:
            return self.core_bytes_per_s
        return security.in_turn_bytes_per_s(_pace(self.digest), self.core_bytes_per_s)


def _pace(work: CoreWork) -> float:
    return security.chunked_bytes_per_s(
        sourced(CHUNK_BYTES, "piece of a file", "assumed", "default"), work.call_s, work.bytes_per_s
    )


def read_protection(request: dict[str, Any], assumptions: Assumptions, cluster: Cluster, host: Host) -> Protection:
    """The protection a request asks for, its assumptions noted; raises InputError for words that are none."""
    parts = tuple(one_of("--encrypt", word.strip(), PARTS) or "" for word in str(request["encrypt"]).split(","))
    cipher = one_of("--cipher", request.get("cipher"), CIPHERS) or CIPHERS[0]
    digest = one_of("--digest", request.get("digest"), DIGESTS) or DIGESTS[0]
    transit = one_of("--transit", request.get("transit"), TRANSITS) or MACSEC
    keys = one_of("--keys", request.get("keys"), KEY_SCOPES) or "file"
    note, take = assumptions.note, assumptions.take

    def tag(name: str) -> str:
        return "user" if name in request else "default"

    note("cipher", cipher, "", tag("cipher"), host.name)
    if AT_REST in parts:
        note("digest of files", digest, "", tag("digest"), host.name)
    if IN_TRANSIT in parts:
        how = "by processors" if transit == SOFTWARE else "by the adapter, at the pace of its link"
        note("protection between nodes", transit, "", tag("transit"), how)
    note(
        "a data key for each",
        keys,
        "",
        tag("keys"),
        "wrapped by one key of the run; whoever holds that reads all of it",
    )
    enclave = None
    if CONFIDENTIAL in parts:
        enclave = _enclave(cluster.device)
        note(
            "bounce buffer of a device",
            enclave.bounce_bytes_per_s,
            "byte/s",
            "catalogue",
            _source(enclave.bounce_bytes_per_s),
        )
        note("copies a step that wait", enclave.crossings, "1", "catalogue", _source(enclave.crossings))
        note("setting up such a copy", enclave.crossing_s, "s", "catalogue", _source(enclave.crossing_s))
    cores = take(
        "cores of a node for ciphers",
        number("--cipher-cores", request.get("cipher_cores"), "1", 1.0, 4096.0),
        CIPHER_CORES,
        "1",
        "of about a hundred",
    )
    return Protection(
        parts, host.work(cipher), None if digest == "none" else host.work(digest), host.work("ed25519-sign"),
        transit, cores, keys, enclave,
    )  # fmt: skip


def _enclave(device: Device) -> Enclave:
    """What the confidential mode of a device costs; raises InputError where it has none."""
    from capacity.catalogue.platform import load_confidential

    generation = device.architecture.partition("-")[0]
    if generation in ("hopper", "blackwell"):
        return load_confidential(generation)
    if device.kind == "CPU" and any(word in device.name for word in ("EPYC", "Xeon")):
        return load_confidential("cpu")
    raise InputError(
        f"--encrypt confidential: {device.name} has no such mode; take a Hopper or Blackwell device, or a server's processor"
    )


def _source(value: float) -> str:
    return str(getattr(value, "source", ""))


def protected_cluster(cluster: Cluster, protection: Protection) -> Cluster:
    """The cluster with the pace that protection leaves its links, inside nodes and between them."""
    enclave, link = protection.enclave, cluster.device.link
    if enclave is not None and link is not None and enclave.links_share < 1.0:
        slower = replace(link, bytes_per_s=scaled(link.bytes_per_s, enclave.links_share))
        cluster = replace(cluster, device=replace(cluster.device, link=slower))
    if cluster.inter is None or not (protection.has(IN_TRANSIT) or protection.has(CONFIDENTIAL)):
        return cluster
    pace, latency = link_pace(cluster, protection)
    return replace(cluster, inter=replace(cluster.inter, bytes_per_s=pace, latency_s=latency))


def link_pace(cluster: Cluster, protection: Protection) -> tuple[float, float]:
    """Payload a second and latency of a device's link between nodes under protection."""
    from capacity.catalogue.platform import load_transit

    assert cluster.inter is not None
    wire, latency = cluster.inter.bytes_per_s, cluster.inter.latency_s
    engine = wire
    if protection.has(IN_TRANSIT) and protection.transit == SOFTWARE:
        # A core enciphers what leaves and deciphers what comes: each byte of payload twice.
        engine = protection.core_bytes_per_s * protection.cores / cluster.devices_per_node / 2.0
        latency = latency + SOFTWARE_LATENCY_S
    if protection.bounce_bytes_per_s is not None:
        engine = min(engine, protection.bounce_bytes_per_s)
        latency = latency + SOFTWARE_LATENCY_S
    frame, overhead = load_transit(protection.transit)
    if not protection.has(IN_TRANSIT):
        overhead = Sourced(0.0, "what plain frames add", "", "default")
    return security.protected_bytes_per_s(wire, frame, overhead, engine), latency
