"""
The arrows in ARCHITECTURE.md, as a test.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "worker").rglob("*.py"), *(ROOT / "schemas").rglob("*.py")])

CLIENTS = {
    "kafka": {"worker/adapters/kafka_", "worker/dev/probes.py", "worker/bench/naive"},
    "lz4": {"worker/adapters/kafka_codecs.py"},
    "snappy": {"worker/adapters/kafka_codecs.py"},
    "zstandard": {"worker/adapters/kafka_codecs.py"},
    "redis": {"worker/adapters/redis_", "worker/dev/probes.py", "worker/bench/naive"},
    "faiss": {"worker/adapters/faiss_", "worker/bench/"},
    "torch": {
        "worker/adapters/clip_",
        "worker/adapters/device_jpeg.py",
        "worker/adapters/faiss_half_scan.py",
        "worker/adapters/probe_file.py",
        "worker/adapters/tiny_ladeda.py",
        "worker/bench/",
        "worker/dev/small_encoder.py",
        "worker/fitting/contrastive_",
        "worker/starter/",
    },
    "torchvision": {"worker/adapters/clip_", "worker/adapters/device_jpeg.py"},
    "onnx": {"worker/adapters/onnx_"},
    "onnxruntime": {"worker/adapters/onnx_"},
    "openvino": {"worker/adapters/openvino_"},
    "ray": {"worker/adapters/ray_"},
    "pyarrow": {"worker/adapters/ray_"},
    "open_clip": {"worker/adapters/clip_", "worker/bench/", "worker/starter/training.py", "worker/starter/make.py"},
    "boto3": {"worker/adapters/s3_"},
    "botocore": {"worker/adapters/s3_"},
    "urllib3": {"worker/adapters/https_"},
    "cryptography": {"worker/bank/signature.py", "worker/bank/signing_key.py"},
    "cv2": {"worker/adapters/realism_statistics.py"},
    "c2pa": {"worker/adapters/content_credentials.py"},
    "matplotlib": {"worker/evaluation/plots", "worker/cli/explain", "worker/diff/", "worker/bench/plots"},
    "prometheus_client": {"worker/telemetry/prometheus"},
    "opentelemetry": {"worker/telemetry/tracing"},
    "ncnn": {"worker/starter/upscalers.py"},
    "sklearn": {"worker/fitting/", "worker/evaluation/"},
    "scipy": {"worker/fitting/", "worker/judgement/", "worker/evaluation/", "worker/starter/"},
    "pdqhash": {"worker/adapters/perceptual_hash.py"},
}
"""Where each client library may be imported: one adapter each, the servers of ``touchstone dev``, and the baselines."""

RINGS = ["contract", "core", "heads", "judgement", "stages", "flow", "edges", "root"]
"""Inner to outer; a ring may import itself and those before it, but for the exceptions below."""

CORE = {
    "assessment",
    "contents",
    "domain",
    "errors",
    "fingerprint",
    "outcomes",
    "ports",
    "policy",
    "redaction",
    "metric_names",
    "shipped",
    "spans",
    "views",
    "__init__",
}
EDGES = {"adapters", "bank", "decoding", "fitting", "telemetry", "settings"}


def ring_of(module: str) -> str:
    """
    The ring in which a module lies.
    """
    parts = module.split(".")
    if parts[0] == "schemas":
        return "contract"
    room = parts[1] if len(parts) > 1 else "__init__"
    if room in CORE:
        return "core"
    if room in {"heads", "judgement", "stages", "flow"}:
        return room
    return "edges" if room in EDGES else "root"


def module_of(path: Path) -> str:
    """
    The dotted name of a file.
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or parts[0]


def imports_of(path: Path) -> set[str]:
    """
    Every module that a file imports, wherever in the file.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            assert node.module is not None
            found.add(node.module)
    return found


def violations(path: Path, imports: set[str]) -> list[str]:
    """
    The arrows of one file that point outwards, or at a client library that is not its own.
    """
    here = module_of(path)
    ring = RINGS.index(ring_of(here))
    name = path.relative_to(ROOT).as_posix()
    found = []
    for imported in sorted(imports):
        library = imported.split(".")[0]
        if library in {"worker", "schemas"}:
            # The log's canonical lines are words of the domain: the flow may say them.
            if RINGS.index(ring_of(imported)) > ring and imported != "worker.telemetry.log":
                found.append(f"{name} ({RINGS[ring]}) imports {imported} ({ring_of(imported)})")
        elif library in CLIENTS and not any(name.startswith(place) for place in CLIENTS[library]):
            found.append(f"{name} imports {library}, which belongs to {sorted(CLIENTS[library])}")
    return found


def test_there_is_something_to_check() -> None:
    """
    A rule over no files is not a rule.
    """
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_inwards(path: Path) -> None:
    """
    Core knows no client library, flow knows no adapter, and only the root knows all.
    """
    assert violations(path, imports_of(path)) == []


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("worker/domain.py", "worker.flow.loop"),
        ("worker/stages/decide.py", "worker.adapters.faiss_bank"),
        ("worker/flow/loop.py", "kafka"),
        ("worker/adapters/redis_cache.py", "worker.app"),
        ("schemas/verdict.py", "worker.domain"),
        ("worker/bank/build.py", "faiss"),
    ],
)
def test_the_rule_would_fire(file: str, imported: str) -> None:
    """
    A planted arrow that points outwards is found.
    """
    assert violations(ROOT / file, {imported})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_can_be_read_at_once(path: Path) -> None:
    """
    No file grows past 350 lines, no function past 60.
    """
    text = path.read_text()
    functions = [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert len(text.splitlines()) <= 350
    assert [(name, lines) for name, lines in functions if lines > 60] == []


def test_no_drawer_for_odds_and_ends() -> None:
    """
    No module is named for having no name.
    """
    banned = {"utils", "util", "helpers", "helper", "manager", "base", "common", "misc"}

    assert [path for path in FILES if path.stem in banned] == []
