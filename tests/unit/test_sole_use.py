"""A fabric belongs to one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_bridge.sole_use import FabricClaim
from hil.errors import ConfigError, DeviceError


def test_a_second_claim_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    first = FabricClaim(0x43C00000, tmp_path)
    with pytest.raises(DeviceError, match=r"0x43c00000 is in use by another process.*hil-serve"):
        FabricClaim(0x43C00000, tmp_path)
    FabricClaim(0x43C10000, tmp_path).close()
    first.close()
    FabricClaim(0x43C00000, tmp_path).close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        FabricClaim(0, tmp_path / "missing")
