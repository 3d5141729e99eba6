"""Which of a route's media types a client wants (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from service.errors import NotAcceptableError


def preferred(accept: str, offers: Sequence[str]) -> str:
    """The offer that the client likes best; the first of them where it likes several alike.

    Args:
        accept: the Accept header; empty accepts anything.
        offers: media types, the route's own preference first.

    Raises:
        NotAcceptableError: the client accepts none of them.
    """
    ranges = [_parse(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptableError(f"This route answers {' or '.join(offers)}, and the Accept header has none of these.")
    return best


def _parse(part: str) -> tuple[str, float]:
    """A media range and its weight; one that can't be read counts as 0."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [piece[2:] for piece in parameters if piece.startswith("q=")]
    try:
        return media, float(weights[0]) if weights else 1.0
    except ValueError:
        return media, 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that `offer` falls into."""
    for pattern in (offer, offer.split("/")[0] + "/*", "*/*"):
        weights = [weight for media, weight in ranges if media == pattern]
        if weights:
            return max(weights)
    return 0.0
