"""The errors of seat files and their operations."""

from datetime import timedelta

from muster_runtime.errors import Conflict, NotFound, PermanentError, RetryableError


class OperationUnknown(NotFound):
    """The agency has no such operation."""

    slug = "operation-unknown"
    title = "Operation not found"

    def __init__(self, agency_id: str, operation_id: str) -> None:
        super().__init__(f"{agency_id} has no operation {operation_id[:60]!r}")


class TooManyFiles(Conflict):
    """The agency has reached the limit of files that are being received or processed."""

    slug = "too-many-files"
    title = "Too many files at once"

    def __init__(self, agency_id: str, limit: int) -> None:
        super().__init__(
            f"{agency_id} already has {limit} files being received or processed, the maximum; "
            "send this one when one of them is done",
            limit=limit,
        )


class TooManyResults(Conflict):
    """The agency's files of the last days have too many rows: their results would fill the database."""

    slug = "too-many-results"
    title = "Too many results are kept"

    def __init__(self, agency_id: str, limit: int, kept_for: timedelta) -> None:
        super().__init__(
            f"with this file, the files of {agency_id} would have more than {limit} rows, the maximum in "
            f"{kept_for.days} days; send only rows that change something, or wait until earlier results are deleted",
            limit=limit,
        )


class UploadCutOff(PermanentError):
    """The connection was lost before the end of the file. Nothing was changed."""

    status = 400
    slug = "upload-cut-off"
    title = "The file is incomplete"

    def __init__(self) -> None:
        super().__init__(
            "the connection was lost before the end of the file; nothing was changed, so send the file again"
        )


class UploadTooSlow(PermanentError):
    """The upload took too long, so the partial file was discarded."""

    status = 408
    slug = "upload-too-slow"
    title = "The upload took too long"

    def __init__(self, limit: timedelta) -> None:
        super().__init__(f"the file did not arrive within {limit}; nothing was changed")


class StoredReplyDeleted(RetryableError):
    """The reply to an earlier upload with the same key was deleted while this one arrived. Sending it again works."""

    def __init__(self) -> None:
        super().__init__("the stored reply was deleted while the file arrived")
