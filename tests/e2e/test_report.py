"""Reports, against The Sleuth Kit's own, the published schema, and the bytes of the disk."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from xml.etree import ElementTree as ET

import pytest

from imprint.testing.containers import linear, lvm_member, lvm_text, lvm_volume
from imprint.testing.oracles import run
from imprint.testing.volumes import fill, make_disk, mounted

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.testing.program import Program

pytest.importorskip("pytsk3")

MIB: Final = 1 << 20
TIME: Final = 1_600_000_001
SPACE: Final = "{http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML}"
SCHEMA: Final = Path(__file__).parents[1] / "data" / "dfxml_schema" / "dfxml.xsd"
OWN: Final = "{urn:imprint:report:1}"
_COMPARED: Final = ["name_type", "filesize", "inode", "meta_type", "mode", "nlink", "uid", "gid"]
_TIMES: Final = ["mtime", "ctime", "atime", "crtime"]


class File(NamedTuple):
    """What a report says of a file.

    Attributes:
        facts: text of its elements.
        times: to the second.
        runs: attributes of its byte runs.
        hashes: by type; by their own name, if the schema has none for it.
    """

    facts: dict[str, str | None]
    times: list[str]
    runs: list[dict[str, str]]
    hashes: dict[str, str | None]

    @property
    def error(self) -> str | None:
        """Why it could not be read."""
        return self.facts["error"]


def files_of(document: Path, volume: int = 0) -> dict[str, File]:
    """The files of a volume in a report, by name; not ``.`` and ``..``."""
    found: dict[str, File] = {}
    element = list(ET.parse(document).getroot().iter(f"{SPACE}volume"))[volume]
    for item in element.iter(f"{SPACE}fileobject"):
        name = item.findtext(f"{SPACE}filename") or ""
        if name.rpartition("/")[2] in (".", ".."):
            continue
        tags = [*_COMPARED, "error", "alloc", "alloc_inode", "alloc_name", "link_target"]
        found[name] = File(
            {tag: item.findtext(f"{SPACE}{tag}") for tag in tags},
            [(item.findtext(f"{SPACE}{tag}") or "")[:19] for tag in _TIMES],
            [dict(part.attrib) for part in item.iter(f"{SPACE}byte_run")],
            {
                (part.get(f"{OWN}algorithm") or part.get("type") or ""): part.text
                for part in item.iter(f"{SPACE}hashdigest")
            },
        )
    return found


def block_size_of(document: Path) -> str | None:
    """Of the first volume of a report."""
    return ET.parse(document).getroot().findtext(f".//{SPACE}volume/{SPACE}block_size")


def check_schema(document: Path) -> None:
    """Raises if a document is none of the published schema."""
    run("xmllint", "--noout", "--nonet", "--schema", SCHEMA, document)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small and large files, empty and sparse ones, names that XML has to escape."""
    top = tmp_path / "tree"
    fill(top_folder := _made(top), seed=5, size=3 * MIB)
    (top_folder / "a & <b> \"c\" 'd'").write_text("x")
    (top_folder / "Grüße").write_bytes(b"y" * 5000)
    (top_folder / "empty").touch()
    os.link(top_folder / "Grüße", top_folder / "second name")
    for item in (*top.rglob("*"), top):
        os.utime(item, (TIME, TIME), follow_symlinks=False)
    return top


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def ext4(tree: Path, image: Path) -> None:
    run("mkfs.ext4", "-q", "-F", "-b", "1024", "-d", tree, image, "16M")


def fat(tree: Path, image: Path) -> None:
    run("mkfs.vfat", "-C", image, "16384")
    chosen = [
        item for item in sorted(tree.iterdir()) if not item.is_symlink() and "<" not in item.name
    ]
    run("mcopy", "-s", "-m", "-i", image, *chosen, "::")


MADE: Final = [
    pytest.param(ext4, marks=pytest.mark.oracle("mkfs.ext4"), id="ext4"),
    pytest.param(fat, marks=pytest.mark.oracle("mkfs.vfat", "mcopy"), id="vfat"),
]


@pytest.mark.oracle("fiwalk", "xmllint")
@pytest.mark.parametrize("make", MADE)
def test_every_file_is_as_fiwalk_tells_it(
    program: Program, tree: Path, make: Callable[[Path, Path], None]
) -> None:
    """Fails if a name, size, time, place or hash differs from what ``fiwalk`` says."""
    image = program.folder / "image.raw"
    make(tree, image)
    run("fiwalk", "-X", program.folder / "theirs.xml", image)
    program.ok("report", image, "-o", "ours.xml", "--deleted", "--progress", "none")
    check_schema(program.folder / "ours.xml")
    ours = files_of(program.folder / "ours.xml")
    theirs = files_of(program.folder / "theirs.xml")
    assert set(ours) == set(theirs)
    sizes = [block_size_of(program.folder / name) for name in ("ours.xml", "theirs.xml")]
    assert sizes[0] == sizes[1]
    for name, expected in theirs.items():
        found = ours[name]
        for tag in _COMPARED:
            assert found.facts[tag] == expected.facts[tag], (name, tag)
        assert found.times == expected.times, name
        if found.facts["name_type"] != "r":
            continue
        assert found.runs == expected.runs, name
        if found.facts["filesize"] != "0":  # of which it takes none
            assert found.hashes == expected.hashes, name


@pytest.mark.oracle("fiwalk", "mkntfs", "ntfscp", "xmllint")
def test_ntfs_is_as_fiwalk_tells_it(program: Program) -> None:
    """Fails if what lies in records of the MFT, or in many runs, has other bytes or places."""
    image = program.folder / "image.raw"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkntfs", "-q", "-F", "-s", "512", "-p", "0", "-H", "255", "-S", "63", image)
    contents = {
        "small": b"resident" * 9,
        "large": bytes(range(256)) * 3000,
        **{f"of {size} bytes": os.urandom(size) for size in (1, 8, 9, 511, 640, 700)},
    }
    for name, content in contents.items():
        (program.folder / name).write_bytes(content)
        run("ntfscp", "-f", "-q", image, program.folder / name, name)
    (program.folder / "note").write_bytes(b"a stream")
    for name in ("large", "$BadClus"):
        run("ntfscp", "-f", "-q", "-N", "side", image, program.folder / "note", name)
    run("fiwalk", "-X", program.folder / "theirs.xml", image)
    program.ok("report", image, "-o", "ours.xml")
    check_schema(program.folder / "ours.xml")
    ours, theirs = (files_of(program.folder / name) for name in ("ours.xml", "theirs.xml"))
    for name in (*contents, "$MFT", "$LogFile", "$Bitmap", "$UpCase"):
        assert ours[name].hashes == theirs[name].hashes, name
        for tag in _COMPARED:
            assert ours[name].facts[tag] == theirs[name].facts[tag], (name, tag)
    assert ours["large"].runs == theirs["large"].runs
    assert block_size_of(program.folder / "ours.xml") == "4096"
    assert [part["type"] for part in ours["small"].runs] == ["resident"]
    side = hashlib.md5(b"a stream", usedforsecurity=False).hexdigest()
    assert ours["large:side"].hashes["md5"] == side
    assert ours["$BadClus:side"].hashes["md5"] == side  # a good place to hide something
    # As large as the volume, and a hole: hashing it would take as long as hashing a full disk.
    bad = ours["$BadClus:$Bad"]
    assert int(bad.facts["filesize"] or 0) == 16 * MIB - 4096
    assert [part.get("fill") for part in bad.runs] == ["0"]
    assert bad.hashes == {}


@pytest.mark.root
@pytest.mark.oracle("mkfs.ext4", "mkfs.vfat", "mcopy", "sfdisk", "xmllint")
def test_hashes_are_those_of_mounted_files_and_runs_lead_to_their_bytes(
    program: Program, tree: Path, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if a hash is not that of the file, or offsets on the disk lead elsewhere."""
    ext4(tree, program.folder / "one")
    fat(tree, program.folder / "two")
    disk = program.folder / "disk.raw"
    make_disk(
        disk,
        [
            ("L", program.folder / "one"),
            ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", program.folder / "two"),
        ],
        size=40 * MIB,
    )
    done = program.ok(
        "report", disk, "-o", "out.xml", "--hash", "sha256,blake3", "--json", "--progress", "none"
    ).json
    documented("report", done)
    assert [volume["filesystem"] for volume in done["volumes"]] == ["ext4", "vfat"]
    assert done["unreadable"] == 0
    check_schema(program.folder / "out.xml")
    content = disk.read_bytes()
    for number, volume in enumerate(("one", "two")):
        ours = files_of(program.folder / "out.xml", number)
        with mounted(program.folder / volume, "ro") if volume == "one" else _none() as point:
            top = point or tree
            for path in top.rglob("*"):
                name = str(path.relative_to(top))
                if path.is_symlink() or not path.is_file() or name not in ours:
                    assert path.is_symlink() or path.is_dir() or volume == "two", name
                    continue
                found = ours.pop(name)
                data = path.read_bytes()
                assert found.hashes["sha256"] == hashlib.sha256(data).hexdigest(), name
                assert len(found.hashes["blake3"] or "") == 64
                assert _assembled(content, found.runs) == data, name
        assert not [name for name, left in ours.items() if left.facts["name_type"] == "r"]


class _none:  # noqa: N801 - a context like the other one
    """No mount: the kernel has no FAT here."""

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, *exc: object) -> None:
        """Nothing."""


def _assembled(disk: bytes, runs: list[dict[str, str]]) -> bytes:
    """A file put together by what a report says of its places on the disk."""
    parts = []
    for part in runs:
        length = int(part["len"])
        if "fill" in part:
            parts.append(bytes(length))
        else:
            start = int(part["img_offset"])
            parts.append(disk[start : start + length])
    return b"".join(parts)


@pytest.mark.oracle("mkfs.ext4")
def test_places_in_a_volume_group_are_told_by_the_disk(program: Program, tree: Path) -> None:
    """Fails if a file of a logical volume is said to lie where it does not."""
    volume = program.folder / "root"
    ext4(tree, volume)
    extent, count = 64 << 10, 16 * MIB // (64 << 10)
    text = lvm_text(lvm_volume("root", linear(count, "pv0", 0)), uuids=("a" * 32,), extents=count)
    group = lvm_member("a" * 32, text, (count + 1) * extent)
    group[extent:] = volume.read_bytes()
    image = program.folder / "group.img"
    image.write_bytes(group)
    program.ok("report", image, "-o", "out.xml", "--hash", "sha256")
    content = image.read_bytes()
    names = 0
    for name, found in files_of(program.folder / "out.xml").items():
        if found.facts["name_type"] == "r":
            data = _assembled(content, found.runs)
            assert found.hashes["sha256"] == hashlib.sha256(data).hexdigest(), name
            assert data == (tree / name).read_bytes()
            names += 1
    assert names > 10


def _body(text: str) -> list[str]:
    """Lines of a body file, in an order of their own, without where long links lead.

    ``fls`` shows only what it finds in the inode itself.
    """
    return sorted(re.sub(r" -> x{61,}", "", line) for line in text.splitlines())


@pytest.mark.oracle("fls")
@pytest.mark.parametrize("make", MADE)
def test_the_body_file_is_that_of_fls(
    program: Program, tree: Path, make: Callable[[Path, Path], None]
) -> None:
    """Fails if a line of the timeline is not what ``fls -m`` says."""
    image = program.folder / "image.raw"
    make(tree, image)
    program.ok("report", image, "--timeline", "out.body", "--deleted")
    theirs = run("fls", "-r", "-m", "/", image).stdout
    assert _body((program.folder / "out.body").read_text()) == _body(theirs)
    program.ok("report", image, "--timeline", "live.body")
    theirs = run("fls", "-r", "-u", "-m", "/", image).stdout
    expected = [line for line in _body(theirs) if "$OrphanFiles" not in line]
    assert _body((program.folder / "live.body").read_text()) == expected


@pytest.mark.oracle("mactime", "mkfs.ext4")
def test_the_csv_has_the_events_of_mactime(program: Program, tree: Path) -> None:
    """Fails if an event is missing, at another time, or in no order."""
    image = program.folder / "image.raw"
    ext4(tree, image)
    program.ok("report", image, "--timeline", "out.csv")
    program.ok("report", image, "--timeline", "out.body", "--timeline-format", "body")
    theirs = run("mactime", "-y", "-d", "-z", "UTC", "-b", program.folder / "out.body").stdout
    expected = set()
    for line in theirs.splitlines()[1:]:
        when, size, macb, *_ = line.split(",")
        expected.add((when[:19], size, macb, line.split(",")[6]))
    lines = (program.folder / "out.csv").read_text().splitlines()
    assert lines[0] == "time,macb,size,type,mode,uid,gid,inode,deleted,volume,path"
    events = [line.split(",") for line in lines[1:]]
    assert events == sorted(events)
    found = {(e[0][:19], e[2], e[1], e[7]) for e in events if e[10] != "/"}
    # mactime goes by whole seconds: what is apart by less is one event there.
    assert {event[0] for event in expected} == {event[0] for event in found}
    assert {(when, inode) for when, _, _, inode in expected} == {
        (when, inode) for when, _, _, inode in found
    }


@pytest.mark.oracle("mkfs.ext4", "xmllint")
def test_names_that_are_no_text_are_told(program: Program) -> None:
    """Fails if a hostile name makes a document that is none, or a line of a timeline two."""
    tree = program.folder / "tree"
    (tree / "<").mkdir(parents=True)
    names = [b"bad\xff\xfe", b"new\nline", b"\x01\x1b[31m", b"]]>", b"&amp;", "\u202egpj".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(b"1")
    image = program.folder / "image.raw"
    run("mkfs.ext4", "-q", "-F", "-d", tree, image, "4M")
    program.ok("report", image, "-o", "o.xml", "--timeline", "t.body", "--html", "p.html")
    check_schema(program.folder / "o.xml")
    found = set(files_of(program.folder / "o.xml"))
    wanted = {"bad\\xff\\xfe", "new\\x0aline", "\\x01\\x1b[31m", "]]>", "&amp;", "\u202egpj", "<"}
    assert found == {*wanted, "lost+found"}
    assert len((program.folder / "t.body").read_text().splitlines()) == len(found)
    program.ok("report", image, "--timeline", "t.csv")
    csv = (program.folder / "t.csv").read_text()
    assert "\u202e" not in csv
    assert all(line.startswith(("time,", "2")) for line in csv.splitlines())


@pytest.mark.oracle("mkfs.ext4")
def test_nothing_is_replaced_unasked_and_nothing_is_left(program: Program, tree: Path) -> None:
    """Fails if a file is lost, or a report that failed leaves a part of one."""
    image = program.folder / "image.raw"
    ext4(tree, image)
    (program.folder / "out.xml").write_text("mine")
    before = set(program.folder.iterdir())
    assert program("report", image, "--html", "new.html", "-o", "out.xml").exit_code == 5
    assert program("report", image, "-o", "new.xml", "--html", "new.xml").exit_code == 2
    assert program("report", f"{image}:/folder1", "-o", "new.xml").exit_code == 2
    assert program("report", image, "--timeline-format", "csv").exit_code == 2
    assert program("report", image, "--json").exit_code == 2
    assert (program.folder / "out.xml").read_text() == "mine"
    assert set(program.folder.iterdir()) == before
    program.ok("report", image, "-o", "out.xml", "--force")
    assert "</dfxml>" in (program.folder / "out.xml").read_text()
    assert set(program.folder.iterdir()) == before


@pytest.mark.oracle("mkfs.ext4", "xmllint")
def test_without_a_file_it_goes_to_standard_output(program: Program, tree: Path) -> None:
    """Fails if anything but the document is there, or what is in it depends on where it goes."""
    image = program.folder / "image.raw"
    ext4(tree, image)
    text = program.ok("report", image, "--hash", "none").text
    (program.folder / "piped.xml").write_text(text)
    check_schema(program.folder / "piped.xml")
    assert not any(file.hashes for file in files_of(program.folder / "piped.xml").values())


@pytest.mark.oracle("mkfs.ext4")
def test_a_dash_is_standard_output(program: Program, tree: Path) -> None:
    """Fails if a file of that name is made, or two outputs are mixed in one stream."""
    ext4(tree, program.folder / "image")
    written = program.ok("report", "image", "-o", "-", "--timeline", "out.body")
    assert ET.fromstring(written.text).tag.rpartition("}")[2] == "dfxml"
    assert (program.folder / "out.body").exists()
    assert not (program.folder / "-").exists()
    for option in ("--timeline", "--html"):
        assert program("report", "image", option, "-").exit_code == 2
    assert program("report", "image", "-o", "-", "--json").exit_code == 2
    program.ok("report", "image", "-o", "./-")
    assert ET.parse(program.folder / "-").getroot().tag.rpartition("}")[2] == "dfxml"


def test_a_disk_without_files_is_refused(program: Program, disk: Path) -> None:
    """Fails if a report of nothing passes for one."""
    result = program("report", disk, "-o", "out.xml")
    assert result.exit_code == 4
    assert not (program.folder / "out.xml").exists()


@pytest.mark.root
@pytest.mark.oracle("mkfs.ext4", "xmllint")
def test_files_on_bad_sectors_have_an_error_and_no_hash(program: Program) -> None:
    """Fails if a file that cannot be read ends the report, or passes for one that can."""
    tree = program.folder / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"file{number:02}").write_bytes(bytes([number + 1]) * 100_000)
    image = program.folder / "image.raw"
    ext4(tree, image)
    program.ok("report", image, "-o", "whole.xml")
    whole = files_of(program.folder / "whole.xml")
    places = {
        name: (int(file.runs[0]["img_offset"]), int(file.runs[-1]["img_offset"]) + 100_000)
        for name, file in whole.items()
        if name.startswith("file")
    }
    bad = max(places.values())[0] - 3 * MIB
    device = run("losetup", "--find", "--show", image).stdout.strip()
    try:
        with image.open("r+b") as backing:
            backing.truncate(bad)
        result = program("report", device, "-o", "bad.xml")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert result.exit_code == 6
    check_schema(program.folder / "bad.xml")
    found = files_of(program.folder / "bad.xml")
    failed = {name for name, file in found.items() if file.error}
    # Near the place where it was cut off, the kernel reads some blocks at once, or makes zeros.
    assert {name for name, (start, _) in places.items() if start > bad + MIB} <= failed
    assert failed <= {name for name, (_, end) in places.items() if end > bad - MIB}
    assert not any(found[name].hashes for name in failed)
    for name, (_, end) in places.items():
        if end <= bad - MIB:
            assert found[name].hashes == whole[name].hashes, name
