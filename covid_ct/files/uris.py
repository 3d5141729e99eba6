"""Files of any store that pyarrow or fsspec opens, by URI: file, s3, gs, hdfs and others."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, cast

from covid_ct.errors import ClientError


def is_uri(text: str) -> bool:
    """Whether a source is a URI and not a path."""
    return "://" in text


def open_uri(uri: str) -> BinaryIO:
    """Open a file for reading; raises `OSError`."""
    start, path = _split(uri)
    try:
        store, root = _store(start)
        return cast(BinaryIO, store.open_input_file(root + path))
    except (ValueError, ImportError) as error:
        raise OSError(str(error)) from error


def files_of(uri: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the URI of each file below, its size and time, and whether it was named itself; sorted by name.

    Raises:
        ClientError: the store can't be opened or has nothing there.
    """
    start, path = _split(uri.rstrip("/"))
    if "@" in start:
        raise ClientError("a URI with a key would put it into every row; give keys in the environment of the store")
    try:
        from pyarrow.fs import FileType

        store, root = _store(start)
        (info,) = store.get_file_info([root + path])
        if info.type == FileType.NotFound:
            raise ClientError(f"{uri}: there is no such file or folder")
        if info.type == FileType.File:
            yield start + path, _stamp(info), True
        else:
            for info in _below(store, root + path):
                yield start + info.path.removeprefix(root), _stamp(info), False
    except (OSError, ValueError, ImportError) as error:
        raise ClientError(f"{uri}: can't be listed: {error}") from error


def _below(store: Any, folder: str) -> Iterator[Any]:
    """Yield what a store says of info file below; one folder in memory."""
    from pyarrow.fs import FileSelector, FileType

    for info in sorted(store.get_file_info(FileSelector(folder)), key=lambda info: str(info.base_name)):
        if info.base_name.startswith("."):
            continue
        if info.type == FileType.Directory:
            yield from _below(store, info.path)
        elif info.type == FileType.File:
            yield info


def _split(uri: str) -> tuple[str, str]:
    """Split a URI into scheme with host, and the path on it."""
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}/", path


@lru_cache(maxsize=8)
def _store(start: str) -> tuple[Any, str]:
    """Return the file system of scheme and host, and the start of paths on it."""
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        store, root = FileSystem.from_uri(start)
    except ValueError:  # not one of pyarrow's own
        import fsspec

        inner, root = fsspec.core.url_to_fs(start)
        store = PyFileSystem(FSSpecHandler(inner))
    return store, root.rstrip("/") + "/"


def _stamp(info: Any) -> str:
    return f"{info.size}-{info.mtime_ns}"
