"""An example of every problem, and the problems of a route, for the OpenAPI document."""

from http import HTTPStatus
from typing import Any, Final, get_args

from service.api import Problem
from service.errors import (
    ErrorCode,
    InferenceError,
    MalformedRequestError,
    NotReadyError,
    OverloadedError,
    RequestError,
    ServiceError,
    UnsupportedImageError,
    UnusableImageError,
)
from service.model.assess import refusal
from service.model.card import CheckName
from service.web.openapi.document import reference_to
from service.web.problems import MEDIA_TYPE, problem_body

_OF_FORMS: Final = {
    ErrorCode.MALFORMED_REQUEST: "The form ends before its closing boundary; send the whole body.",
    ErrorCode.MISSING_IMAGE: "The form has no field 'image'; the fields found: 'file'. Send the file as 'image'.",
    ErrorCode.SEVERAL_IMAGES: "The form has several files 'image'; send one slice per request.",
}
_OF_REQUESTS: Final = {
    ErrorCode.UNKNOWN_HOST: "The name in the Host header is not accepted here.",
    ErrorCode.UNAUTHORIZED: "Send one of this service's API keys in the header X-API-Key.",
    ErrorCode.CROSS_SITE: "A web page of another origin sent this request.",
    ErrorCode.UNKNOWN_MODEL: "No model 'resnet' is served here; the one that is: 'covid-ct'.",
    ErrorCode.NOT_ACCEPTABLE: "This route answers image/png or application/json, and the Accept header allows neither.",
    ErrorCode.RECEIVE_TIMEOUT: "The body did not arrive within 20 seconds.",
    ErrorCode.BODY_TOO_LARGE: "The limit of a request body is 20971520 bytes, and 31457280 bytes were announced.",
    ErrorCode.TOO_MANY_IMAGES: "The limit is 32 images per request; send them in several requests.",
    ErrorCode.UNSUPPORTED_CONTENT_TYPE: "Send the image as the file 'image' of a multipart/form-data body.",
    ErrorCode.HEADERS_TOO_LARGE: "The request line and headers have more than 65536 bytes.",
    ErrorCode.DEADLINE_EXCEEDED: "No response within 30 seconds, including the upload; work was dropped.",
}
_OF_IMAGES: Final = {
    ErrorCode.UNUSABLE_IMAGE: "This file has no usable slice.",
    ErrorCode.EMPTY_FILE: "The file is empty: 0 bytes were received.",
    ErrorCode.DAMAGED_IMAGE: "The image is damaged: it is truncated. Send the whole file.",
    ErrorCode.IMAGE_TOO_SMALL: "The image has 8 x 8 pixels; each side must have at least 16.",
    ErrorCode.TOO_MANY_PIXELS: "The image has too many pixels: 9000 x 9000. Send a smaller one.",
    ErrorCode.SEVERAL_FRAMES: "The file holds 3 frames; send one slice per file.",
    ErrorCode.UNSUPPORTED_SAMPLE_DEPTH: (
        "The file has 32-bit samples; send 8 or 16 bits. Convert it with: magick in -depth 8 out.png"
    ),
    ErrorCode.UNSUPPORTED_COLOUR_MODE: (
        "The DICOM file has a coloured palette. Convert it with: dcmj2pnm +on in.dcm out.png"
    ),
    ErrorCode.TOO_MANY_FRAMES: "The file holds 2000 frames, and the limit is 1000.",
    ErrorCode.UNSUPPORTED_ENCODING: (
        "The BMP has 64 bits per pixel, which is not supported. Convert it with: magick in.bmp out.png"
    ),
    ErrorCode.LIMIT_EXCEEDED: "The image's header has more than 20000 elements.",
    ErrorCode.LOCALIZER: "The DICOM file is a localizer; send an axial slice.",
    ErrorCode.NOT_AXIAL: "The slice is not axial; send an axial slice.",
    ErrorCode.NOT_HOUNSFIELD: "The DICOM file has no RescaleSlope and RescaleIntercept; send the original CT series.",
    ErrorCode.NOT_CT: "The DICOM file is of modality MR; send computed tomography (CT).",
    ErrorCode.NO_PIXEL_DATA: "The DICOM file has no pixel data; send an image.",
    ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX: (
        "This DICOM transfer syntax is not supported. Convert it with: gdcmconv --raw in.dcm out.dcm"
    ),
    ErrorCode.NO_SLICES: (
        "No file is an axial CT slice; send DICOM files, NIfTI, pictures or a zip of a CT series. 2 of 2 "
        "files: The DICOM file is of modality MR, and the model knows CT slices only."
    ),
    ErrorCode.DAMAGED_ARCHIVE: "The zip is damaged. Pack it again, and send it whole.",
    ErrorCode.ARCHIVE_TOO_LARGE: "The zip holds 30000 files; the limit is 20000.",
    ErrorCode.STUDY_TOO_LARGE: "The study has more than 2000 slices; send one series.",
}
_OF_LOAD: Final = {
    ErrorCode.OVERLOADED: "Too many concurrent requests; try again.",
    ErrorCode.QUEUE_FULL: "The queue is full; try again.",
    ErrorCode.OUT_OF_MEMORY: "The device has no memory left; try again.",
    ErrorCode.SHUTTING_DOWN: "The service is shutting down.",
}

PROBLEM_EXAMPLES: Final[tuple[ServiceError, ...]] = (
    *(MalformedRequestError(detail, code=code) for code, detail in _OF_FORMS.items()),
    *(RequestError(code, detail) for code, detail in _OF_REQUESTS.items()),
    UnsupportedImageError(
        "The content is not an image of a supported type, but JPEG XL; send one of PNG, JPEG, WEBP, TIFF, BMP, GIF, "
        "DICOM. A study (/predict/study, covid-ct study) may also be NIfTI or a zip. Convert it with: "
        "magick in.jxl out.png"
    ),
    *(UnusableImageError(detail, code=code) for code, detail in _OF_IMAGES.items()),
    *(refusal(reason) for reason in get_args(CheckName)),
    ServiceError(),
    InferenceError("The network failed; the log has the reason."),
    InferenceError("The network's output for this image is not a finite number.", code=ErrorCode.NOT_FINITE),
    *(OverloadedError(detail, code=code) for code, detail in _OF_LOAD.items()),
    NotReadyError("No model is ready; try again."),
)
"""One example for each code."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Build the OpenAPI `responses` of a route for these statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": reference_to(Problem), "examples": _examples(status)}},
        }
        for status in statuses
    }


def _examples(status: int) -> dict[str, Any]:
    request_id = "cd500c4a55164adebc5853462e1d52bb"
    return {
        error.code: {"summary": error.title, "value": problem_body(error, request_id).model_dump()}
        for error in PROBLEM_EXAMPLES
        if error.status == status
    }
