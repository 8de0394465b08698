"""Calibration files: what goes in comes out, nothing edited comes in, nothing is applied to what it is not of."""

from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from firmware_bridge.electrics import electrics
from firmware_bridge.profile import load_profile
from hil.backend import BackendInfo, Capabilities, Limits
from hil.calibration_file import (
    COL_WORKS,
    MEASURED_BY,
    MISFITS,
    PARTS,
    ROW_WORKS,
    BoardIdentity,
    Calibration,
    Part,
    Quantity,
)
from hil.calibration_settings import CalibrationSettings
from hil.calibration_store import FORMAT_VERSION
from hil.config import load
from hil.errors import CalibrationError, ConfigError
from hil.fault_map import Fault
from hil.wiring import Wiring

ROOT = Path(__file__).parents[2]
SHAPE = (4, 6)
NOW_S = 1.8e9
DAY_S = 86400.0

WIRING = Wiring(
    row_channel=np.array([0, 1, 0, 1]),
    row_position=np.array([0, 0, 1, 1]),
    col_converter=np.array([0, 0, 1, 1, 2, 2]),
    independent_selects=True,
    inhibit=True,
    channel_names=("DAC 0 channel 0", "DAC 0 channel 1"),
    converter_names=("ADC lane 0", "ADC lane 1", "ADC lane 2"),
    row_ok=np.array([True, True, True, True]),
    col_ok=np.array([True, True, True, True, False, True]),
)
BOARD = BoardIdentity("emulated-7", "1.2+0a1b2c3d", "paper-guess", "f" * 16, SHAPE)
OTHERS = {
    "board_serial": BOARD.serial,
    "firmware": BOARD.firmware,
    "profile": BOARD.profile,
    "profile_hash": BOARD.profile_hash,
}


def zero_part(**more: Any) -> Part:
    found = {
        "name": "zero",
        "quantities": {
            "column_offset_v": Quantity.of(np.linspace(-1e-3, 1e-3, 6), 1e-5, np.arange(6) != 4),
            "row_offset_v": Quantity.of([1e-4, np.nan], [1e-6, np.inf], [True, False]),
        },
        "residuals": {"fit_v": 3e-6},
        "method": "VMMs at 0 V",
        "options": {"n_average": 64, "levels_v": [0.0, 0.2]},
        "instruments": {"smu": "KEITHLEY INSTRUMENTS,MODEL 2450,0,1.7"},
        "measured_unix_s": NOW_S,
        "findings": ("ADC lane 2 clips: columns 4 to 5",),
        **more,
    }
    return Part(**found)


def calibration(**more: Any) -> Calibration:
    found = {
        "board": BOARD,
        "wiring": WIRING,
        "electrics": {"mux_width": 2, "selects": "independent", "inhibit": True, "r_feedback_ohm": 1e4},
        "parts": {"zero": zero_part()},
        "seed": 5,
        "created_unix_s": NOW_S,
        "software": {"crossbar-hil": "0.5.0"},
        **more,
    }
    return Calibration(**found)


def info(shape: tuple[int, int] = SHAPE, **identity: Any) -> BackendInfo:
    return BackendInfo("emulator", shape, {**OTHERS, **identity}, Capabilities(), Limits(0.5, 4.9, 4.9, 1e-3, 100))


def assert_same(a: Any, b: Any) -> None:
    """Equal down to the bits and types, NaN included; a list is as good as a tuple."""
    if dataclasses.is_dataclass(a):
        assert type(a) is type(b)
        for item in dataclasses.fields(a):
            assert_same(getattr(a, item.name), getattr(b, item.name))
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes()
    else:
        assert a == b


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
numbers = st.floats(allow_nan=True)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
mappings = st.dictionaries(st.text(max_size=8), plain, max_size=3)


@st.composite
def quantities(draw: st.DrawFn) -> Quantity:
    dtype = draw(st.sampled_from([np.float64, np.float32, np.uint8, np.bool_, np.int64]))
    value = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)))
    return Quantity(value, draw(hnp.arrays(np.float64, value.shape)), draw(hnp.arrays(np.bool_, value.shape)))


@st.composite
def parts(draw: st.DrawFn) -> Part:
    return Part(
        name=draw(st.sampled_from(PARTS)),
        quantities=draw(st.dictionaries(names, quantities(), max_size=3)),
        residuals=draw(st.dictionaries(names, numbers, max_size=2)),
        method=draw(texts),
        options=draw(mappings),
        instruments=draw(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2)),
        measured_unix_s=draw(numbers),
        findings=tuple(draw(st.lists(st.text(max_size=9), max_size=2))),
    )


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    drawn = calibration(
        board=BoardIdentity(*(draw(texts) for _ in range(4)), SHAPE),
        electrics=draw(mappings),
        parts={},
        seed=draw(st.integers(0, 2**62)),
        created_unix_s=draw(numbers),
        software=draw(mappings),
    )
    for part in draw(st.lists(parts(), max_size=3)):
        drawn = drawn.with_part(part)
    return drawn.with_validation(draw(st.none() | mappings))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board.h5"


class TestRoundTrip:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(drawn=calibrations())
    def test_everything_comes_back_bit_by_bit(self, path: Path, drawn: Calibration) -> None:
        drawn.save(path)
        found = Calibration.load(path)
        assert_same(drawn, found)
        assert found.calibration_id == drawn.calibration_id
        assert list(found.parts) == list(drawn.parts)

    def test_nan_payload_survives(self, path: Path) -> None:
        odd = np.array([0x7FF8000000000123, 0xFFF0000000000001], np.uint64).view(np.float64)
        calibration().with_part(Part("line", {"odd_ohm": Quantity.of(odd)})).save(path)
        assert Calibration.load(path).value("odd_ohm").tobytes() == odd.tobytes()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("column_offset_v", np.zeros(5)),
            ("row_offset_v", np.zeros((2, 1))),
            ("row_ohm", np.zeros(1)),
            ("conductance_s", np.zeros((6, 4))),
            (ROW_WORKS, np.ones(3, np.bool_)),
        ],
    )
    def test_a_quantity_of_another_array_is_refused(self, path: Path, name: str, value: Any) -> None:
        calibration().with_part(Part("line", {name: Quantity.of(value)})).save(path)
        with pytest.raises(CalibrationError, match=rf"contradicts itself: {name} of part line has shape"):
            Calibration.load(path)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("row_channel", np.array([0, 1, 0, 2])),
            ("col_converter", np.array([0, 0, 1, 1, 2, -1])),
            ("row_position", np.zeros(3, np.intp)),
            ("col_ok", np.ones((1, 6), np.bool_)),
            ("channel_names", ()),
        ],
    )
    def test_wiring_of_another_array_is_refused(self, path: Path, name: str, value: Any) -> None:
        calibration(wiring=dataclasses.replace(WIRING, **{name: value})).save(path)
        with pytest.raises(CalibrationError, match="contradicts itself"):
            Calibration.load(path)

    def test_the_largest_seed_survives(self, path: Path) -> None:
        calibration(seed=2**64 - 1).save(path)
        assert Calibration.load(path).seed == 2**64 - 1

    def test_options_may_hold_what_a_procedure_has_at_hand(self, path: Path) -> None:
        options = {"n": np.int64(3), "rows": np.arange(2), "file": Path("a/b"), "limit": float("inf"), "t": (1, 2)}
        calibration(parts={"zero": zero_part(options=options)}).save(path)
        found = Calibration.load(path).parts["zero"].options
        assert found == {"n": 3, "rows": [0, 1], "file": "a/b", "limit": float("inf"), "t": [1, 2]}

    @pytest.mark.parametrize("bad", [object(), {1, 2}])
    def test_an_option_of_another_kind_is_refused_and_no_file_is_left(self, path: Path, bad: Any) -> None:
        with pytest.raises(CalibrationError, match=r"cannot hold .* Fix: use texts, numbers"):
            calibration(parts={"zero": zero_part(options={"x": bad})}).save(path)
        assert not path.exists()

    @pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
    def test_a_text_that_hdf5_would_change_is_refused(self, path: Path, bad: str) -> None:
        with pytest.raises(CalibrationError, match="parts/zero/method"):
            calibration(parts={"zero": zero_part(method=bad)}).save(path)
        assert not path.exists()

    def test_loaded_values_cannot_be_changed_under_their_id(self, path: Path) -> None:
        calibration().save(path)
        with pytest.raises(ValueError, match="read-only"):
            Calibration.load(path).value("column_offset_v")[0] = 1.0

    def test_a_quantity_does_not_follow_the_array_that_it_was_made_of(self) -> None:
        array = np.zeros(3)
        found = Quantity.of(array)
        array[0] = 1.0
        assert not found.value.any()


class TestIdentity:
    def test_is_sixteen_hexadecimal_digits(self) -> None:
        assert int(calibration().calibration_id, 16) >= 0
        assert len(calibration().calibration_id) == 16

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 6},
            {"created_unix_s": NOW_S + 1e-3},
            {"software": {}},
            {"electrics": {}},
            {"board": dataclasses.replace(BOARD, serial="emulated-8")},
            {"wiring": dataclasses.replace(WIRING, inhibit=False)},
            {"parts": {}},
            {"parts": {"zero": zero_part(method="other")}},
            {"parts": {"zero": zero_part(findings=())}},
            {"parts": {"zero": zero_part(residuals={"fit_v": 3.1e-6})}},
            {"parts": {"zero": zero_part(measured_unix_s=NOW_S + 1)}},
            {"parts": {"zero": zero_part(quantities={})}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_differs_with_everything_that_differs(self, change: dict[str, Any]) -> None:
        assert calibration(**change).calibration_id != calibration().calibration_id

    def test_differs_with_the_type_of_equal_values(self) -> None:
        kinds = [np.zeros(4, np.float64), np.zeros(4, np.int64), np.zeros((2, 2)), np.zeros(8, np.float32)]
        ids = {calibration().with_part(Part("line", {"x": Quantity.of(k)})).calibration_id for k in kinds}
        assert len(ids) == len(kinds)

    def test_is_the_same_after_a_validation(self) -> None:
        assert calibration().with_validation({"bias": 0.1}).calibration_id == calibration().calibration_id

    def test_a_part_measured_anew_ends_the_validation(self) -> None:
        assert calibration().with_validation({"bias": 0.1}).with_part(zero_part()).validation is None

    def test_a_board_is_known_by_what_it_says(self) -> None:
        assert BoardIdentity.of(info()) == BOARD

    def test_a_simulated_chip_is_known_by_its_seed(self) -> None:
        sim = BackendInfo("sim", SHAPE, {"seed": 3}, Capabilities(), Limits(1, 1, 1, 1, 1))
        assert BoardIdentity.of(sim) == BoardIdentity("simulated-3", "none", "none", "none", SHAPE)

    def test_a_backend_that_says_nothing_is_unknown(self) -> None:
        null = BackendInfo("null", SHAPE, {}, Capabilities(), Limits(1, 1, 1, 1, 1))
        assert BoardIdentity.of(null).serial == "unknown"


def set_value(name: str, value: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[name][...] = value

    return edit


def replace_with(name: str, value: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return edit


AT = "parts/zero/quantities/column_offset_v"
EDITS: dict[str, Callable[[h5py.File], None]] = {
    "one value": lambda file: file[f"{AT}/value"].write_direct(np.array([1.0]), dest_sel=np.s_[2:3]),
    "last bit of a value": lambda file: file[f"{AT}/value"].write_direct(
        np.nextafter(file[f"{AT}/value"][:1], 1.0), dest_sel=np.s_[0:1]
    ),
    "sign of zero": set_value("parts/zero/residuals/fit_v", -0.0),
    "an ok": lambda file: file[f"{AT}/ok"].write_direct(np.array([True]), dest_sel=np.s_[4:5]),
    "an uncertainty": set_value(f"{AT}/uncertainty", 1e-9),
    "a residual": set_value("parts/zero/residuals/fit_v", 0.0),
    "time": set_value("parts/zero/measured_unix_s", NOW_S + DAY_S),
    "serial": replace_with("board/serial", "emulated-8"),
    "firmware": replace_with("board/firmware", "1.3"),
    "a row of the wiring": set_value("wiring/row_channel", 0),
    "type of a value": replace_with("seed", np.int32(5)),
    "shape of a value": replace_with(f"{AT}/value", np.zeros((6, 1))),
    "dataset deleted": lambda file: file.__delitem__(f"{AT}/uncertainty"),
    "quantity deleted": lambda file: file.__delitem__(AT),
    "part deleted": lambda file: file.__delitem__("parts/zero"),
    "dataset added": lambda file: file.__setitem__("extra", 1.0),
    "quantity added": lambda file: file.copy(AT, "parts/zero/quantities/extra_v"),
    "part added": lambda file: file.copy("parts/zero", "parts/tia"),
    "unknown part added": lambda file: file.copy("parts/zero", "parts/unheard"),
    "empty group added": lambda file: file.create_group("parts/dac"),
    "soft link added": lambda file: file.__setitem__("extra", h5py.SoftLink("/seed")),
    "outer link added": lambda file: file.__setitem__("extra", h5py.ExternalLink("other.h5", "/")),
    "loop of links": lambda file: file["parts"].__setitem__("zero2", file["parts"]),
    "quantity renamed": lambda file: file.move(AT, "parts/zero/quantities/row_gain_error"),
    "part renamed": lambda file: file.move("parts/zero", "parts/tia"),
    "attribute of the root changed": lambda file: file.attrs.__setitem__("sha256", "0" * 64),
    "attribute of the root deleted": lambda file: file.attrs.__delitem__("sha256"),
    "version deleted": lambda file: file.attrs.__delitem__("format_version"),
    "version of another kind": lambda file: file.attrs.__setitem__("format_version", "one"),
    "version before the first": lambda file: file.attrs.__setitem__("format_version", 0),
    "attribute of the root added": lambda file: file.attrs.__setitem__("note", "mine"),
    "attribute of a dataset added": lambda file: file["seed"].attrs.__setitem__("unit", "1"),
    "attribute of a group added": lambda file: file["parts"].attrs.__setitem__("note", "mine"),
    "text made a number": replace_with("board/serial", 7.0),
    "number made a text": replace_with("seed", "5"),
    "validation changed": replace_with("validation", '{"bias": 0.0}'),
    "validation deleted": lambda file: file.__delitem__("validation"),
    "hash of the validation deleted": lambda file: file.attrs.__delitem__("validation_sha256"),
}


class TestEditedOrDamaged:
    @pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
    def test_an_edit_is_refused_by_name(self, path: Path, edit: Callable[[h5py.File], None]) -> None:
        calibration().with_validation({"bias": 0.1}).save(path)
        with h5py.File(path, "r+") as file:
            edit(file)
        with pytest.raises(CalibrationError, match=r"board\.h5 was edited or damaged\. Fix: take the file"):
            Calibration.load(path)

    def test_a_validation_of_another_calibration_is_refused(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.h5"
        calibration().save(path)
        calibration(seed=6).with_validation({"bias": 0.1}).save(other)
        with h5py.File(path, "r+") as file, h5py.File(other) as source:
            source.copy("validation", file)
            file.attrs["validation_sha256"] = source.attrs["validation_sha256"]
        with pytest.raises(CalibrationError, match="edited or damaged"):
            Calibration.load(path)

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_flipped_byte_never_changes_what_is_read(self, path: Path, data: st.DataObject) -> None:
        whole = calibration().with_validation({"bias": 0.1})
        whole.save(path)
        raw = bytearray(path.read_bytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        try:
            found = Calibration.load(path)
        except CalibrationError:
            return
        assert_same(found, whole)  # a byte that nothing uses

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0, 0.999))
    def test_a_truncated_file_is_refused(self, path: Path, share: float) -> None:
        calibration().save(path)
        raw = path.read_bytes()
        path.write_bytes(raw[: int(share * len(raw))])
        with pytest.raises(CalibrationError, match=r"edited or damaged|is not a calibration file"):
            Calibration.load(path)

    def test_no_file(self, path: Path) -> None:
        with pytest.raises(CalibrationError, match=r"there is no calibration file .*board\.h5.*hil calibrate all"):
            Calibration.load(path)

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError, match="cannot be read: Is a directory"):
            Calibration.load(tmp_path)

    def test_a_file_of_another_kind(self, path: Path) -> None:
        path.write_text("serial = 1")
        with pytest.raises(CalibrationError, match=r"board\.h5 is not a calibration file"):
            Calibration.load(path)

    @pytest.mark.parametrize("found", [None, "crossbar-hil run", 3])
    def test_an_hdf5_file_of_another_kind(self, path: Path, found: Any) -> None:
        with h5py.File(path, "w") as file:
            if found is not None:
                file.attrs["format"] = found
        with pytest.raises(CalibrationError, match=r"board\.h5 is not a calibration file"):
            Calibration.load(path)

    def test_a_newer_version(self, path: Path) -> None:
        calibration().save(path)
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = FORMAT_VERSION + 1
        with pytest.raises(CalibrationError, match=r"has format 2, this version .* reads 1\. Fix: update crossbar-hil"):
            Calibration.load(path)


class TestWriting:
    @pytest.mark.parametrize("where", ["write_bytes", "replace"])
    def test_a_full_disk_leaves_the_old_file_and_nothing_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        calibration().save(path)
        before = path.read_bytes()

        def full(self: Path, *_: Any) -> None:
            if where == "write_bytes":
                with self.open("wb") as stream:
                    stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, where, full)
        with pytest.raises(CalibrationError, match=r"board\.h5 cannot be written: No space left on device"):
            calibration(seed=6).save(path)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert [item.name for item in path.parent.iterdir()] == ["board.h5"]

    @pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
    def test_hdf5_never_meets_a_full_disk(self, path: Path) -> None:
        # Where HDF5 itself wrote, it would crash when the process ends.
        code = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/unit")
from test_calibration_file import calibration
from hil.errors import CalibrationError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    calibration().save(Path({str(path)!r}))
except CalibrationError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert "cannot be written: File too large" in done.stdout
        assert not list(path.parent.iterdir())

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError, match=r"cannot be written: No such file .* another folder"):
            calibration().save(tmp_path / "none" / "board.h5")

    def test_hdf5_is_imported_only_for_files(self) -> None:
        code = "import sys, hil.calibration_file, hil.calibration_settings; sys.exit('h5py' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


class TestLookingUp:
    def test_a_later_part_replaces_an_earlier_ones_value(self) -> None:
        dac = Part("dac", {"row_offset_v": Quantity.of([5.0, 6.0])})
        tia = Part("tia", {"amps_per_code": Quantity.of(np.ones(6))})
        found = calibration(parts={}).with_part(dac).with_part(tia).with_part(zero_part())
        assert list(found.parts) == ["zero", "dac", "tia"]
        assert found.value("row_offset_v").tolist() == [5.0, 6.0]
        assert found.value("column_offset_v").size == 6

    @pytest.mark.parametrize("part", PARTS)
    def test_a_value_that_is_missing_names_the_part_to_measure(self, part: str) -> None:
        name = MEASURED_BY[part][0]
        empty = calibration(parts={})
        assert empty.quantity(name) is None
        with pytest.raises(CalibrationError, match=f"has no {name}. Fix: measure it with `hil calibrate {part}`"):
            empty.value(name)

    def test_a_value_that_nobody_measures_names_those_that_are(self) -> None:
        with pytest.raises(CalibrationError, match=r"has no conductance_S\. Fix: known are: .*conductance_s"):
            calibration().value("conductance_S")

    def test_missing_parts_come_in_the_order_of_measurement(self) -> None:
        assert calibration().missing(["array", "dac", "zero"]) == ["dac", "array"]

    def test_required_parts_that_are_missing_are_named_with_their_commands(self) -> None:
        calibration().require(["zero"])
        with pytest.raises(
            CalibrationError, match=r"lacks dac, array\. .*`hil calibrate dac`, then `hil calibrate array`"
        ):
            calibration().require(["zero", "array", "dac"])

    @pytest.mark.parametrize("call", [lambda c: c.missing(["adc"]), lambda c: Part("adc", {})])
    def test_an_unknown_part_is_refused(self, call: Callable[[Calibration], Any]) -> None:
        with pytest.raises(ConfigError, match=r"no part 'adc'.*zero, dac, tia"):
            call(calibration())

    @pytest.mark.parametrize("name", ["a/b", ".", "", "0x", "ä"])
    def test_a_name_that_a_file_cannot_hold_is_refused_at_once(self, name: str) -> None:
        with pytest.raises(CalibrationError, match="letters, digits"):
            Part("zero", {name: Quantity.of(1.0)})
        with pytest.raises(CalibrationError, match="letters, digits"):
            Part("zero", {}, residuals={name: 1.0})

    @pytest.mark.parametrize(
        "arrays",
        [(np.zeros(3), np.zeros(2), np.ones(3, bool)), (np.zeros(3), np.zeros(3), True), (["a"], [0.0], [True])],
    )
    def test_a_quantity_of_ragged_shape_or_of_text_is_refused(self, arrays: Any) -> None:
        with pytest.raises(CalibrationError, match="of a quantity is"):
            Quantity(*arrays)


class TestDeadLines:
    def test_lines_are_dead_where_the_power_up_or_any_part_found_them_so(self) -> None:
        zero = Part("zero", {COL_WORKS: Quantity.of(np.array([True, False, True, True, True, True]))})
        line = Part("line", {ROW_WORKS: Quantity.of(np.array([True, True, False, True]))})
        array = Part("array", {COL_WORKS: Quantity.of(np.array([True, True, True, True, True, False]))})
        found = calibration(parts={}).with_part(zero).with_part(line).with_part(array)
        assert found.col_ok.tolist() == [True, False, True, True, False, False]
        assert found.row_ok.tolist() == [True, True, False, True]

    def test_a_line_that_could_not_be_judged_is_not_dead(self) -> None:
        part = Part("zero", {ROW_WORKS: Quantity.of(np.zeros(4, bool), ok=np.arange(4) > 0)})
        assert calibration().with_part(part).row_ok.tolist() == [True, False, False, False]

    def test_looking_does_not_change_the_wiring(self) -> None:
        found = calibration().with_part(Part("line", {ROW_WORKS: Quantity.of(np.zeros(4, bool))}))
        assert not found.row_ok.any()
        assert WIRING.row_ok.all()

    def test_the_fault_map_has_the_arrays_faults_and_dead_lines(self) -> None:
        faults = np.zeros(SHAPE, np.uint8)
        faults[0, 0] = Fault.STUCK_OFF
        array = Part(
            "array", {"faults": Quantity.of(faults), ROW_WORKS: Quantity.of(np.array([True, True, True, False]))}
        )
        found = calibration(parts={}).with_part(array).fault_map()
        assert found.faults[0, 0] == Fault.STUCK_OFF
        assert found.lines() == {"row_open": [3], "row_short": [], "col_open": [4], "col_short": []}
        assert found.faults[3, 4] == Fault.ROW_OPEN | Fault.COL_OPEN
        assert found.n_faulty == 1 + 6 + 3

    def test_without_an_array_part_the_fault_map_has_dead_lines_only(self) -> None:
        assert calibration().fault_map().count() == {
            **dict.fromkeys(calibration().fault_map().count(), 0),
            "col_open": 4,
        }


MISFIT_CASES = [
    ("other-board", {"board_serial": "board-12"}, "it is of board emulated-7, this is board board-12"),
    ("other-firmware", {"firmware": "1.10+00"}, "older firmware 1.2+0a1b2c3d, this board runs 1.10+00"),
    ("other-firmware", {"firmware": "1.1"}, "newer firmware 1.2+0a1b2c3d"),
    ("other-firmware", {"firmware": "1.2+99"}, "another firmware 1.2+0a1b2c3d"),
    ("other-firmware", {"firmware": "none"}, "another firmware 1.2+0a1b2c3d"),
    ("other-profile", {"profile_hash": "0" * 16}, f"board profile paper-guess ({'f' * 16}), this board has"),
]


class TestFit:
    def test_fits_its_own_board(self) -> None:
        calibration().check_fits(info(), now_unix_s=NOW_S)

    @pytest.mark.parametrize(("name", "other", "text"), MISFIT_CASES)
    def test_a_misfit_is_refused_by_name_and_may_be_accepted_by_it(
        self, name: str, other: dict[str, str], text: str
    ) -> None:
        own = calibration()
        with pytest.raises(CalibrationError) as refused:
            own.check_fits(info(**other), now_unix_s=NOW_S)
        assert text in refused.value.what
        assert f"({name})" in refused.value.what
        assert own.calibration_id in refused.value.what
        assert f"""--set 'calibration.allow=["{name}"]'""" in refused.value.fix
        assert "hil calibrate all" in refused.value.fix
        own.check_fits(info(**other), allow=[name], now_unix_s=NOW_S)
        with pytest.raises(CalibrationError):
            own.check_fits(info(**other), allow=set(MISFITS) - {name}, now_unix_s=NOW_S)

    @pytest.mark.parametrize(
        ("age_days", "text"),
        [
            (10.01, "part zero was measured 10.0 days ago, the limit is 10 days"),
            (400, "400.0 days ago"),
            (-3, "part zero was measured 3 days after this clock's time"),
            (float("nan"), "nan days ago"),
        ],
    )
    def test_a_stale_one_is_refused_with_part_age_and_limit(self, age_days: float, text: str) -> None:
        own, now_s = calibration(), NOW_S + age_days * DAY_S
        with pytest.raises(CalibrationError) as refused:
            own.check_fits(info(), max_age_days=10, now_unix_s=now_s)
        assert text in refused.value.what
        assert """calibration.allow=["stale"]""" in refused.value.fix
        own.check_fits(info(), allow=["stale"], max_age_days=10, now_unix_s=now_s)

    @pytest.mark.parametrize("age_days", [0.0, 9.99, -0.04])
    def test_one_that_is_young_enough_is_not_stale(self, age_days: float) -> None:
        calibration().check_fits(info(), max_age_days=10, now_unix_s=NOW_S + age_days * DAY_S)

    def test_the_oldest_part_counts(self) -> None:
        own = calibration().with_part(Part("dac", {}, measured_unix_s=NOW_S - 40 * DAY_S))
        own = own.with_part(Part("line", {}, measured_unix_s=NOW_S - 50 * DAY_S))
        with pytest.raises(CalibrationError, match=r"its part line was measured 50\.0 days ago"):
            own.check_fits(info(), now_unix_s=NOW_S)

    def test_the_clock_is_asked_when_nobody_says_the_time(self) -> None:
        with pytest.raises(CalibrationError, match="after this clock's time"):
            calibration(parts={"zero": zero_part(measured_unix_s=1e11)}).check_fits(info())

    def test_all_misfits_are_named_at_once_and_the_fix_keeps_what_was_accepted(self) -> None:
        other = info(board_serial="b", firmware="9.9", profile_hash="0")
        with pytest.raises(CalibrationError) as refused:
            calibration().check_fits(other, allow=["other-profile"], now_unix_s=NOW_S + 99 * DAY_S)
        for name in ("(other-board)", "(other-firmware)", "(stale)"):
            assert name in refused.value.what
        assert "(other-profile)" not in refused.value.what
        assert '"other-board", "other-firmware", "other-profile", "stale"' in refused.value.fix

    def test_another_shape_is_never_accepted(self) -> None:
        with pytest.raises(CalibrationError, match="is of an array of 4 x 6 lines, this one has 6 x 4"):
            calibration().check_fits(info((6, 4)), allow=MISFITS, now_unix_s=NOW_S)

    @pytest.mark.parametrize("shape", [(4, 5), (3, 6)])
    def test_both_sides_of_the_shape_count(self, shape: tuple[int, int]) -> None:
        with pytest.raises(CalibrationError, match="array of 4 x 6 lines"):
            calibration().check_fits(info(shape), now_unix_s=NOW_S)

    def test_an_unknown_misfit_cannot_be_accepted(self) -> None:
        with pytest.raises(ConfigError, match=r"calibration\.allow names 'stail'.*other-board.*stale"):
            calibration().check_fits(info(), allow=["stail"], now_unix_s=NOW_S)


class TestSettings:
    def test_what_the_message_says_can_be_set(self) -> None:
        found = load(CalibrationSettings, None, ['allow=["other-board", "stale"]', "file=board.h5"])
        assert found.allow == ("other-board", "stale")
        assert found.file == Path("board.h5")

    @pytest.mark.parametrize("text", ['allow=["shape"]', "max_age_days=0"])
    def test_what_cannot_be_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match=text.partition("=")[0]):
            load(CalibrationSettings, None, [text])


class TestFormatPage:
    """docs/reference/calibration-file.md says what is in a file, no more and no less."""

    page = (ROOT / "docs/reference/calibration-file.md").read_text()

    def test_names_every_dataset_and_attribute(self, path: Path) -> None:
        calibration().with_validation({}).save(path)
        with h5py.File(path) as file:
            found: list[str] = []
            file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
            keys = {name.split("/")[-1] for name in found} - {"fit_v"} | set(file.attrs)
        missing = [key for key in keys if f"`{key}`" not in self.page]
        assert not missing

    def test_names_every_part_quantity_fact_and_misfit(self) -> None:
        facts = electrics(load_profile("paper-guess"))
        expected = {*PARTS, *facts, *MISFITS, ROW_WORKS, COL_WORKS, *(n for ns in MEASURED_BY.values() for n in ns)}
        assert not [name for name in expected if f"`{name}`" not in self.page]
