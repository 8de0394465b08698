"""The error tree: what a message says, what exit code a cause gets."""

import inspect

import pytest

from hil import errors
from hil.errors import HilError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HilError)]
USAGE = {"ConfigError", "LimitError", "CapabilityError"}


@pytest.mark.parametrize("kind", KINDS)
def test_message_and_exit_code(kind: type[HilError]) -> None:
    error = kind("read voltage 2 V is outside 0 to 0.5 V", fix="use at most 0.5 V")
    assert str(error) == "read voltage 2 V is outside 0 to 0.5 V. Fix: use at most 0.5 V."
    assert (error.what, error.fix) == ("read voltage 2 V is outside 0 to 0.5 V", "use at most 0.5 V")
    assert error.exit_code == (2 if kind.__name__ in USAGE else 1)
    assert isinstance(error, HilError)
    assert kind.__doc__


def test_every_cause_is_its_own_class() -> None:
    below = {kind.__name__ for kind in KINDS} - {"HilError"}
    assert below >= USAGE | {"TransportError", "ProtocolError", "DeviceError", "DataError", "CalibrationError"}
    assert all(kind.__bases__ == (HilError,) for kind in KINDS if kind is not HilError)


def test_fix_is_required() -> None:
    with pytest.raises(TypeError):
        HilError("what")  # type: ignore[call-arg]
