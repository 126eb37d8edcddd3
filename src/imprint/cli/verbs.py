"""The verbs: one literal table, so that the help imports nothing but itself."""

from __future__ import annotations

from typing import Final

VERBS: Final = {
    "capture": "image a device, file or stream, hashing what is read",
    "restore": "put an image back on a device or into a file",
    "convert": "copy a disk into another format",
    "compare": "are the contents of two disks equal?",
    "info": "what an image is, and what is on it",
    "map": "which parts of a disk are data, zeros or holes",
    "inspect": "may an image that a stranger handed in be passed on?",
    "ls": "list files in an image",
    "tree": "draw the folders of an image",
    "stat": "all that an image says of a file in it",
    "cat": "write the content of files in an image to standard output",
    "cp": "extract files from an image",
    "find": "find files in an image",
    "report": "list all files of a disk with hashes: DFXML, timeline, page",
    "put": "copy files into a FAT image",
    "rm": "remove files from a FAT image",
    "mkdir": "make folders in a FAT image",
    "mkfs": "make an empty FAT file system, as on a floppy",
    "check": "compare an image's structures with each other; repair them",
    "verify": "read everything and compare with hashes",
    "hash": "hash the content of a disk",
    "create": "make an empty image",
    "resize": "change the size of an image's disk",
    "sparsify": "give back the room of what no file system on an image uses",
    "measure": "predict what an image would take up in another format",
    "snapshot": "list, create, apply or delete internal snapshots",
    "commit": "merge an overlay into its parent",
    "rebase": "change the parent of an overlay",
    "repo": "repositories: disks at many times, each block of data kept once",
    "mount": "show a disk, and the files in it, as a folder",
    "unmount": "take a mounted disk away again",
    "serve": "export disks to NBD clients, over TCP or a Unix socket",
    "run": "start a disk in an emulator, on a throw-away overlay",
    "formats": "what can be read, written and checked; a format's options",
    "doctor": "which optional outside parts are here, and how to get the rest",
    "demo": "build a disk, capture it, verify, look inside, restore it",
    "completion": "print a completion script for bash, zsh or fish",
}
"""Name and what it does. The module of a verb is ``imprint.cli.commands.<name>``."""

GROUPS: Final = {
    "repo": {
        "init": "make an empty repository",
        "list": "the images and snapshots in a repository",
        "show": "all that a repository says of a snapshot",
        "diff": "where the disks of two snapshots differ",
        "tag": "show and change the labels of a snapshot",
        "forget": "remove snapshots, by name or by a policy",
        "prune": "remove what no snapshot needs",
        "check": "is a repository sound, and what would be lost if it is not?",
        "rebuild-index": "make the index again of what packs say of themselves",
        "stats": "what a repository holds, and what it saves",
        "copy": "copy snapshots to another repository, only what is missing there",
        "export": "write snapshots into one tar file, which is a repository to read",
        "import": "copy all snapshots of an exported file into a repository",
        "key": "list, add, change and remove the keys of an encrypted repository",
        "sign-key": "make a key that vouches for snapshots",
    },
}
"""Verbs of several words. The module is ``imprint.cli.commands.<group>.<name>``."""
