"""How the work is laid out over devices."""

from __future__ import annotations

from capacity.record import Record

SCHEDULES = ("1f1b", "gpipe", "zero-bubble", "dualpipe")
RECOMPUTATION = ("none", "selective", "full")
CP_KINDS = ("ring", "gather", "ulysses")
# Parts of a block that selective recomputation may rebuild: cores of attention, outputs of norms and of activation functions,
# heads of latent attention from what they were projected down to, whole feed-forward networks, whole experts.
REBUILT = ("attention", "norms", "activations", "latent", "ffn", "experts")
OFFLOADED = ("optimizer", "parameters", "activations")
OFFLOAD_TARGETS = ("cpu", "nvme")


class Plan(Record):
    """A parallel layout: devices = dp * tp * pp * cp * attention_dp (to train, expert parallelism lives inside dp * cp * tp).

    A replica that serves deals its experts over the tp * attention_dp ranks of a stage: ep of them hold whole experts, what
    is left cuts each. attention_dp: groups of tp ranks that keep the caches of their own requests.

    cp: context parallelism, sequences cut over so many devices; cp_kind: how their keys and values meet: "ring" (passed on
    and hidden behind attention), "gather" (all at once) or "ulysses" (heads traded for tokens).
    etp: tensor parallelism of each expert (None: as tp).
    replicas: copies of the sharded weights and states (HSDP): ZeRO shards over dp * cp / replicas ranks.
    schedule: of the pipeline: "1f1b", "gpipe" (all micro-batches forward first), "zero-bubble" (weights' gradients fill the
    gaps) or "dualpipe" (from both ends, two stages a device).
    offload: what lives on the host: "optimizer", "parameters", "activations"; offload_to: in its memory ("cpu") or on its
    drives ("nvme").
    zero: sharding stage of the data-parallel group (0 none, 1 optimizer, 2 and gradients, 3 and weights).
    interleave: virtual pipeline stages per device. micro_batch: sequences per forward pass.
    recompute: "none", "selective" (what the stack's policy rebuilds, or the parts in `rebuilt`) or "full"; recompute_share: of the
    blocks that full recomputation rebuilds, the others keep all.
    """

    dp: float = 1.0
    tp: float = 1.0
    pp: float = 1.0
    ep: float = 1.0
    zero: int = 0
    interleave: float = 1.0
    micro_batch: float = 1.0
    recompute: str = "none"
    sequence_parallel: bool = True
    attention_dp: float = 1.0
    cp: float = 1.0
    cp_kind: str = "ring"
    etp: float | None = None
    offload: tuple[str, ...] = ()
    offload_to: str = "cpu"
    replicas: float = 1.0
    schedule: str = "1f1b"
    recompute_share: float = 1.0
    rebuilt: tuple[str, ...] = ()

    @property
    def ranks(self) -> float:
        """Devices that work on different tokens with the same weights."""
        return self.dp * self.cp

    @property
    def shards(self) -> float:
        """Ranks that ZeRO shards over."""
        return self.dp * self.cp / self.replicas

    @property
    def expert_tp(self) -> float:
        """Tensor parallelism of each expert."""
        return self.tp if self.etp is None else self.etp

    @property
    def devices(self) -> float:
        """Devices the layout occupies."""
        return self.dp * self.tp * self.pp * self.cp * self.attention_dp
