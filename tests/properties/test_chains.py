"""commit and rebase over random chains: an overlay reads as before, whatever happens to parents."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.endpoints.chains import commit, rebase
from imprint.endpoints.images import create
from imprint.endpoints.open import Access, open_editable, open_image
from imprint.endpoints.target import TargetRequest
from imprint.testing import oracles
from imprint.testing.disks import writes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.testing.disks import Write

KIB = 1024
SIZES = st.integers(1, 200).map(lambda sectors: sectors * 512)
FORMATS = {
    "qcow2": [
        {"cluster_size": "512"},
        {"cluster_size": "4K"},
        {"cluster_size": "64K"},
        {"cluster_size": "4K", "compat": "0.10"},
        {"cluster_size": "16K", "extended_l2": "on"},
    ],
    "vdi": [{"block_size": "512"}, {"block_size": "16K"}],
}
KINDS = st.sampled_from([(name, options) for name, many in FORMATS.items() for options in many])
WRITES = writes(100 * KIB, count_max=5, with_zeros=True)


def make(
    path: Path,
    size: int,
    content: Sequence[Write],
    kind: tuple[str, dict[str, str]],
    parent: Path | None = None,
) -> None:
    """An image with that content over its parent."""
    name, options = kind
    create(
        TargetRequest(str(path), name, options),
        size,
        Access(),
        parent=None if parent is None else str(parent),
    )
    with closing(open_editable(str(path), Access(format=name))) as image:
        for offset, length, byte in content:
            inside = max(0, min(length, size - offset))
            if inside:
                image.write(memoryview(bytes([byte]) * inside), offset)
        image.flush()


def content_of(path: Path, kind: tuple[str, dict[str, str]]) -> bytes:
    """The whole disk; for what qemu-img can read, both have to agree."""
    with open_image(str(path), Access(format=kind[0])) as image:
        found = image.read_at(0, image.size)
    if kind[0] == "qcow2":
        assert oracles.content(path, "qcow2") == found
        oracles.check(path, "qcow2")
    return found


def painted(size: int, below: bytes, content: Sequence[Write]) -> bytes:
    """What a disk of ``size`` over a parent with ``below`` has to hold."""
    disk = bytearray(below[:size].ljust(size, b"\0"))
    for offset, length, byte in content:
        inside = max(0, min(length, size - offset))
        disk[offset : offset + inside] = bytes([byte]) * inside
    return bytes(disk)


@pytest.mark.oracle("qemu-img")
@settings(max_examples=12)
@given(kind=KINDS, sizes=st.tuples(SIZES, SIZES), first=WRITES, second=WRITES, keep=st.booleans())
def test_commit_makes_the_parent_the_overlays_disk(
    kind: tuple[str, dict[str, str]],
    sizes: tuple[int, int],
    first: list[Write],
    second: list[Write],
    keep: bool,
) -> None:
    """Fails if a byte is lost on the way down, or the emptied overlay reads otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        base, overlay = Path(folder, f"base.{kind[0]}"), Path(folder, f"overlay.{kind[0]}")
        make(base, sizes[0], first, kind)
        make(overlay, sizes[1], second, kind, base)
        below = painted(sizes[0], b"", first)
        expected = painted(sizes[1], below, second)
        assert content_of(overlay, kind) == expected

        commit(str(overlay), Access(), keep=keep)

        assert content_of(overlay, kind) == expected
        assert content_of(base, kind) == expected + below[sizes[1] :]


@pytest.mark.oracle("qemu-img")
@settings(max_examples=20)
@given(
    kind=KINDS,
    sizes=st.tuples(SIZES, SIZES, SIZES),
    old=st.one_of(st.none(), WRITES),
    new=st.one_of(st.none(), WRITES),
    own=WRITES,
)
def test_rebase_does_not_change_what_an_image_reads_as(
    kind: tuple[str, dict[str, str]],
    sizes: tuple[int, int, int],
    old: list[Write] | None,
    new: list[Write] | None,
    own: list[Write],
) -> None:
    """Fails if the new parent shows where the old one did, at any unit and any size."""
    with tempfile.TemporaryDirectory() as folder:
        image, before, after = (
            Path(folder, f"{name}.{kind[0]}") for name in ("image", "before", "after")
        )
        if old is not None:
            make(before, sizes[1], old, kind)
        if new is not None:
            make(after, sizes[2], new, kind)
        make(image, sizes[0], own, kind, None if old is None else before)
        below = b"" if old is None else painted(sizes[1], b"", old)
        expected = painted(sizes[0], below, own)

        done = rebase(str(image), Access(), parent=None if new is None else str(after))

        assert (done.parent is None) == (new is None)
        if old is not None:
            before.unlink()
        assert content_of(image, kind) == expected
        if old is None and new is None:
            assert done.bytes_written == 0
