"""Protobuf request bodies, as typed clients send them (`application/vnd.kubernetes.protobuf`).

Only read, never written: answers are JSON, which every such client takes. `fields.json` is made by
scripts/protobuf_table.py; `wire` cuts bytes into fields, `decoder` turns a message into the JSON object
that upstream would write for it.
"""

from raftkube.api.protobuf.decoder import ProtobufError, decode

__all__ = ["ProtobufError", "decode"]
