"""The text of a transaction: keys and values are bytes, and only a newline ends a line."""

from __future__ import annotations

import os

from raftkube.cli.kv_txn import parse_txn
from raftkube.wire.store import Compare, Put, Range, Txn


def test_bytes_that_are_no_utf8_arrive_as_they_are() -> None:
    text = os.fsdecode(b'value("\xff") = "\xfe"\n\nput k\xff \xfd\n\nget \xff\n')
    assert parse_txn(text) == Txn(
        (Compare(b"\xff", "value", "=", b"\xfe"),), (Put(b"k\xff", b"\xfd"),), (Range(b"\xff"),)
    )


def test_what_looks_like_a_line_end_elsewhere_is_part_of_a_value() -> None:
    for character in "\x0b\x0c\x1c\x85\u2028":
        parsed = parse_txn(f"\nput k 'a{character}b'\n\n")
        assert parsed == Txn((), (Put(b"k", f"a{character}b".encode()),), ())
    assert parse_txn("\r\nput k v\r\n\r\n") == Txn((), (Put(b"k", b"v"),), ())
