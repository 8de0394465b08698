"""Bench instruments over VISA: source-measure unit, multimeter, power supply (extra `lab`).

    with open_instrument("smu", "TCPIP::192.168.1.20::5025::SOCKET") as smu:
        smu.source_current(10e-6, compliance_v=0.5)
        smu.output_on()
        point = smu.measure_in_control()

`hil.instruments` says what each can do, and `models` which are supported. pymeasure and pyvisa do the talking.
"""

from drivers.instruments.models import MODELS, Model, model_of, role_of
from drivers.instruments.opening import OpenedInstrument, open_instrument
from drivers.instruments.visa import Found, discover, open_link

__all__ = [
    "MODELS",
    "Found",
    "Model",
    "OpenedInstrument",
    "discover",
    "model_of",
    "open_instrument",
    "open_link",
    "role_of",
]
