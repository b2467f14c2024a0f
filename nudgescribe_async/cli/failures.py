"""What went wrong, as one sentence, a hint, and the code to exit with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from nudgescribe_async.cli.exit_codes import ExitCode
from nudgescribe_async.errors import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    NudgescribeError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CommandError", "Failure", "UsageError", "failure_of"]


class CommandError(Exception):
    """A command cannot do what it was asked to.

    Attributes:
        message: one sentence.
        hint: what to do about it; empty if that is plain.
        code: what the command ends with.
    """

    code: ExitCode = ExitCode.FAILURE

    def __init__(self, message: str, *, hint: str = "", code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(CommandError):
    """Arguments or settings are wrong."""

    code = ExitCode.USAGE


@frozen(kw_only=True)
class Failure:
    """What is told of an error.

    Attributes:
        code: what the command ends with.
        kind: the name of the error's class.
        message: one sentence.
        hint: what to do about it; empty if nobody knows.
        details: what a script may want to know: operation, request id, status, whether it may have taken effect.
    """

    code: ExitCode
    kind: str
    message: str
    hint: str = ""
    details: Mapping[str, Any]

    def as_document(self) -> Mapping[str, Any]:
        """What is printed with ``--json``."""
        return {
            "error": {
                "kind": self.kind,
                "message": self.message,
                "hint": self.hint,
                "exit_code": int(self.code),
                **self.details,
            }
        }


def failure_of(error: BaseException) -> Failure:
    """What to tell of an error.

    Of errors that nobody has foreseen only the class is told: their text may hold anything.
    """
    kind = type(error).__name__
    match error:
        case CommandError():
            return Failure(code=error.code, kind=kind, message=error.message, hint=error.hint, details={})
        case NudgescribeError():
            return _of_package(error)
        case OSError():
            about = "" if error.filename is None else f": {error.filename}"
            message = f"{error.strerror or kind}{about}."
            return Failure(code=ExitCode.FAILURE, kind=kind, message=message, details={})
        case _:
            return Failure(
                code=ExitCode.FAILURE,
                kind=kind,
                message=f"This command has a fault: {kind}.",
                hint="The same command with --debug shows where; please report it.",
                details={},
            )


def _of_package(error: NudgescribeError) -> Failure:
    details: dict[str, Any] = {
        "operation": error.operation,
        "request_id": error.request_id,
        "attempts": len(error.attempts),
        "may_have_taken_effect": error.may_have_taken_effect,
    }
    if isinstance(error, APIStatusError | AuthenticationError):
        details["status"] = error.status
    context = [f"operation {error.operation}"] if error.operation else []
    if error.request_id:
        context.append(f"request id {error.request_id}")
    if len(error.attempts) > 1:
        context.append(f"{len(error.attempts)} attempts")
    return Failure(
        code=ExitCode.USAGE if isinstance(error, ConfigurationError) or _is_refused_login(error) else ExitCode.FAILURE,
        kind=type(error).__name__,
        message=f"{error.message} ({', '.join(context)})" if context else error.message,
        hint=_hint(error),
        details={name: value for name, value in details.items() if value is not None},
    )


def _is_refused_login(error: NudgescribeError) -> bool:
    """Whether the credentials are wrong: trying again would not help, and might lock the account."""
    return isinstance(error, AuthenticationError) and error.status in {400, 401, 403, 404, 422}


def _hint(error: NudgescribeError) -> str:
    hints = [error.advice] if error.advice else []
    if error.may_have_taken_effect and "taken effect" not in error.advice:
        look = f" with {error.look}" if error.look else ""
        hints.append(f"It may have taken effect: look{look} before you do it again.")
    if not hints and isinstance(error, AuthenticationError):
        hints.append("`nudgescribe whoami` shows which settings are used and where they come from.")
    if isinstance(error, TransportError) and not error.may_have_taken_effect:
        hints.append("`nudgescribe doctor` shows how far a request gets.")
    return " ".join(hints)
