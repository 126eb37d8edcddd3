"""Only what file systems use, where they are in volume groups, arrays and encrypted volumes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.containers import linear, lvm_member, lvm_text, lvm_volume, raid_member
from imprint.testing.oracles import run
from imprint.testing.volumes import GARBAGE, age, make_disk, mounted, tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.testing.program import Program

KIB: Final = 1 << 10
MIB: Final = 1 << 20
EXTENT: Final = 64 * KIB
EXTENTS: Final = 1022
MEMBER: Final = 64 * MIB
RAID_DATA: Final = 32 * MIB
RAID_MEMBER: Final = 33 * MIB
RAID_OFFSET: Final = 64 * KIB
LUKS: Final = 64 * MIB
VOLUME: Final = 48 * MIB
SIZE: Final = 264 * MIB
UUIDS: Final = ("a" * 32, "b" * 32)
# Physical volume, first extent, count.
ROOT: Final = ((0, 10, 500), (1, 3, 268))
DATA: Final = ((1, 300, 700), (0, 900, 68))

pytestmark = [
    pytest.mark.root,
    pytest.mark.oracle("mkfs.ext4", "mkfs.xfs", "sfdisk", "e2fsck", "losetup", "cryptsetup"),
]


def make_ext(path: Path, size: int) -> dict[str, str]:
    path.write_bytes(GARBAGE * (size // MIB))
    run("mkfs.ext4", "-q", "-E", "nodiscard", path)
    with mounted(path) as place:
        age(place)
        return tree(place)


def place(extent: int) -> int:
    """Where an extent begins in its physical volume."""
    return (1 + extent) * EXTENT


class Machine:
    """A disk with a group over two partitions, an encrypted volume and a mirror."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self.files: Final[dict[str, dict[str, str]]] = {}
        self.key: Final = folder / "key"
        self.key.write_bytes(b"secret")
        members = [*self._group(), self._luks(), *self._mirror()]
        self.path: Final = folder / "machine.raw"
        self.starts: Final = make_disk(self.path, [("L", item) for item in members], size=SIZE)
        for item in members:
            item.unlink()

    def _group(self) -> list[Path]:
        folder = self.folder
        root, data = folder / "root", folder / "data"
        self.files["lvm/vg/root"] = make_ext(root, VOLUME)
        data.write_bytes(GARBAGE * (VOLUME // MIB))
        small = ("TEST_DIR=/nowhere", "TEST_DEV=/nowhere", "QA_CHECK_FS=1")
        run("env", *small, "mkfs.xfs", "-q", "-f", "-K", data)
        with mounted(data, "nouuid") as folder_of_it:
            age(folder_of_it)
            self.files["lvm/vg/data"] = tree(folder_of_it)
        volumes = "".join(
            lvm_volume(name, *(linear(count, f"pv{pv}", first) for pv, first, count in places))
            for name, places in (("root", ROOT), ("data", DATA))
        )
        text = lvm_text(volumes, uuids=UUIDS, extents=EXTENTS)
        bodies = []
        for uuid in UUIDS:
            body = lvm_member(uuid, text, MEMBER)
            body[EXTENT:] = (GARBAGE * (MEMBER // MIB))[EXTENT:]
            bodies.append(body)
        for content, places in ((root.read_bytes(), ROOT), (data.read_bytes(), DATA)):
            position = 0
            for pv, first, count in places:
                piece = content[position : position + count * EXTENT]
                bodies[pv][place(first) : place(first) + len(piece)] = piece
                position += len(piece)
        paths = [folder / "pv0", folder / "pv1"]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
        return paths

    def _luks(self) -> Path:
        path = self.folder / "luks-member"
        self.files["luks"] = make_ext(path, 32 * MIB)
        with path.open("ab") as file:
            file.write(bytes(LUKS - 32 * MIB))
        run(
            *("cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "-q"),
            *("--reduce-device-size", "32M", "--force-offline-reencrypt", "--key-file", self.key),
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", path),
        )
        return path

    def _mirror(self) -> list[Path]:
        content = self.folder / "mirror"
        self.files["md5"] = make_ext(content, RAID_DATA)
        paths = []
        for role in (0, 1):
            member = raid_member(content.read_bytes(), role=role)
            paths.append(self.folder / f"leg{role}")
            paths[-1].write_bytes(member.ljust(RAID_MEMBER, b"\xa5"))
        content.unlink()
        return paths


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def restored(program: Program, image: Path) -> Path:
    target = image.with_suffix(".back")
    target.write_bytes(GARBAGE * (SIZE // MIB))
    program.ok("restore", image, target, "--force")
    return target


def volume_of(disk: Path, starts: Sequence[int], places: Sequence[tuple[int, int, int]]) -> bytes:
    """What a logical volume holds, by arithmetic."""
    content = disk.read_bytes()
    return b"".join(
        content[starts[pv] + place(first) : starts[pv] + place(first + count)]
        for pv, first, count in places
    )


def check(path: Path, files: dict[str, str], kind: str = "ext4") -> None:
    """A file system is sound and has its files."""
    if kind == "ext4":
        run("e2fsck", "-fn", path)
    else:
        run("xfs_repair", "-n", path)
    with mounted(path, "ro") as folder:
        assert tree(folder) == files


def holds_all(machine: Machine, disk: Path, folder: Path) -> None:
    starts = machine.starts
    for name, places, kind in (("root", ROOT, "ext4"), ("data", DATA, "xfs")):
        path = folder / name
        path.write_bytes(volume_of(disk, starts, places))
        check(path, machine.files[f"lvm/vg/{name}"], kind)
    content, before = disk.read_bytes(), machine.path.read_bytes()
    for start in starts[3:]:
        leg = folder / "leg"
        leg.write_bytes(content[start + RAID_OFFSET : start + RAID_OFFSET + RAID_DATA])
        check(leg, machine.files["md5"])
        for first, last in ((0, RAID_OFFSET), (RAID_OFFSET + RAID_DATA, RAID_MEMBER)):
            assert content[start + first : start + last] == before[start + first : start + last]
    for start in starts[:2]:  # labels and metadata, and what is behind the last extent
        assert content[start : start + EXTENT] == before[start : start + EXTENT]
        tail = slice(start + place(EXTENTS), start + MEMBER)
        assert content[tail] == before[tail]
    header = slice(starts[2], starts[2] + 16 * MIB)
    assert content[header] == before[header]


@pytest.mark.parametrize("with_passphrase", [True, False])
def test_a_captured_disk_lacks_nothing_but_what_is_free(
    machine: Machine, program: Program, tmp_path: Path, with_passphrase: bool
) -> None:
    """Fails if a block is left out that a volume, its container or its file system needs."""
    image = tmp_path / "disk.qcow2"
    secret = ("--passphrase-file", machine.key) if with_passphrase else ()
    done = program("capture", machine.path, image, "--used", "--json", "--prove", *secret)
    assert done.exit_code == 0, done.err
    free_extents = 2 * EXTENTS - sum(count for *_, count in (*ROOT, *DATA))
    left_out = done.json["left_out"]
    assert left_out > free_extents * EXTENT + 40 * MIB
    disk = restored(program, image)
    holds_all(machine, disk, tmp_path)
    luks = slice(machine.starts[2], machine.starts[2] + LUKS)
    if with_passphrase:
        plain = tmp_path / "plain.raw"
        program.ok("convert", f"{disk}#p3#luks", plain, *secret)
        check(plain, machine.files["luks"])
        assert disk.read_bytes()[luks] != machine.path.read_bytes()[luks]
    else:
        assert "crypto_LUKS is copied" in done.err
        assert disk.read_bytes()[luks] == machine.path.read_bytes()[luks]


def test_volumes_are_read_by_their_address(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if an address leads elsewhere, or a verb does not know it."""
    expected = volume_of(machine.path, machine.starts, ROOT)
    address = f"{machine.path}#lvm/vg/root"
    target = tmp_path / "root.qcow2"
    program.ok("convert", address, target)
    program.ok("compare", address, target)
    digest = hashlib.sha256(expected).hexdigest()
    assert program("hash", address, "--json").json["hashes"]["sha256"] == digest
    lines = program("map", address, "--json").json_lines
    assert sum(item["length"] for item in lines) == VOLUME
    leg = machine.path.read_bytes()[machine.starts[3] + RAID_OFFSET :][:RAID_DATA]
    found = program("hash", f"{machine.path}#md5", "--json").json
    assert found["hashes"]["sha256"] == hashlib.sha256(leg).hexdigest()
    plain = tmp_path / "plain.raw"
    program.ok("convert", f"{machine.path}#luks", plain, "--passphrase-file", machine.key)
    check(plain, machine.files["luks"])
    lines = program("map", address, "--used", "--json").json_lines
    assert any(item["kind"] == "unused" for item in lines)


def test_info_lists_volumes_and_asks_for_nothing(machine: Machine, program: Program) -> None:
    """Fails if a volume is not shown, or a passphrase is wanted for looking."""
    found = program("info", machine.path, "--json").json["volumes"]
    facts = {(item["name"], item["size"], item["filesystem"]) for item in found}
    assert facts == {
        ("lvm/vg/root", VOLUME, "ext4"),
        ("lvm/vg/data", VOLUME, "xfs"),
        ("md5", RAID_DATA, "ext4"),
        ("p3#luks", None, None),
    }
    assert "#lvm/vg/root" in program.ok("info", machine.path).text
    inside = program("info", f"{machine.path}#lvm/vg/root", "--json").json
    assert (inside["size"], inside["filesystem"]) == (VOLUME, "ext4")


@pytest.mark.parametrize(
    ("fragment", "exit_code", "text"),
    [
        ("#lvm/vg/none", 3, "passphrase"),  # it may be in the encrypted volume
        ("#md0", 3, "passphrase"),
        ("#p1#lvm/vg/root", 4, "pv1"),
        ("#p3#lvm/vg/root", 3, "passphrase"),
        ("#p4#luks", 2, "no volume luks"),
        ("#p2#luks", 2, "no volume luks"),
        ("#luks", 3, "passphrase"),
    ],
)
def test_what_is_not_there_is_one_error(
    machine: Machine, program: Program, fragment: str, exit_code: int, text: str
) -> None:
    """Fails if another volume is read instead, or the user is left without a reason."""
    done = program("hash", f"{machine.path}{fragment}")
    assert done.exit_code == exit_code, done.err
    assert text in done.err


def test_volumes_are_never_targets(machine: Machine, program: Program, tmp_path: Path) -> None:
    """Fails if an address of a volume makes or changes a file."""
    program.refuses(2, "convert", machine.path, f"{tmp_path}/x.raw#luks")
    program.refuses(2, "resize", f"{machine.path}#lvm/vg/root", "1G")


def test_files_in_volumes_are_read_by_their_address(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if what is in a group, an array or an encrypted volume cannot be looked into."""
    program.environment["IMPRINT_PASSPHRASE"] = "secret"
    lines = program.ok("ls", machine.path, "--json").json_lines
    prefix = len(f"{machine.path}#")
    named = {line["path"][prefix:].removesuffix(":/"): line["filesystem"] for line in lines}
    assert named == {"lvm/vg/root": "ext4", "lvm/vg/data": "xfs", "p3#luks": "ext4", "md5": "ext4"}
    for number, name in enumerate(("lvm/vg/root", "luks", "md5", "p3#luks")):
        folder = tmp_path / str(number)
        program.ok("cp", "-r", f"{machine.path}#{name}:/", folder)
        assert tree(folder) == machine.files[name.removeprefix("p3#")]
    del program.environment["IMPRINT_PASSPHRASE"]
    program.refuses(3, "ls", f"{machine.path}#luks:/")
    locked = [
        line for line in program.ok("ls", machine.path, "--json").json_lines if line["problem"]
    ]
    assert [line["volume"] for line in locked] == ["p3#luks"]
