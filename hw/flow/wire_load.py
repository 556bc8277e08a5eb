# SPDX-License-Identifier: BSD-2-Clause
"""Wires as a library's wire-load model estimates them from the fanout of a net."""

from dataclasses import dataclass

import numpy as np

from .liberty import Library, ohms
from .liberty_text import LibertyError

TREES = {"best_case_tree": "best", "balanced_tree": "balanced", "worst_case_tree": "worst"}


@dataclass(frozen=True)
class WireLoad:
    """A ``wire_load`` group.

    Attributes
    ----------
    fanouts, lengths : array of float
        Points of the length of a net over its fanout; beyond them `slope` goes on.
    slope : float
    capacitance : float
        fF per length.
    resistance : float
        kohm per length. Times fF that are ps.
    tree : str
        Where the resistance lies: ``"best"``, nowhere; ``"balanced"``, each reader has its share
        of resistance and capacitance; ``"worst"``, all of it before all readers.
    """

    fanouts: np.ndarray
    lengths: np.ndarray
    slope: float
    capacitance: float
    resistance: float
    tree: str

    @classmethod
    def of(cls, library: Library) -> "WireLoad | None":
        """The model that a library was asked for, None without.

        Raises
        ------
        ValueError
            If the file has no such model.
        LibertyError
            If the model cannot be used.
        """
        if not library.wire_load:
            return None
        group, model = library.group, library.wire_load_model
        points: dict[float, float] = {}
        for length in model.attributes.get("fanout_length", []):
            try:
                fanout, value = map(float, length.values[:2])
            except ValueError:
                raise LibertyError(length.place, "fanout_length must be two numbers") from None
            points[fanout] = value
        fanouts = sorted(points)
        if not fanouts:
            raise LibertyError(model.place, f"{model} has no fanout_length")
        conditions = [found for found in group.all("operating_conditions")
                      if found.arguments == (group.get("default_operating_conditions"),)]
        tree = conditions[0].get("tree_type", "balanced_tree") if conditions else "balanced_tree"
        if tree not in TREES:
            raise LibertyError(conditions[0].place, f"tree_type must be one of {', '.join(TREES)}, "
                                                    f"not {tree!r}")
        header = library.header
        return cls(fanouts=np.array(fanouts), lengths=np.array([points[n] for n in fanouts]),
                   slope=model.number("slope", 0.0), tree=TREES[tree],
                   capacitance=model.number("capacitance", 0.0) * header.ff,
                   resistance=model.number("resistance", 0.0) * ohms(group) / 1000)

    def length(self, fanout: np.ndarray) -> np.ndarray:
        """Length of nets with so many readers."""
        inner = np.interp(fanout, self.fanouts, self.lengths)
        beyond = (np.maximum(fanout - self.fanouts[-1], 0)
                  - np.maximum(self.fanouts[0] - fanout, 0)) * self.slope
        return np.where(fanout > 0, np.maximum(inner + beyond, 0), 0.0)

    def delay(self, fanout: np.ndarray, loads: np.ndarray, reader: np.ndarray) -> np.ndarray:
        """Elmore delay of wires to one of their readers, ns.

        Parameters
        ----------
        fanout : array of float
            Readers of the net.
        loads : array of float
            fF of the net with its wire.
        reader : array of float
            Capacitance of the reader, fF.
        """
        length = self.length(fanout)
        if self.tree == "best":
            return np.zeros(len(length))
        if self.tree == "worst":
            return length * self.resistance * loads / 1000
        share = 1 / np.maximum(fanout, 1)
        return (length * self.resistance * share / 1000
                * (length * self.capacitance * share + reader))
