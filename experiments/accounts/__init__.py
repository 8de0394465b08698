"""Accounts: training operations and energy of inference, by documented counters."""

from experiments.accounts.board import BoardUse
from experiments.accounts.energy import Activity, energy_of
from experiments.accounts.networks import NetworkShape
from experiments.accounts.operations import operations_of
from experiments.accounts.published import TASKS
from experiments.accounts.technology import TechnologySettings

__all__ = ["TASKS", "Activity", "BoardUse", "NetworkShape", "TechnologySettings", "energy_of", "operations_of"]
