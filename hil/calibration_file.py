"""Calibration: what was measured of one board and chip, and may be applied to them only.

A value of this module never changes: each step makes a new one. How it lies in a file is in `hil.calibration_store`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import BackendInfo
from hil.errors import CalibrationError, ConfigError
from hil.wiring import Wiring

if TYPE_CHECKING:
    from hil.fault_map import FaultMap

#: parts of a calibration, in the order in which they are measured
PARTS = ("zero", "dac", "tia", "line", "noise", "array", "gate")
#: serial of a board that does not tell its own
UNKNOWN_SERIAL = "unknown"

#: quantities of each part, so that a message can say what to measure; a part may have more
MEASURED_BY: Mapping[str, tuple[str, ...]] = {
    "zero": ("column_offset_v", "row_offset_v", "converter_noise_lsb"),
    "dac": ("row_gain_error", "row_offset_v", "row_nonlinearity_v"),
    "tia": ("amps_per_code",),
    "line": ("r_on_ohm", "row_ohm", "col_ohm", "settle_s"),
    "noise": ("read_noise", "flicker_share", "telegraph_share", "converter_noise_lsb"),
    "array": (
        "conductance_s",
        "read_noise_cell",
        "faults",
        "forming_mean_s",
        "forming_sigma_difference_s",
        "formed_share",
    ),
    "gate": ("gate_threshold_v", "set_gate_s_per_v"),
}

#: quantities of any part that say which lines work: bool of shape (rows,), (cols,)
ROW_WORKS, COL_WORKS = "row_works", "col_works"

#: what a user may accept by name
MISFITS = ("other-board", "other-firmware", "other-profile", "stale")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_VERSION = re.compile(r"(\d+)\.(\d+)")
_DAY_S = 86400.0
#: two computers' clocks differ by less
_CLOCKS_DIFFER_DAYS = 1 / 24


@dataclass(frozen=True)
class BoardIdentity:
    """Which board, chip and firmware.

    Attributes:
        serial: serial number of the board.
        firmware: version of what runs on its fabric.
        profile: name of the board profile.
        profile_hash: its content.
        shape: (rows, cols) of the array.
    """

    serial: str
    firmware: str
    profile: str
    profile_hash: str
    shape: tuple[int, int]

    @classmethod
    def of(cls, info: BackendInfo) -> BoardIdentity:
        """What a backend says of itself; a simulated chip is told by its seed and has neither firmware nor profile."""
        known = info.identity
        simulated = f"simulated-{known['seed']}" if "seed" in known else UNKNOWN_SERIAL
        return cls(
            serial=str(known.get("board_serial", simulated)),
            firmware=str(known.get("firmware", "none")),
            profile=str(known.get("profile", "none")),
            profile_hash=str(known.get("profile_hash", "none")),
            shape=(int(info.shape[0]), int(info.shape[1])),
        )


@dataclass(frozen=True, eq=False)
class Quantity:
    """Measured values of one kind; the unit is the suffix of its name. The arrays are read-only copies.

    Attributes:
        value: a number or an array.
        uncertainty: one sigma, of the same shape.
        ok: where the value may be used, of the same shape.
    """

    value: NDArray[Any]
    uncertainty: NDArray[np.float64]
    ok: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name, dtype in (("value", None), ("uncertainty", np.float64), ("ok", np.bool_)):
            array = np.array(getattr(self, name), dtype)
            if array.dtype.kind not in "biuf" or array.shape != np.shape(self.value):
                raise CalibrationError(
                    f"{name} of a quantity is {array.dtype}{array.shape}, its value has shape {np.shape(self.value)}",
                    fix="give numbers, and uncertainty and ok of the same shape as the value",
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, value: Any, uncertainty: Any = np.nan, ok: Any = True) -> Quantity:
        """A quantity whose uncertainty and success may be stated once for all."""
        array = np.asarray(value)
        return cls(
            array,
            np.broadcast_to(np.asarray(uncertainty, np.float64), array.shape),
            np.broadcast_to(np.asarray(ok, np.bool_), array.shape),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """Result of one procedure.

    Attributes:
        name: one of `PARTS`.
        quantities: by name. `row_works` (rows,) and `col_works` (cols,) say which lines this part found working.
        residuals: rms of what a fit left, by name, each with its unit as suffix.
        method: how it was measured, in words.
        options: what the procedure was told.
        instruments: *IDN? by role.
        measured_unix_s: when.
        findings: what a person should know, a sentence each.
    """

    name: str
    quantities: Mapping[str, Quantity]
    residuals: Mapping[str, float] = field(default_factory=dict[str, float])
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    instruments: Mapping[str, str] = field(default_factory=dict[str, str])
    measured_unix_s: float = 0.0
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_parts([self.name])
        for name in (*self.quantities, *self.residuals):
            if not _NAME.fullmatch(name):
                raise CalibrationError(
                    f"part {self.name!r} names a quantity or residual {name!r}",
                    fix="use letters, digits and _, letter first, with the unit as suffix",
                )


@dataclass(frozen=True, eq=False)
class Calibration:
    """All parts that were measured so far.

    Attributes:
        board: what it belongs to.
        wiring: of the board.
        electrics: what the simulator must know of the board's profile.
        parts: by name.
        seed: of the procedures' random patterns.
        created_unix_s: when it was begun.
        software: version of this program.
        validation: what `hil calibrate validate` found; not part of the identity.
    """

    board: BoardIdentity
    wiring: Wiring
    electrics: Mapping[str, Any]
    parts: Mapping[str, Part] = field(default_factory=dict[str, Part])
    seed: int = 0
    created_unix_s: float = 0.0
    software: Mapping[str, Any] = field(default_factory=dict[str, Any])
    validation: Mapping[str, Any] | None = None

    @cached_property
    def calibration_id(self) -> str:
        """Tells this calibration from any other: 16 hexadecimal digits over all but `validation`."""
        from hil.calibration_store import digest, fields_of

        return digest(fields_of(self))[:16]

    # Looking up

    @property
    def summary(self) -> dict[str, Any]:
        """What a backend that has it applied says of it: id, when it was begun, and the validation in a sentence."""
        found = self.validation
        return {
            "id": self.calibration_id,
            "created_unix_s": self.created_unix_s,
            "validation": None if found is None else str(found.get("text", "validated")),
        }

    def quantity(self, name: str) -> Quantity | None:
        """A quantity as the last part that has it gives it; None where no part has it."""
        found = [self.parts[part].quantities for part in PARTS if part in self.parts]
        return next((quantities[name] for quantities in reversed(found) if name in quantities), None)

    def value(self, name: str) -> NDArray[Any]:
        """Value of a quantity; of a scalar, an array of shape ().

        Raises:
            CalibrationError: no part has it; names the parts that measure it.
        """
        if (found := self.quantity(name)) is not None:
            return found.value
        by = [part for part in PARTS if name in MEASURED_BY[part]]
        fix = (
            _measure(by[:1])
            if by
            else f"known are: {', '.join(sorted({n for ns in MEASURED_BY.values() for n in ns}))}"
        )
        raise CalibrationError(f"calibration {self.calibration_id} has no {name}", fix=fix)

    def missing(self, parts: Sequence[str]) -> list[str]:
        """Those of the named parts that were not measured, in the order of `PARTS`."""
        _check_parts(parts)
        return [part for part in PARTS if part in parts and part not in self.parts]

    def require(self, parts: Sequence[str]) -> None:
        """Raise `CalibrationError` unless the named parts were measured."""
        if missing := self.missing(parts):
            raise CalibrationError(
                f"calibration {self.calibration_id} is incomplete: it lacks {', '.join(missing)}", fix=_measure(missing)
            )

    @property
    def row_ok(self) -> NDArray[np.bool_]:
        """Rows that neither the power-up nor a part found dead, shape (rows,)."""
        return self._working(ROW_WORKS, self.wiring.row_ok)

    @property
    def col_ok(self) -> NDArray[np.bool_]:
        """Columns that neither the power-up nor a part found dead, shape (cols,)."""
        return self._working(COL_WORKS, self.wiring.col_ok)

    def _working(self, name: str, at_power_up: NDArray[np.bool_]) -> NDArray[np.bool_]:
        working = np.array(at_power_up, np.bool_)
        for part in self.parts.values():
            if (found := part.quantities.get(name)) is not None:
                # a line that a part could not judge is not dead for that
                working &= found.value.astype(np.bool_) | ~found.ok
        return working

    def fault_map(self) -> FaultMap:
        """Faults that part `array` found, and all cells of a line that does not work as open."""
        from hil.fault_map import Fault, FaultMap

        found = self.quantity("faults")
        faults = FaultMap.healthy_array(self.board.shape) if found is None else FaultMap(found.value)
        mask = np.zeros(self.board.shape, np.bool_)
        rows_out, cols_out = mask.copy(), mask.copy()
        rows_out[~self.row_ok], cols_out[:, ~self.col_ok] = True, True
        return faults.with_faults(rows_out, Fault.ROW_OPEN).with_faults(cols_out, Fault.COL_OPEN)

    # Making new ones

    def with_part(self, part: Part) -> Calibration:
        """With a part measured anew; what was validated before is no statement on the result, and is left out."""
        parts = {**self.parts, part.name: part}
        return replace(self, parts={name: parts[name] for name in PARTS if name in parts}, validation=None)

    def with_validation(self, validation: Mapping[str, Any] | None) -> Calibration:
        """With the outcome of a validation: texts, numbers, lists and mappings."""
        return replace(self, validation=validation)

    # Files

    def save(self, path: Path) -> None:
        """Write a file, which appears whole or not at all; until then an older one of that name stays.

        Raises:
            CalibrationError: it cannot be written, or holds a value that a file cannot hold.
        """
        from hil.calibration_store import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file.

        Raises:
            CalibrationError: no such file, not a calibration, edited or damaged, or of a newer version of this program.
        """
        from hil.calibration_store import load

        return load(Path(path))

    # Whether it may be applied

    def check_fits(
        self,
        info: BackendInfo,
        *,
        allow: Collection[str] = (),
        max_age_days: float = 30.0,
        now_unix_s: float | None = None,
    ) -> None:
        """Refuse to be applied to another board, firmware or profile, or after too long a time.

        Args:
            info: the backend that it is to be applied to.
            allow: misfits that the user accepts, of `MISFITS`.
            max_age_days: age of the oldest part from which it is stale.
            now_unix_s: the time; None: the clock.

        Raises:
            CalibrationError: it does not fit; names all misfits that are not accepted. Another shape cannot be.
            ConfigError: `allow` holds an unknown name.
        """
        if unknown := sorted(set(allow) - set(MISFITS)):
            raise ConfigError(
                f"calibration.allow names {', '.join(map(repr, unknown))}", fix=f"there are: {', '.join(MISFITS)}"
            )
        here = BoardIdentity.of(info)
        if here.shape != self.board.shape:
            raise CalibrationError(
                f"calibration {self.calibration_id} is of an array of {_by(self.board.shape)} lines, "
                f"this one has {_by(here.shape)}",
                fix="use the calibration of this array",
            )
        found = self._misfits(here, max_age_days, time.time() if now_unix_s is None else now_unix_s)
        if refused := [name for name in found if name not in allow]:
            accepted = ", ".join(f'"{name}"' for name in MISFITS if name in refused or name in allow)
            raise CalibrationError(
                f"calibration {self.calibration_id} does not fit: "
                + "; ".join(f"{found[name]} ({name})" for name in refused),
                fix=f"measure again with `hil calibrate all`, or accept it with --set 'calibration.allow=[{accepted}]'",
            )

    def _misfits(self, here: BoardIdentity, max_age_days: float, now_unix_s: float) -> dict[str, str]:
        """What does not fit, by its name, in words."""
        board = self.board
        found: dict[str, str] = {}
        if board.serial != here.serial:
            found["other-board"] = f"it is of board {board.serial}, this is board {here.serial}"
        if board.firmware != here.firmware:
            found["other-firmware"] = (
                f"it was measured with {_kin(board.firmware, here.firmware)} firmware {board.firmware}, "
                f"this board runs {here.firmware}"
            )
        if board.profile_hash != here.profile_hash:
            found["other-profile"] = (
                f"it was measured with board profile {board.profile} ({board.profile_hash}), "
                f"this board has {here.profile} ({here.profile_hash})"
            )
        ages_days = {part.name: (now_unix_s - part.measured_unix_s) / _DAY_S for part in self.parts.values()}
        # Written so that a time that is not a number is stale too.
        stale = [part for part, age in ages_days.items() if not -_CLOCKS_DIFFER_DAYS <= age <= max_age_days]
        if stale:
            worst = max(stale, key=lambda part: abs(ages_days[part]))
            age_days = ages_days[worst]
            when = f"{-age_days:.3g} days after this clock's time" if age_days < 0 else f"{age_days:.1f} days ago"
            found["stale"] = f"its part {worst} was measured {when}, the limit is {max_age_days:g} days"
        return found


def _kin(theirs: str, ours: str) -> str:
    """How one firmware's version is to another's."""
    found = [_VERSION.search(text) for text in (theirs, ours)]
    old, new = ((int(match[1]), int(match[2])) if match else (0, 0) for match in found)
    if not all(found) or old == new:
        return "another"
    return "older" if old < new else "newer"


def _check_parts(parts: Sequence[str]) -> None:
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"a calibration has no part {part!r}", fix=f"there are: {', '.join(PARTS)}")


def _measure(parts: Sequence[str]) -> str:
    return "measure it with " + ", then ".join(f"`hil calibrate {part}`" for part in parts)


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
