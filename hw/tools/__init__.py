# SPDX-License-Identifier: BSD-2-Clause
"""What the commands share: Yosys, the cache, clusters, files, progress, packed payloads."""

from .cluster import Cluster
from .errors import ToolError

__all__ = [
    "Cluster",
    "ToolError",
]
