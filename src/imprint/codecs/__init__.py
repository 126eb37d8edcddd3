"""Bytes to bytes: compression, ciphers, and the headers that hold their keys."""
