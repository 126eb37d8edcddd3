"""capture --unlock-hpa, with the real ``hdparm`` and a drive that is not there.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-07 (all hidden sectors).
"""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.errors import UnsupportedFeatureError
from imprint.endpoints import asking_medium
from imprint.endpoints.unlocking import Unlocking
from imprint.storage.device_facts import System
from imprint.testing import oracles
from imprint.testing.ata_drive import SECTOR, drive

if TYPE_CHECKING:
    from imprint.testing.ata_drive import Drive
    from imprint.testing.program import Program

pytestmark = [pytest.mark.root, pytest.mark.oracle("hdparm", "losetup")]

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(3 * MIB)
NATIVE = len(CONTENT) // SECTOR
VISIBLE = 2 * MIB // SECTOR
BOTH_WAYS = [
    {"sectors": NATIVE, "is_for_ever": False},
    {"sectors": VISIBLE, "is_for_ever": False},
]


def _log(folder: Path, name: str = "out.E01") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.log.json").read_bytes())
    return found


def _is_as_before(hidden: Drive) -> bool:
    size = oracles.run("blockdev", "--getsize64", hidden.device).stdout.strip()
    return hidden.state["visible"] == VISIBLE and int(size) == 2 * MIB


def test_am_07_hidden_sectors_are_imaged_and_hidden_again(program: Program, tmp_path: Path) -> None:
    """Fails if a hidden sector is not in the image, or the drive is left changed, or for ever."""
    with drive(tmp_path, CONTENT, visible=VISIBLE, real=NATIVE + 100) as hidden:
        words = ("capture", hidden.device, "out.E01", "--verify", "--unlock-hpa")
        result = program(*words, environment=hidden.environment)
        assert result.exit_code == 0, result.err
        assert hidden.state["commands"] == BOTH_WAYS
        assert _is_as_before(hidden)
    assert "100 sectors are hidden by DCO" in result.err
    assert "hidden by HPA" not in result.err
    program.ok("convert", "out.E01", "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == CONTENT
    log = _log(tmp_path)
    unlocked = log["unlocked"]
    assert (unlocked["from_sectors"], unlocked["to_sectors"]) == (VISIBLE, NATIVE)
    assert log["started"] <= unlocked["unlocked_at"] <= unlocked["hidden_at"] <= log["ended"]
    assert log["size"] == len(CONTENT)
    assert log["source"]["medium"]["size"] == 2 * MIB
    assert "hidden at:" in (tmp_path / "out.E01.log.txt").read_text()


def test_without_the_option_the_drive_stays_as_it_is(program: Program, tmp_path: Path) -> None:
    """AM-07: fails if a drive is changed unasked, or a hidden area goes unmentioned."""
    with drive(tmp_path, CONTENT, visible=VISIBLE) as hidden:
        result = program("capture", hidden.device, "out.E01", environment=hidden.environment)
        dry = ("capture", hidden.device, "dry.E01", "--unlock-hpa", "--dry-run")
        assert program(*dry, environment=hidden.environment).exit_code == 0
        assert hidden.state["commands"] == []
    assert result.exit_code == 0
    assert f"{NATIVE - VISIBLE} sectors are hidden by HPA" in result.err
    assert _log(tmp_path)["size"] == 2 * MIB


def test_a_drive_that_hides_nothing_is_imaged_as_usual(program: Program, tmp_path: Path) -> None:
    """Fails if the option may not be given always."""
    with drive(tmp_path, CONTENT, visible=NATIVE) as whole:
        words = ("capture", whole.device, "out.E01", "--unlock-hpa")
        result = program(*words, environment=whole.environment)
        assert result.exit_code == 0, result.err
        assert whole.state["commands"] == []
    assert "unlocked" not in _log(tmp_path)


def test_the_limit_is_set_back_after_an_error(program: Program, tmp_path: Path) -> None:
    """Fails if a capture that fails leaves the drive changed."""
    (tmp_path / "there.raw").write_bytes(b"x")
    with drive(tmp_path, CONTENT, visible=VISIBLE) as hidden:
        words = ("capture", hidden.device, "there.raw", "--unlock-hpa")
        result = program(*words, environment=hidden.environment)
        assert result.exit_code == 5
        assert hidden.state["commands"] == BOTH_WAYS
        assert _is_as_before(hidden)
    assert _log(tmp_path, "there.raw")["unlocked"]["hidden_at"] is not None


def test_the_limit_is_set_back_after_ctrl_c(program: Program, tmp_path: Path) -> None:
    """Fails if an interrupted capture leaves the drive changed."""
    with drive(tmp_path, CONTENT * 12, visible=VISIBLE) as hidden:
        program.environment.update(hidden.environment)
        words = ("capture", hidden.device, "out.E01", "--unlock-hpa", "-o", "compression=best")
        with program.start(*words) as process:
            while process.poll() is None and not hidden.state["commands"]:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            process.communicate()
        assert process.returncode == 130
        assert hidden.state["commands"][-1] == BOTH_WAYS[1]
        assert _is_as_before(hidden)
    log = _log(tmp_path)
    assert log["result"] == "interrupted"
    assert log["unlocked"]["hidden_at"] is not None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"refuses": [0x37, 0xF9]}, "cannot be made visible"),
        ({"refuses": [0x27, 0xF8]}, "does not say what it hides"),
        ({"ama": True}, "for ever only"),
    ],
)
def test_what_cannot_be_unlocked_is_refused_and_left_as_it_was(
    program: Program, tmp_path: Path, facts: dict[str, object], said: str
) -> None:
    """Fails if a bridge that refuses passes for a whole image, or the drive stays changed."""
    with drive(tmp_path, CONTENT, visible=VISIBLE, **facts) as hidden:
        words = ("capture", hidden.device, "out.E01", "--unlock-hpa")
        result = program(*words, environment=hidden.environment)
        assert result.exit_code == 4, result.err
        assert said in result.err
        assert hidden.state["visible"] == VISIBLE
        assert not any(command["is_for_ever"] for command in hidden.state["commands"])
    assert not (tmp_path / "out.E01").exists()


def test_a_drive_that_does_not_hide_its_sectors_again_is_told(
    program: Program, tmp_path: Path
) -> None:
    """Fails if an examiner is not told that a drive is left otherwise than it was."""
    with drive(tmp_path, CONTENT, visible=VISIBLE) as hidden:
        program.environment.update(hidden.environment)
        words = ("capture", hidden.device, "-", "--unlock-hpa", "--log-to", "log")
        with program.start(*words) as process:
            while process.poll() is None and not hidden.state["commands"]:
                time.sleep(0.01)
            time.sleep(0.2)  # the capture itself waits until somebody reads what it writes
            hidden.change(refuses=[0x37, 0xF9])
            out, err = process.communicate()
        assert out == CONTENT
        assert process.returncode == 5
    assert f"{NATIVE - VISIBLE} sectors stay visible".encode() in err
    assert b"loses power" in err
    log = _log(tmp_path, "log")
    assert log["unlocked"]["hidden_at"] is None
    assert "stay" in log["error"]


def test_what_makes_no_sense_is_refused(program: Program, tmp_path: Path) -> None:
    """Fails if a part of a drive, a file, or a capture without a log is unlocked."""
    (tmp_path / "file").write_bytes(CONTENT)
    program.refuses(2, "capture", "file", "out.E01", "--unlock-hpa")
    with drive(tmp_path, CONTENT, visible=VISIBLE) as hidden:
        for words in (("out.E01", "--no-log"), ("-",)):
            start = ("capture", hidden.device, *words, "--unlock-hpa")
            assert program(*start, environment=hidden.environment).exit_code == 2
        assert hidden.state["commands"] == []


def test_the_kernel_is_asked_to_look_again_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a drive behind SCSI keeps its old size, or the limit of one that does is left.

    The kernel's account of the drive is made up: its size is never another.
    """
    with drive(tmp_path, CONTENT, visible=VISIBLE) as hidden:
        monkeypatch.setenv("PATH", hidden.environment["PATH"])
        node = tmp_path / "root" / "sys" / "dev" / "block" / "8:0"
        for name, text in {
            "size": str(VISIBLE),
            "queue/logical_block_size": "512",
            "device/rescan": "",
        }.items():
            (node / name).parent.mkdir(parents=True, exist_ok=True)
            (node / name).write_text(text)
        system = System(tmp_path / "root", number_of=lambda _: "8:0")
        path = Path(hidden.device)
        unlocking = Unlocking(path, asking_medium.hidden(path, None), system, wait_s=0.2)
        assert unlocking.is_needed
        with pytest.raises(UnsupportedFeatureError, match=r"libata\.ignore_hpa"):
            unlocking.unlock()
        assert (node / "device" / "rescan").read_text() == "1\n"
        assert hidden.state["commands"] == BOTH_WAYS
