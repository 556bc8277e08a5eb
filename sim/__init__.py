"""Runs components on arrays: ``sim.run(component, inputs) -> outputs``."""

from .bench import Deadlock, ProtocolError, SimulationError, mismatches, run

__all__ = ["Deadlock", "ProtocolError", "SimulationError", "mismatches", "run"]
