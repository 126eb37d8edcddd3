"""The programs that keep disks, and what one types to have them do it.

In commands, ``{repo}`` is an empty folder of the keeper's own, ``{series}`` the folder of the
disks, ``{disk}`` and ``{file}`` one of them with and without its folder, ``{snapshot}`` and
``{image}`` what it shall be called, ``{out}`` the file to restore to, in ``{scratch}`` and named
like ``{file}``; ``{volume}`` is a device with the disk's root file system, ``{ranges}`` the file
that tells what is in use.
"""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cases import IMPRINT

HERE: Final = Path(__file__).resolve().parent


class Work(enum.Enum):
    """What a step does."""

    STORE = "store"
    RESTORE = "restore"
    DELTA = "delta"


@dataclass(frozen=True)
class Step:
    """Something that is measured.

    Attributes:
        name: in tables.
        work: of which kind.
        disk: which one of the series.
        snapshot: what it is called where snapshots get names.
        image: what it is called where machines do.
    """

    name: str
    work: Work
    disk: str
    snapshot: str
    image: str


STORE_A: Final = Step("store A", Work.STORE, "A", "a", "host1")
STORE_B: Final = Step("store B", Work.STORE, "B", "b", "host1")
STORE_C: Final = Step("store C", Work.STORE, "C", "c", "host2")
STORE_B_AGAIN: Final = Step("store B again", Work.STORE, "B", "again", "host1")
RESTORE_B: Final = Step("restore B", Work.RESTORE, "B", "b", "host1")
DELTA_B: Final = Step("B over A", Work.DELTA, "B", "b", "host1")
STEPS: Final = (STORE_A, STORE_B, STORE_C, STORE_B_AGAIN, RESTORE_B, DELTA_B)


@dataclass(frozen=True)
class Keeper:
    """A program with its commands.

    Attributes:
        name: in tables.
        store: command that adds a disk.
        make: commands that make the repository.
        restore: command that writes a disk to a file.
        delta: command that turns another disk in a file into this one.
        mount: command that makes the disks files in ``{mount}``.
        unmount: command that ends that.
        address: what ``reading.py`` reads to read the disk from the repository.
        used_only: what is not in use is not kept.
        version: command that tells it.
    """

    name: str
    store: tuple[str, ...]
    make: tuple[tuple[str, ...], ...] = ()
    restore: tuple[str, ...] | None = None
    delta: tuple[str, ...] | None = None
    mount: tuple[str, ...] | None = None
    unmount: tuple[str, ...] | None = None
    address: str | None = None
    used_only: bool = False
    version: tuple[str, ...] | None = None

    def command(self, work: Work) -> tuple[str, ...] | None:
        """What does this work; ``None``: nothing does."""
        return {Work.STORE: self.store, Work.RESTORE: self.restore, Work.DELTA: self.delta}[work]


_QUIET: Final = ("--progress", "none")
_IMPRINT_ADDRESS: Final = "repo:{repo}::{image}"

IMPRINT_KEEPER: Final = Keeper(
    "imprint",
    make=((IMPRINT, "repo", "init", "{repo}"),),
    store=(
        *("env", "XDG_CACHE_HOME={cache}"),
        *(IMPRINT, "capture", "--used", *_QUIET, "{disk}", _IMPRINT_ADDRESS),
    ),
    restore=(
        *("env", "XDG_CACHE_HOME={cache}"),
        *(IMPRINT, "restore", *_QUIET, _IMPRINT_ADDRESS, "{out}"),
    ),
    delta=(
        *("env", "XDG_CACHE_HOME={cache}"),
        *(IMPRINT, "restore", "--delta", "--force", *_QUIET, _IMPRINT_ADDRESS, "{out}"),
    ),
    address=_IMPRINT_ADDRESS,
    used_only=True,
)


def _python(program: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / program), *words)


IDEAL: Final = Keeper(
    "ideal",
    store=_python("ideal.py", "store", "{repo}", "{snapshot}", "{disk}", "{ranges}"),
    restore=_python("ideal.py", "restore", "{repo}", "{snapshot}", "{out}"),
    used_only=True,
)


def _borg(name: str, *options: str) -> Keeper:
    """Borg, which would take an unchanged file for unchanged by its times: disks have none."""

    def borg(folder: str, *words: str) -> tuple[str, ...]:
        plain = "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes"
        return ("env", f"--chdir={folder}", "BORG_BASE_DIR={cache}", plain, "borg", *words)

    archive = "{repo}::{snapshot}"
    create = ("create", "--compression=zstd,3", "--files-cache=disabled", *options)
    return Keeper(
        name,
        make=(borg("/", "init", "--encryption=none", "{repo}"),),
        store=borg("{series}", *create, archive, "{file}"),
        restore=borg("{scratch}", "extract", "--sparse", archive, "{file}"),
        mount=borg("/", "mount", archive, "{mount}"),
        unmount=borg("/", "umount", "{mount}"),
        address="{mount}/{file}",
        version=("borg", "--version"),
    )


def _restic() -> Keeper:
    """Restic, made to read the file for the same reason; it knows no repository in plain text."""

    def restic(folder: str, *words: str) -> tuple[str, ...]:
        env = ("env", f"--chdir={folder}", "RESTIC_PASSWORD=benchmark")
        return (*env, "restic", "--quiet", "--repo={repo}", "--cache-dir={cache}", *words)

    return Keeper(
        "restic",
        make=(restic("/", "init", "--repository-version=2"),),
        store=restic("{series}", "backup", "--force", "--tag={snapshot}", "{file}"),
        restore=restic("/", "restore", "latest", "--tag={snapshot}", "--target={scratch}"),
        version=("restic", "version"),
    )


CASYNC: Final = Keeper(
    "casync",
    store=("casync", "make", "--store={repo}/store.castr", "{repo}/{snapshot}.caibx", "{disk}"),
    restore=("casync", "extract", "--store={repo}/store.castr", "{repo}/{snapshot}.caibx", "{out}"),
    version=("casync", "--version"),
)

PARTCLONE: Final = Keeper(
    "partclone",
    store=(
        *("bash", "-c"),
        (
            "set -o pipefail; partclone.{kind} -c -F -q -L /dev/null -s {volume} -o - "
            "| zstd -q -T0 -3 -o {repo}/{snapshot}.zst"
        ),
    ),
    used_only=True,
    version=("partclone.ext4", "-v"),
)

KEEPERS: Final = (
    IMPRINT_KEEPER,
    _borg("borg"),
    _borg("borg-fixed", "--chunker-params=fixed,4194304"),
    _restic(),
    CASYNC,
    PARTCLONE,
    IDEAL,
)

RIVALS: Final = ("borg", "borg-fixed", "restic")
"""Whose better one the bars are about."""
