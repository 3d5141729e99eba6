import gc
import weakref

import pytest
from fastapi import Request
from starlette.types import Message

from service.web.upload import files_of

BODY = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ncontent\r\n--xyz--\r\n'


@pytest.mark.anyio
async def test_the_last_file_is_freed_without_a_garbage_collection() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": BODY}

    headers = [(b"content-type", b"multipart/form-data; boundary=xyz")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    gc.disable()
    try:
        (file,) = [weakref.ref(file.content) async for file in files_of(request, 1)]
        assert file() is None
    finally:
        gc.enable()
