"""Sizes and times that several layers must agree on. Units are the last word of each name."""

from typing import Final

# etcd v3's limits (https://etcd.io/docs/v3.5/dev-guide/limit/): 1.5 MiB a request, 128 operations.
REQUEST_BYTES_MAX: Final = 1_572_864
TXN_OPERATIONS_MAX: Final = 128
KEY_BYTES_MAX: Final = 32 * 1024

# A frame holds a request with its envelope, or one part of a long answer.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
PEER_FRAME_BYTES_MAX: Final = 64 * 1024 * 1024

# A log entry (one group commit) stays below what pysyncobj sends in one message.
LOG_ENTRY_BYTES_MAX: Final = 4 * 1024 * 1024
LOG_ENTRY_OPERATIONS_MAX: Final = 1_000

HANDSHAKE_TIMEOUT_S: Final = 10.0
LEASE_TTL_MAX_S: Final = 9_000_000_000  # etcd v3's

# Sessions of numbered writes: part of what all members agree on.
SESSIONS_MAX: Final = 2_048
SESSION_WINDOW: Final = 1_024  # sequences above the acknowledged ones
SESSION_RESULTS_BYTES_MAX: Final = 256 * 1024  # held for one session; beyond it the oldest are forgotten

# What a version of a key counts besides its bytes: about what it takes in memory.
VERSION_OVERHEAD_BYTES: Final = 256
