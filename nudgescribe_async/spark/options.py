"""The options of a read or a write in Spark: read, checked, and given names that Spark hides where they are secret.

Spark hands options over as text, in names without case, and shows them in plans and logs. It hides those whose
names match ``spark.redaction.regex``, which knows ``secret``, ``password``, ``token`` and ``credential``. So
everything that is a secret here has a name that begins with ``secret_``.

Knows nothing of Spark, and imports none of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from nudgescribe_async.errors import ConfigurationError
from nudgescribe_async.shapes import Secret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["HIDDEN", "Given", "without_secrets"]

HIDDEN: Final = "secret_"
"""What the names of secret options begin with."""

_LEAST: Final = 0.001
_MOST: Final = 1e6
"""Between which numbers that are not whole have to be. Beyond them, moments are no longer told apart, or never come."""

_WHAT_SPARK_SHOWS: Final = ("api_key", "email", "password", "api_code")
"""Names that one would try first, of what Spark would show if it had them."""

_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0"})


def without_secrets(options: Mapping[str, str]) -> dict[str, str]:
    """The same options, names in lower case, with the secret ones in a wrap whose ``repr`` keeps quiet."""
    plain = {name.lower(): text for name, text in options.items()}
    hide = (HIDDEN, *_WHAT_SPARK_SHOWS)
    return {name: Secret(text) if name.startswith(hide) else text for name, text in plain.items()}


class Given:
    """What was given as options. Each is asked for by its name, and checked then.

    Args:
        options: the options, in names of any case.
        known: the names that there are, in lower case.
        doing: what the options are for, as in "reading customers".

    Raises:
        ConfigurationError: there is an option that is not known. The text has the known ones, and no value.
    """

    def __init__(self, options: Mapping[str, str], *, known: Collection[str], doing: str) -> None:
        self._options = without_secrets(options)
        self._doing = doing
        unknown = sorted(self._options.keys() - set(known))
        shown = [name for name in unknown if name in _WHAT_SPARK_SHOWS]
        if shown:
            raise ConfigurationError(
                f"Spark would show the option {shown[0]!r} in plans and logs. Name it {HIDDEN + shown[0]!r}, which it hides."
            )
        if unknown:
            named = ", ".join(map(repr, unknown))
            there_is = f"There is no option {named}" if len(unknown) == 1 else f"There are no options {named}"
            raise ConfigurationError(f"{there_is} for {doing}. Those that there are: {', '.join(sorted(known))}.")

    def __contains__(self, name: str) -> bool:
        return name in self._options

    def text(self, name: str) -> str | None:
        """An option as text, without white space around it.

        Raises:
            ConfigurationError: it is empty.
        """
        if name not in self._options:
            return None
        text = self._options[name]
        if not text.strip():
            raise self.wrong(name, "must not be empty")
        # What is secret stays as it is: a password may begin with a space.
        return text if isinstance(text, Secret) else text.strip()

    def needed(self, name: str, why: str = "") -> str:
        """An option that must be there.

        Raises:
            ConfigurationError: it is not, or it is empty.
        """
        text = self.text(name)
        if text is None:
            raise ConfigurationError(f"{self._doing.capitalize()} needs the option {name!r}{why}.")
        return text

    def names(self, name: str) -> tuple[str, ...] | None:
        """An option that is a list, with commas between; each once.

        Raises:
            ConfigurationError: it is empty, or a part of it is.
        """
        text = self.text(name)
        if text is None:
            return None
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise self.wrong(name, "must be a list with commas between, without an empty part")
        return tuple(dict.fromkeys(parts))

    def whole(self, name: str, *, least: int = 1, most: int | None = None) -> int | None:
        """An option that is a whole number.

        Raises:
            ConfigurationError: it is none, or out of range.
        """
        text = self.text(name)
        if text is None:
            return None
        wanted = f"a whole number, at least {least}" + (f" and at most {most}" if most is not None else "")
        try:
            if not text.isascii() or len(text) > 18:
                raise ValueError
            number = int(text)
        except ValueError:
            raise self.wrong(name, f"must be {wanted}; got {text!r}") from None
        if number < least or (most is not None and number > most):
            raise self.wrong(name, f"must be {wanted}; got {text!r}")
        return number

    def number(self, name: str) -> float | None:
        """An option that is a number above 0, within reason.

        Raises:
            ConfigurationError: it is none, or out of range.
        """
        text = self.text(name)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not _LEAST <= number <= _MOST:
            raise self.wrong(name, f"must be a number from {_LEAST} to {_MOST:,.0f}; got {text!r}")
        return number

    def flag(self, name: str, *, default: bool) -> bool:
        """An option that is true or false.

        Raises:
            ConfigurationError: it is neither.
        """
        text = self.text(name)
        if text is None:
            return default
        if text.lower() not in _YES | _NO:
            raise self.wrong(name, f"must be true or false; got {text!r}")
        return text.lower() in _YES

    def one_of(self, name: str, choices: Iterable[str], default: str) -> str:
        """An option that is one of some words.

        Raises:
            ConfigurationError: it is another one.
        """
        text = (self.text(name) or default).lower()
        allowed = tuple(choices)
        if text not in allowed:
            raise self.wrong(name, f"must be one of {', '.join(map(repr, allowed))}; got {text!r}")
        return text

    def wrong(self, name: str, what: str) -> ConfigurationError:
        """The error of an option.

        Args:
            name: the option.
            what: what is wrong, as the end of the sentence, with the value unless it is secret.
        """
        return ConfigurationError(f"The option {name!r} for {self._doing} {what}.")
