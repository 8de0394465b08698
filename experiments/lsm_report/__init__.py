"""`hil report`: one page over many runs of LSM experiments, beside the paper's figures."""

from experiments.lsm_report.build import LsmReport, build
from experiments.lsm_report.html import write_report

__all__ = ["LsmReport", "build", "write_report"]
