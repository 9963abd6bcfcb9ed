"""What the kernel laws need of a datasheet."""

from __future__ import annotations

from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.device import Device

# Exponentials a clock and multiprocessor: twice as many since Blackwell Ultra.
EXP_PER_CLOCK = {"blackwell-ultra": 32.0}
# Architectures whose tensor cores are fed by asynchronous bulk copies rather than by each thread.
BULK_COPIES = ("hopper", "blackwell", "blackwell-ultra")
# Where a datasheet says nothing, and for chips of a few wide units (TPU, ASIC), whose tiles are no multiprocessor's:
# a mid-size data-centre GPU.
USUAL_MULTIPROCESSORS, USUAL_CLOCK_HZ, USUAL_L2_BYTES = 100.0, 1.7e9, 40e6


class Facts(Record):
    """Datasheet facts in SI units; dense peaks by the width of the operands.

    padded: products run on matrix units, which fill whole tiles whatever rows there are.
    switched: the devices of a node reach each other through a switch, not through the host's PCIe.
    """

    multiprocessors: float
    clock_hz: float
    memory_bytes_per_s: float
    l2_bytes: float
    peak16_flop_per_s: float
    peak8_flop_per_s: float
    peak4_flop_per_s: float
    exp_per_clock: float = 16.0
    link_bytes_per_s: float = 0.0
    switched: bool = True
    bulk_copies: bool = True
    padded: bool = True
    architecture: str = "hopper"

    @property
    def kiloclock_s(self) -> float:
        """A thousand clocks, in seconds: launches and kernel prologues cost clocks, hence less on a faster clock."""
        return 1000.0 / self.clock_hz

    def cold(self) -> Facts:
        """The device as a running model finds it: other kernels' data in the cache, not the last call's of this one."""
        return replace(self, l2_bytes=1.0)

    def peak(self, bits: int) -> float:
        """Dense FLOP/s of products with operands of so many bits."""
        return {16: self.peak16_flop_per_s, 8: self.peak8_flop_per_s, 4: self.peak4_flop_per_s}[bits]


def facts_of(device: Device) -> Facts:
    """The facts of a catalogue device; a width it has no peak for runs at the next wider one's."""
    peaks = device.peak_dense_flop_per_s
    wide = float(peaks.get("bf16") or peaks.get("fp16") or peaks.get("tf32") or peaks.get("fp32") or 0.0)
    half = float(peaks.get("fp8") or peaks.get("int8") or wide)
    link = device.link
    tiled = device.kind not in ("TPU", "ASIC")
    return Facts(
        multiprocessors=float((tiled and device.multiprocessors) or USUAL_MULTIPROCESSORS),
        clock_hz=float((tiled and device.clock_hz) or USUAL_CLOCK_HZ),
        memory_bytes_per_s=float(device.memory_bytes_per_s),
        l2_bytes=float(device.l2_bytes or USUAL_L2_BYTES),
        peak16_flop_per_s=wide,
        peak8_flop_per_s=half,
        peak4_flop_per_s=float(peaks.get("fp4") or half),
        exp_per_clock=EXP_PER_CLOCK.get(device.architecture, 16.0),
        link_bytes_per_s=float(link.bytes_per_s) if link else 16e9,
        switched=link is not None and not link.name.lower().startswith("pcie"),
        bulk_copies=device.architecture in BULK_COPIES,
        padded=device.kind != "CPU" and ("fp16" in peaks or "bf16" in peaks),
        architecture=device.architecture,
    )
