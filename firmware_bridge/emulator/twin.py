"""The bench twin: instruments that VISA reaches, wired to an emulated board.

    with twin_for(backend) as twin:
        resource_manager.open_resource(twin.resources["smu"])

What they show is what the emulated board would do: a sourced current arrives at an emulated converter.
"""

from __future__ import annotations

import numpy as np

from firmware_bridge.emulator import EmulatedBackend
from firmware_bridge.emulator.bench import Bench
from firmware_bridge.emulator.bench_instruments import DmmTwin, PsuTwin, SmuTwin
from firmware_bridge.emulator.fabric import EmulatedFabric
from firmware_bridge.emulator.scpi_server import Port, ScpiServer
from hil.backend import CrossbarBackend
from hil.errors import ConfigError


class BenchTwin:
    """Instruments at an emulated board, at the pad that its settings name; a context manager.

    Args:
        fabric: the board; its seed draws the errors and the noise of the instruments, too.
        first_port: TCP port of the source-measure unit, with those of multimeter and power supply after it; 0 takes
            free ones.
        serial: also put the source-measure unit at a serial port.

    Attributes:
        fabric: the board.
        smu, dmm, psu: the instruments themselves.
        ports: role -> way to the instrument, which may be made to fail; "smu-serial" is the serial port.

    Raises:
        ConfigError: a port is taken.
    """

    def __init__(self, fabric: EmulatedFabric, *, first_port: int = 0, serial: bool = False) -> None:
        self.fabric = fabric
        board = fabric.board
        self._bench = Bench(fabric, row=board.emulator.smu_row, feeds_dacs=board.emulator.psu_feeds_dacs)
        streams = np.random.SeedSequence(board.seed, spawn_key=(5,)).spawn(3)
        rng_smu, rng_dmm, rng_psu = map(np.random.default_rng, streams)
        self.smu = SmuTwin(self._bench, rng_smu)
        self.dmm = DmmTwin(self._bench, rng_dmm)
        self.psu = PsuTwin(self._bench, rng_psu)
        self.ports: dict[str, Port] = {}
        self._server = ScpiServer()
        try:
            for k, (role, instrument) in enumerate([("smu", self.smu), ("dmm", self.dmm), ("psu", self.psu)]):
                self.ports[role] = self._server.at_socket(instrument, first_port + k if first_port else 0)
            if serial:
                self.ports["smu-serial"] = self._server.at_terminal(self.smu)
        except BaseException:
            self.close()
            raise
        self._server.start()

    @property
    def resources(self) -> dict[str, str]:
        """Role -> name by which VISA opens the instrument."""
        return {role: port.resource for role, port in self.ports.items()}

    def refuse(self, role: str) -> None:
        """Fault: break the connections to an instrument at a socket, and let nobody in any more."""
        self._server.refuse(self.ports[role])

    def close(self) -> None:
        """Take the bench away; safe to call twice."""
        self._server.close()
        self._bench.disconnect()

    def __enter__(self) -> BenchTwin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def twin_for(backend: CrossbarBackend, *, first_port: int = 0, serial: bool = False) -> BenchTwin:
    """A bench at the emulated board behind a backend; arguments as for `BenchTwin`.

    Raises:
        ConfigError: it is no emulated board of this process, or a port is taken.
    """
    if not isinstance(backend, EmulatedBackend):
        raise ConfigError(
            f"a bench twin needs an emulated board in this process, backend {backend.info.name!r} is none",
            fix="use --backend emulator, or the VISA names of real instruments; for a remote host, run the daemon as: "
            "hil serve --backend emulator --twin PORT",
        )
    return BenchTwin(backend.fabric, first_port=first_port, serial=serial)
