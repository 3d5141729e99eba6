"""Independent seeds from one seed, so that a resumed run draws the same numbers as one without interruption."""

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed from 0 to 2^63 - 1 that depends on `seed` and `names` alone."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, *names: str | int) -> None:
    """Seed torch's generators on every device; training does not use those of numpy and `random`."""
    torch.manual_seed(derive_seed(seed, *names))
