"""
OpenVINO, imported so that it tells nobody: the one place that imports it.

``import openvino`` sends an event to Google Analytics and writes below the home directory, through the package
``openvino_telemetry``, without asking. OpenVINO does without that package where it is not installed; here it is kept
away from it for the whole process.
"""

import sys

if "openvino" not in sys.modules:
    # None is how Python notes that a module is not to be had: importing it raises ImportError.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # typeshed knows modules only

import openvino
from openvino import opset13

__all__ = ["openvino", "opset13"]
