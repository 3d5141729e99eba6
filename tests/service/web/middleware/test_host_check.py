from pathlib import Path

import pytest

from tests.support.processes.client import problem, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9", "[::1]", "[::1]:8000", "LOCALHOST"])
async def test_on_loopback_its_names_are_answered(models: Path, host: str) -> None:
    async with serve(models) as client:
        assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "evil.example:8000", "[::1].evil"])
async def test_on_loopback_any_other_name_is_refused(models: Path, host: str) -> None:
    """The page of a site whose name was made to resolve to 127.0.0.1."""
    async with serve(models) as client:
        problem(await client.get("/health/live", headers={"Host": host}), 400, "unknown_host")


async def test_hosts_that_are_set_are_answered_and_no_others(models: Path) -> None:
    async with serve(models, allowed_hosts="ct.example, localhost") as client:
        assert (await client.get("/health/live", headers={"Host": "ct.example"})).status_code == 200
        problem(await client.get("/health/live", headers={"Host": "127.0.0.1"}), 400, "unknown_host")
    async with serve(models, host="0.0.0.0") as client:  # noqa: S104 - nothing listens in this test
        assert (await client.get("/health/live", headers={"Host": "anything"})).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "accepted", "refused"),
    [
        ("ct.example:8443", ["ct.example:8443"], ["ct.example", "ct.example:80", "localhost"]),
        ("*", ["ct.example:8443", "anything"], []),
        ("*.ct.example", ["a.ct.example:80", "a.b.ct.example"], ["ct.example", "evilct.example"]),
        ("::1", ["[::1]", "[::1]:8000"], ["[::2]"]),
        ("CT.example.", ["ct.example", "ct.example.:80"], ["ct.example.."]),
    ],
)
async def test_a_list_may_have_ports_addresses_and_all_names_below_one(
    models: Path, allowed: str, accepted: list[str], refused: list[str]
) -> None:
    async with serve(models, allowed_hosts=allowed) as client:
        for host in accepted:
            assert (await client.get("/health/live", headers={"Host": host})).status_code == 200, host
        for host in refused:
            problem(await client.get("/health/live", headers={"Host": host}), 400, "unknown_host")


async def test_another_address_of_loopback_answers_to_itself(models: Path) -> None:
    async with serve(models, host="127.0.0.2") as client:
        assert (await client.get("/health/live", headers={"Host": "127.0.0.2:8000"})).status_code == 200
        problem(await client.get("/health/live", headers={"Host": "127.0.0.3:8000"}), 400, "unknown_host")
