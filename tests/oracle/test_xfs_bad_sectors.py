"""XFS on a medium that fails: what is beside a bad sector is told."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults
from imprint.testing.xfs_volume import make

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mkfs.xfs")

SECTOR: Final = 512
NUMBER_AT: Final = 152
"""Of an inode of version 5, of 512 bytes: its number."""


def test_a_bad_sector_costs_only_the_inode_in_it(tmp_path: Path) -> None:
    """Fails if files lack whose inodes are beside one that cannot be read."""
    names = [f"file{number:02}" for number in range(40)]
    files = [f"{name} ---644 0 0 /dev/null" for name in names]
    prototype = tmp_path / "prototype"
    prototype.write_text("\n".join(["/nothing", "0 0", "d--755 0 0", *files, "$", ""]))
    content = make(tmp_path / "disk", "-p", str(prototype)).read_bytes()
    volume = MemoryStorage(content)
    with closing(tree("xfs", volume)) as found:
        entries = {entry.name: entry for entry in walk(found)}
    assert set(entries) == {"", *names}
    number = entries["file20"].inode.to_bytes(8, "big")
    bad = content.index(number, content.index(b"IN")) - NUMBER_AT
    while bad % SECTOR or content[bad : bad + 2] != b"IN":
        bad = content.index(number, bad + NUMBER_AT + 1) - NUMBER_AT
    with closing(tree("xfs", BadMedium(volume, Faults(bad=((bad, SECTOR),))))) as found:
        assert {entry.name for entry in walk(found)} == set(entries) - {"file20"}
        assert [note.partition(":")[0] for note in found.notes] == ["/file20"]
