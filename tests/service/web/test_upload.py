import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from service.web.upload import files_of
from tests.support.processes.client import png, problem, serve

pytestmark = pytest.mark.anyio
FORM = {"content-type": "multipart/form-data; boundary=xyz"}


def part(name: str, content: bytes, filename: str | None = "a.png") -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    return b'--xyz\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
        name.encode(),
        file.encode(),
        content,
    )


END = b"--xyz--\r\n"


async def post(models: Path, body: bytes, headers: dict[str, str] = FORM) -> httpx2.Response:
    async with serve(models) as client:
        return await client.post("/predict", content=body, headers=headers)


async def test_a_form_with_one_image_is_read_whatever_else_it_holds(models: Path) -> None:
    response = await post(models, part("note", b"hello", None) + part("image", png()) + END)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "fields"), [(part("file", png()) + part("scan", b"x", None) + END, "'file', 'scan'"), (END, "none")]
)
async def test_no_image_says_which_fields_were_found(models: Path, body: bytes, fields: str) -> None:
    detail = problem(await post(models, body), 400, "missing_image")["detail"]
    assert f"no field 'image'; the fields found: {fields}." in str(detail)


async def test_several_images_are_refused(models: Path) -> None:
    response = await post(models, part("image", png()) * 2 + END)
    assert "one slice per request" in str(problem(response, 400, "several_images")["detail"])


async def test_an_image_sent_as_text_is_refused_with_the_way_to_send_it(models: Path) -> None:
    response = await post(models, part("image", b"@slice.png", None) + END)
    assert "is text, not a file" in str(problem(response, 400, "missing_image")["detail"])


@pytest.mark.parametrize("content_type", ["application/json", "image/png", "application/x-www-form-urlencoded", None])
async def test_another_content_type_is_unsupported(models: Path, content_type: str | None) -> None:
    response = await post(models, png(), {"content-type": content_type} if content_type else {})
    assert response.status_code == 415
    assert "multipart/form-data" in response.json()["detail"]


async def test_a_form_without_its_boundary_is_malformed(models: Path) -> None:
    response = await post(models, part("image", png()) + END, {"content-type": "multipart/form-data"})
    assert "boundary" in str(problem(response, 400, "malformed_request")["detail"])


async def test_a_form_cut_short_says_so(models: Path) -> None:
    response = await post(models, (part("image", png()) + END)[: len(png()) - 40])
    assert "closing boundary" in str(problem(response, 400, "malformed_request")["detail"])


async def test_too_many_parts_are_malformed(models: Path) -> None:
    response = await post(models, part("x", b"") * 100 + END)
    assert "more than 16 parts other than" in str(problem(response, 400, "malformed_request")["detail"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300) | st.binary(max_size=200).map(lambda rest: b"--xyz\r\n" + rest))
async def test_no_body_whatever_makes_a_server_error(models: Path, body: bytes) -> None:
    response = await post(models, body)
    assert response.status_code in (400, 415, 422)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/predict/study"])
async def test_a_file_name_in_the_encoded_form_alone_makes_a_file(models: Path, path: str) -> None:
    head = b"--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename*=utf-8''%E8%82%BA.png\r\n\r\n"
    async with serve(models) as client:
        response = await client.post(path, content=head + png() + b"\r\n" + END, headers=FORM)
    assert response.status_code == 200


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "punycode", "undefined"])
async def test_a_charset_of_the_client_is_ignored(models: Path, charset: str) -> None:
    headers = FORM | {"content-type": f"{FORM['content-type']}; charset={charset}"}
    async with serve(models) as client:
        body = part("image", png(), "+2AA-\\ud800") + END
        response = await client.post("/predict/batch", content=body, headers=headers)
    assert response.status_code == 200
    assert response.json()["results"][0]["name"].startswith("+2AA-")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
async def test_an_encoded_form_is_refused_by_its_header(models: Path, encoding: str) -> None:
    response = await post(models, part("image", png()) + END, FORM | {"content-encoding": encoding})
    assert f"Content-Encoding {encoding}" in str(problem(response, 415, "unsupported_content_type")["detail"])


async def test_a_content_encoding_of_an_odd_name_is_refused_and_not_quoted(models: Path) -> None:
    response = await post(models, part("image", png()) + END, FORM | {"content-encoding": "<script>"})
    assert "script" not in str(problem(response, 415, "unsupported_content_type")["detail"])


@pytest.mark.parametrize(
    "preamble",
    [
        b"MIME-Version: 1.0\r\n\r\n",
        b"\r\n",
        b"text\n",
        b"not --xyz at the begin of a line\r\n",
        b"x" * 100_000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("step", [3, 10_000_000])
async def test_text_before_the_first_boundary_is_ignored(models: Path, preamble: bytes, step: int) -> None:
    data = preamble[-5000:] + part("image", png()) + END if step == 3 else preamble + part("image", png()) + END

    async def body() -> AsyncIterator[bytes]:
        for at in range(0, len(data), step):
            yield data[at : at + step]

    async with serve(models) as client:
        assert (await client.post("/predict", content=body(), headers=FORM)).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/predict/study"])
@pytest.mark.parametrize(
    ("filename", "more", "said"),
    [
        ("a" * 5000 + ".png", 0, "a header of a part, such as a long file name, has more than 4224 bytes"),
        ("a.png", 8, "a part has more than 8 headers"),
    ],
)
async def test_the_limits_of_a_part_are_named(models: Path, path: str, filename: str, more: int, said: str) -> None:
    headers = b"".join(b"X-%d: 1\r\n" % number for number in range(more))
    body = part("image", png(), filename).replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n", 1) + END
    async with serve(models) as client:
        answer = problem(await client.post(path, content=body, headers=FORM), 400, "malformed_request")
    assert answer["detail"] == f"The multipart body can't be read: {said}."


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/predict/study"])
async def test_a_content_type_that_takes_long_to_parse_is_refused_unparsed(models: Path, path: str) -> None:
    async with serve(models) as client:
        answer = await client.post(path, content=END, headers={"Content-Type": FORM["content-type"] + ";" * 60_000})
        assert "more than 1000 characters" in str(problem(answer, 400, "malformed_request")["detail"])


async def test_the_last_file_is_freed_without_a_garbage_collection() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": part("image", b"content") + END}

    headers = [(b"content-type", FORM["content-type"].encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    gc.disable()
    try:
        (content,) = [weakref.ref(file.content) async for file in files_of(request, 1)]
        assert content() is None
    finally:
        gc.enable()
