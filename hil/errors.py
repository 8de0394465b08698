"""The error tree: one base class, one class per cause.

Every message says the thing, the value and the limit in `what`, and the next step in `fix`.
A failure of many cells is not an error: it is a result with a mask.
"""

#: the fix of every error that leaves open whether a cell had its pulse
READ_FIRST = "read those cells before they are pulsed again"


class HilError(Exception):
    """Base of all errors that this project raises on purpose.

    Args:
        what: what is wrong: the thing, its value, the limit.
        fix: what the user can do next.
    """

    #: exit code of the command line: 2 for wrong usage, 1 for a failure on the way.
    exit_code = 1

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(f"{what}. Fix: {fix}{'' if fix.endswith(('?', '.')) else '.'}")
        self.what = what
        self.fix = fix


class ConfigError(HilError):
    """A configuration key or value, a command-line argument or a path is wrong."""

    exit_code = 2


class LimitError(HilError):
    """A voltage, width, count or shape exceeds a limit; nothing was applied."""

    exit_code = 2


class CapabilityError(HilError):
    """The backend cannot do what was asked of it; nothing was applied."""

    exit_code = 2


class DataError(HilError):
    """A data file is missing, truncated or of another kind than it should be."""


class RunFileError(HilError):
    """A run file cannot be created, written or read."""


class TransportError(HilError):
    """The link to the board broke."""


class UnconfirmedError(HilError):
    """The link broke before anybody said that the array is safe; safeguards beyond the link act without this host."""


class UncertainError(HilError):
    """The link broke while a pulse was under way: cells may have had it. Read them before they are pulsed again."""


class LeaseError(HilError):
    """Another host has the array, or this one was silent for too long and lost it; nothing was applied."""


class AccessError(HilError):
    """The other side of a link refuses this host's key, or has none where one is needed."""


class ProtocolError(HilError):
    """The other side of a link answered what it may not answer."""


class DeviceError(HilError):
    """A chip or the array does not behave; the array may need attention."""


class CalibrationError(HilError):
    """A calibration is missing, stale, or of another board."""
