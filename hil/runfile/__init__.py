"""Run files: one HDF5 file per run, readable while it grows and after the process was killed.

The layout is in docs/reference/run-file.md, the reasons are in docs/explanation/data-safety.md.
"""

from hil.runfile._layout import FORMAT_VERSION, Column, Status, TableSpec
from hil.runfile._reader import RunReader, open_run
from hil.runfile._writer import DEFAULT_FLUSH_INTERVAL_S, RunFile

__all__ = [
    "DEFAULT_FLUSH_INTERVAL_S",
    "FORMAT_VERSION",
    "Column",
    "RunFile",
    "RunReader",
    "Status",
    "TableSpec",
    "open_run",
]
