import contextlib
import io
import struct
import time
import tracemalloc
import zipfile
import zlib

import pytest

from service.errors import ServiceError
from service.imaging.series.archives import Archive, ArchiveLimits, is_zip
from tests.support.files.studies import zipped

LIMITS = ArchiveLimits()


def read(data: bytes, limits: ArchiveLimits = LIMITS) -> dict[str, bytes | str]:
    """The files of a zip by name: bytes, or the code of the reason."""
    with Archive(io.BytesIO(data), limits) as archive:
        content = {archive.name(number): archive.read(number) for number in range(len(archive))}
    return {name: str(data.code) if isinstance(data, ServiceError) else data for name, data in content.items()}


def renamed(data: bytes, name: bytes, other: bytes) -> bytes:
    """The zip with raw bytes of a name changed, of the same length."""
    assert len(name) == len(other)
    return data.replace(name, other)


def test_files_come_sorted_from_any_folder() -> None:
    data = zipped({"b/2": b"two", "a/1": b"one", "a/": b"", "c": b""})
    assert read(data) == {"a/1": b"one", "b/2": b"two", "c": b""}
    assert is_zip(data)


def test_hidden_files_and_those_of_macos_are_passed_over() -> None:
    assert read(zipped({"__MACOSX/._a": b"x", ".DS_Store": b"x", "a": b"1"})) == {"a": b"1"}


def test_folders_with_backslashes_are_folders() -> None:
    data = renamed(zipped({"DICOM/": b"", "DICOM/IM1": b"1"}), b"DICOM/", b"DICOM\\")
    assert read(data) == {"DICOM/IM1": b"1"}


@pytest.mark.parametrize("attributes", [pytest.param(0x10, id="DOS"), pytest.param(0o40755 << 16, id="Unix")])
def test_a_folder_may_be_marked_by_its_attributes_alone(attributes: int) -> None:
    folder, file = zipfile.ZipInfo("DICOM"), io.BytesIO(zipped({"DICOM/IM1": b"1"}))
    folder.external_attr = attributes
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(folder, b"")
    assert read(file.getvalue()) == {"DICOM/IM1": b"1"}


def test_names_are_read_as_cp437_and_as_utf8() -> None:
    assert list(read(zipped({"Größe/ä": b"1"}))) == ["Größe/ä"]
    data = renamed(zipped({"Gr__e": b"1"}), b"Gr__e", "Größe".encode("cp437"))
    assert list(read(data)) == ["Größe"]


def test_a_zip64_and_data_descriptors_are_read() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: int) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    file = Unseekable()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"data")
    assert read(file.getvalue()) == {"a": b"data"}


def test_the_start_of_a_file_is_unpacked_alone() -> None:
    with Archive(io.BytesIO(zipped({"../b": b"1", "a": b"first"})), LIMITS) as archive:
        assert [archive.read_start(number, 3) for number in range(2)] == [b"", b"fir"]


def test_a_damaged_file_is_a_reason_of_its_own() -> None:
    data = zipped({"a": b"first", "b": b"second", "c": b"third"}, zipfile.ZIP_STORED)
    assert read(data.replace(b"second", b"sEcond")) == {"a": b"first", "b": "damaged_archive", "c": b"third"}


def test_nested_encrypted_linked_and_outside_files_have_their_reasons() -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO(zipped({"../out": b"1", "C:/out": b"1", "inner": zipped({"a": b"1"}), "secret": b"1"}))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    data = bytearray(file.getvalue())
    at = data.rfind(b"secret") - 46 + 8  # the flags in the central directory
    data[at] |= 1
    assert read(bytes(data)) == {
        "../out": "unsafe_name",
        "C:/out": "unsafe_name",
        "inner": "nested_archive",
        "link": "unsafe_name",
        "secret": "encrypted",
    }


def test_a_bomb_is_unpacked_no_further_than_the_limit() -> None:
    data = zipped({"a": bytes(200_000_000), "b": b"1"})
    tracemalloc.start()
    assert read(data, ArchiveLimits(max_file_bytes=1_000_000)) == {"a": "limit_exceeded", "b": b"1"}
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_that_zipfile_unpacks_without_a_limit_is_refused(compression: int) -> None:
    data = bytearray(zipped({"a": bytes(50_000_000)}, compression))
    struct.pack_into("<L", data, data.find(b"PK\x01\x02") + 24, 10)  # the announced size
    tracemalloc.start()
    with Archive(io.BytesIO(data), LIMITS) as archive:
        assert isinstance(archive.read(0), ServiceError)
        assert archive.read_start(0, 10) == b""
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_many_files_that_unpack_to_more_than_the_limit_end_the_zip() -> None:
    data = zipped({str(number): bytes(600) for number in range(3)})
    with pytest.raises(ServiceError, match="unpacks to more than 1000 bytes"):
        read(data, ArchiveLimits(max_bytes=1000))


def test_a_size_that_lies_does_not_lift_the_limit() -> None:
    data = bytearray(zipped({"a": bytes(100_000)}))
    for signature, field in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", data, data.find(signature) + field, 10)
    assert read(bytes(data), ArchiveLimits(max_file_bytes=1000)) in (
        {"a": "damaged_archive"},
        {"a": "limit_exceeded"},
    )


def test_too_many_files_are_refused() -> None:
    data = zipped(dict.fromkeys(map(str, range(20)), b""))
    with pytest.raises(ServiceError, match="holds 20 files, and the limit is 10"):
        read(data, ArchiveLimits(max_files=10))


LONG_LIST = zipped(dict.fromkeys((f"{number:0200d}" for number in range(300)), b""))


def with_size_in_zip64_alone(data: bytes) -> bytes:
    """The zip with the size of its list of files in the record of zip64 alone."""
    size, offset = struct.unpack_from("<2L", data, len(data) - 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 300, 300, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data) - 22, 1)
    return data[:-22] + record + locator + data[-22:-10] + bytes(4) + data[-6:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(LONG_LIST, id="plain"),
        pytest.param(LONG_LIST[:-18] + b"PK\x05\x06" + LONG_LIST[-14:], id="its end record holds the signature again"),
        pytest.param(with_size_in_zip64_alone(LONG_LIST), id="zip64"),
    ],
)
def test_a_long_list_of_files_is_refused_before_it_is_read(data: bytes) -> None:
    with pytest.raises(ServiceError, match="list of files"):
        read(data, ArchiveLimits(max_files=10))


def test_long_extra_fields_are_refused_before_they_are_parsed() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"1")
        member = zipfile.ZipInfo("b")
        member.extra = b"\xfe\xca\0\0" * 16_000
        archive.writestr(member, b"2")
    with pytest.raises(ServiceError, match="64000 bytes of extra fields"):
        read(file.getvalue())


def list_of_files(count: int, name: bytes, extra: bytes = b"") -> bytes:
    """A zip of nothing but its list."""
    entry = struct.pack("<4s24x3H12x", b"PK\x01\x02", len(name), len(extra), 0) + name + extra
    size = count * len(entry)
    return count * entry + struct.pack("<4s4x2H2L2x", b"PK\x05\x06", min(count, 65535), min(count, 65535), size, 0)


@pytest.mark.parametrize(
    ("count", "name", "extra"),
    [(130_000, b"", b""), (40_000, b"a/" * 50, b""), (5000, b"a", b"\xfe\xca\0\0" * 64)],
    ids=["entries", "folders in names", "extra fields"],
)
def test_a_list_of_files_is_read_or_refused_in_less_than_half_a_second(count: int, name: bytes, extra: bytes) -> None:
    data = list_of_files(count, name, extra)
    seconds = []
    for _ in range(3):  # other tests' garbage may be collected in one of them
        began = time.process_time()
        with contextlib.suppress(ServiceError), Archive(io.BytesIO(data), LIMITS):
            pass
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("count", "extra", "message"), [(21, b"", "more than 20 entries"), (7, b"\xfe\xca\0\0" * 64, "64 on average")]
)
def test_lists_that_take_long_to_parse_are_refused(count: int, extra: bytes, message: str) -> None:
    with pytest.raises(ServiceError, match=message) as caught:
        read(list_of_files(count, b"", extra), ArchiveLimits(max_files=10))
    assert caught.value.code == "archive_too_large"


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"PK\x03\x04" + zlib.compress(bytes(1000)), zipped({"a": b"1"})[:-30]])
def test_a_damaged_zip_is_refused(data: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        read(data)
    assert caught.value.code == "damaged_archive"
