"""
What open_clip imports and image towers seldom call comes when it is called, and not before.
"""

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from worker.adapters import clip_deferred as module
from worker.adapters.clip_deferred import deferred

NAMES = ("heavy_library", "heavy_library.layers")


@pytest.fixture(autouse=True)
def heavy_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    A package that leaves a file behind when it is imported.
    """
    package = tmp_path / "heavy_library"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from pathlib import Path\n(Path(__file__).parent / 'imported').touch()\ndef double(x): return 2 * x\n"
    )
    (package / "layers.py").write_text("class Layer:\n    def __init__(self, width=1): self.width = width\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "_CALLED_LATER", {"heavy_library": ("double",), "heavy_library.layers": ("Layer",)})
    yield package / "imported"
    for name in NAMES:
        sys.modules.pop(name, None)


def test_the_package_comes_when_it_is_called(heavy_library: Path) -> None:
    """
    Importing it and taking names from it imports nothing; calling a name gives what the real one gives.
    """
    with deferred(["heavy_library"]):
        library = importlib.import_module("heavy_library")
        layer = importlib.import_module("heavy_library.layers").Layer
    before = heavy_library.exists()

    assert not before
    assert 14 == library.double(7)
    assert 5 == layer(width=5).width
    assert heavy_library.exists()


def test_afterwards_importing_is_as_ever(heavy_library: Path) -> None:
    """
    No stand-in stays among the modules, also where something inside failed.
    """

    def fail() -> None:
        with deferred(["heavy_library"]):
            importlib.import_module("heavy_library")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    left = [name for name in NAMES if name in sys.modules]
    real = importlib.import_module("heavy_library")

    assert [] == left
    assert str(heavy_library.parent / "__init__.py") == real.__file__


def test_what_is_imported_already_is_left_alone() -> None:
    """
    Inside, the real package is found.
    """
    real = importlib.import_module("heavy_library")
    with deferred(["heavy_library"]):
        inside = importlib.import_module("heavy_library")

    assert real is inside
    assert real is sys.modules["heavy_library"]


def test_what_is_not_installed_is_not_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever tries it and does without goes on doing without.
    """
    monkeypatch.setattr(module, "_CALLED_LATER", {"no_such_library": ("anything",)})

    with deferred(["no_such_library"]), pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_library")


def test_who_asks_whether_a_package_is_there_is_told_that_it_is() -> None:
    """
    As transformers asks, while open_clip imports it: it would not start where a package has no specification.
    """
    with deferred(["heavy_library"]):
        found = [importlib.util.find_spec(name) for name in NAMES]

    assert list(NAMES) == [one.name for one in found if one is not None]


def test_a_name_that_nobody_stands_in_for_is_an_import_error() -> None:
    """
    So that ``clip_library`` knows a version which wants more, and imports all of it.
    """
    with deferred(["heavy_library"]), pytest.raises(ImportError):
        exec("from heavy_library import unheard_of")  # noqa: S102 - the statement itself is what is tried


MARKED = """
import sys
from torch._compile import _disable_dynamo
from worker.adapters.clip_deferred import COMPILER, deferred

assert COMPILER not in sys.modules
marked = _disable_dynamo(lambda number: 2 * number)
with deferred((COMPILER,)):
    print(marked(7))
print(marked(8))
"""


def test_what_torch_keeps_from_its_compiler_can_be_called_meanwhile() -> None:
    """
    By an import inside, or in another thread: it gives what it gives, then and afterwards.
    """
    found = subprocess.run(
        [sys.executable, "-c", MARKED], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )

    assert ["14", "16"] == found.stdout.split()


WHAT_IS_LOADED = """
import json, sys

HEAVY = ("torch", "faiss", "timm", "scipy", "sklearn", "matplotlib", "boto3", "open_clip", "torchvision")
told = {}

import worker.app
told["app"] = [name for name in HEAVY if name in sys.modules]

from worker.adapters.clip_encoder import load_encoder
from worker.settings.tree import EncoderSettings
from worker.telemetry.metrics import InMemoryRecorder
import open_clip.timm_model
told["library"] = [name for name in ("torch._dynamo", "timm") if name in sys.modules]

starter = load_encoder(EncoderSettings(device="cpu", threads=1), InMemoryRecorder())
told["starter"] = [name for name in ("torch._dynamo", "timm") if name in sys.modules]

import importlib.util
import torch.compiler
from torchvision.ops import roi_align
told["compiler"] = importlib.util.find_spec("torch._dynamo").origin.endswith("/_dynamo/__init__.py")
told["stand_ins"] = [name for name, one in sys.modules.items() if "Stands in" in (getattr(one, "__doc__", "") or "")]
print(json.dumps(told))
"""


def test_a_worker_imports_what_it_needs() -> None:
    """
    Until the encoder is loaded no library that computes; with it neither torch's compiler nor, unless used, timm.

    Each costs seconds of every start. The starter is a tower of timm's, and is loaded without the compiler too.
    """
    found = subprocess.run(
        [sys.executable, "-c", WHAT_IS_LOADED], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )

    assert {
        "app": [],
        "library": [],
        "starter": ["timm"],
        "compiler": True,
        "stand_ins": [],
    } == json.loads(found.stdout.splitlines()[-1])
