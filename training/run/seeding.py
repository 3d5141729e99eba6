"""Independent seeds from one, so that a resumed run draws what an uninterrupted one would have drawn."""

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in 0..2^63 - 1 that is a function of `seed` and `names` alone."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, *names: str | int) -> None:
    """Seed torch's generators on every device; numpy and `random` are not used by the job."""
    torch.manual_seed(derive_seed(seed, *names))
