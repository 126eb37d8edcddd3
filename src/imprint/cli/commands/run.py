"""run: start a disk in an emulator; the disk itself is not changed."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.core.units import MIB
from imprint.endpoints.emulator.machine import Bus, Display, Firmware, Medium, Wish

if TYPE_CHECKING:
    from imprint.cli.console import Console

EXAMPLES = """\
  imprint run disk.E01
  imprint run repo:/srv/images::laptop --snapshot-to changes.qcow2
  imprint run install.iso --memory 4G
  imprint run server.vhdx --serial --network
  imprint run game.img --qemu="-device sb16"
"""

_CPUS_MAX: Final = 255


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/run.md`` lists them too."""
    parser.add_argument("image", help="disk to start, of any kind that can be read")
    parser.add_argument(
        "--snapshot-to",
        metavar="FILE",
        type=Path,
        help="keep what the machine changes in this QCOW2, made if it is not there; else it is "
        "forgotten",
    )
    parser.add_argument(
        "--medium",
        choices=[item.value for item in Medium],
        help="what kind of drive it is in (default: by its size and content)",
    )
    parser.add_argument(
        "--firmware",
        choices=[item.value for item in Firmware],
        help="what starts it (default: UEFI if nothing on it is for a BIOS)",
    )
    parser.add_argument(
        "--bus",
        choices=[item.value for item in Bus],
        default=Bus.SATA.value,
        help="of a hard disk (default: sata)",
    )
    parser.add_argument("--memory", type=_memory, default=2048 * MIB, help="(default: 2G)")
    parser.add_argument(
        "--cpus", metavar="N", type=options.number(1, _CPUS_MAX), default=2, help="(default: 2)"
    )
    parser.add_argument(
        "--serial",
        action="store_true",
        help="the machine's serial line is this terminal; Ctrl-A x ends it (default if there is "
        "no screen)",
    )
    parser.add_argument("--headless", action="store_true", help="neither a window nor a terminal")
    parser.add_argument(
        "--network", action="store_true", help="let it reach the network through this host"
    )
    parser.add_argument(
        "--qemu",
        metavar="WORDS",
        type=_words,
        default=[],
        help="more options, for QEMU itself",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be started")
    options.add_access(parser)
    options.add_place_options(parser)
    options.add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Start it, and wait for its end."""
    from imprint.endpoints.emulator.running import run as run_disk  # which brings the server

    wish = Wish(
        medium=None if args.medium is None else Medium(args.medium),
        firmware=None if args.firmware is None else Firmware(args.firmware),
        bus=Bus(args.bus),
        memory=args.memory,
        cpus=args.cpus,
        display=_display(args),
        network=args.network,
        extra=tuple(args.qemu),
    )
    with console.stopping() as cancel:
        done = run_disk(
            args.image,
            options.access(args, console),
            wish,
            keep=args.snapshot_to,
            dry=args.dry_run,
            serial_to=sys.stderr.fileno() if args.json else None,
            cancel=cancel,
        )
    if args.dry_run:
        console.print(shlex.join(done.command))
    elif done.kept is not None:
        console.note(f"{done.kept}: what the machine has changed")
    console.result(
        medium=done.machine.medium.value,
        firmware=done.machine.firmware.value,
        accelerated=done.accelerated,
        kept=None if done.kept is None else str(done.kept),
        command=list(done.command),
    )
    return 0


def _display(args: argparse.Namespace) -> Display:
    if args.headless:
        return Display.NONE
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return Display.WINDOW if has_screen and not args.serial else Display.SERIAL


def _memory(text: str) -> int:
    size = options.size(text)
    if size < MIB:  # of which QEMU would take what it likes
        raise argparse.ArgumentTypeError(f"expected 1M or more, found {text!r}")
    return size


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        what = f"expected words as a shell takes them, found {text!r}: {str(error).lower()}"
        raise argparse.ArgumentTypeError(what) from None
