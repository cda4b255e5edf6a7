"""
What ships beside the code: the starter encoder and its bank, the defaults where no others are configured.

Made by ``worker.starter.make``; what they can and cannot do says ``starter/MODEL_CARD.md``.
"""

from pathlib import Path
from typing import Final

STARTER: Final = "starter"
"""The value of ``encoder.model`` that means the encoder which ships."""

STARTER_MODEL: Final = Path(__file__).parent / "starter" / "model"
STARTER_BANK: Final = Path(__file__).parent / "starter" / "bank"


def starter_sha256() -> str:
    """
    The sha256 of the starter's weights, as it was written when they were made.
    """
    return (STARTER_MODEL / "SHA256").read_text(encoding="ascii").split()[0]
