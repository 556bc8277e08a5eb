# SPDX-License-Identifier: BSD-2-Clause
"""Look-up tables of a cell library: delays, constraints and energies over slew and load."""

from functools import cached_property
from typing import Any

import numpy as np


class Tables:
    """Tables of values over two axes, found by their numbers.

    Parameters
    ----------
    tables : list of (numpy.ndarray, numpy.ndarray, numpy.ndarray)
        Slew axis, load axis, values.
    """

    def __init__(self, tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
        self.tables = tables

    @cached_property
    def _stacked(self):
        # One array for all tables. The inner points of the axes are padded with infinity, so that
        # the number of points not above a value is the index of its interval.
        rows = max(len(slew) for slew, _, _ in self.tables)
        columns = max(len(load) for _, load, _ in self.tables)
        slews = np.full((len(self.tables), rows), np.inf)
        loads = np.full((len(self.tables), columns), np.inf)
        values = np.zeros((len(self.tables), rows, columns))
        inner = np.full((2, len(self.tables), max(rows, columns)), np.inf)
        for i, (slew, load, table) in enumerate(self.tables):
            slews[i, :len(slew)], loads[i, :len(load)] = slew, load
            values[i, :len(slew), :len(load)] = table
            inner[0, i, :len(slew) - 2], inner[1, i, :len(load) - 2] = slew[1:-1], load[1:-1]
        return slews, loads, values, inner

    def lookup(self, table: Any, slew: Any, load: Any) -> np.ndarray:
        """Interpolates tables, and extrapolates linearly outside them as OpenSTA does.

        Parameters
        ----------
        table : array of int
            Numbers of the tables.
        slew : array of float
            ns.
        load : array of float
            fF; for constraints slew of the clock in ns.

        Returns
        -------
        array of float
            In the tables' unit, ns for delays.
        """
        slews, loads, values, inner = self._stacked
        i = (inner[0, table] <= np.asarray(slew)[..., None]).sum(axis=-1)
        j = (inner[1, table] <= np.asarray(load)[..., None]).sum(axis=-1)
        x = (slew - slews[table, i]) / (slews[table, i + 1] - slews[table, i])
        y = (load - loads[table, j]) / (loads[table, j + 1] - loads[table, j])
        low = values[table, i, j] * (1 - y) + values[table, i, j + 1] * y
        high = values[table, i + 1, j] * (1 - y) + values[table, i + 1, j + 1] * y
        return low * (1 - x) + high * x
