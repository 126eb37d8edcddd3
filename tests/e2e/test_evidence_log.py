"""The log of a capture that is evidence, as the examiner finds it beside the image."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import pytest

from imprint.testing import oracles
from imprint.testing.volumes import attached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.program import Program

MIB: Final = 1 << 20
SPACE: Final = "{http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML}"
SCHEMA: Final = Path(__file__).parents[1] / "data" / "dfxml_schema" / "dfxml.xsd"


def _log(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.log.json").read_bytes())
    return found


def _runs(path: Path, kind: str | None) -> list[tuple[int, int]]:
    runs = ET.parse(path).iter(f"{SPACE}byte_run")
    return [
        (int(run.attrib["img_offset"]), int(run.attrib["len"]))
        for run in runs
        if run.get("type") == kind
    ]


def test_ao_23_the_log_says_what_was_done(program: Program, disk: Path) -> None:
    """Fails if the log of an acquisition lacks a fact, or has a wrong one."""
    words = ["--case-number", "2026/7", "--examiner", "A. B.", "--hash", "md5,sha256,blake3"]
    program.ok("capture", disk.name, "disk.E01", *words, "--verify")
    log = _log(program.folder, "disk.E01")
    content = disk.read_bytes()
    read = log["hashes"]["read"]
    assert read["md5"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert read["sha256"] == hashlib.sha256(content).hexdigest()
    assert log["hashes"]["stored"] == read
    assert log["size"] == len(content)
    assert log["case"] == {"case_number": "2026/7", "examiner": "A. B."}
    assert log["command_line"][1:4] == ["capture", "disk.raw", "disk.E01"]
    assert log["source"]["file"]["path"] == str(disk)
    assert log["environment"]["host"] == os.uname().nodename
    assert (log["result"], log["exit_code"], log["bad"]) == ("done", 0, [])
    assert log["started"] <= log["ended"]
    text = (program.folder / "disk.E01.log.txt").read_text()
    for fact in (read["md5"], read["sha256"], read["blake3"], "2026/7", "A. B.", str(disk)):
        assert fact in text
    assert _runs(program.folder / "disk.E01.dfxml", None) == [(0, len(content))]
    said = program.ok("info", "disk.E01").text
    assert "2026/7" in said
    assert "A. B." in said


@pytest.mark.root
def test_ao_23_ao_24_a_failing_device_is_logged_and_left_as_it_is(program: Program) -> None:
    """Fails if bad areas are not logged exactly, or the source changes."""
    backing = program.folder / "failing"
    backing.write_bytes(b"\x77" * 8 * MIB)
    with attached(backing) as loop:
        with backing.open("r+b") as file:
            file.truncate(5 * MIB)  # what is behind it now fails to read
        before = hashlib.sha256(backing.read_bytes()).hexdigest(), backing.stat().st_mtime_ns
        result = program("capture", loop, "out.raw", "--log")
        after = hashlib.sha256(backing.read_bytes()).hexdigest(), backing.stat().st_mtime_ns
        facts = _log(program.folder, "out.raw")["source"]["medium"]
        sector = oracles.run("blockdev", "--getss", loop).stdout.strip()
    assert result.exit_code == 6
    assert before == after
    assert facts["logical_sector"] == int(sector)
    assert facts["size"] == 8 * MIB
    assert facts["transport"] == "virtual"
    assert facts["serial"] == "unknown"
    log = _log(program.folder, "out.raw")
    assert log["bad"] == [
        {
            "offset": 5 * MIB,
            "length": 3 * MIB,
            "first_sector": 5 * MIB // 512,
            "last_sector": 8 * MIB // 512 - 1,
        }
    ]
    assert log["exit_code"] == 6
    assert log["smart"] == {"before": None, "after": None} or log["smart"]["before"]["device"]
    assert _runs(program.folder / "out.raw.dfxml", "unreadable") == [(5 * MIB, 3 * MIB)]
    text = (program.folder / "out.raw.log.txt").read_text()
    assert f"sectors 10240 to 16383 of 512 bytes: {3 * MIB} bytes at {5 * MIB}" in text


@pytest.mark.root
def test_am_07_hidden_sectors_are_reported(program: Program, tmp_path: Path) -> None:
    """Fails if a drive that says that it hides sectors passes for a whole one.

    The drive is a loop device, and the ``hdparm`` that is found first says what the real one says
    of a drive with a host protected area.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    hdparm = tools / "hdparm"
    hdparm.write_text(
        '#!/bin/sh\n[ "$1" = -N ] || exit 5\n'
        'echo " max sectors   = 78125000/78165360, HPA is enabled"\n'
    )
    hdparm.chmod(0o755)
    (tmp_path / "disk").write_bytes(bytes(MIB))
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    with attached(tmp_path / "disk") as loop:
        result = program("capture", loop, "out.E01", environment=path)
    assert result.exit_code == 0
    assert any("40360 sectors are hidden by HPA" in line for line in result.messages)
    log = _log(tmp_path, "out.E01")
    assert log["hidden_areas"]["protected_sectors"] == 40360
    assert log["hidden_areas"]["overlaid_sectors"] == "unknown"
    assert any("hidden by HPA" in found["what"] for found in log["findings"])
    assert "hidden by HPA" in (tmp_path / "out.E01.log.txt").read_text()


@contextlib.contextmanager
def _begun(program: Program, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A capture that has begun, and for which there is a lot to do: noise compresses slowly."""
    big = program.folder / "big.raw"
    if not big.exists():
        big.write_bytes(random.Random(3).randbytes(MIB) * 48)
    log = program.folder / f"{name}.log.json"
    with program.start("capture", big, name, "-o", "compression=best") as process:
        try:
            while process.poll() is None and not log.exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
            assert _log(program.folder, name)["result"] == "unfinished"
            yield process
        finally:
            process.kill()


def test_ao_23_an_interrupted_capture_leaves_its_log(program: Program) -> None:
    """Fails if the log of an acquisition that was stopped, or killed, is lost."""
    with _begun(program, "killed.E01") as killed:
        killed.kill()
        killed.communicate()
    assert _log(program.folder, "killed.E01")["exit_code"] is None

    with _begun(program, "stopped.E01") as stopped:
        stopped.send_signal(signal.SIGINT)
        stopped.send_signal(signal.SIGCONT)
        stopped.communicate()
    assert stopped.returncode == 130
    log = _log(program.folder, "stopped.E01")
    assert (log["result"], log["exit_code"]) == ("interrupted", 130)
    assert "interrupted" in (program.folder / "stopped.E01.log.txt").read_text()


def test_ao_23_several_targets_and_pieces_are_logged(program: Program, disk: Path) -> None:
    """Fails if the log knows one target only, or lacks the hashes of pieces."""
    words = ["--also", "copy.qcow2", "--piecewise", "4M", "--hash", "sha256", "--verify"]
    program.ok("capture", disk.name, "disk.E01", *words)
    log = _log(program.folder, "disk.E01")
    assert [item["target"] for item in log["targets"]] == ["disk.E01", "copy.qcow2"]
    content = disk.read_bytes()
    halves = [hashlib.sha256(half).hexdigest() for half in (content[: 4 * MIB], content[4 * MIB :])]
    assert [piece["hashes"]["sha256"] for piece in log["pieces"]] == halves
    text = (program.folder / "disk.E01.log.txt").read_text()
    assert "copy.qcow2" in text
    assert all(digest in text for digest in halves)
    runs = [(0, 8 * MIB), (0, 4 * MIB), (4 * MIB, 4 * MIB)]
    assert _runs(program.folder / "disk.E01.dfxml", None) == runs


def test_what_went_before_stays_in_the_log(program: Program, disk: Path) -> None:
    """Fails if a second session hides the first, or a refused one changes the log."""
    program.ok("capture", disk.name, "disk.E01", "--notes", "first")
    log = program.folder / "disk.E01.log.json"
    content = log.read_bytes()
    program.refuses(5, "capture", disk.name, "disk.E01", "--notes", "refused")
    assert log.read_bytes() == content
    program.ok("capture", disk.name, "disk.E01", "--notes", "second", "--force")
    found = _log(program.folder, "disk.E01")
    assert found["case"] == {"notes": "second"}
    assert [session["case"] for session in found["earlier"]] == [{"notes": "first"}]
    assert "an earlier session" in (program.folder / "disk.E01.log.txt").read_text()
    edited = {**found, "bad": [{"offset": "edited"}], "earlier": [7]}
    log.write_text(json.dumps(edited))
    program.ok("capture", disk.name, "disk.E01", "--force")
    assert "edited" in (program.folder / "disk.E01.log.txt").read_text()


def test_a_file_that_is_no_log_is_not_replaced(program: Program, disk: Path) -> None:
    """Fails if somebody's file is lost to the log, or a foreign one is believed."""
    theirs = program.folder / "disk.E01.dfxml"
    theirs.write_text("theirs")
    said = program.refuses(5, "capture", disk.name, "disk.E01")
    assert "disk.E01.dfxml" in said[0]
    assert theirs.read_text() == "theirs"
    assert not (program.folder / "disk.E01").exists()
    program.ok("capture", disk.name, "disk.E01", "--no-log")
    assert theirs.read_text() == "theirs"
    program.ok("capture", disk.name, "other.E01", "--log-to", "log")
    assert (program.folder / "log.log.txt").exists()
    assert not (program.folder / "other.E01.log.txt").exists()


def test_ordinary_captures_have_no_log(program: Program, disk: Path) -> None:
    """Fails if every image is littered with logs that nobody asked for."""
    program.ok("capture", disk.name, "disk.qcow2")
    program.ok("capture", disk.name, "disk.E01", "--dry-run")
    assert sorted(path.name for path in program.folder.iterdir()) == ["disk.qcow2", "disk.raw"]
    program.refuses(2, "capture", disk.name, "-", "--notes", "where?")
    program.refuses(2, "capture", disk.name, "a.raw", "--no-log", "--log-to", "b")
    program.refuses(5, "capture", disk.name, "a.raw", "--log-to", "absent/b")


def test_secrets_do_not_reach_the_log(program: Program) -> None:
    """Fails if the log gives away a password, or the key in a signed URL."""
    url = "http://me:hunter2@localhost:9/disk.raw?X-Signature=hunter3"
    result = program("capture", url, "disk.E01", environment={"IMPRINT_PASSPHRASE": "hunter4"})
    assert result.exit_code == 8
    logs = [path.read_text() for path in program.folder.glob("disk.E01.*")]
    assert len(logs) == 3
    assert not [text for text in logs if "hunter" in text]
    assert _log(program.folder, "disk.E01")["result"] == "failed"


@pytest.mark.oracle("xmllint")
def test_the_dfxml_is_valid(program: Program, disk: Path) -> None:
    """Fails if other tools cannot read it: dfxml-working-group/dfxml_schema 2.0.0-beta.0."""
    words = ["--description", "a \x01 <&> \U0001f4be", "--hash", "md5,blake3", "--piecewise", "4M"]
    program.ok("capture", disk.name, "disk.E01", *words)
    program("capture", "http://localhost:9/disk.raw", "failed.E01")
    paths = list(program.folder.glob("*.dfxml"))
    assert len(paths) == 2
    for path in paths:
        _check_valid(path)
    wrong = program.folder / "wrong.xml"
    wrong.write_text(paths[0].read_text().replace("<image_filename>", "<image_file>", 1))
    with pytest.raises(AssertionError):
        _check_valid(wrong)


def _check_valid(path: Path) -> None:
    done = subprocess.run(
        ["xmllint", "--noout", "--nonet", "--schema", SCHEMA, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
