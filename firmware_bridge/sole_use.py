"""One process per fabric: two that load programs into the same registers would each undo the other's safety."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hil.errors import ConfigError, DeviceError

#: where Linux keeps locks until the next start; elsewhere the folder for temporary files
_LOCK_FOLDERS = (Path("/run/lock"), Path(tempfile.gettempdir()))


class FabricClaim:
    """Keeps a fabric to this process until it is closed or forgotten; the system ends it in any case.

    Args:
        base_address: of the fabric's registers.
        folder: where the lock is; another one in tests.

    Raises:
        DeviceError: another process has it.
        ConfigError: the lock cannot be made.
    """

    def __init__(self, base_address: int, folder: Path | None = None) -> None:
        import fcntl

        folder = folder or next(path for path in _LOCK_FOLDERS if path.is_dir())
        path = folder / f"crossbar-hil-{base_address:08x}.lock"
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"lock file {path} cannot be opened: {error.strerror}", fix="run as root") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceError(
                f"the fabric at {base_address:#010x} is in use by another process",
                fix="stop it (systemctl stop hil-serve), or go through its daemon: --backend tcp://127.0.0.1:7341",
            ) from None

    def close(self) -> None:
        """Let others have it; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()
