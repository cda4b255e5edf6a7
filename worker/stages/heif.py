"""
HEIF and HEIC, which Pillow reads only with the help of another library, and which nobody need install.

Off unless ``decode.formats`` names HEIF: libheif and the video decoder behind it are more for an attacker to aim at
than all the other formats together.
"""

from importlib.util import find_spec

REMEDY = "install touchstone-worker[heic], or take HEIF off decode.formats"


def can_open_heif() -> bool:
    """
    Whether HEIF can be opened; from then on Pillow does. It opens nothing unless it is asked for HEIF by name.
    """
    if find_spec("pillow_heif") is None:
        return False
    import pillow_heif  # noqa: PLC0415 - an extra, and a library that is loaded only where it is wanted

    # One thread per picture, as of the other formats; thumbnails and depth maps are not looked at.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, decode_threads=1)
    return True
