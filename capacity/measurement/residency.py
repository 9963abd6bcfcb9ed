"""Where operands lie: a small model of allocator and caches that a trace runs through.

Storage that dies leaves its block to the next result of that size, as allocators do; blocks used most recently are in
the caches. It knows sizes of caches and nothing of speeds.
"""

from __future__ import annotations

from bisect import bisect

from torch.multiprocessing.reductions import StorageWeakRef

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Above this the C library maps fresh pages for every block and gives them back when it dies.
FRESH_BYTES = 32 * 2**20
# Share of a cache that operands keep against everything else that passes through it.
KEPT = 0.75
MIB = 2**20
ALIGNMENT = 64


class Caches(Record):
    """Sizes in bytes: private caches of the cores used together, and the last level.

    fresh_bytes: above it a block gets untouched pages and gives them back; None for allocators that keep every size, as those of
    accelerators do, and count what is alive rather than what they hold.
    """

    inner_bytes: float = 1.0 * MIB
    last_bytes: float = 32.0 * MIB
    fresh_bytes: float | None = FRESH_BYTES


class Use(Record):
    """Bytes of an op's operands by place."""

    near_bytes: float = 0.0
    far_bytes: float = 0.0
    fresh_bytes: float = 0.0


class Heap:
    """Addresses as a best-fit allocator gives them that keeps its free memory: what it grows to is what a process holds."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []  # (address, size), neither touching the next nor the top
        self._top = 0
        self.peak_bytes = 0

    def take(self, size: int) -> int:
        """The address of a new block: the smallest hole that holds it, else the top."""
        size = _rounded(size)
        holes = [(room, place) for place, (_, room) in enumerate(self._free) if room >= size]
        if holes:
            room, place = min(holes)
            address = self._free[place][0]
            if room > size:
                self._free[place] = (address + size, room - size)
            else:
                del self._free[place]
            return address
        address = self._top
        self._top += size
        self.peak_bytes = max(self.peak_bytes, self._top)
        return address

    def give(self, address: int, size: int) -> None:
        """Take a block back; it joins the holes beside it, and the top."""
        size = _rounded(size)
        place = bisect(self._free, (address, 0))
        if place < len(self._free) and self._free[place][0] == address + size:
            size += self._free.pop(place)[1]
        if place and sum(self._free[place - 1]) == address:
            before, room = self._free.pop(place - 1)
            address, size, place = before, size + room, place - 1
        if address + size == self._top:
            self._top = address
        else:
            self._free.insert(place, (address, size))


def _rounded(size: int) -> int:
    """Torch aligns blocks to 64 bytes; the C library adds a header."""
    return -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT


class Residency:
    """Blocks of memory in the order of their last use."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._fresh_bytes = float("inf") if caches.fresh_bytes is None else caches.fresh_bytes
        self._owners: dict[int, tuple[Any, int]] = {}  # storage to (its life, its block)
        self._free: dict[int, list[int]] = {}  # blocks that nobody owns, by size
        self._recent: dict[int, int] = {}  # block to size, last used at the end
        self._amounts: dict[int, float] = {}  # what the last use touched of a block that is used at random
        self._untouched: set[int] = set()  # large blocks nobody has written to yet
        self._next = 0
        self._heap = Heap()
        self._places: dict[int, int] = {}  # storage to its address on the heap
        self._given_bytes = 0  # of what was there before: weights, data
        self._large_bytes = self._largest_bytes = 0  # mapped apart from the heap: now, and at most
        self._made_bytes = self._most_made_bytes = 0  # alive on the heap: now, and at most

    @property
    def peak_bytes(self) -> int:
        """What a process holds for all of it; on an accelerator, most that was alive."""
        if self._caches.fresh_bytes is None:
            return self._given_bytes + self._most_made_bytes
        return self._given_bytes + self._heap.peak_bytes + self._largest_bytes

    @property
    def inner_bytes(self) -> float:
        """What the inner caches hold."""
        return self._caches.inner_bytes

    @property
    def blocks(self) -> int:
        """How many blocks there have been."""
        return self._next

    def _collect(self) -> None:
        for key, (life, block) in list(self._owners.items()):
            if life.expired():
                size = self._recent.get(block, 0)
                del self._owners[key]
                if key in self._places:
                    self._heap.give(self._places.pop(key), size)
                    self._made_bytes -= size
                if size > self._fresh_bytes:
                    self._large_bytes -= size
                    self._recent.pop(block, None)
                else:
                    self._free.setdefault(size, []).append(block)

    def block(self, storage: Any, *, made: bool = False) -> int:
        """The block of a storage; it is given one at its first use. made: it came into being now, and was not there before."""
        key = storage._cdata
        known = self._owners.get(key)
        if known is not None and not known[0].expired():
            return known[1]
        self._collect()
        size = storage.nbytes()
        free = self._free.get(size)
        if free:
            block = free.pop()
        else:
            self._next += 1
            block = self._next
        self._owners[key] = (StorageWeakRef(storage), block)
        self._recent.setdefault(block, size)
        if size > self._fresh_bytes:
            self._untouched.add(block)
            self._large_bytes += size
            self._largest_bytes = max(self._largest_bytes, self._large_bytes)
        elif made:
            self._places[key] = self._heap.take(size)
            self._made_bytes += size
            self._most_made_bytes = max(self._most_made_bytes, self._made_bytes)
        else:
            self._given_bytes += size
        return block

    def held(self, weight: object, size: int) -> int:
        """The block of something that is no tensor and lives as long as the trace."""
        key = -id(weight)
        if key not in self._owners:
            self._next += 1
            self._owners[key] = (_Forever(weight), self._next)
            self._recent[self._next] = size
            self._given_bytes += size
        return self._owners[key][1]

    def cached_shares(self, block: int) -> tuple[float, float]:
        """Shares of a block that lie in the inner and in the last cache, where each use touches other parts of it at random.

        Before a part comes again all of the block has passed, and all of what is used in between.
        """
        since = 0.0
        for other in reversed(self._recent):
            if other == block:
                break
            since += self._recent[other]
        distance = max(since + self._recent[block], 1.0)
        inner, last = self._caches.inner_bytes, self._caches.last_bytes
        return min(inner * KEPT / distance, 1.0), min(last * KEPT / distance, 1.0)

    def use(self, touched: dict[int, float], at_random: dict[int, float] | None = None) -> Use:
        """Look where the blocks of an op lie, then make them the most recent.

        touched: bytes by block, each time the same ones; at_random: by block of which each call touches other parts.
        """
        near = far = new = 0.0
        sizes = self._recent
        for block, amount in touched.items():
            if block in self._untouched:
                self._untouched.discard(block)
                new += amount
                continue
            before = self._more_recent(block)
            inner = _share(self._caches.inner_bytes * KEPT - before, amount)
            last = _share(self._caches.last_bytes * KEPT - before, amount)
            near += amount * (max(last - inner, 0.0))
            far += amount * (1.0 - last)
        for block, amount in (at_random or {}).items():
            inner, last = self.cached_shares(block)
            near += amount * max(last - inner, 0.0)
            far += amount * (1.0 - last)
            self._amounts[block] = amount
        for block in (*touched, *(at_random or {})):
            size = sizes.pop(block)
            sizes[block] = size
        return Use(near, far, new)

    def _more_recent(self, block: int) -> float:
        total = 0.0
        most = self._caches.last_bytes
        for other in reversed(self._recent):
            if other == block or total > most:
                return total
            total += self._amounts.get(other, self._recent[other])
        return total


class _Forever:
    """The life of what is kept."""

    def __init__(self, kept: object) -> None:
        self._kept = kept

    @staticmethod
    def expired() -> bool:
        """Never."""
        return False


def _share(room: float, amount: float) -> float:
    return min(max(room / max(amount, 1.0), 0.0), 1.0)
