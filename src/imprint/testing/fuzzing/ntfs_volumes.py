"""Target: NTFS. Real ones have 1 MiB at least, so the seeds are put together by hand.

Clusters of 512 bytes, 255 of them, and the copy of the boot sector behind the last one::

      0  boot sector               56  bitmap               128  catalog of shadow copies
     16  MFT, 20 records           58  nodes of the root     160  bitmap of a shadow copy
     64  copy of its first four    80  log
"""

from __future__ import annotations

import struct
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import set_bits
from imprint.filesystems.ntfs import FILE_SYSTEM, layout
from imprint.filesystems.probes.microsoft import MftAttribute, MftRecord, NtfsBootSector
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.file_places import dating, locating
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.ntfs_volume import RESTART_PAGE, restart_page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.layout import Structure

_CLUSTER: Final = 512
_CLUSTERS: Final = 255
_RECORD: Final = 1024
_RECORDS: Final = 20
_NODE: Final = 1024
_MFT, _BITMAP, _NODES, _MIRROR, _LOG, _CATALOG, _SHADOW = 16, 56, 58, 64, 80, 128, 160
_HIBERFIL: Final = 16
_LISTED: Final = 17
_NUMBER: Final = 5
_REACHED_MAX: Final = 20_000

_PROTECTED: Final = (
    *((_MFT * _CLUSTER + index * _RECORD, _RECORD) for index in range(_RECORDS)),
    *((_MIRROR * _CLUSTER + index * _RECORD, _RECORD) for index in range(4)),
    *((_NODES * _CLUSTER + index * _NODE, _NODE) for index in range(2)),
    *((_LOG * _CLUSTER + index * RESTART_PAGE, RESTART_PAGE) for index in range(2)),
)
_TAKEN: Final = ((0, 16), (16, 40), (56, 6), (64, 8), (80, 16), (128, 64), (200, 8))

_Runs = tuple[tuple[int, int], ...]


def targets() -> Iterator[Target]:
    """The only one."""
    yield Target(
        "ntfs",
        lambda: [_volume(), _volume(has_list=True), _volume(has_shadows=True, is_open=True)],
        (map_ntfs, walk_ntfs, locating(FILE_SYSTEM), dating(FILE_SYSTEM)),
        places=(
            Place(NtfsBootSector),
            Place(MftRecord, layout.FILE_MARK),
            *(Place(MftAttribute, struct.pack("<I", kind)) for kind in (0x70, 0x80, 0x90, 0xA0)),
            Place(layout.Extents, struct.pack("<I", layout.DATA)),
            Place(layout.ListEntry, struct.pack("<IH", layout.DATA, 32)),
            Place(layout.RestartPage, layout.RESTART_MARK),
            Place(layout.RestartArea, _LOG * _CLUSTER + 48),
            Place(layout.IndexBlock, layout.INDEX_MARK),
            Place(layout.ShadowHeader, layout.SHADOW_HEADER_AT),
            Place(layout.ShadowBlock, layout.SHADOW_MARK),
            Place(layout.ShadowEntry, struct.pack("<QQ", layout.SHADOW_PLACE, 0)),
        ),
        words=(
            b"FILE",
            b"BAAD",
            layout.INDEX_MARK,
            b"RSTR",
            b"CHKD",
            b"hibr",
            b"\x11\x01\x01",
            b"\x01\x01",
        ),
        seal=_seal,
    )


def map_ntfs(content: bytes) -> None:
    """What it uses lies inside of it."""
    found = FILE_SYSTEM.allocation(MemoryStorage(content, name="volume"))
    assert found.used.end <= len(content)


def walk_ntfs(content: bytes) -> None:
    """So does what can be reached."""
    runs = FILE_SYSTEM.reached(MemoryStorage(content, name="volume"))
    deque(islice(runs, _REACHED_MAX), maxlen=0)


def _seal(content: bytearray) -> None:
    """Write the update sequences anew, where their place makes sense."""
    for at, size in _PROTECTED:
        offset = int.from_bytes(content[at + 4 : at + 6], "little")
        count = size // layout.STRIDE
        if at + size > len(content) or offset + 2 * count + 2 > layout.STRIDE - 2:
            continue
        number = content[at + offset : at + offset + 2]
        for index in range(1, count + 1):
            end = at + index * layout.STRIDE
            if content[end - 2 : end] != number:
                place = at + offset + 2 * index
                content[place : place + 2] = content[end - 2 : end]
                content[end - 2 : end] = number


def _volume(*, has_list: bool = False, has_shadows: bool = False, is_open: bool = False) -> bytes:
    content = bytearray((_CLUSTERS + 1) * _CLUSTER)

    def put(cluster: int, data: bytes) -> None:
        content[cluster * _CLUSTER : cluster * _CLUSTER + len(data)] = data

    boot = NtfsBootSector(
        name=b"NTFS    ",
        sector_size=_CLUSTER,
        cluster_sectors=1,
        sector_count=_CLUSTERS,
        mft_cluster=_MFT,
        mirror_cluster=_MIRROR,
        record_clusters=_RECORD // _CLUSTER,
        serial=1,
    ).pack()
    put(0, boot)
    put(_CLUSTERS, boot)
    records = _records(has_list=has_list)
    put(_MFT, b"".join(records))
    put(_MIRROR, b"".join(records[:4]))
    bits = bytearray(b"\0" * (_CLUSTERS // 8) + b"\x80")
    for start, count in _TAKEN:
        set_bits(bits, start, count)
    put(_BITMAP, bytes(bits))
    put(_NODES, _node(_entry("a", 1), last=b"") + _node(_entry("hiberfil.sys", _HIBERFIL)))
    put(_LOG, _log(is_open=is_open))
    put(200, b"none")
    if has_shadows:
        put(layout.SHADOW_HEADER_AT // _CLUSTER, _shadow_header().pack())
        put(_CATALOG, _catalog())
        head = layout.ShadowBlock(
            mark=layout.SHADOW_MARK, kind=layout.SHADOW_BITMAP, place=_SHADOW * _CLUSTER
        )
        put(_SHADOW, head.pack() + b"\x7f\xff")
    _seal(content)
    return bytes(content)


def _records(*, has_list: bool) -> list[bytes]:
    mft: _Runs = ((_MFT, 20), (_MFT + 20, 20))
    whole = _in_clusters(layout.DATA, mft, _RECORDS * _RECORD)
    if has_list:  # the second part is named by a record that is in the first
        size = _RECORDS * _RECORD
        whole = _resident(
            layout.ATTRIBUTE_LIST, _list_entry(0, 0) + _list_entry(20, 9)
        ) + _in_clusters(layout.DATA, mft[:1], size)
    state = layout.VolumeInformation(major=3, minor=1).pack()
    root = layout.IndexRoot(block_size=_NODE, entries_offset=16, entries_end=40).pack()
    last = struct.pack("<QHHI", 0, 24, 0, 3) + struct.pack("<Q", 0)
    of_folder = _resident(layout.INDEX_ROOT, root + last, "$I30")
    of_folder += _in_clusters(layout.INDEX_ALLOCATION, ((_NODES, 4),), 2 * _NODE, "$I30")
    values = {
        0: whole,
        1: _in_clusters(layout.DATA, ((_MIRROR, 8),), 4 * _RECORD),
        2: _in_clusters(layout.DATA, ((_LOG, 16),), 2 * RESTART_PAGE),
        3: _resident(layout.VOLUME_INFORMATION, state),
        5: of_folder,
        6: _in_clusters(layout.DATA, ((_BITMAP, 1),), 32),
        7: _in_clusters(layout.DATA, ((0, 16),), layout.BOOT_BYTES),
        8: _in_clusters(layout.DATA, ((-1, _CLUSTERS),), _CLUSTERS * _CLUSTER, "$Bad"),
        9: _in_clusters(layout.DATA, mft[1:], 0, lowest=20) if has_list else b"",
        _HIBERFIL: _in_clusters(layout.DATA, ((200, 8), (-1, 9)), 8000),
        _LISTED: _in_clusters(layout.DATA, ((_CATALOG, 64),), 64 * _CLUSTER),
    }
    return [_record(number, values.get(number, b"")) for number in range(_RECORDS)]


def _record(number: int, attributes: bytes) -> bytes:
    body = attributes + struct.pack("<II", layout.ATTRIBUTES_END, 0)
    head = MftRecord(
        mark=layout.FILE_MARK,
        fixup_offset=48,
        fixup_count=_RECORD // layout.STRIDE + 1,
        sequence=_NUMBER,
        attributes_offset=56,
        flags=layout.IN_USE,
        used=56 + len(body),
        base=_NUMBER << 48 if number == 9 else 0,
    ).pack()
    head = head.ljust(48, b"\0") + struct.pack("<H", _NUMBER)
    return (head.ljust(56, b"\0") + body).ljust(_RECORD, b"\0")


def _head(kind: int, length: int, name: str, name_at: int, *, is_elsewhere: bool) -> bytes:
    return struct.pack("<IIBBHHH", kind, length, is_elsewhere, len(name), name_at, 0, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _resident(kind: int, value: bytes, name: str = "") -> bytes:
    text = _padded(name.encode("utf-16-le"))
    at = MftAttribute.SIZE + len(text)
    body = struct.pack("<IHH", len(value), at, 0) + text + _padded(value)
    return _head(kind, 16 + len(body), name, MftAttribute.SIZE, is_elsewhere=False) + body


def _in_clusters(kind: int, runs: _Runs, size: int, name: str = "", *, lowest: int = 0) -> bytes:
    text = _padded(name.encode("utf-16-le"))
    pairs, before = b"", 0
    for start, count in runs:
        if start < 0:
            pairs += struct.pack("<BH", 2, count)
        else:
            pairs += struct.pack("<BHh", 0x22, count, start - before)
            before = start
    highest = lowest + sum(count for _, count in runs) - 1
    at = layout.Extents.SIZE + len(text)
    body = struct.pack("<qqHHIQQQ", lowest, highest, at, 0, 0, size, size, size)
    body += text + _padded(pairs + b"\0")
    return _head(kind, 16 + len(body), name, layout.Extents.SIZE, is_elsewhere=True) + body


def _list_entry(lowest: int, record: int) -> bytes:
    entry = layout.ListEntry(
        kind=layout.DATA,
        length=32,
        name_offset=26,
        lowest=lowest,
        reference=_NUMBER << 48 | record,
    )
    return entry.pack().ljust(32, b"\0")


def _entry(name: str, record: int) -> bytes:
    key = layout.FileName(name_length=len(name)).pack() + name.encode("utf-16-le")
    length = -(-(16 + len(key)) // 8) * 8
    return (struct.pack("<QHHI", record, length, len(key), 0) + key).ljust(length, b"\0")


def _node(entries: bytes, *, last: bytes | None = None) -> bytes:
    """A node; ``last`` is for one that has another below it."""
    if last is None:
        entries += struct.pack("<QHHI", 0, 16, 0, layout.INDEX_ENTRY_LAST)
    else:
        entries += struct.pack("<QHHIQ", 0, 24, 0, 3, _NODE // _CLUSTER)
    head = struct.pack("<4sHH", layout.INDEX_MARK, 40, _NODE // layout.STRIDE + 1)
    head = head.ljust(24, b"\0") + struct.pack("<IIII", 40, 40 + len(entries), 0, 0)
    head += struct.pack("<H", _NUMBER)
    return (head.ljust(64, b"\0") + entries).ljust(_NODE, b"\0")


def _log(*, is_open: bool) -> bytes:
    first = restart_page(lsn=7 if is_open else 5, flags=0 if is_open else 2, version=(1, 1))
    return first + restart_page(lsn=6, flags=2, version=(1, 1))


def _shadow_header() -> Structure:
    return layout.ShadowHeader(
        mark=layout.SHADOW_MARK, kind=layout.SHADOW_HEADER, catalog=_CATALOG * _CLUSTER
    )


def _catalog() -> bytes:
    place = layout.ShadowEntry(
        kind=layout.SHADOW_PLACE, bitmap=_SHADOW * _CLUSTER, older_bitmap=0, store=b"x" * 16
    )
    return b"".join(
        item.pack()
        for item in (
            layout.ShadowBlock(
                mark=layout.SHADOW_MARK, kind=layout.SHADOW_CATALOG, place=_CATALOG * _CLUSTER
            ),
            layout.ShadowEntry(kind=layout.SHADOW_COPY, store=b"x" * 16),
            place,
        )
    )
