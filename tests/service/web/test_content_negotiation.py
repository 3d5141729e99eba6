import pytest

from service.errors import RequestError
from service.web.content_negotiation import choose_media_type

OFFERS = ("image/png", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("image/png;q=0.1, application/json", "application/json"),
        ("application/json;q=0.5, */*;q=0.1", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "image/png"),
    ],
)
def test_the_best_offer_is_chosen(accept: str, chosen: str) -> None:
    assert choose_media_type(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "*/*;q=0", "image/png;q=high", "nonsense"])
def test_none_of_the_offers_is_refused(accept: str) -> None:
    with pytest.raises(RequestError, match="image/png or application/json"):
        choose_media_type(accept, OFFERS)
