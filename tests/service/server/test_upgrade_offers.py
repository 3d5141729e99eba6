import pytest

from service.server.upgrade_offers import UpgradeOffers

HEAD = b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nX-Upgrade: 1\r\nUPGRADE:a\r\n\r\n"
RENAMED = HEAD.replace(b"Upgrade: h2c", b"x-offer: h2c").replace(b"UPGRADE:a", b"x-offer:a")
BODY = b"text\r\nUpgrade: kept\r\n"


class Parser:
    """Reads heads, each with a body of the length of `BODY` behind it."""

    def __init__(self) -> None:
        self.parsed = b""

    def feed(self, data: bytes) -> None:
        self.parsed += data

    def in_head(self) -> bool:
        return len(self.parsed) % (len(HEAD) + len(BODY)) < len(HEAD)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 8, 30, 1000])
def test_the_header_is_renamed_in_heads_and_kept_in_bodies(step: int) -> None:
    parser = Parser()
    offers = UpgradeOffers(parser.feed, parser.in_head)
    stream = (HEAD + BODY) * 3
    for at in range(0, len(stream), step):
        offers.receive(stream[at : at + step])
    assert parser.parsed == (RENAMED + BODY) * 3


def test_the_end_of_a_head_is_never_held_back() -> None:
    parser = Parser()
    offers = UpgradeOffers(parser.feed, parser.in_head)
    for at in range(len(HEAD)):
        offers.receive(HEAD[at : at + 1])
    assert parser.parsed == RENAMED
