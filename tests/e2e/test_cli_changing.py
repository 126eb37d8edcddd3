"""Verbs that make and change images: create, resize, snapshot, commit, rebase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

    Documented = Callable[[str, dict[str, Any]], None]

MIB = 1 << 20


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """``overlay.qcow2`` over ``base.qcow2``, 8 MiB, with data in both; the overlay's path."""
    base, overlay = tmp_path / "base.qcow2", tmp_path / "overlay.qcow2"
    oracles.create(base, 8 * MIB, "qcow2")
    oracles.qemu_io(base, "qcow2", "write -P 1 0 2M", "write -P 2 6M 1M")
    oracles.create(overlay, None, "qcow2", backing=base, backing_format="qcow2")
    oracles.qemu_io(overlay, "qcow2", "write -P 3 1M 256k", "write -z 6M 64k", "write -P 4 100 9")
    return overlay


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    ("size", "expected"), [("512", 512), ("64K", 65536), ("1.5M", 3 << 19), ("2G", 2 << 30)]
)
def test_create_makes_an_empty_disk(
    program: Program, documented: Documented, size: str, expected: int
) -> None:
    """Fails if the size is read wrongly, or qemu-img sees another image."""
    found = program.ok("create", "x.qcow2", size, "-o", "cluster_size=4K", "--json").json
    documented("create", found)
    assert found["size"] == expected
    assert found["parent"] is None
    facts = oracles.info(program.folder / "x.qcow2")
    assert facts["virtual-size"] == expected
    assert facts["cluster-size"] == 4096
    oracles.check(program.folder / "x.qcow2", "qcow2")


@pytest.mark.oracle("qemu-img")
def test_create_tells_the_size_that_the_disk_has(program: Program) -> None:
    """Fails if it tells what was asked for, where the format counts in sectors."""
    for name in ("x.qed", "x.vmdk"):
        assert program.ok("create", name, "700", "--json").json["size"] == 1024
        assert oracles.info(program.folder / name)["virtual-size"] == 1024


def test_a_parent_is_not_removed_as_a_file_of_the_image_that_is_replaced(program: Program) -> None:
    """Fails if an overlay takes the place of a split image, and its parent's data with it."""
    program.ok("create", "x.vmdk", "4M", "-o", "subformat=twoGbMaxExtentSparse")
    program.ok("create", "b.vmdk", "4M")
    (program.folder / "b.vmdk").replace(program.folder / "x-s001.vmdk")
    program.ok("create", "x.vmdk", "--parent", "x-s001.vmdk", "--force")
    assert (program.folder / "x-s001.vmdk").exists()
    assert program.ok("info", "x.vmdk", "--json").json["parent"] == "x-s001.vmdk"


@pytest.mark.parametrize(
    ("suffix", "place"), [("vhd", slice(68, 84)), ("vdi", slice(0x188, 0x198))]
)
def test_an_image_with_a_uuid_of_zeros_is_no_parent(
    program: Program, suffix: str, place: slice
) -> None:
    """Fails if an overlay takes a VHD without a UUID for a raw disk, or cannot be opened (VDI)."""
    program.ok("create", f"b.{suffix}", "4M")
    base = program.folder / f"b.{suffix}"
    content = bytearray(base.read_bytes())
    content[place] = bytes(16)
    if suffix == "vhd":  # a footer with a checksum, and its copy
        content[64:68] = bytes(4)
        content[64:68] = (~sum(content[:512]) & 0xFFFFFFFF).to_bytes(4, "big")
        content[-512:] = content[:512]
    base.write_bytes(content)
    message = program.refuses(2, "create", f"c.{suffix}", "--parent", base.name)[0]
    assert "the parent's UUID not to be zero" in message
    assert not (program.folder / f"c.{suffix}").exists()


def test_an_extent_without_its_descriptor_is_no_parent(program: Program) -> None:
    """Fails if an overlay says that it has one, and reads as zeros: the ID means "no parent"."""
    program.ok("create", "x.vmdk", "4M", "-o", "subformat=twoGbMaxExtentSparse")
    message = program.refuses(2, "create", "c.vmdk", "--parent", "x-s001.vmdk")[0]
    assert "expected a parent with a content ID" in message
    assert not (program.folder / "c.vmdk").exists()
    program.ok("create", "b.vmdk", "4M")
    program.ok("create", "c.vmdk", "--parent", "b.vmdk")
    program.refuses(2, "rebase", "c.vmdk", "--parent", "x-s001.vmdk", "--unsafe")
    assert program.ok("info", "c.vmdk", "--json").json["parent"] == "b.vmdk"


@pytest.mark.oracle("qemu-img")
def test_the_format_of_a_backing_file_has_the_name_that_qemu_knows(program: Program) -> None:
    """Fails if it is written as vhd: QEMU has no such driver, and opens no such overlay."""
    program.ok("create", "base.vhd", "4M", "-o", "block_size=512K")
    program.ok("create", "o.qcow2", "--parent", "base.vhd")
    assert oracles.info(program.folder / "o.qcow2")["backing-filename-format"] == "vpc"
    oracles.check(program.folder / "o.qcow2", "qcow2")
    program.ok("create", "p.qcow2", "4M")
    program.ok("rebase", "p.qcow2", "--parent", "base.vhd")
    oracles.check(program.folder / "p.qcow2", "qcow2")
    assert program.ok("info", "p.qcow2", "--json").json["size"] == 4 * MIB


def test_create_takes_the_format_by_suffix_or_option(program: Program) -> None:
    """Fails if -O, or its synonym here, is ignored."""
    assert program.ok("create", "a.vdi", "1M", "--json").json["format"] == "vdi"
    assert program.ok("create", "b", "1M", "-O", "qcow2", "--json").json["format"] == "qcow2"
    assert program.ok("create", "c", "1M", "-f", "qcow2", "--json").json["format"] == "qcow2"
    assert program.ok("create", "d.raw", "1M", "--json").json["format"] == "raw"
    program.refuses(2, "create", "e", "1M")
    program.refuses(2, "create", "e.qcow2")
    program.refuses(2, "create", "e.qcow2", "many")
    program.refuses(2, "create", "e.raw", "2000000T")
    program.refuses(5, "create", "a.vdi", "1M")
    program.ok("create", "a.vdi", "2M", "--force")


@pytest.mark.oracle("qemu-img")
def test_create_over_a_parent(program: Program, disk: Path) -> None:
    """Fails if the overlay is not the parent's disk, or does not say its parent's format."""
    found = program.ok("create", "o.qcow2", "--parent", disk.name, "--json").json
    assert (found["parent"], found["parent_format"], found["size"]) == ("disk.raw", "raw", 8 * MIB)
    facts = oracles.info(program.folder / "o.qcow2")
    assert facts["backing-filename"] == "disk.raw"
    assert facts["backing-filename-format"] == "raw"
    program.ok("compare", "o.qcow2", "disk.raw")

    larger = program.ok(
        "create", "l.qcow2", "9M", "--parent", str(disk), "-F", "raw", "--json"
    ).json
    assert (larger["parent"], larger["size"]) == (str(disk), 9 * MIB)
    assert oracles.is_equal(
        disk, program.folder / "l.qcow2", first_format="raw", second_format="qcow2"
    )
    program.refuses(5, "create", "o.qcow2", "--parent", "o.qcow2", "--force")
    program.refuses(4, "create", "x.raw", "--parent", "disk.raw")
    program.refuses(3, "create", "x.qcow2", "--parent", "missing.raw")


def test_a_parent_is_named_as_seen_from_the_image(program: Program, disk: Path) -> None:
    """Fails if a relative path means another file in the image than on the command line."""
    (program.folder / "sub").mkdir()
    result = program.ok("create", "sub/o.qcow2", "--parent", disk.name, "--json")
    assert result.json["parent"] == "../disk.raw"
    assert "--allow-parent" in result.messages[0]
    program.refuses(3, "map", "sub/o.qcow2")
    program.ok("compare", "sub/o.qcow2", "disk.raw", "--allow-parent", ".")
    # As qemu-img has it: beside the image.
    program.ok("convert", "disk.raw", "sub/base.qcow2")
    assert (
        program.ok("create", "sub/p.qcow2", "--parent", "base.qcow2", "--json").json["parent"]
        == "base.qcow2"
    )


@pytest.mark.oracle("qemu-img")
def test_resize_changes_the_size(program: Program, chain: Path, documented: Documented) -> None:
    """Fails if a size, absolute or relative, is another one for qemu-img."""
    del chain
    base = program.folder / "base.qcow2"
    for word, expected in (("9M", 9 * MIB), ("+1M", 10 * MIB), ("+0", 10 * MIB)):
        found = program.ok("resize", "base.qcow2", word, "--json").json
        documented("resize", found)
        assert found["size"] == expected
        assert oracles.info(base)["virtual-size"] == expected
    assert program.ok("resize", "base.qcow2", "-3M", "--shrink", "--json").json["size"] == 7 * MIB
    oracles.check(base, "qcow2")
    assert oracles.content(base, "qcow2")[6 * MIB :] == b"\2" * MIB


@pytest.mark.oracle("qemu-img")
def test_resize_does_not_cut_unasked(program: Program, chain: Path) -> None:
    """Fails if data is lost without --shrink."""
    del chain
    before = (program.folder / "base.qcow2").read_bytes()
    messages = program.refuses(5, "resize", "base.qcow2", "6656K")
    assert "512 KiB" in messages[0]
    assert "--shrink" in messages[1]
    program.refuses(5, "resize", "base.qcow2", "-1")
    assert (program.folder / "base.qcow2").read_bytes() == before
    assert program.ok("resize", "base.qcow2", "6656K", "--shrink", "--json").json["cut"] == MIB // 2
    program.refuses(2, "resize", "base.qcow2", "-1T", "--shrink")
    program.refuses(2, "resize", "base.qcow2", "1M1")


def test_raw_is_changed_only_when_it_is_named(program: Program, disk: Path) -> None:
    """Fails if content that happens to be no image is resized on a guess."""
    program.refuses(5, "resize", disk.name, "9M")
    program.ok("resize", disk.name, "9M", "-f", "raw")
    assert disk.stat().st_size == 9 * MIB


@pytest.mark.oracle("qemu-img")
def test_snapshots_are_kept_listed_applied_and_forgotten(
    program: Program, documented: Documented
) -> None:
    """Fails if qemu-img does not see the same snapshots, or apply does not go back."""
    image = program.folder / "x.qcow2"
    program.ok("create", "x.qcow2", "4M")
    oracles.qemu_io(image, "qcow2", "write -P 1 0 1M")
    made = program.ok("snapshot", "create", "x.qcow2", "before", "--json").json
    documented("snapshot", made)
    oracles.qemu_io(image, "qcow2", "write -P 2 0 2M")

    found = program.ok("snapshot", "list", "x.qcow2", "--json").json
    documented("snapshot", found)
    assert found["snapshots"] == [made]
    (theirs,) = oracles.info(image)["snapshots"]
    assert (theirs["name"], theirs["id"]) == (made["name"], made["id"])
    assert program.ok("convert", "x.qcow2", "-", "--snapshot", "before").out[: 2 * MIB] == (
        b"\1" * MIB + bytes(MIB)
    )
    program.ok("snapshot", "apply", "x.qcow2", "before")
    assert oracles.content(image, "qcow2") == b"\1" * MIB + bytes(3 * MIB)
    program.ok("snapshot", "delete", "x.qcow2", made["id"])
    assert program.ok("snapshot", "list", "x.qcow2", "--json").json == {"snapshots": []}
    oracles.check(image, "qcow2")


def test_snapshot_refuses_what_makes_no_sense(program: Program, disk: Path) -> None:
    """Fails if a missing name, a wrong action or a wrong format is an exception."""
    program.ok("create", "x.qcow2", "1M")
    program.refuses(2, "snapshot", "create", "x.qcow2")
    program.refuses(2, "snapshot", "list", "x.qcow2", "name")
    program.refuses(2, "snapshot", "rename", "x.qcow2", "name")
    program.refuses(4, "snapshot", "list", disk.name)
    for action in ("apply", "delete"):
        result = program("snapshot", action, "x.qcow2", "no such")
        assert result.exit_code in (2, 3)
        assert "no such" in result.messages[0]


@pytest.mark.oracle("qemu-img")
def test_commit_merges_down_and_empties(
    program: Program, chain: Path, documented: Documented
) -> None:
    """Fails if the parent does not become the overlay's disk, or the overlay loses its parent."""
    base = program.folder / "base.qcow2"
    expected = oracles.content(chain, "qcow2")

    found = program.ok("commit", "overlay.qcow2", "--json").json

    documented("commit", found)
    assert found["parent"] == str(base)
    assert found["emptied"] is True
    assert found["bytes_written"] == 256 * 1024 + 2 * 65536
    assert oracles.content(base, "qcow2") == expected
    assert oracles.content(chain, "qcow2") == expected
    assert not [run for run in oracles.image_map(chain, "qcow2") if run.depth == 0 and run.is_data]
    oracles.check(base, "qcow2")
    oracles.check(chain, "qcow2")
    assert oracles.info(chain)["backing-filename"] == str(base)


@pytest.mark.oracle("qemu-img")
def test_commit_can_leave_the_overlay(program: Program, chain: Path) -> None:
    """Fails if --keep changes it."""
    before = chain.read_bytes()
    expected = oracles.content(chain, "qcow2")
    assert program.ok("commit", "overlay.qcow2", "--keep", "--json").json["emptied"] is False
    assert chain.read_bytes() == before
    assert oracles.content(program.folder / "base.qcow2", "qcow2") == expected


@pytest.mark.oracle("qemu-img")
def test_commit_grows_the_parent(program: Program, chain: Path) -> None:
    """Fails if what lies behind the parent's end is lost."""
    program.ok("resize", "overlay.qcow2", "+2M")
    oracles.qemu_io(chain, "qcow2", "write -P 9 9M 64k")
    expected = oracles.content(chain, "qcow2")
    assert program.ok("commit", "overlay.qcow2", "--json").json["grown_to"] == 10 * MIB
    assert oracles.content(program.folder / "base.qcow2", "qcow2") == expected


@pytest.mark.oracle("qemu-img")
def test_commit_into_a_raw_parent(program: Program, disk: Path) -> None:
    """Fails if a parent whose format is recorded as raw is not written, or a guess is."""
    overlay = program.folder / "o.qcow2"
    program.ok("create", "o.qcow2", "--parent", disk.name)
    oracles.qemu_io(overlay, "qcow2", "write -P 9 5M 64k", "write -z 0 64k")
    expected = oracles.content(overlay, "qcow2")
    program.ok("commit", "o.qcow2")
    assert disk.read_bytes() == expected


@pytest.mark.oracle("qemu-img")
def test_commit_does_not_write_a_parent_that_is_raw_by_guess(program: Program, disk: Path) -> None:
    """Fails if the content of a disk decides how it is written."""
    program.ok("create", "o.qcow2", "--parent", disk.name)
    overlay = program.folder / "o.qcow2"
    content = overlay.read_bytes()
    # The extension that names the parent's format gets a type that nobody knows.
    assert content.count(b"\xe2\x79\x2a\xca") == 1
    overlay.write_bytes(content.replace(b"\xe2\x79\x2a\xca", b"\x12\x34\x56\x78"))
    result = program("commit", "o.qcow2")
    assert result.exit_code == 5
    assert "-F raw" in result.messages[-1]
    program.ok("rebase", "o.qcow2", "--unsafe", "--parent", disk.name, "-F", "raw")
    program.ok("commit", "o.qcow2")


def test_vdi_overlays_are_made_committed_and_rebased(program: Program, disk: Path) -> None:
    """Fails if parents that are found by UUID are not: the content must never change."""
    program.ok("convert", disk.name, "base.vdi")
    program.ok("create", "o.vdi", "--parent", "base.vdi")
    program.ok("compare", "o.vdi", disk.name)
    changed = bytearray(disk.read_bytes())
    changed[5 << 20 : (5 << 20) + 4096] = b"c" * 4096
    expected = program.folder / "expected.raw"
    expected.write_bytes(changed)
    program.ok("restore", "expected.raw", "o.vdi", "--delta", "--force")
    program.ok("convert", disk.name, "other.vdi")
    program.ok("rebase", "o.vdi", "--parent", "other.vdi")
    program.ok("compare", "o.vdi", "expected.raw")
    program.ok("commit", "o.vdi")
    for name in ("other.vdi", "o.vdi"):
        program.ok("compare", name, "expected.raw")
        program.ok("check", name)
    program.ok("compare", "base.vdi", disk.name)
    program.ok("rebase", "o.vdi", "--no-parent")
    program.ok("compare", "o.vdi", "expected.raw")


@pytest.mark.oracle("qemu-img")
def test_commit_refuses_what_it_cannot_do_wholly(program: Program, chain: Path) -> None:
    """Fails if snapshots are lost, or an image without a parent is an exception."""
    oracles.qemu_img("snapshot", "-c", "kept", chain)
    before = (program.folder / "base.qcow2").read_bytes()
    messages = program.refuses(5, "commit", "overlay.qcow2")
    assert "--keep" in messages[1]
    assert (program.folder / "base.qcow2").read_bytes() == before
    program.refuses(2, "commit", "base.qcow2")


@pytest.mark.oracle("qemu-img")
def test_rebase_reads_as_before(program: Program, chain: Path, documented: Documented) -> None:
    """Fails if the overlay's content changes with its parent."""
    other = program.folder / "other.qcow2"
    oracles.create(other, 5 * MIB, "qcow2")
    oracles.qemu_io(other, "qcow2", "write -P 1 0 1M", "write -P 7 3M 1M", "write -P 2 4M 1M")
    expected = oracles.content(chain, "qcow2")

    found = program.ok("rebase", "overlay.qcow2", "--parent", "other.qcow2", "--json").json

    documented("rebase", found)
    assert (found["parent"], found["parent_format"]) == ("other.qcow2", "qcow2")
    # 1 to 2 MiB without the overlay's own 256 KiB; 3 to 5; 6 to 7 without its own 64 KiB.
    assert found["bytes_written"] == 4 * MIB - 256 * 1024 - 65536
    assert oracles.info(chain)["backing-filename"] == "other.qcow2"
    assert oracles.content(chain, "qcow2") == expected
    oracles.check(chain, "qcow2")


@pytest.mark.oracle("qemu-img")
def test_rebase_to_no_parent(program: Program, chain: Path) -> None:
    """Fails if anything is missing when the image stands alone."""
    expected = oracles.content(chain, "qcow2")
    found = program.ok("rebase", "overlay.qcow2", "--no-parent", "--json").json
    assert found["parent"] is None
    (program.folder / "base.qcow2").unlink()
    assert oracles.content(chain, "qcow2") == expected
    assert "backing-filename" not in oracles.info(chain)
    oracles.check(chain, "qcow2")


@pytest.mark.oracle("qemu-img")
def test_rebase_gives_an_image_without_parent_one(program: Program, chain: Path) -> None:
    """Fails if the new parent shines through what was never written."""
    expected = oracles.content(program.folder / "base.qcow2", "qcow2")
    other = program.folder / "other.raw"
    other.write_bytes(b"\xaa" * (8 * MIB))
    program.ok("rebase", "base.qcow2", "--parent", "other.raw", "-F", "raw")
    assert oracles.content(program.folder / "base.qcow2", "qcow2") == expected
    assert oracles.info(program.folder / "base.qcow2")["backing-filename-format"] == "raw"
    del chain


@pytest.mark.oracle("qemu-img")
def test_rebase_unsafe_only_changes_the_name(program: Program, chain: Path) -> None:
    """Fails if a moved parent cannot be found again."""
    expected = oracles.content(chain, "qcow2")
    (program.folder / "moved").mkdir()
    (program.folder / "base.qcow2").rename(program.folder / "moved" / "new.qcow2")
    size = chain.stat().st_size
    program.ok("rebase", "overlay.qcow2", "--parent", "moved/new.qcow2", "--unsafe")
    assert chain.stat().st_size == size
    assert oracles.content(chain, "qcow2") == expected


@pytest.mark.oracle("qemu-img")
def test_rebase_refuses_what_makes_no_sense(program: Program, chain: Path, disk: Path) -> None:
    """Fails if a chain becomes a loop, or a wrong request is an exception."""
    before = chain.read_bytes()
    program.refuses(2, "rebase", "overlay.qcow2")
    program.refuses(2, "rebase", "overlay.qcow2", "--parent", "base.qcow2", "--no-parent")
    program.refuses(3, "rebase", "base.qcow2", "--parent", "overlay.qcow2")
    program.refuses(3, "rebase", "overlay.qcow2", "--parent", "missing.qcow2")
    program.refuses(5, "rebase", disk.name, "--parent", "base.qcow2")
    assert chain.read_bytes() == before
    (program.folder / "base.qcow2").unlink()
    messages = program.refuses(3, "rebase", "overlay.qcow2", "--parent", "disk.raw", "-F", "raw")
    assert "--unsafe" in messages[1]
