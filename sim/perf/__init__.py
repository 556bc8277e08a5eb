# SPDX-License-Identifier: BSD-2-Clause
"""The performance model: what any language model and chip would do (``python -m sim perf``)."""

from .machine import Machine, find_machine
from .models import Gemm, Model, find_models
from .predict import Layer, Prediction, predict
from .workload import Job

__all__ = ["Gemm", "Job", "Layer", "Machine", "Model", "Prediction", "find_machine", "find_models",
           "predict"]
