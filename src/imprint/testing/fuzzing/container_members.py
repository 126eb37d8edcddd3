"""Targets: members of containers: LVM2, Linux RAID, LUKS2."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.codecs.luks.version2 import BinaryHeader
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing import containers
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.luks2_volume import luks2_volume, seal_luks2
from imprint.volumes import luks, lvm2, md_superblock, mdraid
from imprint.volumes.lvm2 import physical, thin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.volumes.containers import Container

PASSPHRASE: Final = b"pw"

_AREA_AT: Final = 4 * KIB
_POOL_AT: Final = 64 * KIB
_POOL_BLOCKS: Final = 16
_POOL_NODES: Final = (7, 10)  # where thin_restore has put the trees of the seed in the corpus
_PLACES_1: Final = (0, 4 * KIB, -8 * KIB)
_EXTENTS_MAX: Final = 200
_UUID: Final = "a" * 32
_LONG_NUMBER: Final = re.compile(rb'("(?:iterations|time|memory)":)(\d{4,})')


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target(
        "lvm2",
        _lvm_seeds,
        (assemble_lvm,),
        places=(
            Place(physical.Label, containers.SECTOR),
            Place(physical.PvHeader, containers.SECTOR + physical.Label.SIZE),
            Place(physical.AreaHeader, _AREA_AT),
            Place(physical.Text, _AREA_AT + physical.AreaHeader.SIZE),
            Place(thin.Superblock, _POOL_AT),
            *(Place(thin.Node, _POOL_AT + block * thin.BLOCK_BYTES) for block in _POOL_NODES),
        ),
        words=(b'"pv0"', b'"a"', b"{", b"}", b"[", b"]", b"= 99999999999", b"segment1", b"raids"),
        seal=_seal_lvm,
    )
    yield Target(
        "mdraid",
        _raid_seeds,
        (assemble_raid,),
        places=(
            *(Place(md_superblock.Superblock1, at) for at in _PLACES_1),
            Place(md_superblock.SuperblockOld, -64 * KIB),
        ),
        seal=_seal_raid,
    )
    yield Target(
        "luks2",
        lambda: [bytes(luks2_volume(bytes(8 * KIB), PASSPHRASE))],
        (assemble_luks,),
        places=(Place(BinaryHeader), Place(BinaryHeader, 16 * KIB)),
        words=(b"argon2id", b'"0"', b'"dynamic"', b"-1", b"1" * 30, b"aes-cbc-essiv:sha256", b"["),
        seal=_seal_luks,
        is_always_sealed=True,
    )


def assemble_lvm(content: bytes) -> None:
    """As a member alone, and beside itself."""
    _assemble(lvm2.CONTAINER, content)
    _assemble(lvm2.CONTAINER, content, content)


def assemble_raid(content: bytes) -> None:
    """As a member alone, and as two."""
    _assemble(mdraid.CONTAINER, content)
    _assemble(mdraid.CONTAINER, content, _raid_seeds()[1])


def assemble_luks(content: bytes) -> None:
    """With the passphrase of the seed."""
    _assemble(luks.CONTAINER, content)


def _assemble(container: Container, *contents: bytes) -> None:
    """What is found lies inside of the members, and can be read."""
    members = [MemoryStorage(content, name="member") for content in contents]
    for assembly in container.assemble(members, lambda _: PASSPHRASE):
        for member, free in zip(members, assembly.free, strict=True):
            assert free.end <= member.size
        for inner in assembly.volumes:
            for piece in inner.pieces:
                assert piece.member is not None
                assert piece.end <= inner.source.size
                assert 0 <= piece.member_offset <= members[piece.member].size - piece.length
            size = inner.source.size
            for offset in {0, max(0, size - KIB)}:
                buffer = bytearray(min(KIB, size))
                inner.source.readinto(memoryview(buffer), offset)
            for extent in islice(inner.source.extents(0, size), _EXTENTS_MAX):
                assert extent.length > 0


def _lvm_seeds() -> list[bytes]:
    striped = '4 striped stripe_count = 2 stripe_size = 16 stripes = [ "pv0", 4, "pv0", 8 ]'
    raid = '1 raid1 device_count = 1 raids = [ "r_meta", "r_image" ]'
    mirror = '1 mirror mirror_count = 1 mirrors = [ "pv0", 1 ]'
    volumes = "".join(
        (
            containers.lvm_volume("a", containers.linear(2, "pv0", 0)),
            containers.lvm_volume("s", striped),
            containers.lvm_volume("r", raid),
            containers.lvm_volume("r_meta", containers.linear(1, "pv0", 3), visible=False),
            containers.lvm_volume("r_image", containers.linear(1, "a", 1), visible=False),
            containers.lvm_volume("m", mirror),
            containers.lvm_volume("snapshot0", '2 snapshot origin = "a" cow_store = "m"'),
        )
    )
    text = containers.lvm_text(volumes, uuids=(_UUID,))
    return [bytes(containers.lvm_member(_UUID, text, 18 * 64 * KIB))]


def _raid_seeds() -> list[bytes]:
    data = bytes(64 * KIB)
    seeds = [
        containers.raid_member(data, version=version, level=level, role=role, chunk=4 * KIB)
        for version, level, role in (("1.0", 1, 0), ("1.1", 0, 1), ("1.2", -1, 0))
    ]
    seeds.append(containers.old_raid_member(data))
    return [bytes(seed) for seed in seeds]


def _seal_lvm(content: bytearray) -> None:
    """Believe the texts, and the metadata of a thin pool behind them."""
    containers.seal_lvm(content)
    end = min(len(content), _POOL_AT + _POOL_BLOCKS * thin.BLOCK_BYTES)
    for at in range(_POOL_AT, end - thin.BLOCK_BYTES + 1, thin.BLOCK_BYTES):
        block = content[at : at + thin.BLOCK_BYTES]
        if any(block[:32]):
            mark = thin.SUPERBLOCK_XOR if at == _POOL_AT else thin.NODE_XOR
            content[at : at + 4] = (crc32c(block[4:]) ^ 0xFFFFFFFF ^ mark).to_bytes(4, "little")


def _seal_raid(content: bytearray) -> None:
    for at in _PLACES_1:
        start = at if at >= 0 else len(content) + at
        if 0 <= start <= len(content) - 512:
            containers.seal_raid(content, start)


def _seal_luks(content: bytearray) -> None:
    """Let no header demand more than a few rounds of key derivation, and believe it."""
    capped = _LONG_NUMBER.sub(lambda match: match[1] + b"1" + b" " * (len(match[2]) - 1), content)
    content[:] = capped
    seal_luks2(content)
