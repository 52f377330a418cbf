"""Seeded randomness: the same seed and purpose always give the same market."""

from __future__ import annotations

import random
from hashlib import blake2b


def stream(*purpose: object) -> random.Random:
    """An independent generator named by its purpose, for example (seed, "BTC-USD", 42)."""
    return random.Random("|".join(map(str, purpose)))  # noqa: S311 - a market must be repeatable, not secret


def stable_number(*purpose: object, below: int) -> int:
    """A number in [0, below) that depends on the purpose alone, in every process."""
    digest = blake2b("|".join(map(str, purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % below


def stable_uuid(*purpose: object) -> str:
    """A version 4 UUID's text that depends on the purpose alone."""
    digits = blake2b("|".join(map(str, purpose)).encode(), digest_size=16).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
