"""What all verbs have in common: exit codes, one line of error, signals, pipes, names, start-up."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from imprint.cli.verbs import VERBS
from imprint.testing.program import Program, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
PIECE = 64 * 1024
CONTENT = random.Random(3).randbytes(8 * MIB)


def test_help_lists_every_verb_and_each_has_its_own(program: Program) -> None:
    """Fails if a verb cannot be asked for help."""
    text = program.ok("--help").text
    for verb in VERBS:
        assert f"  {verb} " in text
    for verb in ("convert", "snapshot", "resize"):
        text = program.ok(verb, "--help").text
        assert f"imprint {verb}" in text
        assert "examples:" in text
        assert program.ok("help", verb).text == text
    assert re.fullmatch(r"imprint \d+\.\d+\.\d+\S*\n", program.ok("--version").text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-verb"],
        ["convert"],
        ["convert", "a.raw"],
        ["convert", "a.raw", "b.qcow2", "c"],
        ["convert", "a.raw", "b.qcow2", "--no-such-option"],
        ["convert", "a.raw", "b.qcow2", "-j", "0"],
        ["convert", "a.raw", "b.qcow2", "-j", "many"],
        ["convert", "a.raw", "b.qcow2", "--progress", "loud"],
        ["convert", "", "b.qcow2"],
        ["convert", "a.raw", "b.qcow2#p1"],
        ["convert", "a.raw", "https://host/b.raw"],
        ["create", "x.qcow2", "12Q"],
        ["create", "x.qcow2", "-5"],
        ["capture", "a.raw", "b.raw", "--hash", ""],
        ["compare", "a.raw"],
        ["info", "a.raw", "-f", "nothing"],
        ["info", "line\nbreak", "--no-such\noption"],
    ],
)
def test_wrong_arguments_end_with_2_and_one_line(program: Program, arguments: list[str]) -> None:
    """Fails if a usage error is told in another form than all other errors."""
    (program.folder / "a.raw").write_bytes(bytes(512))
    program.refuses(2, *arguments)
    assert [path.name for path in program.folder.iterdir()] == ["a.raw"]


def test_no_arguments_are_a_usage_error(program: Program) -> None:
    """Fails if a script that forgot the verb goes on."""
    result = program()
    assert (result.exit_code, result.out) == (2, b"")
    assert "usage" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["capture", "missing.raw", "x.qcow2"],
        ["restore", "missing.qcow2", "x.raw"],
        ["convert", "missing.vdi", "x.qcow2"],
        ["compare", "a.raw", "missing.raw"],
        ["info", "missing.raw"],
        ["map", "missing.raw"],
        ["check", "missing.qcow2"],
        ["verify", "missing.raw"],
        ["hash", "missing.raw"],
        ["measure", "missing.raw", "-O", "qcow2"],
        ["snapshot", "list", "missing.qcow2"],
        ["hash", "."],
        ["hash", "a.raw/b"],
    ],
)
def test_a_missing_source_ends_with_3(program: Program, arguments: list[str]) -> None:
    """Fails if a file that is not there is anything else than an unreadable input."""
    (program.folder / "a.raw").write_bytes(bytes(512))
    messages = program.refuses(3, *arguments)
    assert "no such file" in messages[0] or "regular file" in messages[0] or "not a" in messages[0]
    assert [path.name for path in program.folder.iterdir()] == ["a.raw"]


@pytest.mark.parametrize("verb", ["resize", "snapshot", "commit", "rebase"])
def test_a_missing_image_cannot_be_changed(program: Program, verb: str) -> None:
    """Fails if changing what is not there is not refused as a target."""
    words = {
        "resize": ["missing.qcow2", "1G"],
        "snapshot": ["create", "missing.qcow2", "x"],
        "commit": ["missing.qcow2"],
        "rebase": ["missing.qcow2", "--no-parent"],
    }
    program.refuses(5, verb, *words[verb])


def test_a_broken_image_ends_with_3(program: Program) -> None:
    """Fails if damage is an exception, or is read as something else."""
    program.ok("create", "x.qcow2", "1M")
    whole = (program.folder / "x.qcow2").read_bytes()
    (program.folder / "x.qcow2").write_bytes(whole[:40])
    program.refuses(3, "hash", "x.qcow2", "-f", "qcow2")
    broken = bytearray(whole)
    broken[24:32] = b"\xff" * 8  # the disk's size
    (program.folder / "x.qcow2").write_bytes(broken)
    for verb in ("info", "map", "hash", "verify"):
        program.refuses(3, verb, "x.qcow2")
    result = program("check", "x.qcow2", "--json")
    assert result.exit_code in (1, 3)
    assert result.exit_code == 3 or result.json["findings"]


def test_an_unsupported_image_ends_with_4(program: Program) -> None:
    """Fails if an unknown feature is ignored, or called damage."""
    program.ok("create", "x.qcow2", "1M")
    content = bytearray((program.folder / "x.qcow2").read_bytes())
    content[72] = 0x80  # an incompatible feature bit that nobody has defined
    (program.folder / "x.qcow2").write_bytes(content)
    for verb in ("info", "hash", "map"):
        program.refuses(4, verb, "x.qcow2")
    program.refuses(4, "info", "iscsi://host/target")


def test_a_target_that_cannot_be_written_ends_with_5(program: Program) -> None:
    """Fails if a folder that is missing is blamed on the source."""
    (program.folder / "a.raw").write_bytes(bytes(512))
    program.refuses(5, "convert", "a.raw", "missing/b.qcow2")
    program.refuses(5, "create", "missing/b.qcow2", "1M")
    (program.folder / "folder.raw").mkdir()
    program.refuses(5, "convert", "a.raw", "folder.raw", "--force")


def test_json_is_all_that_is_on_standard_output(program: Program, disk: Path) -> None:
    """Fails if words for people get into what scripts read."""
    program.ok("capture", disk.name, "x.qcow2", "--json", "--verify", "--progress", "plain")
    for words in (
        ["convert", "x.qcow2", "y.vdi"],
        ["restore", "x.qcow2", "y.raw"],
        ["compare", "x.qcow2", "y.raw"],
        ["info", "x.qcow2"],
        ["check", "x.qcow2"],
        ["verify", "x.qcow2"],
        ["hash", "x.qcow2"],
        ["create", "o.qcow2", "--parent", "x.qcow2"],
        ["resize", "o.qcow2", "+1M"],
        ["measure", "x.qcow2"],
        ["snapshot", "create", "o.qcow2", "one"],
        ["snapshot", "delete", "o.qcow2", "one"],
        ["snapshot", "list", "o.qcow2"],
        ["rebase", "o.qcow2", "--no-parent"],
        ["formats"],
        ["doctor"],
    ):
        result = program.ok(*words, "--json")
        assert isinstance(result.json, dict)
        assert result.out.isascii()
        assert result.out.count(b"\n") == 1
    assert program.ok("map", "x.qcow2", "--json").json_lines


def test_progress_can_be_silenced(program: Program, disk: Path) -> None:
    """Fails if --progress none says something, or plain nothing."""
    assert program.ok("hash", disk.name, "--progress", "none").err == ""
    assert "100.0%" in program.ok("hash", disk.name, "--progress", "plain").err
    assert "\r" not in program.ok("hash", disk.name).err


def test_names_cannot_steer_the_terminal(program: Program) -> None:
    """Fails if a control character of a name reaches the terminal, or is lost in JSON."""
    evil = "e\x1b[31mvil\n\x9b2J\u202e.qcow2"
    program.ok("create", "base.qcow2", "1M")
    (program.folder / "base.qcow2").rename(program.folder / evil)
    results = [
        program.ok("info", evil),
        program.ok("hash", evil),
        program.ok("create", "o.qcow2", "--parent", evil),
        program.ok("info", "o.qcow2"),
        program.ok("snapshot", "create", "o.qcow2", "s\x1b[1m\n"),
        program.ok("snapshot", "list", "o.qcow2"),
        program("info", "missing\x1b[31m\n.qcow2"),
        program("convert", "missing\x1b[31m\n.qcow2", "--\x1b[31m"),
        program("no\x1b[31m\nverb"),
    ]
    for result in results:
        for char in result.text + result.err:
            assert char.isprintable() or char == "\n", repr(char)
        assert "\n2J" not in result.text
    assert r"e\x1b[31mvil\x0a\x9b2J\u202e.qcow2" in results[0].text
    assert program.ok("info", "o.qcow2", "--json").json["parent"] == evil


def test_names_that_are_not_text_work(program: Program) -> None:
    """Fails if bytes that are no UTF-8 end in an encoding error, whatever the locale."""
    name = os.fsdecode(b"\xe9\xff.qcow2")
    program.ok("create", name, "1M")
    for environment in ({}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}):
        result = program("info", name, environment=environment)
        assert result.exit_code == 0
        assert r"\xe9\xff.qcow2" in result.text
        result = program("info", name, "--json", environment=environment)
        assert result.json["chain"][0]["name"] == name
    assert program("info", "ünïcode.raw", environment={"LC_ALL": "C"}).exit_code == 3


def test_a_reader_that_goes_away_is_no_error_message(program: Program) -> None:
    """Fails if `imprint map x | head` complains."""
    raw = program.folder / "holes.raw"
    with raw.open("wb") as file:
        for index in range(3000):
            file.seek(index * 8192)
            file.write(b"x" * 4096)
    with program.start("map", "holes.raw") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=30) == 141
    assert said == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_result_that_cannot_be_written_is_an_error(disk: Path) -> None:
    """Fails if a full disk takes the result and the exit code says that all is well."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "imprint", "info", disk],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 5
    assert done.stderr == b"imprint: standard output: no space left on device\n"


def test_closed_streams_do_no_harm(program: Program, disk: Path) -> None:
    """Fails if an image gets the number of a closed stream, and messages are written into it."""
    before = disk.read_bytes()
    for closing in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        words = f"'{sys.executable}' -m imprint convert disk.raw - -O raw {closing} | cat"
        subprocess.run(["sh", "-c", words], cwd=program.folder, capture_output=True, check=True)
        words = f"'{sys.executable}' -m imprint convert disk.raw x.raw --force {closing}"
        subprocess.run(["sh", "-c", words], cwd=program.folder, capture_output=True, check=True)
        assert (program.folder / "x.raw").read_bytes() == before
    assert disk.read_bytes() == before


def test_a_defect_is_one_line() -> None:
    """Fails if a bug of ours shows a traceback to those who did not ask for it."""
    script = (
        "import sys\n"
        "import imprint.cli.main as program\n"
        "class Broken:\n"
        "    def run(self, args, console): raise ValueError('nonsense\\nindeed')\n"
        "program.verb_module = lambda name: Broken()\n"
        "sys.exit(program.main(['info', 'x']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == (
        r"imprint: internal error: ValueError: nonsense\x0aindeed; "
        "run with IMPRINT_DEBUG=1 for details\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "IMPRINT_DEBUG": "1"},
    )
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_info_starts_without_what_it_does_not_need(program: Program) -> None:
    """Fails if a heavy module is imported for looking at an image: the start takes its time."""
    program.ok("create", "x.qcow2", "1M")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "imprint", "info", "x.qcow2"],
        cwd=program.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "imprint.endpoints.describing" in imported
    heavy = {
        *("asyncio", "backports.zstd", "blake3", "concurrent.futures", "cryptography"),
        *("google_crc32c", "hashlib", "http.client", "importlib.metadata", "isal", "ssl"),
        *("imprint.transfer.copy", "imprint.storage.http", "imprint.storage.device"),
        *("subprocess", "tempfile", "logging", "email", "socket"),
    }
    assert not imported & heavy


def test_an_image_can_come_from_a_web_server(program: Program, server: Server) -> None:
    """Fails if an address with https, here http, is not read."""
    server.gate.set()
    found = program.ok("info", server.address, "--json").json
    assert found["size"] == len(CONTENT)
    program.ok("convert", server.address, "x.raw")
    assert (program.folder / "x.raw").read_bytes() == CONTENT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_copy_ends_with_130_and_is_resumed(
    program: Program, server: Server, number: signal.Signals
) -> None:
    """Fails if Ctrl-C loses what was copied, or the same command starts over."""
    with program.start("capture", server.address, "x.qcow2", "--progress", "none") as process:
        server.reached.wait(30)
        _wait_for(program.folder / "x.qcow2.partial", MIB)
        process.send_signal(number)
        server.gate.set()
        out, err = process.communicate(timeout=30)
    result = checked(process.returncode, out, err)
    assert result.exit_code == 130
    assert result.messages == [
        "imprint: interrupted",
        "imprint: what was copied is kept: the same command goes on from there",
    ]
    assert not (program.folder / "x.qcow2").exists()

    again = program.ok("capture", server.address, "x.qcow2", "--json")
    assert again.json["resumed_at"] > 0
    assert "goes on at byte" in again.messages[0]
    assert program.ok("convert", "x.qcow2", "-").out == CONTENT
    assert sorted(path.name for path in program.folder.iterdir()) == ["x.qcow2"]


def test_a_killed_copy_is_resumed_by_the_same_command(program: Program, server: Server) -> None:
    """Fails if kill -9 harms the old file, or what was copied is copied again."""
    target, journal = program.folder / "x.qcow2", program.folder / "x.qcow2.partial.journal"
    target.write_bytes(b"old")
    with program.start("convert", server.address, "x.qcow2", "--force") as process:
        server.reached.wait(30)
        time.sleep(2.1)  # a checkpoint is made every two seconds
        server.let_pass(2 * MIB)
        _wait_for(journal)
        process.kill()
        server.gate.set()
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    position = json.loads(journal.read_text())["position"]
    assert position > 0

    messages = program.refuses(5, "convert", server.address, "x.qcow2")
    assert "exists already" in messages[0]
    again = program.ok("convert", server.address, "x.qcow2", "--force", "--json")
    assert again.json["resumed_at"] == position
    assert again.json["bytes_read"] == len(CONTENT) - position
    assert program.ok("convert", "x.qcow2", "-").out == CONTENT
    assert sorted(path.name for path in program.folder.iterdir()) == ["x.qcow2"]


@pytest.mark.parametrize("verb", ["hash", "info", "map"])
def test_ctrl_c_ends_a_verb_that_waits(program: Program, verb: str) -> None:
    """Fails if a verb that reads a pipe that never ends cannot be stopped."""
    with program.start(verb, "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(2 * MIB))
        process.stdin.flush()
        _wait_until_listening(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
        process.wait(timeout=30)
    result = checked(process.returncode, out, err)
    assert result.exit_code == 130
    assert result.messages == ["imprint: interrupted"]


class Server(ThreadingHTTPServer):
    """Serves ``CONTENT`` by ranges, and stops in the middle until it is told to go on.

    Attributes:
        reached: set when somebody waits for what is held back.
        gate: set to let everything pass.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reached = threading.Event()
        self.gate = threading.Event()
        self.limit = 3 * MIB
        self.changed = threading.Condition()

    @property
    def address(self) -> str:
        """Of the content."""
        return f"http://127.0.0.1:{self.server_address[1]}/disk.raw"

    def let_pass(self, length: int) -> None:
        """Hold back only what lies ``length`` bytes further on."""
        with self.changed:
            self.limit += length
            self.changed.notify_all()

    def wait_for(self, end: int) -> None:
        """Return when the bytes below ``end`` may be sent."""
        while end > self.limit and not self.gate.is_set():
            self.reached.set()
            with self.changed:
                self.changed.wait(0.02)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match is not None
        first, last = int(match[1]), min(int(match[2]), len(CONTENT) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", '"1"')
        self.end_headers()
        is_tail = first >= len(CONTENT) - MIB  # is looked at when the format is found
        with contextlib.suppress(OSError):
            for start in range(first, last + 1, PIECE):
                end = min(start + PIECE, last + 1)
                if not is_tail:
                    self.server.wait_for(end)
                self.wfile.write(CONTENT[start:end])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on loopback."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.gate.set()
        running.shutdown()
        thread.join()


def _wait_for(path: Path, size: int = 0) -> None:
    for _ in range(3000):
        if path.exists() and path.stat().st_size >= size:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear")


def _wait_until_listening(pid: int) -> None:
    """Until the process has a handler of its own for Ctrl-C, and reads."""
    for _ in range(3000):
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        if int(status["SigCgt"], 16) & 1 << signal.SIGINT - 1 and status["State"].startswith("S"):
            time.sleep(0.1)
            return
        time.sleep(0.01)
    raise AssertionError("the program does not listen")
