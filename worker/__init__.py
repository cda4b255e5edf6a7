"""
Touchstone's worker: image-upload events in, verdicts out.

Start with ``ARCHITECTURE.md``; the folders are named after what lives in them.
"""

__version__ = "0.1.0"
