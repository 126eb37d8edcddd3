"""LUKS1 volumes: reading headers, unlocking them, making new ones.

A volume is a header, the key material of eight slots, and the encrypted disk. The disk is
encrypted with a random master key; each slot holds that key once more, blown up by the
anti-forensic splitter and encrypted with what its passphrase derives to.

Read: version 1 with AES in XTS, CBC (plain, plain64, plain64be, ESSIV) and ECB mode; all
eight slots. Written: new headers with one passphrase. Refused by name: LUKS2, Serpent,
Twofish and other ciphers that ``cryptography`` does not have.

Source: Clemens Fruhwirth, "LUKS1 On-Disk Format Specification", version 1.2.3.
"""

from __future__ import annotations

from imprint.codecs.luks.create import Parameters, create
from imprint.codecs.luks.header import LuksHeader, ReadAt, is_luks, parse_header, unlock

__all__ = [
    "LuksHeader",
    "Parameters",
    "ReadAt",
    "create",
    "is_luks",
    "parse_header",
    "unlock",
]
