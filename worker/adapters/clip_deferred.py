"""
Packages that open_clip imports and image towers seldom call, kept away until something calls them.

``torchvision.ops`` imports torch's compiler for one question that only detectors of objects ask, and ``open_clip``
imports every model of timm: together some four fifths of what importing open_clip costs. Nothing is taken from either:
the stand-ins import the real package when they are called. What is imported this way is ``clip_library.py``.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from torch._compile import _disable_dynamo

COMPILER: Final = "torch._dynamo"
TIMM: Final = "timm"

_CALLED_LATER: Final = {
    COMPILER: (),
    f"{COMPILER}.utils": ("is_compile_supported",),
    TIMM: ("create_model",),
    f"{TIMM}.layers": ("AttentionPool2d", "Mlp", "RotAttentionPool2d", "to_2tuple"),
}
"""What torchvision and open_clip take from these modules while they are imported; each is a function or a class."""


@contextmanager
def deferred(packages: Collection[str] = (COMPILER, TIMM)) -> Iterator[None]:
    """
    Inside, importing one of these packages gives stand-ins for what is called later; afterwards it is as ever.

    A package that is imported already, or not installed, is left alone. Not for several threads at once: another one
    that imports such a package meanwhile is given the stand-in, which has a few names only. What asks a stand-in for
    another name fails with ``ImportError`` or ``AttributeError``.
    """
    away = [package for package in packages if package not in sys.modules and importlib.util.find_spec(package)]
    stand_ins = {
        module: _stand_in(module, names) for module, names in _CALLED_LATER.items() if module.startswith(tuple(away))
    }
    if COMPILER in stand_ins:
        # timm marks functions that are not to be compiled. This is torch's own way of saying so without the compiler.
        # What is called and marked that way already is asked for unwrapped: marked once more it would call itself.
        vars(stand_ins[COMPILER])["disable"] = lambda fn=None, recursive=True, wrapping=True, **_reason: (
            _disable_dynamo(fn, recursive) if wrapping else fn
        )
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for module, stand_in in stand_ins.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]


def _stand_in(module: str, names: Collection[str]) -> ModuleType:
    made = ModuleType(module, "Stands in until something is called; see worker.adapters.clip_deferred.")
    # transformers, which open_clip imports where it is installed, asks by it whether timm is.
    made.__spec__ = ModuleSpec(module, None)
    vars(made).update({name: _later(module, name) for name in names})
    return made


def _later(module: str, name: str) -> Callable[..., Any]:
    def called(*args: Any, **more: Any) -> Any:  # noqa: ANN401 - whatever the real one takes and gives
        if module not in sys.modules and module.startswith(TIMM):
            # timm goes without the compiler as open_clip does.
            with deferred((COMPILER,)):
                importlib.import_module(module)
        return getattr(importlib.import_module(module), name)(*args, **more)

    return called
