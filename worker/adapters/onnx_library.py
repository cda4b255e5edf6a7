"""
ONNX Runtime, imported so that it tells nobody: the one place that imports it.

From 1.29 on its wheels for Linux send what is loaded and computed to Microsoft, by a thread of their own that begins
with the import, and write an identifier of this machine below the home directory. Nothing asks before.
"""

import os

from worker.adapters.onnx_unheard import UNHEARD

os.environ[UNHEARD] = "1"  # read when it is loaded, and never again

import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

__all__ = ["QuantType", "add_pre_process_metadata", "onnxruntime", "quantize_dynamic"]
