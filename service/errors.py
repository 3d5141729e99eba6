"""Errors of the service, independent of the web framework."""

from enum import StrEnum
from typing import Final, Self


class ErrorCode(StrEnum):
    """Stable machine-readable names of problems; clients and metric labels may rely on them."""

    # The request.
    MALFORMED_REQUEST = "malformed_request"
    MISSING_IMAGE = "missing_image"
    SEVERAL_IMAGES = "several_images"
    TOO_MANY_IMAGES = "too_many_images"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    UNKNOWN_HOST = "unknown_host"
    UNAUTHORIZED = "unauthorized"
    CROSS_SITE = "cross_site"
    UNKNOWN_MODEL = "unknown_model"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"

    # Limits.
    RECEIVE_TIMEOUT = "receive_timeout"
    HEADERS_TOO_LARGE = "headers_too_large"
    BODY_TOO_LARGE = "body_too_large"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CLIENT_GONE = "client_gone"

    # The image.
    UNSUPPORTED_IMAGE_TYPE = "unsupported_image_type"
    UNUSABLE_IMAGE = "unusable_image"
    EMPTY_FILE = "empty_file"
    DAMAGED_IMAGE = "damaged_image"
    IMAGE_TOO_SMALL = "image_too_small"
    TOO_MANY_PIXELS = "too_many_pixels"
    SEVERAL_FRAMES = "several_frames"
    TOO_MANY_FRAMES = "too_many_frames"
    LIMIT_EXCEEDED = "limit_exceeded"
    UNSUPPORTED_SAMPLE_DEPTH = "unsupported_sample_depth"
    UNSUPPORTED_COLOUR_MODE = "unsupported_colour_mode"
    NOT_CT = "not_ct"
    LOCALIZER = "localizer"
    NOT_AXIAL = "not_axial"
    NOT_HOUNSFIELD = "not_hounsfield"
    NO_PIXEL_DATA = "no_pixel_data"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    NO_LUNGS = "no_lungs"
    WRONG_WINDOW = "wrong_window"
    TURNED = "turned"
    INVERTED = "inverted"
    SEVERAL_PANELS = "several_panels"

    # The files of a study.
    SECONDARY_CAPTURE = "secondary_capture"
    DUPLICATE_POSITION = "duplicate_position"
    DAMAGED_ARCHIVE = "damaged_archive"
    ARCHIVE_TOO_LARGE = "archive_too_large"
    NESTED_ARCHIVE = "nested_archive"
    ENCRYPTED = "encrypted"
    UNSAFE_NAME = "unsafe_name"
    NO_SLICES = "no_slices"
    STUDY_TOO_LARGE = "study_too_large"

    # The service.
    INTERNAL_ERROR = "internal_error"
    INFERENCE_FAILED = "inference_failed"
    NOT_FINITE = "not_finite"
    OVERLOADED = "overloaded"
    QUEUE_FULL = "queue_full"
    NOT_READY = "not_ready"
    OUT_OF_MEMORY = "out_of_memory"
    SHUTTING_DOWN = "shutting_down"


class ServiceError(Exception):
    """A failure with a defined response.

    Attributes:
        status: HTTP status code of the response.
        code: see `ErrorCode`.
        title: short summary that is the same for every occurrence of `code`.
        detail: the reason, the place, and what to do; safe to show to a client.
        retry_after_seconds: when to try again, or None if that does not help.
    """

    status = 500
    code = ErrorCode.INTERNAL_ERROR
    title = "Internal error"

    def __init__(
        self,
        detail: str = "The service failed; its log has the reason under this request id.",
        *,
        code: ErrorCode | None = None,
        title: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.title = title or self.title
        self.retry_after_seconds = retry_after_seconds

    def without_frames(self) -> Self:
        """Forget where the error was raised: a kept error would keep the file that its frames hold."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class MalformedRequestError(ServiceError):
    """The body is not a valid form for the route."""

    status = 400
    code = ErrorCode.MALFORMED_REQUEST
    title = "Malformed request"


_OF_REQUESTS: Final = {
    ErrorCode.UNKNOWN_HOST: (400, "Unknown host"),
    ErrorCode.UNAUTHORIZED: (401, "API key required"),
    ErrorCode.CROSS_SITE: (403, "Cross-site request"),
    ErrorCode.UNKNOWN_MODEL: (404, "Unknown model"),
    ErrorCode.NOT_ACCEPTABLE: (406, "Not acceptable"),
    ErrorCode.RECEIVE_TIMEOUT: (408, "Request took too long to arrive"),
    ErrorCode.BODY_TOO_LARGE: (413, "Request body too large"),
    ErrorCode.TOO_MANY_IMAGES: (413, "Too many images"),
    ErrorCode.UNSUPPORTED_CONTENT_TYPE: (415, "Unsupported content type"),
    ErrorCode.HEADERS_TOO_LARGE: (431, "Request headers too large"),
    ErrorCode.CLIENT_GONE: (499, "Client gone"),  # only counted; nginx uses this status too
    ErrorCode.DEADLINE_EXCEEDED: (504, "Deadline exceeded"),
}
"""Status and title by code."""


class RequestError(ServiceError):
    """A request is refused for another reason than its images or the form of its body."""

    def __init__(self, code: ErrorCode, detail: str) -> None:
        status, title = _OF_REQUESTS[code]
        super().__init__(detail, code=code, title=title)
        self.status = status


def too_many_images(limit: int) -> RequestError:
    """Build the refusal of a request with more images than the limit."""
    detail = f"The limit is {limit} images per request; send them in several requests."
    return RequestError(ErrorCode.TOO_MANY_IMAGES, detail)


class UnsupportedImageError(ServiceError):
    """The image format is not supported."""

    status = 415
    code = ErrorCode.UNSUPPORTED_IMAGE_TYPE
    title = "Unsupported image type"


class UnusableImageError(ServiceError):
    """The format is supported, but the file has no usable slice."""

    status = 422
    code = ErrorCode.UNUSABLE_IMAGE
    title = "Unusable image"


def damaged_image(what: str) -> UnusableImageError:
    """Build the refusal of a damaged image; `what` completes "The image is damaged: ..."."""
    return UnusableImageError(
        f"The image is damaged: {what}. Send the whole, unmodified file.", code=ErrorCode.DAMAGED_IMAGE
    )


def unsupported(what: str, command: str, code: ErrorCode) -> UnusableImageError:
    """Build the refusal of an unsupported kind of file; `what` is a sentence with the kind."""
    return UnusableImageError(f"{what} Convert it with: {command}", code=code)


def malformed_element(name: str, tag: int, what: str) -> UnusableImageError:
    """Build the refusal of a DICOM file for one element of its header; `what` completes "Its element ... "."""
    return UnusableImageError(
        f"The image is damaged: its element {name} ({tag >> 16:04X},{tag & 0xFFFF:04X}) {what}. "
        "Send the file as the scanner wrote it, or correct the element.",
        code=ErrorCode.DAMAGED_IMAGE,
    )


def limit_exceeded(what: str) -> UnusableImageError:
    """Build the refusal of an image beyond a fixed limit; `what` is a clause with the limit."""
    return UnusableImageError(
        f"The image exceeds a limit of the decoder: {what}. Send a smaller image, or the slice uncompressed.",
        code=ErrorCode.LIMIT_EXCEEDED,
    )


class InferenceError(ServiceError):
    """The network failed, or its output is not a probability."""

    status = 500
    code = ErrorCode.INFERENCE_FAILED
    title = "Inference failed"


class OverloadedError(ServiceError):
    """The service has no capacity for the request now; the client may try again."""

    status = 503
    code = ErrorCode.OVERLOADED
    title = "Service overloaded"


class NotReadyError(OverloadedError):
    """No model can predict now."""

    code = ErrorCode.NOT_READY
    title = "Not ready"


class ModelFileError(Exception):
    """The model file can't be used; the message is one line with file and reason."""
