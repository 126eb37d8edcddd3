"""The same disk gives the same VHDX, however often it was made durable on the way."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.formats import CreateSpec, Resuming, parse_options
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.disks import random_writes
from imprint.testing.faults import FaultyStorage, RecordingStorage
from imprint.testing.opener import DictOpener
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIZE = 9 * MIB + 3 * 512
VHDX = formats.get("vhdx")
OPENER = DictOpener()
UUID = str(uuid.UUID(int=0xD15C))


def spec(**options: str) -> CreateSpec:
    """An image whose identity is given."""
    values = parse_options("vhdx", VHDX.options, {"uuid": UUID, **options})
    return CreateSpec(SIZE, OPENER, values, time_s=1_700_000_000)


class Notes:
    """A journal that nobody reads: without one, there are no checkpoints."""

    def record(self, position: int) -> None:
        """It has come so far."""

    def discard(self) -> None:
        """It is done."""


def disk() -> bytes:
    """What all images hold."""
    return oracles.paint(SIZE, random_writes(random.Random(9), SIZE))


@pytest.mark.parametrize("options", [{}, {"subformat": "fixed"}, {"block_size": "2M"}], ids=str)
def test_checkpoints_do_not_show(options: dict[str, str]) -> None:
    """Fails if header numbers or the log tell how often a copy was made durable."""
    made = []
    for interval_s in (3600.0, 0.0):
        storage = RecordingStorage()
        source = formats.get("raw").open(MemoryStorage(disk()), OPENER)
        target = VHDX.create(storage, spec(**options))
        copy(source, target, journal=Notes(), checkpoint_interval_s=interval_s)
        flushes = sum(operation.verb == "flush" for operation in storage.operations)
        made.append((flushes, bytes(storage.replay(len(storage.operations)).content)))
    assert made[0][0] < made[1][0]  # otherwise nothing was tried
    assert made[0][1] == made[1][1]


def test_a_copy_that_was_resumed_does_not_show() -> None:
    """Fails if an image that was taken up again gets other identifiers, or keeps its log."""
    content, made = disk(), []
    for stops in ((), (2 * MIB,), (MIB, 3 * MIB, 8 * MIB)):
        storage = MemoryStorage()
        target: Any = VHDX.create(storage, spec())
        for offset in range(0, SIZE, MIB):
            if offset in stops:
                target.checkpoint()
                assert isinstance(VHDX, Resuming)
                target = VHDX.resume(storage, spec())
            target.write(memoryview(content)[offset : offset + MIB], offset)
        target.commit()
        made.append(bytes(storage.content))
    assert made[0] == made[1] == made[2]


def test_the_log_of_a_finished_image_is_empty_and_its_numbers_are_the_first() -> None:
    """Fails if anything of the writing is left in the log's MiB or in the two headers."""
    storage = MemoryStorage()
    target: Any = VHDX.create(storage, spec())
    for offset in range(0, SIZE - MIB, MIB):
        target.write(memoryview(bytes([7]) * MIB), offset)
        target.flush()
    target.commit()
    content = bytes(storage.content)
    # [MS-VHDX] 2.2.2: the headers at 64 and 128 KiB; SequenceNumber at 8, LogGuid at 48.
    for number, at in enumerate((64 << 10, 128 << 10), start=1):
        assert content[at : at + 4] == b"head"
        assert int.from_bytes(content[at + 8 : at + 16], "little") == number
        assert content[at + 48 : at + 64] == bytes(16)
        length = int.from_bytes(content[at + 68 : at + 72], "little")
        start = int.from_bytes(content[at + 72 : at + 80], "little")
        assert not any(content[start : start + length])


def test_the_last_steps_survive_a_power_cut_and_an_error() -> None:
    """Fails if clearing the log and numbering the headers leaves a moment without either."""
    content = disk()
    for fail_at in [None, *range(400)]:
        storage = RecordingStorage()
        faulty = FaultyStorage(storage, lasting=False)
        target: Any = VHDX.create(faulty, spec())
        target.write(memoryview(content), 0)
        target.flush()
        target.flush()
        start = len(storage.operations)
        faulty.fail_at = None if fail_at is None else faulty.count + fail_at
        try:
            target.commit()
        except Exception:  # noqa: BLE001 - whatever it is, it was injected
            target.write(memoryview(content)[:MIB], 0)
            target.commit()
        else:
            if fail_at is not None:
                break
        for _, survived in storage.crashes(random.Random(3), start=start):
            with VHDX.open(survived, OPENER) as image:
                assert image.read_at(0, SIZE) == content
    assert fail_at


@pytest.mark.oracle("qemu-img", "qemu-io")
def test_qemu_goes_on_with_the_numbers_of_a_finished_image(tmp_path: Path) -> None:
    """Fails if another program takes the reset headers, or the empty log, for damage."""
    path = tmp_path / "disk.vhdx"
    storage = MemoryStorage()
    target: Any = VHDX.create(storage, spec())
    target.write(memoryview(disk()), 0)
    target.checkpoint()
    target.commit()
    path.write_bytes(storage.content)
    oracles.check(path, "vhdx")
    oracles.qemu_io(path, "vhdx", "write -P 0x5a 4M 100k", "flush")
    with VHDX.open(MemoryStorage(path.read_bytes()), OPENER) as image:
        changed = bytearray(disk())
        changed[4 * MIB : 4 * MIB + 100 * 1024] = b"\x5a" * (100 * 1024)
        assert image.read_at(0, SIZE) == changed
