"""
Where the starter encoder and bank lie inside the package, and the names by which settings ask for them.
"""

from pathlib import Path
from typing import Final

STARTER: Final = "starter"
"""The value of ``encoder.model`` and ``bank.path`` that means what ships with Touchstone."""

FOLDER: Final = Path(__file__).parent / "shipped"
MODEL_FOLDER: Final = FOLDER / "model"
BANK_FOLDER: Final = FOLDER / "bank"
CHECKPOINT: Final = MODEL_FOLDER / "open_clip_model.safetensors"
