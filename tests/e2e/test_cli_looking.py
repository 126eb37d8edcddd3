"""Verbs that only look: info, map, check, verify, hash, compare, measure, formats, doctor."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.extent import Kind
from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

    Documented = Callable[[str, dict[str, Any]], None]

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.mark.oracle("qemu-img", "sfdisk", "mkfs.ext4")
def test_info_names_partitions_and_file_systems(program: Program, documented: Documented) -> None:
    """Fails if a fixed key is missing, or a partition is not where sfdisk put it."""
    raw, image = program.folder / "disk.raw", program.folder / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(32 * MIB)
    table = b"label: gpt\nstart=2048, size=16384, name=data\nstart=20480, size=8192\n"
    oracles.run("sfdisk", "--quiet", raw, stdin=table)
    oracles.run("mkfs.ext4", "-q", "-L", "mine", "-E", f"offset={MIB}", raw, "8192k")
    oracles.convert(raw, image, "qcow2")

    found = program.ok("info", "disk.qcow2", "--json").json

    documented("info", found)
    assert found["format"] == "qcow2"
    assert found["size"] == 32 * MIB
    assert found["stored_size"] == image.stat().st_blocks * 512
    assert found["parent"] is None
    assert found["table"] == "gpt"
    first, second = found["partitions"]
    documented("info", first)
    assert (first["index"], first["start"], first["length"]) == (1, MIB, 8 * MIB)
    assert (first["name"], first["filesystem"], first["filesystem_label"]) == (
        "data",
        "ext4",
        "mine",
    )
    assert first["type"]
    assert (second["index"], second["start"], second["length"]) == (2, 10 * MIB, 4 * MIB)
    assert second["filesystem"] is None

    part = program.ok("info", "disk.qcow2#p1", "--json").json
    assert (part["size"], part["filesystem"]) == (8 * MIB, "ext4")
    people = program.ok("info", "disk.qcow2").text
    assert "ext4" in people
    assert "mine" in people
    program.refuses(2, "info", "disk.qcow2#p9")
    program.refuses(2, "info", "disk.qcow2#px")


@pytest.mark.oracle("qemu-img")
def test_info_agrees_with_qemu(program: Program) -> None:
    """Fails if options, sizes or snapshots are read wrongly."""
    image = program.folder / "disk.qcow2"
    oracles.create(image, 3 * MIB, "qcow2", options={"cluster_size": 4096, "lazy_refcounts": "on"})
    oracles.qemu_img("snapshot", "-c", "first", image)
    found = program.ok("info", "disk.qcow2", "--json").json
    facts = oracles.info(image)
    assert found["size"] == facts["virtual-size"]
    assert found["options"]["cluster_size"] == facts["cluster-size"]
    assert found["options"]["lazy_refcounts"] is True
    assert [item["name"] for item in found["snapshots"]] == ["first"]
    assert "first" in program.ok("info", "disk.qcow2").text


@pytest.mark.oracle("qemu-img")
def test_info_names_a_parent_that_is_missing_or_forbidden(program: Program) -> None:
    """Fails if an image that lies alone cannot be looked at, or all else reads it as zeros."""
    base, overlay = program.folder / "base.qcow2", program.folder / "overlay.qcow2"
    oracles.create(base, 4 * MIB, "qcow2")
    oracles.create(overlay, None, "qcow2", backing=base, backing_format="qcow2")

    found = program.ok("info", "overlay.qcow2", "--json").json
    assert found["parent"] == str(base)
    assert [item["problem"] for item in found["chain"]] == [None, None]

    (program.folder / "elsewhere").mkdir()
    base.rename(program.folder / "elsewhere" / "base.qcow2")
    found = program.ok("info", "overlay.qcow2", "--json").json
    assert found["parent"] == str(base)
    assert found["size"] == 4 * MIB
    assert "no such file" in found["chain"][1]["problem"]
    assert str(base) in program.ok("info", "overlay.qcow2").text
    for verb in ("map", "hash", "verify"):
        program.refuses(3, verb, "overlay.qcow2", "--progress", "none")
    program.ok("map", "overlay.qcow2", "--allow-parent", "elsewhere")


@pytest.mark.oracle("qemu-img")
def test_info_names_a_data_file_that_is_missing(program: Program) -> None:
    """Fails if an image without its data file cannot be looked at, or its data reads as zeros."""
    image, data = program.folder / "x.qcow2", program.folder / "data.raw"
    oracles.create(image, 4 * MIB, "qcow2", options={"data_file": data})
    oracles.qemu_io(image, "qcow2", "write -P 1 0 64k")
    data.unlink()
    found = program.ok("info", "x.qcow2", "--json").json
    assert found["data_file"] == str(data)
    program.refuses(3, "hash", "x.qcow2")


@pytest.mark.oracle("qemu-img")
def test_map_agrees_with_qemu(program: Program, documented: Documented) -> None:
    """Fails if a run is missing, of another kind, or of another image of the chain."""
    base, overlay = program.folder / "base.qcow2", program.folder / "overlay.qcow2"
    oracles.create(base, SIZE, "qcow2")
    oracles.qemu_io(base, "qcow2", "write -P 1 0 1M", "write -P 2 4M 64k")
    oracles.create(overlay, None, "qcow2", backing=base, backing_format="qcow2")
    oracles.qemu_io(overlay, "qcow2", "write -P 3 512k 64k", "write -z 4M 64k")

    runs = program.ok("map", "overlay.qcow2", "--json").json_lines

    for run in runs:
        documented("map", run)
    assert [run["offset"] for run in runs] == _starts(runs)
    assert sum(run["length"] for run in runs) == SIZE
    expected = [
        (item.offset, item.length, item.depth, item.storage_offset)
        for item in oracles.image_map(overlay, "qcow2")
        if item.is_data
    ]
    found = [
        (run["offset"], run["length"], run["depth"], run["storage_offset"])
        for run in runs
        if run["kind"] == "data"
    ]
    assert found == expected
    zeros = [run for run in runs if run["kind"] == "zero"]
    assert [(run["offset"], run["length"], run["depth"]) for run in zeros] == [
        (4 * MIB, 64 * 1024, 0)
    ]
    assert "in the parent" in program.ok("map", "overlay.qcow2").text


@pytest.mark.oracle("qemu-img")
def test_map_says_what_is_compressed(program: Program, disk: Path) -> None:
    """Fails if compressed clusters are taken for plain ones."""
    image = program.folder / "c.qcow2"
    oracles.convert(disk, image, "qcow2", arguments=["-c"])
    text = b"text " * 20_000
    program.ok("convert", "-", "text.qcow2", "-o", "compression=zlib", stdin=text)
    (run,) = [
        run for run in program.ok("map", "text.qcow2", "--json").json_lines if run["kind"] == "data"
    ]
    assert run["compressed"] is True
    assert "storage_offset" not in run


def test_map_of_64_tib_is_one_line(program: Program) -> None:
    """Fails if an empty disk takes time by its size."""
    program.ok("create", "big.qcow2", "64T")
    assert program.ok("map", "big.qcow2", "--json").json_lines == [
        {"offset": 0, "length": 64 << 40, "kind": "hole"}
    ]


def test_map_draws_a_picture(program: Program, disk: Path) -> None:
    """Fails if --picture is not wired, or speaks JSON."""
    text = program.ok("map", disk.name, "--picture").text
    assert "8 MiB" in text
    assert len(text.splitlines()) >= 5


@pytest.mark.oracle("qemu-img", "sfdisk")
def test_map_of_a_partition_counts_from_its_start(program: Program) -> None:
    """Fails if offsets are those of the whole disk."""
    raw, image = program.folder / "disk.raw", program.folder / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(4 * MIB)
        file.seek(2 * MIB)
        file.write(b"x" * MIB)
    oracles.run("sfdisk", "--quiet", raw, stdin=b"label: dos\nstart=2048, size=4096\n")
    oracles.convert(raw, image, "qcow2")
    runs = program.ok("map", "disk.qcow2#p1", "--json").json_lines
    assert [(run["offset"], run["length"], run["kind"]) for run in runs] == [
        (0, MIB, "hole"),
        (MIB, MIB, "data"),
    ]
    assert runs[1]["depth"] == 0


def test_check_of_a_sound_image_finds_nothing(
    program: Program, disk: Path, documented: Documented
) -> None:
    """Fails if a fixed key is missing, or there are false alarms."""
    for name in ("x.qcow2", "x.vdi"):
        program.ok("convert", disk.name, name)
        found = program.ok("check", name, "--json").json
        documented("check", found)
        assert found["findings"] == []
    program.refuses(4, "check", disk.name)


@pytest.mark.oracle("qemu-img")
def test_check_finds_leaks_and_repairs_them(program: Program, disk: Path) -> None:
    """Fails if damage is not told by the exit code, or a repair does not help."""
    image = program.folder / "x.qcow2"
    oracles.convert(disk, image, "qcow2")
    with image.open("r+b") as file:  # a cluster behind the end whose refcount says that it is used
        header = file.read(72)
        table_at = int.from_bytes(header[48:56], "big")
        file.seek(table_at)
        block_at = int.from_bytes(file.read(8), "big")
        clusters = -(-image.stat().st_size // 65536)
        file.seek(block_at + 2 * clusters)
        file.write(b"\0\1")
        file.truncate((clusters + 1) * 65536)
    expected = oracles.qemu_img("check", "-f", "qcow2", image, accept=(3,))
    assert "leaked" in expected.stdout

    result = program("check", "x.qcow2", "--json")
    assert result.exit_code == 1
    (finding,) = result.json["findings"]
    assert finding["severity"] == "warning"
    assert finding["where"]
    assert finding["what"]
    repaired = program.ok("check", "x.qcow2", "--repair", "--json").json
    assert repaired["repaired"] == 1
    oracles.check(image, "qcow2")
    assert program.ok("check", "x.qcow2", "--json").json["findings"] == []


def test_verify_compares_with_what_is_expected(
    program: Program, disk: Path, documented: Documented
) -> None:
    """Fails if a wrong hash passes, or a right one does not."""
    content = disk.read_bytes()
    md5, sha1 = hashlib.md5(content).hexdigest(), hashlib.sha1(content).hexdigest()
    program.ok("convert", disk.name, "x.qcow2")

    good = program.ok(
        *("verify", "x.qcow2", "--expect", f"md5={md5.upper()}", "--expect", f"sha1={sha1}"),
        "--json",
    ).json
    documented("verify", good)
    assert good["ok"] is True
    assert good["hashes"]["md5"] == md5
    assert good["hashes"]["sha256"] == hashlib.sha256(content).hexdigest()

    bad = program("verify", "x.qcow2", "--expect", f"md5={'0' * 32}", "--json")
    assert bad.exit_code == 1
    assert bad.json["ok"] is False
    assert program("verify", "x.qcow2", "--expect", f"md5={'0' * 32}").exit_code == 1
    program.refuses(2, "verify", "x.qcow2", "--expect", "md5=123")
    program.refuses(2, "verify", "x.qcow2", "--expect", "crc=12345678")


@pytest.mark.oracle("qemu-img")
def test_verify_says_where_an_image_is_broken(program: Program) -> None:
    """Fails if damage in the middle hides, or stops the search for more."""
    raw, image = program.folder / "text.raw", program.folder / "text.qcow2"
    raw.write_bytes(b"some text " * 60_000)
    oracles.convert(raw, image, "qcow2", arguments=["-c"])
    runs = oracles.image_map(image, "qcow2")
    assert runs
    content = bytearray(image.read_bytes())
    content[-300:-200] = b"\xff" * 100  # in the last compressed cluster
    image.write_bytes(content)

    result = program("verify", "text.qcow2", "--json")
    assert result.exit_code == 1
    found = result.json
    assert found["ok"] is False
    assert found["hashes"] == {}
    (damage,) = found["damage"]
    assert damage["offset"] % 65536 == 0
    assert damage["offset"] + damage["length"] >= 600_000 - 65536
    assert "damaged" in program("verify", "text.qcow2").text


def test_hash_is_the_same_in_every_format(
    program: Program, disk: Path, documented: Documented
) -> None:
    """Fails if the container is hashed instead of the content."""
    content = disk.read_bytes()
    expected = {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha512")}
    for name in ("disk.raw", "x.qcow2", "x.vdi"):
        if name != disk.name:
            program.ok("convert", disk.name, name)
        found = program.ok("hash", name, "--hash", "sha512,md5", "--json").json
        documented("hash", found)
        assert found["size"] == SIZE
        assert found["hashes"] == expected
    lines = program.ok("hash", "x.vdi", "--hash", "md5").text.split()
    assert lines == ["md5", expected["md5"], "x.vdi"]
    program.refuses(2, "hash", "disk.raw", "--hash", "crc32")


def test_compare_answers_by_its_exit_code(
    program: Program, disk: Path, documented: Documented
) -> None:
    """Fails if a difference is overlooked, or its place is wrong."""
    program.ok("convert", disk.name, "x.qcow2")
    same = program.ok("compare", "disk.raw", "x.qcow2", "--json").json
    documented("compare", same)
    assert same["equal"] is True
    assert same["first_difference"] is None

    other = program.folder / "other.raw"
    content = bytearray(disk.read_bytes())
    content[5 * MIB + 7] = 1
    other.write_bytes(content)
    differs = program("compare", "x.qcow2", "other.raw", "--json")
    assert differs.exit_code == 1
    assert differs.json["equal"] is False
    assert differs.json["first_difference"] == 5 * MIB + 7
    assert str(5 * MIB + 7) in program("compare", "x.qcow2", "other.raw").text


def test_compare_takes_zeros_behind_the_end_for_nothing(program: Program, disk: Path) -> None:
    """Fails if sizes count without --strict, or do not with it."""
    longer = program.folder / "longer.raw"
    longer.write_bytes(disk.read_bytes() + bytes(1000))
    result = program.ok("compare", "disk.raw", "longer.raw")
    assert f"{SIZE}" in result.text
    assert program.ok("compare", "longer.raw", "disk.raw", "--json").json["equal"] is True
    strict = program("compare", "disk.raw", "longer.raw", "--strict", "--json")
    assert strict.exit_code == 1
    assert strict.json["first_difference"] == SIZE
    longer.write_bytes(disk.read_bytes() + b"\0\0x")
    assert program("compare", "disk.raw", "longer.raw", "--json").json["first_difference"] == (
        SIZE + 2
    )


def test_compare_takes_the_formats_of_both(program: Program, disk: Path) -> None:
    """Fails if -f or -F is about the wrong one."""
    program.ok("convert", disk.name, "x.qcow2")
    assert program("compare", "x.qcow2", "disk.raw", "-f", "raw").exit_code == 1
    assert program("compare", "disk.raw", "x.qcow2", "-F", "raw").exit_code == 1
    program.refuses(3, "compare", "disk.raw", "x.qcow2", "-f", "qcow2")
    program.refuses(2, "compare", "-", "-")


@pytest.mark.oracle("qemu-img")
def test_measure_agrees_with_qemu(program: Program, disk: Path, documented: Documented) -> None:
    """Fails if the prediction is not what qemu-img predicts."""
    found = program.ok("measure", disk.name, "-O", "qcow2", "--json").json
    documented("measure", found)
    words = ("measure", "--output=json", "-O", "qcow2")
    expected = json.loads(oracles.qemu_img(*words, "-f", "raw", disk).stdout)
    assert found["required"] == expected["required"]
    assert found["fully_allocated"] == expected["fully-allocated"]
    empty = program.ok("measure", "--size", "1G", "-O", "qcow2", "--json").json
    expected = json.loads(oracles.qemu_img(*words, "--size", "1G").stdout)
    assert empty["required"] == expected["required"]
    assert empty["fully_allocated"] == expected["fully-allocated"]


def test_measure_of_a_raw_image_counts_what_has_to_be_stored(program: Program, disk: Path) -> None:
    """Fails if holes count, or a full image is not as long as the disk."""
    found = program.ok("measure", disk.name, "--json").json
    assert found["format"] == "raw"
    assert 3 * 70_000 <= found["required"] < SIZE
    assert found["fully_allocated"] == SIZE


def test_measure_wants_one_thing_to_measure(program: Program, disk: Path) -> None:
    """Fails if a source and a size are mixed up."""
    program.refuses(2, "measure", "-O", "raw")
    program.refuses(2, "measure", disk.name, "--size", "1G", "-O", "raw")
    program.refuses(2, "measure", "--size", "1X", "-O", "raw")


def test_formats_lists_what_there_is(program: Program, documented: Documented) -> None:
    """Fails if a format or an option is not listed."""
    found = program.ok("formats", "--json").json["formats"]
    assert {"raw", "qcow2", "vdi"} <= {item["name"] for item in found}
    for item in found:
        documented("formats", item)
        one = program.ok("formats", item["name"], "--json").json
        documented("formats", one)
        assert {**item, "options": one["options"]} == one
    text = program.ok("formats", "qcow2").text
    assert "cluster_size" in text
    assert "qcow2" in program.ok("formats").text
    program.refuses(2, "formats", "qcow9")


def test_doctor_is_never_a_failure(program: Program, documented: Documented) -> None:
    """Fails if a missing part is an error, or is not told."""
    found = program.ok("doctor", "--json").json
    documented("doctor", found)
    by_name = {part["name"]: part for part in found["parts"]}
    assert by_name["blake3"]["present"] is True
    without = program("doctor", "--json", environment={"PATH": str(program.folder)})
    assert without.exit_code == 0
    text = program.ok("doctor").text
    assert "cryptography" in text


def test_completion_is_a_script_that_the_shell_takes(program: Program) -> None:
    """Fails if a script has a syntax error, or forgets a verb or an option."""
    for shell in ("bash", "zsh", "fish"):
        script = program.ok("completion", shell).text
        for word in ("capture", "detect-zeros", "qcow2"):
            assert word in script
        if shutil.which(shell) is not None:
            subprocess.run([shell, "-n"], input=script.encode(), check=True)
    program.refuses(2, "completion", "csh")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["imprint", "cap"], "capture"),
        (["imprint", "convert", "--no-d"], "--no-detect-zeros"),
        (["imprint", "convert", "a", "b", "-O", "vd"], "vdi"),
        (["imprint", "map", "--progress", "pl"], "plain"),
        (["imprint", "snapshot", "cr"], "create"),
    ],
)
@pytest.mark.oracle("bash")
def test_bash_completes(program: Program, words: list[str], expected: str) -> None:
    """Fails if the script runs and completes nothing."""
    (program.folder / "script").write_bytes(program.ok("completion", "bash").out)
    line = " ".join(words)
    asked = (
        f"source ./script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        '_imprint; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", asked], cwd=program.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected]


def _starts(runs: list[dict[str, Any]]) -> list[int]:
    starts, position = [], 0
    for run in runs:
        starts.append(position)
        position += run["length"]
    return starts


def test_kinds_of_a_map_are_those_that_are_documented() -> None:
    """Fails if a kind is added and the contract does not know it."""
    assert {kind.value for kind in Kind} - {"encoded"} == {
        *("data", "zero", "hole", "unused", "bad")
    }
