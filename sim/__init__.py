# SPDX-License-Identifier: BSD-2-Clause
"""Simulates components on arrays: ``sim.run(component, inputs)`` returns the outputs."""

# First, as it sees to Ctrl-C during the other imports.
from golden import interrupts as interrupts

# Before the others: it tells what is missing.
from . import _needs as _needs
from .accelerator import Product, accelerate, golden_config
from .cycles import cycles, scale_sim, utilisation
from .runner import Deadlock, ProtocolError, SimulationError, mismatches, run

__all__ = ["Deadlock", "Product", "ProtocolError", "SimulationError", "accelerate", "cycles",
           "golden_config", "mismatches", "run", "scale_sim", "utilisation"]
