"""Volume groups of LVM2 that are put together from physical volumes, against arithmetic."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.core.errors import CorruptImageError, ImagingError
from imprint.core.runs import Runs
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.containers import linear, lvm_member, lvm_text, lvm_volume, seal_lvm
from imprint.volumes.lvm2 import CONTAINER
from imprint.volumes.lvm2.text import parse
from imprint.volumes.members import read_bytes
from imprint.volumes.parts import Builder

if TYPE_CHECKING:
    from imprint.volumes.assembly import Assembly

EXTENT: Final = 64 * KIB
COUNT: Final = 16
SIZE: Final = EXTENT * (COUNT + 2)  # the area before the first extent, and a tail
UUIDS: Final = ("a" * 32, "b" * 32)
BODIES: Final = [random.Random(seed).randbytes(COUNT * EXTENT) for seed in (1, 2)]
STRIPED: Final = (
    '8 striped stripe_count = 2 stripe_size = 32 stripes = [ "pv0", 4, "pv1", 6 ]'  # 16 KiB
)
RAID: Final = (
    "2 raid1 device_count = 2 region_size = 1024 "
    'raids = [ "m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1" ]'
)
RAID_PARTS: Final = "".join(
    lvm_volume(f"m_{part}_{leg}", linear(count, f"pv{leg}", extent), visible=False)
    for leg in (0, 1)
    for part, count, extent in (("rmeta", 1, 0), ("rimage", 2, 1))
)


def physical(volumes: str, *, members: int = 2, raid: list[bytes] | None = None) -> list[bytearray]:
    text = lvm_text(volumes, uuids=UUIDS, extents=COUNT)
    found = []
    for index in range(members):
        member = lvm_member(UUIDS[index], text, SIZE)
        member[EXTENT : EXTENT * (COUNT + 1)] = BODIES[index]
        if raid:
            block = raid[index].ljust(512, b"\0")
            member[EXTENT : EXTENT + len(block)] = block
        found.append(member)
    return found


def assemble(*members: bytes | bytearray) -> Assembly:
    sources = [MemoryStorage(bytes(item), name=f"pv{i}") for i, item in enumerate(members)]
    (found,) = CONTAINER.assemble(sources, lambda _: b"")
    return found


def content(found: Assembly, name: str) -> bytes:
    (inner,) = [item for item in found.volumes if item.name == name]
    buffer = bytearray(inner.source.size)
    inner.source.readinto(memoryview(buffer), 0)
    assert sum(item.length for item in inner.source.extents(0, len(buffer))) == len(buffer)
    return bytes(buffer)


def extents(member: int, start: int, count: int) -> bytes:
    return BODIES[member][start * EXTENT : (start + count) * EXTENT]


def free_extents(*free: tuple[int, int]) -> Runs:
    return Runs.of(((1 + start) * EXTENT, count * EXTENT) for start, count in free)


def test_linear_and_striped_volumes_are_where_the_text_says() -> None:
    """Fails if an extent is taken from elsewhere, or one in use is called free."""
    scattered = lvm_volume("l", linear(2, "pv0", 0), linear(1, "pv1", 3), linear(1, "pv0", 12))
    members = physical(scattered + lvm_volume("s", STRIPED))
    found = assemble(*members)
    expected = {
        "lvm/vg/l": extents(0, 0, 2) + extents(1, 3, 1) + extents(0, 12, 1),
        "lvm/vg/s": b"".join(
            body[at : at + 16 * KIB]
            for at in range(0, 4 * EXTENT, 16 * KIB)
            for body in (extents(0, 4, 4), extents(1, 6, 4))
        ),
    }
    assert {item.name for item in found.volumes} == set(expected)
    for inner in found.volumes:
        whole = expected[inner.name]
        assert content(found, inner.name) == whole
        assert sum(piece.length for piece in inner.pieces) == len(whole)
        for piece in inner.pieces:
            assert piece.member is not None
            held = members[piece.member][piece.member_offset :][: piece.length]
            assert held == whole[piece.offset : piece.end]
    assert found.free == (
        free_extents((2, 2), (8, 4), (13, 3)),
        free_extents((0, 3), (4, 2), (10, 6)),
    )


def superblock(position: int, *, events: int = 5, failed: int = 0, done: bool = True) -> bytes:
    end = (1 << 64) - 1
    recovered = end if done else 128
    block = struct.pack("<4sIIIQQQQ", b"DmRd", 0, 2, position, events, failed, recovered, end)
    return block.ljust(4096, b"\0") + bitmap()


def bitmap(*, magic: bytes = b"bitm", state: int = 0, bits: bytes = b"") -> bytes:
    """Of regions of 1 KiB of a leg of 128 KiB."""
    head = magic + struct.pack("<I16sQQQII", 4, b"", 1, 1, 256, state, 1024)
    return head.ljust(256, b"\0") + bits.ljust(16, b"\0")


@pytest.mark.parametrize(
    "changes", [{"magic": b"none"}, {"state": 1}, {"bits": b"\1"}, {"bits": bytes(15) + b"\x80"}]
)
def test_of_a_mirror_that_was_being_written_nothing_is_left_out(changes: dict[str, Any]) -> None:
    """Fails if a block is left out that is free on the one leg, and in use on the other."""
    blocks = [superblock(0), superblock(1)[:4096] + bitmap(**changes)]
    found = assemble(*physical(RAID_PARTS + lvm_volume("m", RAID), raid=blocks))
    assert content(found, "lvm/vg/m") == extents(0, 1, 2)
    assert found.volumes[0].pieces == ()


@pytest.mark.parametrize(
    ("blocks", "legs"),
    [
        ([superblock(0), superblock(1)], [0, 1]),
        ([superblock(0, events=4), superblock(1)], [1]),
        ([superblock(0), superblock(1, done=False)], [0]),
        ([superblock(0, failed=2), superblock(1, failed=2)], [0]),
        ([bytes(64), superblock(1)], [1]),
        ([bytes(64), bytes(64)], []),
        ([superblock(1), superblock(0)], []),
    ],
)
def test_a_mirror_is_read_from_a_leg_that_is_in_sync(blocks: list[bytes], legs: list[int]) -> None:
    """Fails if a leg is read that failed, is old, or is not rebuilt yet."""
    found = assemble(*physical(RAID_PARTS + lvm_volume("m", RAID), raid=blocks))
    if not legs:
        assert found.volumes == ()
        return
    assert content(found, "lvm/vg/m") == extents(legs[0], 1, 2)
    assert [piece.member for piece in found.volumes[0].pieces] == legs
    assert found.free == (free_extents((3, 13)), free_extents((3, 13)))


def test_of_the_origin_of_a_snapshot_nothing_is_left_out() -> None:
    """Fails if blocks are dropped that the snapshot still shows, or the difference is offered."""
    snapshot = '2 snapshot chunk_size = 8 origin = "o" cow_store = "c"'
    found = assemble(
        *physical(
            lvm_volume("o", linear(2, "pv0", 0))
            + lvm_volume("c", linear(1, "pv0", 2))
            + lvm_volume("snapshot0", snapshot, visible=False)
        )
    )
    assert [(item.name, item.pieces) for item in found.volumes] == [("lvm/vg/o", ())]
    assert content(found, "lvm/vg/o") == extents(0, 0, 2)
    assert found.free[0] == free_extents((3, 13))
    assert len(found.notes) == 2


@pytest.mark.parametrize("kind", ["thin-pool", "raid5_ls", "cache+METADATA_FORMAT", "vdo"])
def test_kinds_that_cannot_be_read_are_told_of(kind: str) -> None:
    """Fails if a volume is read as what it is not."""
    found = assemble(*physical(lvm_volume("x", f'2 {kind} data = "y" pool = "y"')))
    assert found.volumes == ()
    assert any(kind in note for note in found.notes)


@pytest.mark.parametrize("rest", ['things = [ "pv0", 3 ]', 'device = "pv1"'])
def test_of_a_kind_that_names_a_physical_volume_oddly_nothing_is_free(rest: str) -> None:
    """Fails if extents that a future kind of segment uses are called free."""
    found = assemble(*physical(lvm_volume("x", f"2 thin-pool {rest}")))
    assert [len(free) for free in found.free] == [0, 0]


def test_what_needs_a_missing_physical_volume_is_left_out() -> None:
    """Fails if half a volume is shown, or one that is whole is not."""
    volumes = lvm_volume("l", linear(2, "pv0", 0)) + lvm_volume("s", STRIPED)
    found = assemble(*physical(volumes, members=1))
    assert [item.name for item in found.volumes] == ["lvm/vg/l"]
    assert any("pv1 is not at hand" in note for note in found.notes)
    assert found.free == (free_extents((2, 2), (8, 8)),)


def test_the_newest_metadata_counts_and_nothing_is_free_until_all_have_it() -> None:
    """Fails if an old text decides, or if free extents are dropped in the middle of a change."""
    old, new = (
        lvm_text(
            lvm_volume("l", linear(count, "pv0", 0)), uuids=UUIDS, extents=COUNT, sequence=count
        )
        for count in (1, 2)
    )
    for texts in ((old, new), (new, old)):
        found = assemble(*(lvm_member(UUIDS[i], text, SIZE) for i, text in enumerate(texts)))
        assert found.volumes[0].source.size == 2 * EXTENT
        assert [len(free) for free in found.free] == [0, 0]


def test_the_same_physical_volume_twice_is_not_read() -> None:
    """Fails if one of two copies is taken by chance."""
    (member, _) = physical(lvm_volume("l", linear(2, "pv0", 0)))
    found = assemble(member, member)
    assert found.volumes == ()
    assert "2 times" in found.notes[0]


def test_stripes_of_very_many_chunks_can_be_read_and_nothing_is_left_out() -> None:
    """Fails if a volume of terabytes is made of millions of pieces in memory."""
    dice = random.Random(3)
    members = [MemoryStorage(dice.randbytes(64 * KIB), name="pv") for _ in range(2)]
    builder = Builder("volume", members)
    columns = [builder.run(index, 0, 1 << 40) for index in range(2)]
    part = builder.striped(columns, 4 * KIB)
    assert (part.size, part.pieces) == (2 << 40, None)
    buffer = bytearray(20 * KIB)
    builder.reader(part).readinto(memoryview(buffer), 6 * KIB)
    whole = b"".join(
        read_bytes(member, at, 4 * KIB) for at in range(0, 16 * KIB, 4 * KIB) for member in members
    )
    assert buffer == whole[6 * KIB : 26 * KIB]


def nested(branches: int) -> str:
    """Each of six volumes is made of the next one, many times."""
    parts = []
    for level in range(6):
        places = [linear(1, f"v{level + 1}", 0)] * branches
        parts.append(lvm_volume(f"v{level}", *places))
    return "".join(parts) + lvm_volume("v6", linear(1, "pv0", 0))


@pytest.mark.parametrize(
    "volumes",
    [
        lvm_volume("a", linear(1, "a", 0)),
        lvm_volume("a", *[linear(1, "b", 0)] * 9) + lvm_volume("b", linear(9, "a", 0)),
        nested(40),
        lvm_volume("a", linear(1, "pv0", COUNT)),
        lvm_volume("a", linear(1, "pv0", 1 << 60)),
        lvm_volume("a", linear(1, "nothing", 0)),
        lvm_volume("a", '4 striped stripe_count = 2 stripe_size = 0 stripes = ["pv0",0,"pv1",0]'),
        lvm_volume("a", '3 striped stripe_count = 2 stripe_size = 8 stripes = ["pv0",0,"pv1",0]'),
        lvm_volume("a", '1 striped stripes = [ "pv0" ]'),
    ],
)
def test_circles_and_places_outside_end_in_a_note(volumes: str) -> None:
    """Fails if a hostile group hangs, or leads outside of the physical volumes."""
    found = assemble(*physical(volumes))
    assert not [item for item in found.volumes if item.name == "lvm/vg/a"]
    assert found.notes


@pytest.mark.parametrize(
    "text",
    [
        "a {" * 20,
        "a = [",
        "a = ",
        "}",
        'a = "',
        "a = 1 b",
        "a = " + "9" * 5000,
        "vg { id = 5 }",
        "",
        "a { } b { }",
        lvm_text("", uuids=UUIDS).replace("extent_size = 128", "extent_size = 0"),
        lvm_text("", uuids=UUIDS, extents=1 << 50),
        lvm_text(lvm_volume("a", linear(1 << 50, "pv0", 0)), uuids=UUIDS),
        lvm_text(lvm_volume("a", linear(1, "pv0", 0)).replace("segment1", "segment2"), uuids=UUIDS),
    ],
)
def test_texts_that_make_no_sense_are_one_error(text: str) -> None:
    """Fails if the parser hangs or raises anything else."""
    with pytest.raises(CorruptImageError):
        assemble(lvm_member(UUIDS[0], text, SIZE))


def test_a_text_is_what_its_grammar_says() -> None:
    """Fails if strings, lists, comments or sections are misread."""
    found = parse('# c\na=1\nb = "x \\"y\\" # z" # c\nc { d = ["e", 2,\n3] }\nf = []', where="x")
    assert found == {"a": 1, "b": 'x "y" # z', "c": {"d": ("e", 2, 3)}, "f": ()}


@pytest.mark.parametrize("at", [512 + 30, 4096 + 45, 4608 + 20])
def test_damage_to_label_area_or_text_is_noticed(at: int) -> None:
    """Fails if something is called free by metadata that does not match its checksum."""
    (member, _) = physical(lvm_volume("l", linear(2, "pv0", 0)))
    member[at] ^= 1
    try:
        sources = [MemoryStorage(bytes(member), name="pv")]
        assert CONTAINER.assemble(sources, lambda _: b"") == []
    except ImagingError:
        pass
    seal_lvm(member)
