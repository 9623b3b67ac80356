"""Errors that a person can act on: what was found, what was expected, what to do."""

from __future__ import annotations


class SlipwayError(Exception):
    """An error in three parts, shown without a traceback.

    Args:
        found: What was found, naming the file and the dotted key where there is one.
        expected: What was expected there.
        action: What the reader can do now.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str, action: str) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.action = action

    def __str__(self) -> str:
        return f"Found: {self.found}\nExpected: {self.expected}\nDo: {self.action}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and ranks send errors to their parent.
        return (_rebuild, (type(self), self.found, self.expected, self.action))

    def parts(self) -> dict[str, str]:
        """Returns the three parts as a flat dictionary, for events and `--json`."""
        return {"found": self.found, "expected": self.expected, "action": self.action}


class UserError(SlipwayError):
    """Bad input: a configuration, a file or an argument that only its owner can mend. Exit code 2."""

    exit_code = 2


class RunFailure(SlipwayError):
    """Something failed while running: a full disk, a dead rank, a loss that is not a number. Exit code 1."""

    exit_code = 1


def _rebuild(kind: type[SlipwayError], found: str, expected: str, action: str) -> SlipwayError:
    return kind(found, expected=expected, action=action)
