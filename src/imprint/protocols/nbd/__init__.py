"""The Network Block Device protocol, for both ends: fixed newstyle handshake and transmission.

Source: NetworkBlockDevice/nbd ``doc/proto.md``.
"""
