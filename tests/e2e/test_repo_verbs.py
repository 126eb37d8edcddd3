"""The verb repo, through the command line: what it lists, removes, finds, copies and refuses."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
DAY_S = 86_400


def add(program: Program, disk: Path, seed: int, *, image: str = "disk", day: int = 0) -> str:
    """A snapshot of 1 MiB of noise, taken on a day; gives its name."""
    disk.write_bytes(random.Random(seed).randbytes(MIB))
    program.environment["SOURCE_DATE_EPOCH"] = str(1_767_225_600 + day * DAY_S)
    name = program.ok("capture", disk, f"repo:r::{image}", "--json").json["snapshot"]
    assert isinstance(name, str)
    return name


@pytest.fixture
def repository(program: Program) -> Path:
    """An empty repository, and UTC as local time."""
    program.environment["TZ"] = "UTC"
    program.ok("repo", "init", "r")
    return program.folder / "r"


def packs_of(repository: Path) -> dict[str, int]:
    """Names and sizes of packs."""
    return {item.name: item.stat().st_size for item in (repository / "packs").glob("*/*")}


def test_help_lists_the_verbs_of_repositories(program: Program) -> None:
    """Fails if a verb of the group cannot be asked for help."""
    text = program.ok("repo", "--help").text
    assert program.ok("help", "repo").text == text
    for verb in ("init", "list", "forget", "prune", "check", "copy", "key"):
        assert f"  {verb} " in text
    assert "imprint repo init" in program.ok("repo", "init", "--help").text
    assert "did you mean init" in program.refuses(2, "repo", "inti", "x")[1]
    assert program("repo").exit_code == 2


def test_every_result_has_its_keys_on_its_page(
    program: Program,
    disk: Path,
    repository: Path,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if a key of a result is described nowhere."""
    add(program, disk, 1)
    add(program, disk, 2, day=1)
    documented("repo-init", program.ok("repo", "init", "other", "--json").json)
    documented("repo-list", program.ok("repo", "list", "r", "--json").json_lines[0])
    documented("repo-show", program.ok("repo", "show", "r::disk", "--json").json)
    documented(
        "repo-diff", program.ok("repo", "diff", "r::disk@2026-01-01", "r::disk", "--json").json
    )
    documented("repo-tag", program.ok("repo", "tag", "r::disk", "--add", "x", "--json").json)
    documented("repo-stats", program.ok("repo", "stats", "r", "--json").json)
    documented("repo-copy", program.ok("repo", "copy", "r", "other", "--json").json)
    documented("repo-export", program.ok("repo", "export", "r", "r.tar", "--json").json)
    documented("repo-import", program.ok("repo", "import", "other", "r.tar", "--json").json)
    documented("repo-check", program.ok("repo", "check", "r", "--json").json)
    documented("repo-rebuild-index", program.ok("repo", "rebuild-index", "r", "--json").json)
    forgotten = program.ok("repo", "forget", "r", "--keep-last", "1", "--json").json
    documented("repo-forget", forgotten)
    documented("repo-prune", program.ok("repo", "prune", "r", "--json").json)
    documented("repo-sign-key", program.ok("repo", "sign-key", "k.pem", "--json").json)
    assert repository.is_dir()


def test_a_place_may_have_repo_in_front(program: Program, disk: Path, repository: Path) -> None:
    """Fails if what names a repository in an address does not name it for ``repo``."""
    add(program, disk, 1)
    assert program.ok("repo", "list", "repo:r").out == program.ok("repo", "list", repository).out
    program.refuses(2, "repo", "list", "repo:r::disk")
    assert "r2" in program.ok("repo", "init", "repo:r2").text


def test_a_policy_keeps_what_it_says_and_prune_gives_the_room_back(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if the wrong snapshots are forgotten, or what only they had stays."""
    names = [add(program, disk, day, day=day) for day in range(4)]
    other = add(program, disk, 10, image="other")
    before = packs_of(repository)
    rules = ("--keep-daily", "2")
    dry = program.ok("repo", "forget", "r", *rules, "--dry-run", "--json").json
    assert [item["snapshot"] for item in dry["forgotten"]] == names[1::-1]
    assert len(program.ok("repo", "list", "r", "--json").json_lines) == 5
    program.ok("repo", "tag", f"r::disk@{names[0]}", "--add", "protected")
    done = program.ok("repo", "forget", "r", *rules, "--json").json
    assert [item["snapshot"] for item in done["forgotten"]] == [names[1]]
    kept = {item["snapshot"]: item["reasons"] for item in done["kept"]}
    assert kept == {
        names[0]: ["protected"],
        names[2]: ["daily"],
        names[3]: ["daily"],
        other: ["daily"],
    }
    assert "is protected" in program.refuses(5, "repo", "forget", "r", f"disk@{names[0]}")[0]
    program.ok("repo", "forget", "r", f"disk@{names[0]}", "--force")
    assert packs_of(repository) == before
    pruned = program.ok("repo", "prune", "r", "--json").json
    after = packs_of(repository)
    assert sum(before.values()) - sum(after.values()) >= 2 * MIB
    assert pruned["removed_bytes"] >= 2 * MIB
    program.ok("repo", "check", "r", "--read-data")
    program.ok("compare", "repo:r::other", disk, "--strict")


def test_a_policy_that_keeps_nothing_is_refused(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if ``forget`` without a rule forgets everything."""
    name = add(program, disk, 1)
    program.refuses(2, "repo", "forget", repository)
    program.refuses(2, "repo", "forget", "r", f"disk@{name}", "--keep-last", "1")
    program.refuses(2, "repo", "forget", "r", "disk")
    program.refuses(2, "repo", "forget", "r", "--keep-last", "many")
    program.refuses(2, "repo", "forget", "r", "--keep-last", "1", "--image", "nobody")
    assert len(program.ok("repo", "list", "r", "--json").json_lines) == 1


def test_damage_is_found_told_and_mended(program: Program, disk: Path, repository: Path) -> None:
    """Fails if a broken pack is not found, costs more than its blocks, or cannot be repaired."""
    shutil.rmtree(repository)
    program.ok("repo", "init", "r", "--parity", "20")
    add(program, disk, 1)
    sound = repository.with_name("sound")
    shutil.copytree(repository, sound)
    pack = max((repository / "packs").glob("*/*"), key=lambda item: item.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[1000] ^= 0xFF
    pack.write_bytes(content)
    checked = program("repo", "check", "r", "--read-data", "--json", "--progress", "none")
    assert checked.exit_code == 1
    found = checked.json
    assert found["ok"] is False
    assert [item["snapshot"] for item in found["damage"]]
    verified = program("verify", "repo:r::disk", "--json", "--progress", "none")
    assert verified.exit_code == 1
    assert verified.json["ok"] is False
    assert verified.json["damage"]
    assert "merkle" not in verified.json["hashes"]
    mended = program.ok("repo", "check", "r", "--read-data", "--repair", "--json").json
    assert mended["ok"] is True
    assert mended["repaired"]["mended"] == 1
    assert pack.read_bytes() == (sound / pack.relative_to(repository)).read_bytes()
    assert program.ok("verify", "repo:r::disk", "--json").json["ok"] is True


def test_what_is_lost_comes_back_with_the_next_capture(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if a repository stays damaged although the disk still has what it lost."""
    old = add(program, disk, 1)
    for pack in (repository / "packs").glob("*/*"):
        content = bytearray(pack.read_bytes())
        if len(content) > MIB // 2:
            content[1000] ^= 0xFF
            pack.write_bytes(content)
    checked = program("repo", "check", "r", "--read-data", "--repair", "--progress", "none")
    assert checked.exit_code == 1
    program.ok("capture", disk, "repo:r::disk", "--reread")
    program.ok("repo", "check", "r", "--read-data")
    program.ok("compare", f"repo:r::disk@{old}", disk, "--strict")


def test_the_index_can_be_made_again(program: Program, disk: Path, repository: Path) -> None:
    """Fails if losing the index loses more than time."""
    add(program, disk, 1)
    shutil.rmtree(repository / "index")
    lost = program("info", "repo:r::disk", "--json")
    assert lost.exit_code == 7
    found = program.ok("repo", "rebuild-index", "r", "--json").json
    assert found["packs"] == len(packs_of(repository))
    program.ok("compare", "repo:r::disk", disk, "--strict")


def test_diff_tells_the_ranges_that_differ(program: Program, disk: Path, repository: Path) -> None:
    """Fails if a change is not in a range, or what is equal is told to differ."""
    content = random.Random(3).randbytes(8 * MIB)
    disk.write_bytes(content)
    first = program.ok("capture", disk, "repo:r::disk", "--json").json["snapshot"]
    with disk.open("r+b") as file:
        file.seek(5 * MIB + 100)
        file.write(b"changed")
    program.ok("capture", disk, "repo:r::disk")
    found = program.ok("repo", "diff", f"r::disk@{first}", "r::disk", "--json").json_lines
    assert len(found) == 1
    assert found[0]["offset"] <= 5 * MIB + 100
    assert found[0]["offset"] + found[0]["length"] >= 5 * MIB + 107
    assert found[0]["length"] <= 2 * MIB
    assert program.ok("repo", "diff", "r::disk", "r::disk", "--json").out == b""
    program.refuses(2, "repo", "diff", "r::disk", "other::disk")
    assert repository.is_dir()


def test_copies_and_bundles_hold_the_same_disks(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if a copy lacks something, or what is there already is sent again."""
    add(program, disk, 1)
    newest = add(program, disk, 2, day=1)
    other = add(program, disk, 3, image="other")
    program.ok("repo", "init", "copy")
    first = program.ok("repo", "copy", "r", "copy", "--image", "disk", "--newest", "--json").json
    assert [item["snapshot"] for item in first["copied"]] == [newest]
    assert first["bytes_stored"] >= MIB
    again = program.ok("repo", "copy", "r", "copy", "--json").json
    assert again["present"] == [newest]
    assert len(again["copied"]) == 2
    assert MIB * 2 <= again["bytes_stored"] < MIB * 5 // 2
    program.ok("repo", "check", "copy", "--read-data")
    program.ok("compare", f"repo:copy::other@{other}", disk, "--strict")
    program.ok("repo", "export", "r", "b.tar", "--image", "other")
    oracles.run("tar", "-C", program.folder, "-xf", program.folder / "b.tar", "--one-top-level=out")
    for place in ("b.tar", "out"):
        program.ok("compare", f"repo:{place}::other", disk, "--strict")
        assert len(program.ok("repo", "list", place, "--json").json_lines) == 1
    assert "only read" in program.refuses(5, "capture", disk, "repo:b.tar::x")[0]
    program.refuses(5, "repo", "export", "r", "b.tar", "--progress", "none")
    program.ok("repo", "init", "back")
    assert len(program.ok("repo", "import", "back", "b.tar", "--json").json["copied"]) == 1
    program.ok("compare", "repo:back::other", disk, "--strict")
    assert repository.is_dir()


@pytest.mark.oracle("openssl")
def test_signatures_are_verified(
    program: Program,
    disk: Path,
    repository: Path,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if somebody else's signature, or none, counts as the one that is expected."""
    key, public = program.folder / "own.pem", program.folder / "own.pub"
    oracles.run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
    oracles.run("openssl", "pkey", "-in", key, "-pubout", "-out", public)
    made = program.ok("repo", "sign-key", "other.pem", "--json").json
    program.ok("capture", disk, "repo:r::disk", "--sign", key)
    found = program.ok("verify", "repo:r::disk", "--signer", public, "--json").json
    documented("verify", found)
    assert len(found["signers"]["trusted"]) == 1
    refused = program(
        "verify", "repo:r::disk", "--signer", "other.pem.pub", "--json", "--progress", "none"
    )
    assert refused.exit_code == 1
    assert refused.json["ok"] is False
    assert refused.json["damage"] == []
    shown = program.ok("repo", "show", "r::disk", "--json").json
    assert shown["signers"] == found["signers"]["trusted"]
    assert made["public_key"] not in shown["signers"]
    (signature,) = (repository / "signatures").iterdir()
    content = signature.read_bytes()
    signature.write_bytes(content[:-1])
    assert "damaged" in program("verify", "repo:r::disk").text
    assert program("verify", "repo:r::disk").exit_code == 1
    signature.unlink()
    assert program("verify", "repo:r::disk", "--signer", public).exit_code == 1
    assert program.ok("verify", "repo:r::disk", "--json").json["signers"]["trusted"] == []
    oracles.run("openssl", "pkey", "-in", program.folder / "other.pem", "-noout")


def test_an_encrypted_repository_tells_nothing_without_its_passphrase(
    program: Program, disk: Path
) -> None:
    """Fails if a wrong passphrase opens it, or something readable is in its files."""
    (program.folder / "pass").write_text("right\n")
    (program.folder / "wrong").write_text("wrong\n")
    opened = ("--passphrase-file", "pass")
    found = program.ok("repo", "init", "e", "--encrypt", *opened, "--json").json
    assert found["encryption"] == "aes-256-gcm"
    disk.write_bytes(b"a secret of some length " * 10_000)
    program.ok("capture", disk, "repo:e::hidden-name", *opened)
    program.ok("compare", "repo:e::hidden-name", disk, *opened)
    for path in (item for item in (program.folder / "e").rglob("*") if item.is_file()):
        content = path.read_bytes()
        assert b"a secret" not in content
        assert b"hidden-name" not in content
    assert (
        "found another"
        in program.refuses(3, "info", "repo:e::hidden-name", "--passphrase-file", "wrong")[0]
    )
    assert "--passphrase-file" in program.refuses(3, "repo", "list", "e")[1]
    program.environment["IMPRINT_PASSPHRASE"] = "right"
    assert len(program.ok("repo", "list", "e", "--json").json_lines) == 1


def test_keys_can_be_added_changed_and_removed(program: Program, disk: Path) -> None:
    """Fails if a key that was removed still opens, or one that may only add reads."""
    program.environment["IMPRINT_PASSPHRASE"] = "one"
    program.ok("repo", "init", "e", "--encrypt")
    (program.folder / "host.key").write_bytes(random.Random(5).randbytes(32))
    adding = program.ok(
        "repo", "key", "add", "e", "--new-key-file", "host.key", "--rights", "add", "--json"
    ).json
    assert adding["rights"] == "add"
    program.environment["IMPRINT_NEW_PASSPHRASE"] = "two"
    program.ok("repo", "key", "add", "e", "--label", "second")
    keys = program.ok("repo", "key", "list", "e", "--json").json["keys"]
    assert sorted(key["label"] for key in keys) == ["", "", "second"]
    first = next(key["name"] for key in keys if key["label"] == "" and key["rights"] == "full")

    del program.environment["IMPRINT_PASSPHRASE"]
    host = ("--key-file", "host.key")
    program.ok("capture", disk, "repo:e::disk", *host, "--tag", "t")
    program.ok("capture", disk, "repo:e::disk", *host)
    assert "may only add" in program.refuses(3, "repo", "list", "e", *host)[0]
    assert "may only add" in program.refuses(3, "info", "repo:e::disk", *host)[0]
    program.refuses(3, "repo", "key", "remove", "e", first, *host)

    program.environment["IMPRINT_PASSPHRASE"] = "two"
    program.ok("repo", "key", "remove", "e", first)
    assert len(program.ok("repo", "list", "e", "--json").json_lines) == 2
    last = next(key["name"] for key in keys if key["label"] == "second")
    assert "last key" in program.refuses(5, "repo", "key", "remove", "e", last)[0]
    program.environment["IMPRINT_NEW_PASSPHRASE"] = "three"
    changed = program.ok("repo", "key", "change", "e", last, "--json").json
    assert changed["label"] == "second"
    program.refuses(3, "repo", "list", "e")
    program.environment["IMPRINT_PASSPHRASE"] = "one"
    program.refuses(3, "repo", "list", "e")
    program.environment["IMPRINT_PASSPHRASE"] = "three"
    program.ok("compare", "repo:e::disk", disk)
    program.refuses(2, "repo", "key", "remove", "e")
    program.ok("repo", "init", "plain")
    program.refuses(2, "repo", "key", "add", "plain")
    assert "is not encrypted" in program.refuses(3, "repo", "list", "plain", *host)[0]


def test_a_store_cannot_pretend_that_a_repository_was_never_encrypted(
    program: Program, disk: Path
) -> None:
    """Fails if who can change the store is sent in the clear what is added from then on."""
    program.environment["IMPRINT_PASSPHRASE"] = "one"
    program.ok("repo", "init", "e", "--encrypt")
    program.ok("capture", disk, "repo:e::disk")
    program.ok("repo", "init", "plain")
    shutil.rmtree(program.folder / "e")
    (program.folder / "plain").rename(program.folder / "e")
    message, advice = program.refuses(7, "capture", disk, "repo:e::disk")
    assert "expected an encrypted repository" in message
    program.refuses(7, "repo", "list", "../" + program.folder.name + "/e")
    assert not packs_of(program.folder / "e")

    pin = program.folder / advice.rpartition(" ")[2]
    pin.unlink()
    program.ok("capture", disk, "repo:e::disk")
    shutil.rmtree(program.folder / "e")
    program.ok("repo", "init", "e", "--encrypt")
    shutil.rmtree(program.folder / "e")
    program.ok("repo", "init", "e")  # as its owner says himself
    program.ok("capture", disk, "repo:e::disk")


REFUSALS = (
    (2, ("repo", "prune", "r", "--expire-sessions", "0h"), "1h or more"),
    (2, ("repo", "prune", "r", "--expire-sessions", "30"), "expected a time"),
    (7, ("info", "repo:nowhere::x"), "found none"),
    (7, ("repo", "list", "nowhere"), "found none"),
    (7, ("capture", "disk.raw", "repo:nowhere::x"), "found none"),
    (7, ("info", "repo:broken::x"), "expected JSON"),
    (2, ("info", "repo:r::nobody"), "no image 'nobody'"),
    (2, ("info", "repo:r::disk@ffff"), "no snapshot"),
    (2, ("info", "repo:r::disk@last tuesday"), "no snapshot"),
    (2, ("info", "repo:r"), "repo:PLACE::IMAGE"),
    (2, ("info", "repo:r::disk#d1"), "it is one disk"),
    (2, ("info", "repo:r::disk#p7"), "no partition table"),
    (2, ("info", "repo:r::disk", "-f", "qcow2"), "of no format"),
    (2, ("capture", "disk.raw", "repo:r::disk@2026-01-01"), "found more"),
    (2, ("capture", "disk.raw", "repo:r::disk#p1"), "found more"),
    (2, ("capture", "disk.raw", "repo:r::a b@"), "repo:PLACE::IMAGE"),
    (2, ("capture", "disk.raw", "repo:r::/etc"), "name of an image"),
    (2, ("capture", "disk.raw", "repo:r::x", "-O", "qcow2"), "-O makes no sense"),
    (2, ("capture", "disk.raw", "repo:r::x", "-o", "level=40"), "option level"),
    (2, ("capture", "disk.raw", "repo:r::x", "-o", "cluster_size=4K"), "no option"),
    (2, ("capture", "disk.raw", "repo:r::x", "--resume"), "--resume makes no sense"),
    (2, ("capture", "disk.raw", "repo:r::x", "--uuid", "1"), "--uuid makes no sense"),
    (2, ("capture", "disk.raw", "repo:r::x", "--tag", "a,b"), "expected a tag"),
    (2, ("capture", "disk.raw", "out.raw", "--tag", "a"), "--tag is for snapshots"),
    (2, ("restore", "disk.raw", "repo:r::x"), "found a repository"),
    (2, ("create", "repo:r::x", "1M"), "found a repository"),
    (2, ("resize", "repo:r::disk", "1M"), "only image files"),
    (4, ("check", "repo:r::disk"), "a disk in a repository"),
    (5, ("repo", "init", "."), "is not empty"),
    (5, ("repo", "init", "disk.raw"), "is a file"),
    (5, ("repo", "init", "r"), "holds a repository already"),
    (2, ("repo", "init", "x", "--level", "20"), "from 1 to 19"),
    (2, ("repo", "init", "x", "--parity", "101"), "from 0 to 100"),
    (2, ("repo", "check", "r", "--read-data-subset", "9/3"), "expected a part"),
    (3, ("repo", "list", "disk.raw"), "tar"),
)
"""Exit code, arguments, and words of the message."""


@pytest.mark.parametrize(("level", "parity"), [(1, 0), (19, 100)])
def test_every_repository_that_can_be_made_can_be_used(
    program: Program, disk: Path, level: int, parity: int
) -> None:
    """Fails if values that `repo init` takes make a repository that nobody can open."""
    program.ok("repo", "init", "x", "--level", str(level), "--parity", str(parity))
    program.ok("capture", disk, "repo:x::disk")
    program.ok("compare", disk, "repo:x::disk")
    program.ok("repo", "check", "x", "--read-data")


def test_what_makes_no_sense_is_refused_in_one_line(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if a mistake ends otherwise than with one line that says what it is."""
    program.ok("capture", disk, "repo:r::disk")
    broken = repository.with_name("broken")
    broken.mkdir()
    (broken / "format").write_bytes(b"{")
    for code, arguments, words in REFUSALS:
        assert words in program.refuses(code, *arguments)[0]
    assert len(program.ok("repo", "list", "r", "--json").json_lines) == 1
    assert sorted(item.name for item in program.folder.iterdir()) == ["broken", "disk.raw", "r"]


def test_a_damaged_snapshot_costs_nothing_but_itself(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if one damaged object keeps others from being read, made, or ever being removed."""
    first = add(program, disk, 1)
    second = add(program, disk, 2, day=1)
    where = repository / "snapshots" / second
    where.write_bytes(where.read_bytes()[:-1])
    found = program.ok("info", "repo:r::disk", "--json")
    assert found.json["snapshot"] == first
    assert second in found.err
    assert len(program.ok("repo", "list", "r", "--json").json_lines) == 1
    program.ok("capture", disk, "repo:r::disk")
    assert program("repo", "check", "r").exit_code == 1
    assert program("repo", "prune", "r").exit_code == 7
    kept = program.ok("repo", "forget", "r", "--keep-last", "1", "--json")
    assert [item["snapshot"] for item in kept.json["forgotten"]] == [first]
    assert where.is_file()
    assert program.ok("repo", "forget", "r", f"@{second}", "--json").json["damaged"] == [second]
    assert not where.exists()
    program.ok("repo", "prune", "r")
    program.ok("repo", "check", "r", "--read-data")
    program.ok("compare", "repo:r::disk", disk, "--strict")


def test_a_disk_can_be_captured_although_its_last_snapshot_is_damaged(
    program: Program, disk: Path, repository: Path
) -> None:
    """Fails if a repository that lost the tree of a snapshot takes no new ones."""
    add(program, disk, 1)
    sizes = packs_of(repository)
    nodes = min(sizes, key=lambda name: sizes[name])
    path = repository / "packs" / nodes[:2] / nodes
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)
    assert program("info", "repo:r::disk").exit_code == 7
    assert program("verify", "repo:r::disk").exit_code == 1
    disk.write_bytes(random.Random(7).randbytes(MIB))
    del program.environment["SOURCE_DATE_EPOCH"]  # or both were of the same time
    made = program.ok("capture", disk, "repo:r::disk", "--reread", "--json")
    assert "the last snapshot cannot be read" in made.err
    program.ok("compare", "repo:r::disk", disk, "--strict")
