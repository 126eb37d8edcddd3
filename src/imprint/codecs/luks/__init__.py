"""LUKS volumes: reading headers, unlocking them, making new ones.

A volume is a header, the key material of eight slots, and the encrypted disk. The disk is
encrypted with a random master key; each slot holds that key once more, blown up by the
anti-forensic splitter and encrypted with what its passphrase derives to.

Read: versions 1 and 2 with AES in XTS, CBC (plain, plain64, plain64be, ESSIV) and ECB mode;
all slots; in version 2 key derivation by PBKDF2, Argon2i and Argon2id, sectors of 512 to 4096
bytes. Written: new headers of version 1 with one passphrase. Refused by name: Serpent, Twofish
and other ciphers that ``cryptography`` does not have; in version 2 integrity data, disks of
several parts, and encryption that is on its way.

Source: Clemens Fruhwirth, "LUKS1 On-Disk Format Specification", version 1.2.3; Milan Brož,
"LUKS2 On-Disk Format Specification", version 1.1.2.
"""

from __future__ import annotations

from imprint.codecs.luks.create import Parameters, create
from imprint.codecs.luks.header import LuksHeader, ReadAt, is_luks, parse_header, unlock
from imprint.codecs.luks.version2 import Luks2Header, is_luks2, parse_header2
from imprint.codecs.luks.version2_keys import unlock2

__all__ = [
    "Luks2Header",
    "LuksHeader",
    "Parameters",
    "ReadAt",
    "create",
    "is_luks",
    "is_luks2",
    "parse_header",
    "parse_header2",
    "unlock",
    "unlock2",
]
