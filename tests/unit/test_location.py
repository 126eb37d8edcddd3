"""The grammar of addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.endpoints.location import Where, parse, place_of

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = ("a\0b", "a" * 300, "a" * 5000 + "#p1", "a#p" + "1" * 5000)


@pytest.mark.parametrize(
    ("text", "where", "base", "partition"),
    [
        ("disk.vmdk", Where.FILE, "disk.vmdk", None),
        ("./a/b.raw", Where.FILE, "./a/b.raw", None),
        ("disk.qcow2#p2", Where.FILE, "disk.qcow2", 2),
        ("a#b.qcow2#p12", Where.FILE, "a#b.qcow2", 12),
        ("/dev/sdnone#p1", Where.FILE, "/dev/sdnone", 1),
        ("-", Where.STREAM, "-", None),
        ("https://host/disk.qcow2", Where.HTTP, "https://host/disk.qcow2", None),
        ("HTTP://host/a?b=c#p3", Where.HTTP, "HTTP://host/a?b=c", 3),
        ("c:disk.raw", Where.FILE, "c:disk.raw", None),
    ],
)
def test_addresses_are_what_the_grammar_says(
    text: str, where: Where, base: str, partition: int | None
) -> None:
    """Fails if an address means something else."""
    found = parse(text)
    assert (found.where, found.base, found.partition) == (where, base, partition)


@pytest.mark.parametrize(
    ("text", "partition", "inner"),
    [
        ("disk#luks", None, ("luks",)),
        ("disk#p3#luks#lvm/vg-0/root.1", 3, ("luks", "lvm/vg-0/root.1")),
        ("disk#md0", None, ("md0",)),
        ("disk#md/root#p2", None, ("md/root", "p2")),
        ("disk#p1#bitlocker", 1, ("bitlocker",)),
        ("disk#p1#p2", 1, ("p2",)),
    ],
)
def test_volumes_in_volumes_are_named_one_behind_the_other(
    text: str, partition: int | None, inner: tuple[str, ...]
) -> None:
    """Fails if a volume in a container cannot be named, or is taken for a part of the path."""
    found = parse(text)
    assert (found.base, found.partition, found.inner) == ("disk", partition, inner)
    assert found.is_part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("repo:/srv/images::laptop-7", ("/srv/images", "laptop-7", None, None)),
        ("repo:images::a b", ("images", "a b", None, None)),
        ("repo:x::y@3f2a91c0#p2", ("x", "y", "3f2a91c0", 2)),
        ("repo:x::y@2026-11-20T10:00", ("x", "y", "2026-11-20T10:00", None)),
        ("repo:s3://bucket/a?endpoint=b::y", ("s3://bucket/a?endpoint=b", "y", None, None)),
        ("repo:sftp://[::1]/srv::y", ("sftp://[::1]/srv", "y", None, None)),
        ("repo:a#b::y#p1", ("a#b", "y", None, 1)),
    ],
)
def test_disks_in_repositories_have_a_place_and_a_name(
    text: str, expected: tuple[str, str, str | None, int | None]
) -> None:
    """Fails if the place, the image or the snapshot is another one."""
    found = parse(text)
    assert found.where is Where.REPOSITORY
    assert (found.base, found.image, found.snapshot, found.partition) == expected


@pytest.mark.parametrize(
    "text",
    ["repo:", "repo:x", "repo:::y", "repo:x::", "repo:x::@a", "repo:x::y@", "repo:x::y#d1"],
)
def test_half_the_name_of_a_disk_in_a_repository_is_refused(text: str) -> None:
    """Fails if a file of that name is made when ``::IMAGE`` was forgotten."""
    with pytest.raises(UsageError):
        parse(text)


def test_a_place_may_have_the_mark_in_front() -> None:
    """Fails if the verbs of repositories take other names than addresses do."""
    assert place_of("repo:/srv/images") == place_of("/srv/images") == "/srv/images"
    for text in ("", "repo:", "repo:x::y"):
        with pytest.raises(UsageError):
            place_of(text)


@pytest.mark.parametrize(
    "text", ["a#lvm", "a#lvm/vg", "a#lvm/vg/lv/x", "a#luks2", "a#md", "a#md/", "a#lvm//x"]
)
def test_what_is_no_volume_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Fails if a typing error opens something."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize(
    "text", ["", "a#", "a#p", "a#p0", "a#p01", "a#q1", "a#p1x", "a#p-1", *HOSTILE]
)
def test_what_is_no_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Fails if a typing error opens something."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize("name", ["disk #3.qcow2", "#1.raw", "a#b#c.img", "x#p2.vdi"])
def test_a_file_that_is_not_there_yet_may_have_the_mark_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fails if a file that could be read could not be made."""
    monkeypatch.chdir(tmp_path)
    found = parse(name)
    assert (found.where, found.base, found.is_part) == (Where.FILE, name, False)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nbd://host:10809/export", "export"),
        ("nbds://host", "nbd"),
        ("nbd+unix:///a%20b?socket=/run/x.sock", "a b"),
        ("NBDS+UNIX:///%2E%2E%2Fx?socket=/run/x.sock", ".._x"),
    ],
)
def test_exports_are_addresses_of_their_own(text: str, name: str) -> None:
    """Fails if one is taken for a file, or its name could lead out of a folder."""
    for part, partition in (("", None), ("#p2", 2)):
        location = parse(text + part)
        assert (location.where, location.base, location.partition) == (Where.NBD, text, partition)
        assert location.own_name == name
        assert location.is_overwritten


@pytest.mark.parametrize("text", ["ftp://host/disk.raw", "iscsi://host/target"])
def test_what_cannot_be_opened_yet_is_no_typing_error(text: str) -> None:
    """Fails if an address that others know is called wrong, or is taken for a file."""
    with pytest.raises(UnsupportedFeatureError):
        parse(text)


@pytest.mark.parametrize("name", ["a#p2", "b#", "repo:x::y", "nbd:", "-x"])
def test_a_file_that_is_there_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fails if an odd name cannot be opened."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    found = parse(name)
    assert (found.where, found.base, found.partition) == (Where.FILE, name, None)


@pytest.mark.parametrize(
    ("text", "base", "inside"),
    [
        ("disk.qcow2#p2:/etc/hostname", "disk.qcow2#p2", "/etc/hostname"),
        ("disk.qcow2#lvm/vg/lv:/etc", "disk.qcow2#lvm/vg/lv", "/etc"),
        ("disk.qcow2#p3#luks:/", "disk.qcow2#p3#luks", "/"),
        ("disk.iso:/README", "disk.iso", "/README"),
        ("disk.iso:/a:/b#c", "disk.iso", "/a:/b#c"),
        ("a:/b#p1:/c", "a", "/b#p1:/c"),
        ("https://host/a:/b#p1:/c", "https://host/a", "/b#p1:/c"),
        ("-:/README", "-", "/README"),
        ("machine.ova#d2#p1:/x", "machine.ova#d2#p1", "/x"),
        ("https://host:80/x.qcow2#p1:/f", "https://host:80/x.qcow2#p1", "/f"),
        ("https://host/x.iso:/README", "https://host/x.iso", "/README"),
        ("http://host/a?b=http://c#p1:/f", "http://host/a?b=http://c#p1", "/f"),
        ("repo:/srv/images::laptop#p1:/etc", "repo:/srv/images::laptop#p1", "/etc"),
        ("repo:s3://[::1]/b::x@3f2a:/a::b", "repo:s3://[::1]/b::x@3f2a", "/a::b"),
        ("repo:a::b@2026-11-20T10:00#p1:/c", "repo:a::b@2026-11-20T10:00#p1", "/c"),
    ],
)
def test_a_path_inside_stands_behind_a_colon(text: str, base: str, inside: str) -> None:
    """Fails if an address of a file is cut at another place."""
    found = parse(text)
    assert (found.where, found.base, found.inside) == (Where.INSIDE, base, inside)
    assert found.outermost == parse(base)
    assert found.outermost.inside is None


@pytest.mark.parametrize(
    "text", ["https://host/a", "http://host:80/a", "repo:s3://b/c::x", "repo:sftp://h:22/p::x"]
)
def test_the_colon_of_a_url_leads_nowhere_inside(text: str) -> None:
    """Fails if a URL is torn apart."""
    assert parse(text).inside is None


def test_names_with_the_mark_of_a_path_win_if_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a file in a folder with an odd name cannot be opened, or made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:").mkdir()
    (tmp_path / "odd:/x.img").touch()
    (tmp_path / "odd:/x.img#p1:").mkdir()
    assert parse("odd:/x.img").inside is None
    assert parse("odd:/new.img").inside is None
    assert parse("odd:/x.img:/y").base == "odd:/x.img"
    assert parse("odd:/x.img#p1:/y").base == "odd:/x.img#p1"


def test_a_wrong_volume_before_a_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a typing error before the colon becomes a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").touch()
    for text in ("disk#q1:/x", "disk#p0:/x", "repo:x::y#d1:/z"):
        with pytest.raises(UsageError):
            parse(text)
