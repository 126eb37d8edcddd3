"""Small repositories with disks in them, whose bytes and chunks the test decides."""

from __future__ import annotations

import random
from array import array
from typing import TYPE_CHECKING

from imprint.objects.memory import MemoryStore
from imprint.repository.format import RepositoryFormat
from imprint.repository.nodes import Leaf, Piece, TreeBuilder
from imprint.repository.pack import encode_group
from imprint.repository.protection import Plain
from imprint.repository.repository import Repository
from imprint.repository.snapshots import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection
    from imprint.repository.snapshots import Snapshot

CHUNK_BYTES = 4096
LEAF_CHUNKS = 8
GROUP_CHUNKS = 4


class MortalStore(MemoryStore):
    """A store whose user dies before one of its changes.

    Attributes:
        left: how many changes remain.
    """

    def __init__(self, death: Exception) -> None:
        """``death`` is what is raised then."""
        super().__init__()
        self.left = 1 << 30
        self._death = death

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object, alive."""
        self._live()
        super().put(name, parts, only_new=only_new)

    def delete(self, name: str) -> None:
        """Remove an object, alive."""
        self._live()
        super().delete(name)

    def _live(self) -> None:
        if self.left == 0:
            raise self._death
        self.left -= 1


def disk_content(chunks: int, *, seed: int = 0, zeros: tuple[int, ...] = ()) -> bytes:
    """A disk whose chunks all differ, half of each compressible; some of them are zeros."""
    made = random.Random(seed)
    pieces = [made.randbytes(CHUNK_BYTES // 2) + bytes(CHUNK_BYTES // 2) for _ in range(chunks)]
    for number in zeros:
        pieces[number] = bytes(CHUNK_BYTES)
    return b"".join(pieces)


def small_repository(
    protection: Protection | None = None, *, parity: int = 0, store: ObjectStore | None = None
) -> Repository:
    """An empty repository in memory; its keys are the test's business."""
    store = store or MemoryStore()
    format_ = RepositoryFormat("00" * 16, "2026-11-22T20:15:00Z", parity=parity)
    store.put("format", (format_.encode(),))
    return Repository(store, format_, protection or Plain())


def reopened(repository: Repository) -> Repository:
    """The same, as another process sees it: nothing is remembered."""
    return Repository(repository.store, repository.format, repository.protection)


def put_disk(
    repository: Repository,
    content: bytes,
    *,
    image: str = "host",
    minute: int = 0,
    sign: Callable[[bytes], bytes] | None = None,
) -> Snapshot:
    """Add a disk in chunks of ``CHUNK_BYTES``, leaves of ``LEAF_CHUNKS``."""
    leaf_bytes = CHUNK_BYTES * LEAF_CHUNKS
    with repository.session("test") as session:
        writer = repository.writer(session)
        tree = TreeBuilder(writer.add_node)
        waiting: list[tuple[bytes, bytes]] = []
        for start in range(0, len(content), leaf_bytes):
            stretch = content[start : start + leaf_bytes]
            pieces = [stretch[at : at + CHUNK_BYTES] for at in range(0, len(stretch), CHUNK_BYTES)]
            kinds = bytes(Piece.DATA if any(piece) else Piece.HOLE for piece in pieces)
            names = [repository.protection.name_of(piece) for piece in pieces if any(piece)]
            data = [piece for piece in pieces if any(piece)]
            for name, piece, is_new in zip(names, data, writer.claim(names), strict=True):
                if is_new:
                    waiting.append((name, piece))
            leaf = Leaf(start, kinds, array("Q", map(len, pieces)), b"".join(names))
            tree.add(start, start + len(stretch), writer.add_node(leaf.encode()))
        for at in range(0, len(waiting), GROUP_CHUNKS):
            group = waiting[at : at + GROUP_CHUNKS]
            writer.add(encode_group([data for _, data in group], 3), [name for name, _ in group])
        root = tree.finish()
        writer.finish()
        time = f"2026-11-23T10:{minute:02}:00.000000Z"
        manifest = Manifest(image, time, len(content), root.hex(), stored=writer.stored)
        snapshot = repository.commit(manifest, session, writer, sign=sign)
        writer.close()
        return snapshot


def read_disk(repository: Repository, snapshot: Snapshot) -> bytes:
    """All bytes of a snapshot."""
    buffer = bytearray(snapshot.manifest.size)
    with repository.source(snapshot) as source:
        source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def objects(repository: Repository, prefix: str) -> list[str]:
    """Names of objects."""
    return [item.name for item in repository.store.list(prefix)]


def flip(store: ObjectStore, name: str, at: int, *, bits: int = 1) -> None:
    """Change a byte of an object, in its place."""
    data = bytearray(store.get(name))
    data[at] ^= bits
    store.put(name, (bytes(data),))
