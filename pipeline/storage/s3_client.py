"""The S3 client: validation of responses, and limits on waiting for them.

A proxy, a portal or a web server at the wrong address may answer "200 OK" to any request. A response is accepted only
if it has the field that S3's response to that request always has.

Every request is limited: a try waits 20 s for the next byte, and no try starts after 45 s. Operations of several
requests run within `request_time_limit`, so that an endpoint that accepts connections and does not answer is an error
within two minutes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ConnectionError, HTTPClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# SeaweedFS lets the losers of a race wait in steps of 1 s (16 writers: 3 s, rarely more than 6), so a
# short timeout would turn a plain "lost" into "unknown".
READ_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 10.0
REQUEST_TIME_LIMIT_S = 45.0

PART_BYTES = 16 << 20
MULTIPART_THRESHOLD = 32 << 20  # files of this size or larger are multipart uploads
TRANSFER = TransferConfig(
    multipart_threshold=MULTIPART_THRESHOLD, multipart_chunksize=PART_BYTES, max_concurrency=4, num_download_attempts=4
)

_DEADLINE = "tutelage_deadline"
# A field that S3's response always has, and that a "200 OK" of another server lacks.
_REQUIRED_FIELD = {
    "PutObject": "ETag",
    "HeadObject": "ETag",
    "GetObject": "ETag",
    "CreateMultipartUpload": "UploadId",
    "UploadPart": "ETag",
    "CompleteMultipartUpload": "ETag",
    "ListObjectsV2": "IsTruncated",
    "ListMultipartUploads": "IsTruncated",
}
_thread_state = threading.local()


class NotS3Error(BotoCoreError):
    """The response is not from an S3 server."""

    fmt = "{reason}"


class NoAnswerError(HTTPClientError):
    """The endpoint accepted the request and did not answer."""

    fmt = "no answer in {seconds:.0f} s"


@contextmanager
def request_time_limit(seconds: float | None = None) -> Iterator[None]:
    """Within the block, in this thread, no request is retried after `seconds`; each is tried at least once.

    Args:
        seconds: None: `REQUEST_TIME_LIMIT_S`. A nested block does not extend the outer one.
    """
    outer = _deadline()
    _thread_state.deadline = min(outer, time.monotonic() + (REQUEST_TIME_LIMIT_S if seconds is None else seconds))
    try:
        yield
    finally:
        _thread_state.deadline = outer


def time_limit_passed() -> bool:
    """Whether the limit of this thread's innermost `request_time_limit` has passed."""
    return time.monotonic() >= _deadline()


def s3_client() -> S3Client:
    """A client for the endpoint in the environment."""
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    client = boto3.session.Session().client(
        "s3",
        config=ClientConfig(
            signature_version="s3v4",
            # Self-hosted servers rarely support BUCKET.HOST addresses; AWS does.
            s3={"addressing_style": "path"} if own_endpoint else None,
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=32,
        ),
    )
    events = client.meta.events
    events.register("before-call.s3", _set_deadline)
    events.register_first("needs-retry.s3", _stop_retrying_after_deadline)
    # Before botocore's own check, which treats a web page as an error 500 and retries.
    events.register_first("before-parse.s3", _refuse_web_page)
    events.register("after-call.s3", _require_field_of_s3)
    return client


def _deadline() -> float:
    deadline: float = getattr(_thread_state, "deadline", float("inf"))
    return deadline


def _set_deadline(model: Any, context: dict[str, Any], **_: Any) -> None:
    now = time.monotonic()
    context["tutelage_begun"] = now
    # Cleaning up after a failure must not double the wait. (s3transfer does it in its own threads.)
    is_cleanup = model.name == "AbortMultipartUpload"
    context[_DEADLINE] = now if is_cleanup else min(_deadline(), now + REQUEST_TIME_LIMIT_S)


def _stop_retrying_after_deadline(request_dict: dict[str, Any], caught_exception: Exception | None, **_: Any) -> None:
    context = request_dict["context"]
    now = time.monotonic()
    if isinstance(caught_exception, HTTPClientError | ConnectionError) and now >= context[_DEADLINE]:
        raise NoAnswerError(seconds=now - context["tutelage_begun"]) from caught_exception


def _refuse_web_page(response_dict: dict[str, Any], operation_model: Any, **_: Any) -> None:
    """Raises NotS3Error for a web page: S3 answers in XML, and sends a stored web page with headers of its own."""
    headers, status, body = response_dict["headers"], response_dict["status_code"], response_dict["body"]
    if any(name.lower().startswith("x-amz-") for name in headers):
        return
    kind = str(headers.get("Content-Type", "")).partition(";")[0].strip()
    # The body of an object is a stream here.
    is_not_xml = isinstance(body, bytes) and body.strip() != b"" and not body.lstrip().startswith(b"<")
    if kind in ("text/html", "application/xhtml+xml", "application/json") or is_not_xml:
        raise NotS3Error(reason=f"it answered {operation_model.name} with {kind or 'no XML'} (HTTP {status})")


def _require_field_of_s3(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    field = _REQUIRED_FIELD.get(model.name)
    if field is not None and http_response.status_code < 300 and field not in parsed:
        raise NotS3Error(
            reason=f"its answer to {model.name} (HTTP {http_response.status_code}) has no {field}, as S3's always has"
        )
