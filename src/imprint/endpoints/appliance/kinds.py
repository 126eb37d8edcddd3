"""The kinds of package that can be written, and their options: a table, as of the formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.formats import Option, OptionKind, Support
from imprint.core.units import GIB

if TYPE_CHECKING:
    from imprint.endpoints.target import TargetRequest


@dataclass(frozen=True)
class PackageKind:
    """A line of the table.

    Attributes:
        name: as in ``-O``.
        title: for people.
        module: in this folder, with ``plan`` and ``run``.
        suffixes: which pick it for a new file.
        takes_several: whether it may be made of more than one disk.
        options: for ``-o``.
        support: what can be done with it.
    """

    name: str
    title: str
    module: str
    suffixes: tuple[str, ...]
    takes_several: bool
    options: tuple[Option, ...]
    support: Support


CONTROLLERS: Final = ("lsilogic", "lsilogicsas", "buslogic", "pvscsi", "sata", "ide")
SYSTEMS: Final = (
    "other",
    "other64",
    "linux",
    "linux64",
    "centos64",
    "debian64",
    "rhel64",
    "ubuntu64",
    "freebsd64",
    "windows7_64",
    "windows2008r2",
    "windows10_64",
)

LEVEL: Final = Option("level", "of the compression, 0 to 9", kind=OptionKind.NUMBER, default=2)

OVA: Final = PackageKind(
    "ova",
    "OVF appliance in one file",
    "writing",
    (".ova",),
    takes_several=True,
    options=(
        Option("name", "of the machine; by default that of the file, without its suffix"),
        Option("cpus", "how many processors", kind=OptionKind.NUMBER, default=1),
        Option("memory", "in whole MiB", kind=OptionKind.SIZE, default=GIB),
        Option(
            "hwversion",
            "VMware's virtual hardware version, 4 to 99; by default 7, with firmware=efi 8, "
            "with controller=sata 10",
            kind=OptionKind.NUMBER,
        ),
        Option("os", "that is on the disks", default="other64", choices=SYSTEMS),
        Option("controller", "of the disks", default="lsilogic", choices=CONTROLLERS),
        Option("firmware", "that starts the machine", default="bios", choices=("bios", "efi")),
        Option("nic", "network adapter", default="e1000", choices=("e1000", "vmxnet3", "none")),
        Option("network", "that the adapter is connected to", default="VM Network"),
        Option(
            "digest",
            "of the files, in the manifest: sha1 is what programs from before 2016 know",
            default="sha256",
            choices=("sha256", "sha1"),
        ),
        LEVEL,
        Option("uuid", "that the identities of the disks follow from; by default random"),
    ),
    support=Support(write=True, stream=True, check=True),
)

GCE: Final = PackageKind(
    "gce",
    "Google Compute Engine image (disk.raw in .tar.gz)",
    "gce",
    (),
    takes_several=False,
    options=(LEVEL,),
    support=Support(read=False, write=True, stream=True),
)

KINDS: Final = (OVA, GCE)


def by_name(name: str) -> PackageKind | None:
    """The kind of that name."""
    return next((kind for kind in KINDS if kind.name == name.lower()), None)


def chosen(request: TargetRequest) -> PackageKind | None:
    """The kind that a target shall be: by ``-O``, else by suffix; ``None``: it is an image."""
    if request.format is not None:
        return by_name(request.format)
    name = request.address.lower()
    return next((kind for kind in KINDS if kind.suffixes and name.endswith(kind.suffixes)), None)
