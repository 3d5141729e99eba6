"""An example of every problem, and the problems of a route, for the OpenAPI document."""

from http import HTTPStatus
from typing import Any, Final, get_args

from service import errors as e
from service.api import Problem
from service.model.assess import refusal
from service.model.card import CheckName
from service.web.openapi.document import reference_to
from service.web.problems import MEDIA_TYPE, problem_body

PROBLEM_EXAMPLES: Final[tuple[e.ServiceError, ...]] = (
    e.MalformedRequestError("The form ends before its closing boundary; send the whole body."),
    e.MalformedRequestError(
        "The form has no field 'image'; the fields found: 'file'. Send the file as 'image'.",
        code=e.ErrorCode.MISSING_IMAGE,
    ),
    e.MalformedRequestError(
        "The form has 2 fields 'image'; send one slice per request.", code=e.ErrorCode.SEVERAL_IMAGES
    ),
    e.UnknownHostError("The name in the Host header is not accepted here."),
    e.UnauthorizedError("Send one of this service's API keys in the header X-API-Key."),
    e.CrossSiteError("A web page of another origin sent this request."),
    e.UnknownModelError("No model 'resnet' is served here; the one that is: 'covid-ct'."),
    e.NotAcceptableError("This route answers image/png or application/json, and the Accept header allows neither."),
    e.ReceiveTimeoutError("The body did not arrive within 20 seconds."),
    e.BodyTooLargeError("The limit of a request body is 20971520 bytes, and 31457280 bytes were announced."),
    e.TooManyImagesError("The request has 40 images, and the limit is 32; send them in several requests."),
    e.UnsupportedFormError("Send the image as the file 'image' of a multipart/form-data body."),
    e.UnsupportedImageError(
        "The content is not an image of a supported type, but JPEG XL; send one of PNG, JPEG, WEBP, TIFF, BMP, GIF, "
        "DICOM. A study (/predict/study, covid-ct study) may also be NIfTI or a zip. Convert it with: "
        "magick in.jxl out.png"
    ),
    e.UnusableImageError("This file has no usable slice."),
    e.UnusableImageError("The file is empty: 0 bytes were received.", code=e.ErrorCode.EMPTY_FILE),
    e.UnusableImageError("The image is damaged: it is truncated. Send the whole file.", code=e.ErrorCode.DAMAGED_IMAGE),
    e.UnusableImageError(
        "The image has 8 x 8 pixels; each side must have at least 16.", code=e.ErrorCode.IMAGE_TOO_SMALL
    ),
    e.UnusableImageError(
        "The image has too many pixels: 9000 x 9000. Send a smaller one.", code=e.ErrorCode.TOO_MANY_PIXELS
    ),
    e.UnusableImageError("The file holds 3 frames; send one slice per file.", code=e.ErrorCode.SEVERAL_FRAMES),
    e.UnusableImageError(
        "The file has 32-bit samples; send 8 or 16 bits. Convert it with: magick in -depth 8 out.png",
        code=e.ErrorCode.UNSUPPORTED_SAMPLE_DEPTH,
    ),
    e.UnusableImageError(
        "The DICOM file has a coloured palette. Convert it with: dcmj2pnm +on in.dcm out.png",
        code=e.ErrorCode.UNSUPPORTED_COLOUR_MODE,
    ),
    e.UnusableImageError("The file holds 2000 frames, and the limit is 1000.", code=e.ErrorCode.TOO_MANY_FRAMES),
    e.UnusableImageError(
        "The BMP has 64 bits per pixel, which is not supported. Convert it with: magick in.bmp out.png",
        code=e.ErrorCode.UNSUPPORTED_ENCODING,
    ),
    e.UnusableImageError("The image's header has more than 20000 elements.", code=e.ErrorCode.LIMIT_EXCEEDED),
    e.UnusableImageError("The DICOM file is a localizer; send an axial slice.", code=e.ErrorCode.LOCALIZER),
    e.UnusableImageError("The slice is not axial; send an axial slice.", code=e.ErrorCode.NOT_AXIAL),
    e.UnusableImageError(
        "The DICOM file has no RescaleSlope and RescaleIntercept; send the original CT series.",
        code=e.ErrorCode.NOT_HOUNSFIELD,
    ),
    e.UnusableImageError("The DICOM file is of modality MR; send computed tomography (CT).", code=e.ErrorCode.NOT_CT),
    e.UnusableImageError("The DICOM file has no pixel data; send an image.", code=e.ErrorCode.NO_PIXEL_DATA),
    e.UnusableImageError(
        "This DICOM transfer syntax is not supported. Convert it with: gdcmconv --raw in.dcm out.dcm",
        code=e.ErrorCode.UNSUPPORTED_TRANSFER_SYNTAX,
    ),
    e.UnusableImageError(
        "No file is an axial CT slice; send DICOM files, NIfTI, pictures or a zip of a CT series. 2 of 2 "
        "files: The DICOM file is of modality MR, and the model knows CT slices only.",
        code=e.ErrorCode.NO_SLICES,
    ),
    e.UnusableImageError("The zip is damaged. Pack it again, and send it whole.", code=e.ErrorCode.DAMAGED_ARCHIVE),
    e.UnusableImageError("The zip holds 30000 files; the limit is 20000.", code=e.ErrorCode.ARCHIVE_TOO_LARGE),
    e.UnusableImageError("The study has more than 2000 slices; send one series.", code=e.ErrorCode.STUDY_TOO_LARGE),
    *(refusal(reason) for reason in get_args(CheckName)),
    e.HeadersTooLargeError("The request line and headers have more than 65536 bytes."),
    e.ServiceError("The service failed; its log has the reason under this request id."),
    e.InferenceError("The network failed; the log has the reason."),
    e.InferenceError("The network's output for this image is not a finite number.", code=e.ErrorCode.NOT_FINITE),
    e.OverloadedError("Too many concurrent requests; try again."),
    e.OverloadedError("The queue is full; try again.", code=e.ErrorCode.QUEUE_FULL),
    e.OverloadedError("No model is ready; try again.", code=e.ErrorCode.NOT_READY, title="Not ready"),
    e.OverloadedError("The device has no memory left; try again.", code=e.ErrorCode.OUT_OF_MEMORY),
    e.OverloadedError("The service is shutting down.", code=e.ErrorCode.SHUTTING_DOWN),
    e.DeadlineError("No response within 30 seconds, including the upload; work was dropped."),
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
