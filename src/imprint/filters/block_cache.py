"""Blocks of what is far away, kept: tables of images are read in small steps, and again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_BYTES: Final = 256 * KIB
"""What a small read fetches: a request costs as much time as some 100 KiB do."""

CACHE_BYTES: Final = 16 * MIB
"""Blocks that are kept."""


class BlockCache:
    """Reads of a block and more go straight to where the bytes are, smaller ones through here.

    Safe to use from many threads: of those that want the same block, one fetches it.
    """

    def __init__(self, fetch: Callable[[memoryview, int], None], size: int) -> None:
        """``fetch`` fills a buffer from an offset on; ``size`` is that of all, in bytes."""
        self._fetch = fetch
        self._size = size
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, index: int, block: bytes) -> None:
        """Keep a block that is here already."""
        self._claim(index)[0].set_result(block)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``, which lies inside; raises what fetching does."""
        if len(buffer) >= BLOCK_BYTES:
            self._fetch(buffer, offset)
            return
        position, end = offset, offset + len(buffer)
        while position < end:
            index, within = divmod(position, BLOCK_BYTES)
            part = self._block(index)[within : within + end - position]
            buffer[position - offset : position - offset + len(part)] = part
            position += len(part)

    def _block(self, index: int) -> memoryview:
        future, is_ours = self._claim(index)
        if is_ours:
            start = index * BLOCK_BYTES
            try:  # of all that others wait for
                block = bytearray(min(BLOCK_BYTES, self._size - start))
                self._fetch(memoryview(block), start)
            except BaseException as error:
                self._forget(index)
                future.set_exception(error)
                raise
            future.set_result(bytes(block))
        return memoryview(future.result())

    def _claim(self, index: int) -> tuple[Future[bytes], bool]:
        """The block's future, and whether the caller has to fulfil it."""
        with self._lock:
            future = self._blocks.get(index)
            if future is not None:
                self._blocks.move_to_end(index)
                return future, False
            future = self._blocks[index] = Future()
            while len(self._blocks) > CACHE_BYTES // BLOCK_BYTES:
                self._blocks.popitem(last=False)
            return future, True

    def _forget(self, index: int) -> None:
        """Let the next one try again."""
        with self._lock:
            self._blocks.pop(index, None)
