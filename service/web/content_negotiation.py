"""Choice of the response's media type by the Accept header (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

from service.errors import ErrorCode, RequestError


def choose_media_type(accept: str, offers: Sequence[str]) -> str:
    """Choose the offer with the highest weight; among equals, the first.

    Args:
        accept: the Accept header; empty accepts anything.
        offers: media types, the route's own preference first.

    Raises:
        RequestError: the client accepts none of the offers.
    """
    ranges = [_parse(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) <= 0:
        raise RequestError(
            ErrorCode.NOT_ACCEPTABLE, f"This route answers {' or '.join(offers)}, and the Accept header allows neither."
        )
    return best


def _parse(part: str) -> tuple[str, float]:
    """Parse a media range and its weight; an unreadable weight counts as 0."""
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [piece[2:] for piece in parameters if piece.startswith("q=")]
    try:
        return media, float(weights[0]) if weights else 1.0
    except ValueError:
        return media, 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the weight of the most specific range that contains `offer`."""
    for pattern in (offer, offer.split("/")[0] + "/*", "*/*"):
        weights = [weight for media, weight in ranges if media == pattern]
        if weights:
            return max(weights)
    return 0.0
