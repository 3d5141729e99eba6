"""What can go wrong, in the service's own terms; knows no web framework."""


class ServiceError(Exception):
    """A failure with a defined answer.

    Attributes:
        status: HTTP status code of the answer.
        code: stable machine-readable name, snake_case; clients and metric labels may rely on it.
        title: short summary that is the same for every occurrence of `code`.
        detail: what was wrong, where, and what to do; safe to show to a client.
        retry_after_seconds: when to try again, or None where trying again does not help.
    """

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        title: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.title = title or self.title
        self.retry_after_seconds = retry_after_seconds


class MalformedRequestError(ServiceError):
    """The body is not the form that the route reads."""

    status = 400
    code = "malformed_request"
    title = "Malformed request"


class UnknownHostError(ServiceError):
    """The request was meant for another name than this service's."""

    status = 400
    code = "unknown_host"
    title = "Unknown host"


class UnauthorizedError(ServiceError):
    """The request brings no API key that is known here."""

    status = 401
    code = "unauthorized"
    title = "API key required"


class ReceiveTimeoutError(ServiceError):
    """The request did not arrive in the time it may take."""

    status = 408
    code = "receive_timeout"
    title = "Request took too long to arrive"


class HeadersTooLargeError(ServiceError):
    """The request's line and headers have more bytes than the service accepts."""

    status = 431
    code = "headers_too_large"
    title = "Request headers too large"


class BodyTooLargeError(ServiceError):
    """The body has more bytes than the service accepts."""

    status = 413
    code = "body_too_large"
    title = "Request body too large"


class TooManyImagesError(ServiceError):
    """The request has more images than the service takes at once."""

    status = 413
    code = "too_many_images"
    title = "Too many images"


class NotAcceptableError(ServiceError):
    """None of the types that the client accepts is one that the route answers with."""

    status = 406
    code = "not_acceptable"
    title = "Not acceptable"


class UnknownModelError(ServiceError):
    """The path names a model or a version that is not served."""

    status = 404
    code = "unknown_model"
    title = "Unknown model"


class UnsupportedFormError(ServiceError):
    """The body is no multipart form."""

    status = 415
    code = "unsupported_content_type"
    title = "Unsupported content type"


class UnsupportedImageError(ServiceError):
    """The bytes are not of an image format that the service reads."""

    status = 415
    code = "unsupported_image_type"
    title = "Unsupported image type"


class UnusableImageError(ServiceError):
    """The format is supported, but no slice can be had from this file."""

    status = 422
    code = "unusable_image"
    title = "Unusable image"


def damaged_image(what: str) -> UnusableImageError:
    """Build the refusal of a damaged image; `what` completes "The image is damaged: ..."."""
    return UnusableImageError(f"The image is damaged: {what}. Send the whole, unmodified file.", code="damaged_image")


class ClientGoneError(ServiceError):
    """The client closed its connection; the answer reaches nobody and is only counted. 499 is nginx' status for it."""

    status = 499
    code = "client_gone"
    title = "Client gone"


class InferenceError(ServiceError):
    """The network failed or answered something that is no probability; not the client's fault."""

    status = 500
    code = "inference_failed"
    title = "Inference failed"


class OverloadedError(ServiceError):
    """No room for the request now; the client may try again."""

    status = 503
    code = "overloaded"
    title = "Service overloaded"


class DeadlineError(ServiceError):
    """The answer was not ready in the time that a request may take."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class ModelFileError(Exception):
    """The model file can't be served; the message is one line that names the file and the reason."""
