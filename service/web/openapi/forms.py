"""OpenAPI descriptions of the forms that routes read."""

from typing import Final

from service.web.multipart_form import FIELD

_FORMATS: Final = "PNG, JPEG, WebP, TIFF, BMP, GIF or DICOM (CT), one frame"

_FILE: Final[dict[str, object]] = {"type": "string", "format": "binary"}


def _form_with(field: dict[str, object]) -> dict[str, object]:
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: field}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _form_with_files(description: str) -> dict[str, object]:
    return _form_with(
        {"type": "array", "items": _FILE, "minItems": 1, "description": f"the field repeated{description}"}
    )


FORM_WITH_SLICE: Final = _form_with(_FILE | {"description": f"one slice: {_FORMATS}"})

FORM_WITH_SLICES: Final = _form_with_files(f", one slice each: {_FORMATS}")

FORM_WITH_STUDY: Final = _form_with_files(
    ": DICOM files, single-frame or enhanced multi-frame; or a NIfTI volume (.nii, .nii.gz); or a zip with any folders "
    "in it"
)
