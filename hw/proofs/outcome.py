# SPDX-License-Identifier: BSD-2-Clause
"""What became of a proof."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Outcome:
    """What became of a proof.

    Attributes
    ----------
    verdict : str
        "proven"; "fails", with a run from the reset on or, without state, with some inputs; "no
        induction", with a step that no run may have; "open" if it took too long.
    seconds : float
        Processor time of the proof itself, without the fault and the witnesses.
    witness : str
        "all found", or those that were not.
    fault : str
        "found", or "not found".
    cycles : list of dict
        Where the claims fail: values of all ports in each cycle.
    """

    verdict: str
    seconds: float
    witness: str
    fault: str
    cycles: list[dict[str, int]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether the claim is proven, not about nothing, and the fault found."""
        return (self.verdict, self.witness, self.fault) == ("proven", "all found", "found")
