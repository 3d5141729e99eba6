"""The files of an archive: listed without reading them, then read on any machine that reaches them."""

import glob
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from covid_ct.archive.uris import files_of, is_uri, open_source
from covid_ct.errors import SourceError
from covid_ct.sources import PROBLEMS, Found, Problem, is_zip, open_zip, places_of, read_file, unpacked

WHOLE: Final = -1
"""Member of an item that is a file of its own."""

_MEMBERS: Final[dict[Problem, int]] = {"not_found": -2, "no_files": -3}
"""Members of items that stand for a path without a file."""

_PROBLEMS: Final = {member: problem for problem, member in _MEMBERS.items()}


@dataclass(frozen=True, slots=True)
class Item:
    """A file of an archive, before it is read.

    Attributes:
        source: path or URI of the file, or of the zip.
        member: place in the zip, by the sorted names of its members; WHOLE: a whole file; less: a path without a file.
        named: whether the user named it, rather than a folder or a zip that holds it.
        stamp: size and time of the last change; of a member, its name, size and checksum.
    """

    source: str
    member: int
    named: bool
    stamp: str

    @property
    def key(self) -> str:
        """Identity of the file and its content, as far as known without reading it: 32 hexadecimal digits."""
        place = self.source if is_uri(self.source) else str(Path(self.source).absolute())
        text = repr((place, self.member < 0, self.stamp))
        return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def list_items(paths: Iterable[str]) -> Iterator[Item]:
    """Yield every file of paths, globs and URIs in the order of the local engine, each once.

    Memory does not grow with the archive, except by 100 bytes a file where several paths may name the same one.

    Raises:
        ClientError: a URI can't be listed.
    """
    paths = list(paths)
    several = len(paths) > 1 or any(glob.has_magic(each) for each in paths)
    seen: set[bytes] = set()
    last = ""
    for text in paths:
        for item in _items(text):
            key = item.key
            if key == last or (several and bytes.fromhex(key) in seen):
                continue  # a zip may hold a member twice
            last = key
            if several:
                seen.add(bytes.fromhex(key))
            yield item


def read_items(items: Iterable[Item]) -> Iterator[tuple[Item, Iterable[Found]]]:
    """Yield each item with its files; a zip whose members follow each other is opened once."""
    with ExitStack() as stack:
        opened: str | None = None
        archive: Any = None
        for item in items:
            if item.member == WHOLE:
                yield item, read_file(item.source, item.named, open_source)
                continue
            if item.member in _PROBLEMS:
                yield item, [Found(item.source, PROBLEMS[_PROBLEMS[item.member]], named=True)]
                continue
            if item.source != opened:
                stack.close()
                archive, opened = _open_archive(item.source, stack), item.source
            if isinstance(archive, SourceError):
                yield item, [Found(item.source, archive, named=True)]
            else:
                yield item, [_member(archive, item)]


def _open_archive(source: str, stack: ExitStack) -> Any:
    try:
        opened = open_zip(stack.enter_context(open_source(source)))
    except OSError as error:
        return SourceError("unreadable_file", f"The file can't be read: {error.strerror or error}.")
    if not isinstance(opened, SourceError):
        stack.enter_context(opened[0])
    return opened


def _member(opened: Any, item: Item) -> Found:
    archive, members = opened
    if item.member >= len(members) or _member_stamp(members[item.member]) != item.stamp:
        return Found(item.source, SourceError("unreadable_file", "The zip changed after it was listed."), named=True)
    member = members[item.member]
    return Found(f"{item.source}!{member.filename}", unpacked(archive, member), named=False)


def _items(text: str) -> Iterator[Item]:
    if is_uri(text):
        for source, stamp, named in files_of(text):
            yield from _item(source, stamp, named)
        return
    for place in places_of(text):
        if place.problem is None:
            yield from _item(place.path, _path_stamp(Path(place.path)), place.named)
        else:
            yield Item(place.path, _MEMBERS[place.problem], True, "")


def _item(source: str, stamp: str, named: bool) -> Iterator[Item]:
    """Yield a file, or the members of a zip; other zips, by their content, are read as one item."""
    members = _listed(source) if source.lower().endswith(".zip") else None
    if not members:  # read as a file, which gives a row with the reason
        yield Item(source, WHOLE, named, stamp)
        return
    for number, member in enumerate(members):
        yield Item(source, number, False, _member_stamp(member))


def _listed(source: str) -> list[Any] | None:
    """List the members of a zip; None: it can't be opened, or is not a zip."""
    try:
        with open_source(source) as file:
            opened = open_zip(file) if is_zip(file) else None
            return opened[1] if isinstance(opened, tuple) else None
    except OSError:
        return None


def _member_stamp(member: Any) -> str:
    return f"{member.filename}-{member.file_size}-{member.CRC:08x}"


def _path_stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"
