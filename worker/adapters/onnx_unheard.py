"""
What keeps ONNX Runtime from telling others what it does. Sets nothing and imports nothing by itself.

Whatever may load it sets this first: ``onnx_library.py``, which imports it, and ``clip_export.py``, since torch's
exporter asks for its version where it is installed.
"""

from typing import Final

UNHEARD: Final = "ORT_DISABLE_TELEMETRY"
"""The environment variable; it counts for the whole process, from before the library is loaded."""
