"""The door to chance: every random choice comes from a source that is handed in.

Production takes `system_rng()`; a simulation hands in `random.Random(seed)`.
"""

from __future__ import annotations

import random

Rng = random.Random

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # upstream's: no vowels, no look-alikes


def system_rng() -> Rng:
    """A source seeded by the operating system, fit for tokens and ids."""
    return random.SystemRandom()


def seeded_rng(seed: int | str) -> Rng:
    """A source that repeats itself for one seed."""
    return random.Random(seed)


def uid(rng: Rng) -> str:
    """A version 4 UUID (RFC 9562) drawn from `rng`."""
    bits = rng.getrandbits(128)
    bits = (bits & ~(0xF << 76)) | (4 << 76)
    bits = (bits & ~(0x3 << 62)) | (2 << 62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def name_suffix(rng: Rng, length: int = 5) -> str:
    """The suffix that `generateName` adds (k8s.io/apimachinery/pkg/util/rand)."""
    return "".join(rng.choice(_SUFFIX_ALPHABET) for _ in range(length))
