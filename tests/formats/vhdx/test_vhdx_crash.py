"""Power cuts and passing errors where the contract does not reach: replay, tables that move."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import ImagingError
from imprint.core.events import Severity
from imprint.core.formats import Checkable, Rebasable
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage, RecordingStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Storage

    Make = Callable[..., Any]

MIB, GIB = 1 << 20, 1 << 30
VHDX = formats.get("vhdx")
PARENT = uuid.UUID(int=0xABC)
LINK = {"parent_linkage": "{" + str(PARENT) + "}", "relative_path": "base.vhdx"}


def stored(mib: int, state: int = 6) -> int:
    return mib << 20 | state


def sound(storage: Storage, opener: DictOpener) -> None:
    """Nothing worse than a log to replay, or a torn copy of something."""
    assert isinstance(VHDX, Checkable)
    found = VHDX.check(storage, opener, repair=False)
    assert [each for each in found if each.severity is Severity.ERROR] == []


def looked_at(storage: Storage, opener: DictOpener, *ranges: tuple[int, int]) -> tuple[Any, ...]:
    """The disk's size and some of its bytes."""
    sound(storage, opener)
    image = VHDX.open(storage, opener)
    return image.size, *(image.read_at(offset, length) for offset, length in ranges)


def test_a_replay_that_is_cut_off_is_done_again(maker: Make, log_entry: Callable[..., Any]) -> None:
    """Fails if the log is forgotten before all that it says is durable."""
    guid = uuid.UUID(int=5)
    table = [stored(5).to_bytes(8, "little"), stored(4).to_bytes(8, "little")]
    page = b"".join(table).ljust(4096, b"\0")
    log = log_entry(guid, 3, 0, [(3 * MIB, page), (3 * MIB + 8192, bytes(4096))]).build()
    blocks = [b"\x01" * MIB, b"\x02" * MIB]
    content = maker(2 * MIB, [stored(4), 0], blocks, log_guid=guid, log=log).build()
    storage = RecordingStorage(content)
    VHDX.edit(storage, DictOpener()).commit()
    for _, survived in storage.crashes(random.Random(1)):
        assert looked_at(survived, DictOpener(), (0, 1), (MIB, 1)) == (2 * MIB, b"\x02", b"\x01")


def moving(maker: Make) -> bytes:
    """An image whose BAT, of 1 MiB, has room for 128 GiB; its last block is written."""
    content: bytes = maker(2 * MIB, [0, stored(4)], [b"\x02" * MIB]).build()
    return content


def test_a_table_that_moves_is_in_the_old_place_or_the_new(maker: Make) -> None:
    """Fails if the region tables name a table that is not whole, at any moment."""
    storage = RecordingStorage(moving(maker))
    image = VHDX.edit(storage, DictOpener())
    image.resize(140 * GIB)
    image.write(memoryview(b"\x05" * 1000), 139 * GIB)
    image.write(memoryview(b"\x06" * 1000), 0)
    image.commit()
    sizes = set()
    for _, survived in storage.crashes(random.Random(2)):
        size, first, second = looked_at(survived, DictOpener(), (0, 1), (MIB, 1))
        assert second == b"\x02"
        assert first in (b"\0", b"\x06")
        assert size in (2 * MIB, 140 * GIB)
        sizes.add(size)
        if first == b"\x06":
            assert VHDX.open(survived, DictOpener()).read_at(139 * GIB, 1) in (b"\x05", b"\0")
    assert len(sizes) == 2
    assert VHDX.open(storage, DictOpener()).read_at(139 * GIB, 1) == b"\x05"


@pytest.mark.parametrize("late", [False, True])
def test_an_error_while_a_table_moves_does_no_harm(maker: Make, late: bool) -> None:
    """Fails if later writes go to a table that the region tables do not name."""
    content = moving(maker)
    for fail_at in range(200):
        storage = MemoryStorage(content)
        faulty = FaultyStorage(storage, lasting=False, late=late)
        image = VHDX.edit(faulty, DictOpener())
        faulty.fail_at = faulty.count + fail_at
        try:
            image.resize(140 * GIB)
        except ImagingError:
            image.flush()
        if faulty.count <= faulty.fail_at:
            break
        image.write(memoryview(b"\x06" * 1000), 0)
        image.flush()
        found = looked_at(storage, DictOpener(), (0, 1), (MIB, 1))
        assert found[1:] == (b"\x06", b"\x02"), fail_at
    assert fail_at > 10


def test_losing_the_parent_is_all_or_nothing(maker: Make) -> None:
    """Fails if a block that was here in part shows what lay in the file."""
    assert isinstance(VHDX, Rebasable)
    base = maker(2 * MIB, [0, 0], [], data_guid=PARENT).build()
    bits = bytes([1]).ljust(MIB, b"\0")
    table = [stored(4, 7), 0] + [0] * 4095
    table[4096] = stored(5)
    content = maker(2 * MIB, table, [b"\x07" * MIB, bits], parent=LINK).build()
    opener = DictOpener(files={"base.vhdx": MemoryStorage(base, name="base.vhdx")})
    storage = RecordingStorage(content)
    VHDX.set_parent(storage, opener, None)
    for _, survived in storage.crashes(random.Random(3)):
        expected = (2 * MIB, b"\x07" * 512 + bytes(MIB - 512), b"\0")
        assert looked_at(survived, opener, (0, MIB), (MIB, 1)) == expected


def test_naming_another_parent_is_all_or_nothing(maker: Make) -> None:
    """Fails if a locator is half the old one, or its flag and its item are not of one time."""
    assert isinstance(VHDX, Rebasable)
    files = {
        f"{name}.vhdx": maker(MIB, [stored(4)], [byte * MIB], data_guid=guid).build()
        for name, byte, guid in (("base", b"\x01", PARENT), ("other", b"\x02", uuid.UUID(int=0xD)))
    }
    opener = DictOpener(files={n: MemoryStorage(d, name=n) for n, d in files.items()})
    content = maker(MIB, [0], [], parent=LINK).build()
    storage = RecordingStorage(content)
    VHDX.set_parent(storage, opener, Reference("other.vhdx", format="vhdx"))
    seen = {looked_at(state, opener, (0, 1))[1] for _, state in storage.crashes(random.Random(4))}
    assert seen == {b"\x01", b"\x02"}


def test_a_place_is_given_up_only_when_nothing_names_it(maker: Make) -> None:
    """Fails if room is punched, cut off or used again before the BAT's change is durable."""
    base = maker(3 * MIB, [stored(4), 0, 0], [b"\x01" * MIB], data_guid=PARENT).build()
    bits = bytes([1]).ljust(MIB, b"\0")
    table = [stored(4, 7), 0, stored(6)] + [0] * 4094
    table[4096] = stored(5)
    blocks = [b"\x07" * MIB, bits, b"\x09" * MIB]
    content = maker(3 * MIB, table, blocks, parent=LINK).build()
    opener = DictOpener(files={"base.vhdx": MemoryStorage(base, name="base.vhdx")})
    storage = RecordingStorage(content)
    image = VHDX.edit(storage, opener)
    image.zero(2 * MIB, MIB)  # the last one of the file
    image.flush()
    image.write(memoryview(b"\x08" * 512), 512)
    image.flush()
    image.write(memoryview(b"\x0a" * MIB), MIB)
    image.commit()
    seen = set()
    for _, survived in storage.crashes(random.Random(6)):
        found = looked_at(
            survived, opener, (0, 512), (512, 512), (1024, MIB - 1024), (MIB, 2 * MIB)
        )
        assert found[1] == b"\x07" * 512
        assert found[2] in (b"\x01" * 512, b"\x08" * 512)
        assert found[3] == b"\x01" * (MIB - 1024)
        assert found[4][:MIB] in (bytes(MIB), b"\x0a" * MIB)
        assert found[4][MIB:] in (bytes(MIB), b"\x09" * MIB)
        seen.add((found[2][0], found[4][0], found[4][MIB]))
    assert seen == {(1, 0, 9), (1, 0, 0), (8, 0, 0), (8, 10, 0)}
