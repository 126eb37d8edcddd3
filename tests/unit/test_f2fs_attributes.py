"""Extended attributes of F2FS as Linux 6.1 wrote them, against what it told of them then.

Two volumes, made by ``mkfs.f2fs``, and by that with ``-O extra_attr,inode_crtime,
flexible_inline_xattr``; mounted, filled, unmounted, and listed by ``llistxattr`` and
``lgetxattr`` after they were mounted again. Nine attributes were set on ``/many``, from ``a`` 300
times to ``i`` 308 times, and the fourth was removed.
"""

from __future__ import annotations

import lzma
import random
import re
import struct
from pathlib import Path
from typing import Final

import pytest

from imprint.core.errors import ImagingError
from imprint.filesystems.f2fs.tree import F2fsTree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.sparse import load

FOLDER: Final = Path(__file__).parents[1] / "data" / "f2fs"
NOBODY: Final = 0xFFFFFFFF


def access_list(owner: int, mask: int) -> bytes:
    """Owner, user 70000 who may read, group, mask, others."""
    rows = ((1, owner, NOBODY), (2, 4, 70_000), (4, 5, NOBODY), (16, mask, NOBODY), (32, 0, NOBODY))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


EXPECTED: Final = {
    "/": {},
    "/none": {},
    "/few": {
        "user.comment": b"words",
        "user.empty": b"",
        "user.odd": b"123",
        "trusted.t": b"y",
        "security.capability": bytes.fromhex("0100000200200000") + bytes(12),
    },
    "/many": {
        f"user.number {number}": bytes([97 + number]) * (300 + number)
        for number in range(9)
        if number != 3
    },
    "/listed": {"system.posix_acl_access": access_list(7, 5)},
    "/folder": {"system.posix_acl_default": access_list(7, 5), "user.of a folder": b"1"},
    "/folder/heir": {"system.posix_acl_access": access_list(6, 4)},
    "/link": {"trusted.of a link": b"2"},
    "/pipe": {"trusted.of a pipe": b"3"},
    "/large": {"user.large": b"B" * 3000, "user.small": b"s"},
}


@pytest.fixture(scope="module", params=["attributes", "attributes-flexible"])
def whole(request: pytest.FixtureRequest) -> bytes:
    packed = (FOLDER / f"linux-6.1-{request.param}.hex.xz").read_bytes()
    return load(lzma.decompress(packed).decode("ascii"))


def test_attributes_are_those_that_linux_told(whole: bytes) -> None:
    """Fails if one is missed: at the end of an inode, in a node of its own, or in both."""
    files = F2fsTree(MemoryStorage(whole))
    found = {entry.path: files.attributes(entry) for entry in walk(files)}
    assert found == EXPECTED
    assert files.notes == []


def test_damaged_attributes_are_notes(whole: bytes) -> None:
    """Fails if lengths are believed, or raise what no caller expects."""
    dice = random.Random(7)
    mark = (0xF2F52011).to_bytes(4, "little")
    places = [found.start() for found in re.finditer(re.escape(mark), whole)]
    assert len(places) >= 7
    changed = bytearray(whole)
    told = 0
    for _ in range(25):
        undone = []
        for _ in range(dice.choice((1, 4, 30))):
            at = dice.choice(places) + dice.randrange(200)
            undone.append((at, changed[at]))
            changed[at] = dice.choice((0, 1, 255, dice.randrange(256)))
        try:
            files = F2fsTree(MemoryStorage(changed))
            told += sum(len(files.attributes(entry)) for entry in walk(files))
        except ImagingError as failure:
            str(failure).encode()
        for at, before in reversed(undone):
            changed[at] = before
    assert told > 25
    assert changed == whole
