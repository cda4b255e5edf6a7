"""
Resizing 8-bit pictures with torch's antialiased kernel, for the decode stage: a fifth of Pillow's CPU time, on AVX2.

``import torch`` would cost every decoding process a second and some 280 MB of its own. The kernel lies in one of
torch's libraries, which alone costs 0.15 s and 60 MB, and is called by torch's stable interface for C
(``torch/csrc/stable/c/shim.h``, which torch promises to keep as it is). When it is asked is ``preprocess.py``'s.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.errors import CannotStart
from worker.stages.preprocess import Resizer

_LIBRARY: Final = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
_INTERFACE: Final = 2 << 56 | 10 << 48
"""The version of the interface that is spoken here, 2.10: its first. Later libraries heed what that version meant."""

_KERNELS: Final = {"bicubic": b"aten::_upsample_bicubic2d_aa", "bilinear": b"aten::_upsample_bilinear2d_aa"}
_FILTERS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_RAW_MODES: Final = {("L", 1): "L", ("RGB", 3): "RGB", ("RGB", 4): "RGBX", ("CMYK", 4): "CMYK"}
"""Modes of pictures and channels of their pixels as they lie in memory, to Pillow's word for the latter."""

_NONE: Final = 0
"""How the interface says None, which is what both scales are: they follow from the sizes."""


def open_resizer() -> Resizer:
    """
    The function that resizes a picture in mode L, RGB or CMYK to a width and height; any number of threads may call it.

    It goes along the rows first, then along the columns, and rounds and clips after either. So does Pillow before 13;
    since, it takes the columns first where they shrink by more, as in many a portrait: where hard edges are clipped in
    between, up to 31 of 255 lie between the two. In the same order no channel differs by more than 2: weights have 15
    bits where Pillow's have 22, so that it may differ by 1 after the rows, and the columns' weights, whose sizes sum up
    to less than 1.3, make no 3 of it. The interpreter is not held. The function raises ``MemoryError``.

    Raises ``CannotStart`` where this torch has no such kernel.
    """
    kernel = _kernel()

    def resize(
        picture: Image.Image, size: tuple[int, int], interpolation: Literal["bicubic", "bilinear"]
    ) -> Image.Image:
        if 1 in size:
            # On CPUs without AVX2 torch's kernel goes astray over grey pictures that become one pixel wide.
            return picture.resize(size, _FILTERS[interpolation])
        # Whoever holds the capsule, or the array, keeps the pixels where they are.
        address, channels, _held = _pixels_of(picture)
        pixels = kernel.resized(address, (picture.height, picture.width, channels), size, _KERNELS[interpolation])
        return Image.frombytes(picture.mode, size, pixels.tobytes(), "raw", _RAW_MODES[picture.mode, channels])

    # Once before memory is bounded: what the library makes at its first call is not the first picture's.
    resize(Image.new("RGB", (32, 32)), (16, 16), "bicubic")
    return resize


class _Kernel:
    """
    The library, and the few of its functions that are needed.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """
        Raises ``AttributeError`` where it lacks one of them.
        """
        handles = (POINTER(c_void_p),)
        self._tensor_over = _function(
            library.aoti_torch_create_tensor_from_blob,
            *(c_void_p, c_int64, POINTER(c_int64), POINTER(c_int64)),
            *(c_int64, c_int32, c_int32, c_int32, *handles),
        )
        self._new_list = _function(library.torch_new_list_reserve_size, c_size_t, *handles)
        self._append = _function(library.torch_list_push_back, c_void_p, c_uint64)
        self._call = _function(library.torch_call_dispatcher, c_char_p, c_char_p, POINTER(c_uint64), c_uint64)
        self._data = _function(library.aoti_torch_get_data_ptr, c_void_p, *handles)
        self._strides = _function(library.aoti_torch_get_strides, c_void_p, POINTER(POINTER(c_int64)))
        self._delete = _function(library.aoti_torch_delete_tensor_object, c_void_p)
        self._uint8 = int(library.aoti_torch_dtype_uint8())
        self._cpu = int(library.aoti_torch_device_type_cpu())

    def resized(
        self, address: int, shape: tuple[int, int, int], size: tuple[int, int], name: bytes
    ) -> NDArray[np.uint8]:
        """
        Pixels that lie at an address, in rows from left to right and with their channels together, resized by a kernel.
        """
        height, width, channels = shape
        sizes = (c_int64 * 4)(1, channels, height, width)
        strides = (c_int64 * 4)(height * width * channels, 1, width * channels, channels)
        given, asked = c_void_p(), c_void_p()
        _check(self._tensor_over(address, 4, sizes, strides, 0, self._uint8, self._cpu, 0, byref(given)))
        _check(self._new_list(2, byref(asked)))
        for side in (size[1], size[0]):
            _check(self._append(asked, side))
        # The call takes both over, and puts what it gives in the first place. Not align_corners, and no scales.
        stack = (c_uint64 * 5)(given.value or 0, asked.value or 0, 0, _NONE, _NONE)
        _check(self._call(name, b"", stack, _INTERFACE))
        found = c_void_p(stack[0])
        try:
            return self._copied(found, (size[1], size[0], channels))
        finally:
            _check(self._delete(found))

    def _copied(self, tensor: c_void_p, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """
        The tensor's pixels, channels last. Of a side of one pixel it may have them in another order.
        """
        data, strides = c_void_p(), POINTER(c_int64)()
        _check(self._data(tensor, byref(data)))
        _check(self._strides(tensor, byref(strides)))
        height, width, channels = shape
        lies = np.frombuffer(ctypes.string_at(data.value or 0, height * width * channels), np.uint8)
        return np.ndarray(shape, np.uint8, lies, strides=(strides[2], strides[3], strides[1]))


@lru_cache(maxsize=1)
def _kernel() -> _Kernel:
    # Finding it does not import it.
    spec = importlib.util.find_spec("torch")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    try:
        return _Kernel(ctypes.CDLL(str(Path(*places[:1], "lib", _LIBRARY))))
    except (OSError, AttributeError) as fault:
        raise CannotStart(
            f"encoder.resize is torch, and its kernel cannot be had ({fault}): install torch 2.10 or later, or set "
            "encoder.resize to pillow and build the bank again"
        ) from fault


def _function(function: Any, *takes: Any) -> Callable[..., int]:  # noqa: ANN401 - ctypes has no types for its types
    function.argtypes, function.restype = takes, c_int32
    found: Callable[..., int] = function
    return found


def _check(code: int) -> None:
    """
    Every call gives 0, or has failed and said why on standard error: of right arguments only memory can be the reason.
    """
    if code != 0:
        raise MemoryError("torch could not resize the picture: it cannot allocate memory")


class _ArrowArray(ctypes.Structure):
    """
    Apache Arrow's C data interface: where an array lies.
    """


_ArrowArray._fields_ = [
    *((name, c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", POINTER(c_void_p)),
    ("children", POINTER(POINTER(_ArrowArray))),
]


def _pixels_of(picture: Image.Image) -> tuple[int, int, object]:
    """
    Where the pixels lie, how many channels each has, and what to hold on to meanwhile.

    Pillow tells where its own lie, four bytes each, if they are in one piece: most pictures of up to 4 megapixels are.
    Of others, and of grey ones, whose rows may have gaps, a copy is made.
    """
    if picture.mode != "L":
        try:
            _, capsule = picture.__arrow_c_array__()
        except ValueError:
            pass
        else:
            array = ctypes.cast(_pointer(capsule, b"arrow_array"), POINTER(_ArrowArray)).contents
            bytes_of = array.children[0].contents
            if bytes_of.length == picture.width * picture.height * 4 and bytes_of.offset == array.offset == 0:
                return int(bytes_of.buffers[1]), 4, capsule
    pixels = np.ascontiguousarray(picture)
    return pixels.ctypes.data, 1 if pixels.ndim == 2 else pixels.shape[2], pixels  # noqa: PLR2004 - grey has no channels


_pointer: Final = ctypes.PYFUNCTYPE(c_void_p, ctypes.py_object, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
