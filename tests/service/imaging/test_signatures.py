from service.imaging.signatures import is_nifti
from tests.support.files.studies import gzipped, volume


def test_a_nifti_is_known_by_its_bytes() -> None:
    data = volume([100.0, 110.0]).to_bytes()
    assert is_nifti(data)
    assert is_nifti(gzipped(data))
    assert not is_nifti(b"\x89PNG", "a.nii")


def test_a_gzip_is_a_nifti_only_by_its_name_or_its_content() -> None:
    other = gzipped(b"text")
    assert is_nifti(other, "a.NII.gz")
    assert not is_nifti(other, "a.txt.gz")
