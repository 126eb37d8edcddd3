"""Differencing VDIs, built by hand: qemu-img refuses them, so arithmetic is the judge."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.extent import Kind
from imprint.core.formats import CreateSpec, Rebasable
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.image import Image

BLOCK = 4096
ABSENT, ZERO = 0xFFFFFFFF, 0xFFFFFFFE
NONE = uuid.UUID(int=0)
FIRST = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
SECOND = uuid.UUID("10112233-4455-6677-8899-aabbccddeeff")
THIRD = uuid.UUID("20112233-4455-6677-8899-aabbccddeeff")
MODIFIED = uuid.UUID("f0112233-4455-6677-8899-aabbccddeeff")

VDI = formats.get("vdi")


def vdi(
    entries: list[int],
    blocks: list[bytes],
    *,
    image: uuid.UUID,
    parent: uuid.UUID = NONE,
    parent_modify: uuid.UUID = NONE,
    size: int | None = None,
) -> bytes:
    """An image with these map entries, and these blocks in slots 0, 1 …"""
    size = len(entries) * BLOCK if size is None else size
    head = bytearray(1024)
    kind = 1 if parent == NONE else 4
    struct.pack_into("<IIIII", head, 0x40, 0xBEDA107F, 0x10001, 0x190, kind, 0)
    struct.pack_into("<7I", head, 0x154, 512, 1024, 0, 0, 0, 512, 0)
    struct.pack_into("<QIIII", head, 0x170, size, BLOCK, 0, len(entries), len(blocks))
    for at, value in enumerate((image, MODIFIED, parent, parent_modify)):
        head[0x188 + 16 * at : 0x198 + 16 * at] = value.bytes_le
    struct.pack_into(f"<{len(entries)}I", head, 512, *entries)
    return bytes(head) + b"".join(blocks)


def fill(byte: int) -> bytes:
    return bytes([byte]) * BLOCK


def chain(**files: bytes) -> DictOpener:
    """A folder of images; ``a`` is called ``a.vdi``."""
    storages = {f"{name}.vdi": data for name, data in files.items()}
    return DictOpener(files={n: MemoryStorage(d, name=n) for n, d in storages.items()})


def read(image: Image) -> list[int]:
    """The first byte of each block, all of whose bytes must be the same."""
    content = image.read_at(0, image.size)
    found = []
    for at in range(0, len(content), BLOCK):
        piece = content[at : at + BLOCK]
        assert piece == bytes([piece[0]]) * len(piece)
        found.append(piece[0])
    return found


BASE = vdi([1, ABSENT, 0, 2, ZERO], [fill(3), fill(1), fill(4)], image=FIRST)
MIDDLE = vdi(
    [ABSENT, 0, ZERO, ABSENT, ABSENT],
    [fill(22)],
    image=SECOND,
    parent=FIRST,
    parent_modify=MODIFIED,
)
TOP = vdi([ABSENT, ABSENT, ABSENT, 0, ABSENT], [fill(33)], image=THIRD, parent=SECOND)


def test_absent_shows_the_parent_and_zero_hides_it() -> None:
    """Fails if -1 and -2 in a differencing map are confused: wrong bytes, without a word."""
    image = VDI.open(MemoryStorage(MIDDLE), chain(base=BASE))
    assert read(image) == [1, 22, 0, 4, 0]
    kinds = [extent.kind for extent in image.own_extents(0, image.size)]
    assert kinds == [Kind.HOLE, Kind.DATA, Kind.ZERO, Kind.HOLE]


def test_a_chain_of_three_reads_through() -> None:
    """Fails if a parent's own parent is not opened."""
    image = VDI.open(MemoryStorage(TOP), chain(base=BASE, middle=MIDDLE))
    assert read(image) == [1, 22, 0, 33, 0]


def test_the_parent_is_found_among_other_files() -> None:
    """Fails if a file that is no VDI, or another VDI, stops the search or is taken."""
    other = vdi([0], [fill(9)], image=THIRD)
    opener = chain(aaa=b"no vdi at all", bbb=b"\0" * 600, other=other, cut=BASE[:500], zzz=BASE)
    assert read(VDI.open(MemoryStorage(MIDDLE), opener)) == [1, 22, 0, 4, 0]


def test_the_parent_is_found_by_the_name_that_virtualbox_gives() -> None:
    """Fails if an opener that lists nothing cannot be asked for ``{UUID}.vdi``."""
    parent = VDI.open(MemoryStorage(BASE), DictOpener())
    opener = DictOpener({f"{{{FIRST}}}.vdi": parent})
    assert read(VDI.open(MemoryStorage(MIDDLE), opener)) == [1, 22, 0, 4, 0]


def test_a_parent_with_that_name_and_another_uuid_is_refused() -> None:
    """Fails if the name alone is believed: the bytes would be of another disk."""
    parent = VDI.open(MemoryStorage(vdi([0], [fill(9)], image=THIRD)), DictOpener())
    opener = DictOpener({f"{{{FIRST}}}.vdi": parent})
    with pytest.raises(ReferenceRefusedError, match=str(FIRST)):
        VDI.open(MemoryStorage(MIDDLE), opener)


def test_of_two_copies_the_unchanged_one_is_taken() -> None:
    """Fails if a copy of the parent that was changed wins by its name."""
    changed = bytearray(BASE)
    changed[0x198:0x1A8] = THIRD.bytes_le
    changed[1024:] = b"\x09" * len(changed[1024:])
    opener = chain(aaa=bytes(changed), base=BASE, zzz=bytes(changed))
    image = VDI.open(MemoryStorage(MIDDLE), opener)
    assert read(image) == [1, 22, 0, 4, 0]
    assert image.info().notes == ()


def test_a_missing_parent_is_an_error_and_not_zeros() -> None:
    """Fails if a differencing image alone reads as if it were a whole disk."""
    with pytest.raises(ReferenceRefusedError):
        VDI.open(MemoryStorage(MIDDLE), chain(middle=MIDDLE))


def test_an_image_that_is_its_own_parent_is_corrupt() -> None:
    """Fails if the simplest loop is followed."""
    loop = vdi([ABSENT], [], image=FIRST, parent=FIRST)
    with pytest.raises(CorruptImageError, match="another image"):
        VDI.open(MemoryStorage(loop), chain(loop=loop))


def test_a_loop_of_two_ends() -> None:
    """Fails if two images that name each other are opened forever."""
    one = vdi([ABSENT], [], image=FIRST, parent=SECOND)
    two = vdi([ABSENT], [], image=SECOND, parent=FIRST)
    with pytest.raises(ReferenceRefusedError):
        VDI.open(MemoryStorage(one), chain(one=one, two=two))


def test_a_parent_that_has_changed_is_noted() -> None:
    """Fails if a stale chain is refused, or read without a word."""
    stale = vdi([ABSENT], [], image=SECOND, parent=FIRST, parent_modify=THIRD)
    image = VDI.open(MemoryStorage(stale), chain(base=BASE))
    assert any("has changed" in note for note in image.info().notes)
    assert VDI.open(MemoryStorage(MIDDLE), chain(base=BASE)).info().notes == ()


def test_info_names_the_chain() -> None:
    """Fails if a user cannot see what an image depends on."""
    info = VDI.open(MemoryStorage(MIDDLE), chain(base=BASE)).info()
    assert info.uuid == str(SECOND)
    assert info.parent == str(FIRST)
    assert info.parent_format == "vdi"
    assert info.options["subformat"] == "differencing"
    assert info.options["parent_modify_uuid"] == str(MODIFIED)


def test_a_write_copies_the_rest_of_the_block_from_the_parent() -> None:
    """Fails if a new block keeps zeros where its parent has bytes."""
    storage = MemoryStorage(MIDDLE)
    image = VDI.edit(storage, chain(base=BASE))
    image.write(memoryview(b"\x77" * 10), 3 * BLOCK + 5)
    image.commit()
    reopened = VDI.open(MemoryStorage(storage.content), chain(base=BASE))
    expected = fill(4)[:5] + b"\x77" * 10 + fill(4)[15:]
    assert reopened.read_at(3 * BLOCK, BLOCK) == expected
    assert struct.unpack_from("<5I", storage.content, 512) == (ABSENT, 0, ZERO, 1, ABSENT)


def test_zeroing_leaves_an_explicit_zero() -> None:
    """Fails if a freed block is marked absent: the parent's bytes would come back."""
    storage = MemoryStorage(MIDDLE)
    image = VDI.edit(storage, chain(base=BASE))
    image.zero(0, 2 * BLOCK)
    image.commit()
    assert struct.unpack_from("<5I", storage.content, 512) == (ZERO, ZERO, ZERO, ABSENT, ABSENT)
    assert len(storage.content) == 1024  # the only block is gone
    assert struct.unpack_from("<I", storage.content, 0x184) == (0,)


def test_growing_over_a_longer_parent_shows_zeros() -> None:
    """Fails if the parent's bytes behind the old end appear when the child is enlarged."""
    short = vdi([ABSENT] * 2, [], image=SECOND, parent=FIRST, size=BLOCK + 1024)
    base = vdi([0, 1, 2], [fill(1), fill(2), fill(3)], image=FIRST)
    storage = MemoryStorage(short)
    image = VDI.edit(storage, chain(base=base))
    image.resize(3 * BLOCK)
    image.commit()
    reopened = VDI.open(MemoryStorage(storage.content), chain(base=base))
    expected = fill(1) + fill(2)[:1024] + bytes(2 * BLOCK - 1024)
    assert reopened.read_at(0, 3 * BLOCK) == expected


def test_a_new_overlay_keeps_both_uuids_of_its_parent() -> None:
    """Fails if VirtualBox would not find the parent, or believe that it had changed."""
    parent = VDI.open(MemoryStorage(BASE), DictOpener())
    storage = MemoryStorage()
    spec = CreateSpec(5 * BLOCK, DictOpener(), parent=Reference("base.vdi"), parent_source=parent)
    VDI.create(storage, spec).commit()
    assert struct.unpack_from("<I", storage.content, 0x4C) == (4,)
    assert storage.content[0x1A8:0x1B8] == FIRST.bytes_le
    assert storage.content[0x1B8:0x1C8] == MODIFIED.bytes_le


def test_a_parent_that_is_no_vdi_is_refused() -> None:
    """Fails if a chain is made that nothing can ever resolve."""
    parent = formats.get("raw").open(MemoryStorage(bytes(BLOCK)), DictOpener())
    reference = Reference("base.img", format="raw")
    spec = CreateSpec(BLOCK, DictOpener(), parent=reference, parent_source=parent)
    with pytest.raises(UsageError, match="vdi"):
        VDI.create(MemoryStorage(), spec)


def test_rebase_changes_the_name_only() -> None:
    """Fails if naming another parent touches anything else, or takes a wrong UUID."""
    assert isinstance(VDI, Rebasable)
    storage = MemoryStorage(MIDDLE)
    opener = chain(base=BASE, other=vdi([0], [fill(9)], image=THIRD))
    VDI.set_parent(storage, opener, Reference("other.vdi", format="vdi"))
    expected = bytearray(MIDDLE)
    expected[0x1A8:0x1B8] = THIRD.bytes_le
    expected[0x1B8:0x1C8] = MODIFIED.bytes_le
    assert storage.content == expected


def test_without_a_parent_it_is_a_dynamic_image() -> None:
    """Fails if a standalone image still asks for its parent."""
    assert isinstance(VDI, Rebasable)
    storage = MemoryStorage(MIDDLE)
    VDI.set_parent(storage, chain(base=BASE), None)
    assert read(VDI.open(storage, DictOpener())) == [0, 22, 0, 0, 0]


@pytest.mark.parametrize("name", ["fixed", "itself", "raw"])
def test_a_rebase_that_makes_no_sense_is_refused(name: str) -> None:
    """Fails if a fixed image, a loop or an unnameable parent gets into a header."""
    assert isinstance(VDI, Rebasable)
    content = bytearray(BASE)
    if name == "fixed":
        content[0x4C] = 2
    before = bytes(content)
    storage = MemoryStorage(content, name="self.vdi")
    copy = MemoryStorage(BASE)
    other = vdi([0], [fill(9)], image=THIRD)
    files = {"fixed": MemoryStorage(other), "itself": copy, "raw": MemoryStorage(bytes(512))}
    opener = DictOpener(files=files)
    reference = Reference(name, format="raw" if name == "raw" else "vdi")
    with pytest.raises((UsageError, UnsupportedFeatureError)):
        VDI.set_parent(storage, opener, reference)
    assert storage.content == before


def test_a_folder_is_searched_for_the_parent(tmp_path: Path) -> None:
    """Fails if the search does not work with files, or looks outside the image's folder."""
    inside = tmp_path / "machine"
    inside.mkdir()
    (inside / "child.vdi").write_bytes(MIDDLE)
    (tmp_path / "base.vdi").write_bytes(BASE)
    child = FileStorage.open(inside / "child.vdi")
    with pytest.raises(ImagingError):
        VDI.open(child, FolderGate())
    with VDI.open(child, FolderGate(allowed=[tmp_path])) as image:
        assert read(image) == [1, 22, 0, 4, 0]
    (inside / "renamed.vdi").write_bytes(BASE)
    with VDI.open(FileStorage.open(inside / "child.vdi"), FolderGate()) as image:
        assert read(image) == [1, 22, 0, 4, 0]
