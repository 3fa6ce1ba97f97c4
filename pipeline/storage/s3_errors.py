"""Converts errors of the S3 client to one line without secrets: what is wrong, where, what to do."""

from __future__ import annotations

import os

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError

from pipeline.errors import InputError, TutelageError, WorkError
from pipeline.storage.s3_client import NotS3Error

_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"}


def explain(error: Exception, where: str, *, answered: bool) -> TutelageError | FileNotFoundError:
    """Converts an error of boto3 to one of ours.

    Args:
        error: what boto3 or botocore raised.
        where: s3:// URL of the object or the storage.
        answered: the server has answered before. If not, the URL or endpoint is wrong (InputError); else the
            server has failed (WorkError).
    """
    if isinstance(error, Boto3Error) and isinstance(error.__context__, ClientError | BotoCoreError):
        # Uploads wrap the error that contains the code.
        error = error.__context__
    if isinstance(error, ClientError):
        return _explain_response(error, where, answered=answered)
    if isinstance(error, NotS3Error):
        return _not_s3(str(error), where, answered=answered)
    if isinstance(error, ResponseParserError):
        return _not_s3("its answer is not S3's XML", where, answered=answered)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return InputError(f"{where}: no S3 keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
    if isinstance(error, ProfileNotFound):
        return InputError(f"{where}: {_line(error)}; set AWS_PROFILE to one in ~/.aws/config")
    if isinstance(error, HTTPClientError | ConnectionError | TimeoutError):
        reason = f"{where}: no answer from {endpoint()} ({type(error).__name__})"
        if answered:
            return WorkError(f"{reason}; it did answer before: run again, committed artifacts are intact")
        return InputError(f"{reason}; start that server or set AWS_ENDPOINT_URL to the right one")
    if isinstance(error, BotoCoreError | ValueError):
        return InputError(f"{where}: {_line(error)}; check the store's URL and AWS_ENDPOINT_URL")
    return WorkError(f"{where}: {_line(error)}")


def status_of(error: ClientError) -> int:
    """The HTTP status of a response."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def endpoint() -> str:
    """The S3 server in use, for messages; without user and password if the URL has them."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return "AWS S3"
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _not_s3(what: str, where: str, *, answered: bool) -> TutelageError:
    """The error for a response that is not from an S3 server."""
    if answered:
        return WorkError(
            f"{where}: {endpoint()} did not answer as an S3 server: {what}; it did before: check what is between here "
            "and the server (a proxy, a gateway) and run again, committed artifacts are intact"
        )
    return InputError(f"{where}: {endpoint()} is not an S3 server: {what}; set AWS_ENDPOINT_URL to the right one")


def _explain_response(error: ClientError, where: str, *, answered: bool) -> TutelageError | FileNotFoundError:
    status, code = status_of(error), str(error.response.get("Error", {}).get("Code", ""))
    server = endpoint()
    if code == "NoSuchBucket":
        bucket = where.removeprefix("s3://").partition("/")[0]
        return InputError(f"{where}: there is no bucket {bucket!r} at {server}; create it or correct the store's URL")
    # A response to HEAD has no body; any other 404 of S3 says in its XML what was not found.
    if status == 404 and (error.operation_name == "HeadObject" or code not in ("", "404")):
        return FileNotFoundError(where)
    # S3's error codes are words; if a response is not S3's XML, botocore sets the HTTP status as its code.
    if status in (404, 405, 411, 501) and not code.isalpha():
        return _not_s3(f"it answered {error.operation_name} with HTTP {status}", where, answered=answered)
    if code in _WRONG_KEYS:
        return InputError(f"{where}: {server} refused the keys ({code}); correct AWS_ACCESS_KEY_ID and its secret")
    if status in (401, 403):
        return InputError(
            f"{where}: {server} denied access ({code or status}); check the keys (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE) and their rights on the bucket"
        )
    if status in (301, 307, 400):
        return InputError(
            f"{where}: {server} refused the request ({code or status}: {_line(error)}); check the bucket's name, "
            "AWS_REGION and AWS_ENDPOINT_URL"
        )
    return WorkError(f"{where}: {server} answered {status} {code}; run again, committed artifacts are intact")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
