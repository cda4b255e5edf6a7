"""
The sweep of the encoder: what it counts, what it tells, and that its shares are of the same rounds.
"""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from click.testing import CliRunner

from tests.fake_encoder import FakeEncoder
from tests.pictures import spec_of
from worker.bench import encode as encode_module
from worker.bench.arithmetic import Multiplication, Shape, operations_per_image, shapes_for
from worker.bench.encode import EncodePlan, Turn, _Contender, _multiplying, _of_precision, run_encode
from worker.bench.report_parts import ENCODE_ROWS
from worker.cli.bench import bench
from worker.cli.bench_encode import encode
from worker.dev.small_encoder import write_small_encoder

SETS = ["encoder.threads=1", 'encoder.device="cpu"']


def small_sets(folder: Path) -> list[str]:
    """
    The settings of the small encoder, which loads at once.
    """
    small = write_small_encoder(folder / "small")
    return [*SETS, f"encoder.model={json.dumps(small.model)}", f"encoder.checkpoint_sha256={small.checkpoint_sha256}"]


@pytest.mark.parametrize(("name", "gflop", "fused"), [("ViT-B-32", 8.82, 8.24), ("ViT-L-14", 162.03, 156.5)])
def test_operations_are_those_that_open_clip_states(name: str, gflop: float, fused: float) -> None:
    """
    In fp32 they are open_clip's published figure; fused, the last block's work on tokens nobody asks for is left out.
    """
    architecture = open_clip.get_model_config(name)

    assert operations_per_image(architecture, spec_of(224), "fp32") / 1e9 == pytest.approx(gflop, rel=0.01)
    assert operations_per_image(architecture, spec_of(224), "bf16") / 1e9 == pytest.approx(fused, rel=0.01)


def test_what_is_left_out_is_counted_out() -> None:
    """
    A tower of one layer that looks at its class token alone does less than one that looks at all tokens.
    """
    vision = {"image_size": 64, "patch_size": 8, "width": 64, "layers": 1, "head_width": 32}
    one, every = (
        operations_per_image({"embed_dim": 32, "vision_cfg": {**vision, **more}}, spec_of(64), "bf16")
        for more in ({}, {"pool_type": "avg"})
    )

    assert one < every / 2


def test_a_sweep_tells_every_turn(tmp_path: Path) -> None:
    """
    Each precision and size has its figures, and the summary the best of each with its share of the product's rate.
    """
    told: list[tuple[str, int, int]] = []
    plan = EncodePlan(("fp32", "bf16"), (1, 4), rounds=2, least_s=0.005)
    report = run_encode(plan, small_sets(tmp_path), folder=tmp_path, progress=lambda *said: told.append(said))
    names = {figure.name for figure in report.figures}
    found = report.summary
    share = found["bf16_matmul_share"]

    assert {f"{precision}, batch of {size}" for precision in ("fp32", "bf16") for size in (1, 4)} <= names
    assert {"fp32, matrix product", "bf16, matrix product", "fp32, batch of 4, CPU"} <= names
    assert {2} == {figure.rounds for figure in report.figures}
    assert [("encode", number, 12) for number in range(1, 13)] == told
    assert found["bf16_best_batch"] in (1, 4)
    assert isinstance(share, float)
    assert share > 0
    assert {row.path[0] for row in ENCODE_ROWS} <= set(found)
    assert [("matmul_share, bf16", share, None)] == [(one.name, one.measured, one.met) for one in report.targets]
    assert (
        found["bf16_gflop_per_image"] == found["fp32_gflop_per_image"]
    )  # its mean is over all tokens: none is left out


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    """
    With --json one object, with the keys that scripts ask for.
    """
    sets = [part for one in small_sets(tmp_path)[:2] for part in ("--set", one)]
    model = write_small_encoder(tmp_path / "small")
    sets += ["--set", f"encoder.checkpoint_sha256={model.checkpoint_sha256}", "--model", model.model]
    arguments = ["encode", "--device", "cpu", "--sizes", "2", "--precisions", "bf16", "--seconds", "0.01", "--json"]
    done = CliRunner().invoke(bench, [*arguments, *sets, "--rounds", "1", "--work-folder", str(tmp_path / "work")])
    told = json.loads(done.stdout)

    assert 0 == done.exit_code
    assert {"model", "backend", "device", "cores", "machine", "figures", "precisions", "bf16_images_per_s"} <= set(told)
    assert "bf16, batch of 2" in told["figures"]


@pytest.mark.parametrize("wrong", [["--sizes", "0,1"], ["--sizes", "x"], ["--precisions", "fp8"], ["--sizes", "2,2"]])
def test_senseless_sweeps_are_refused(wrong: list[str]) -> None:
    """
    Before anything is loaded.
    """
    done = CliRunner().invoke(encode, wrong)

    assert 2 == done.exit_code
    assert "Invalid value" in done.output


def test_a_product_states_its_operations() -> None:
    """
    Two for each multiplication and addition of the matrices' sides.
    """
    product = Multiplication("bf16", torch.device("cpu"), (16, 32, 64))
    product()

    assert 2 * 16 * 32 * 64 == product.operations


@pytest.mark.parametrize("gpu", [False, True])
def test_the_share_is_of_the_product_in_the_same_round(gpu: bool) -> None:
    """
    By the second of CPU time, on a GPU by the clock; of the best batch size, the median of what each round comes to.
    """
    plan = EncodePlan(("bf16",), (1, 4), rounds=3)
    found = {
        "bf16, batch of 1": [Turn(1.0, 0.5, 0.0)] * 3,
        "bf16, batch of 4": [Turn(10.0, 8.0, 0.0), Turn(20.0, 4.0, 0.0), Turn(30.0, 2.0, 0.0)],
        "bf16, matrix product": [Turn(1e10, 1e10, 0.0), Turn(8e10, 1e10, 0.0), Turn(4e10, 1e10, 0.0)],
    }
    told = _of_precision(_Contender("bf16", FakeEncoder(), 1, 10**9), plan, found, gpu=gpu)

    assert 4 == told["best_batch"]
    assert (0.75 if gpu else 0.4) == told["matmul_share"]


@pytest.mark.parametrize("turned", [False, True])
def test_the_fastest_shape_is_what_the_device_can_do(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Wherever it stands among those that are tried; several are tried on a CPU.
    """
    slow, fast = (1, 1, 1), (1, 1, 10**12)

    class Product:
        """
        Takes no time, and says that it was as many operations as its shape has.
        """

        def __init__(self, _precision: str, _device: torch.device, shape: Shape) -> None:
            self.operations = shape[2]

        def __call__(self) -> None:
            """
            Multiply nothing.
            """

    monkeypatch.setattr(encode_module, "Multiplication", Product)
    monkeypatch.setattr(encode_module, "shapes_for", lambda _: (fast, slow) if turned else (slow, fast))

    assert _multiplying("fp32", "cpu", 0.002).per_s > 1e10
    assert len(shapes_for(torch.device("cpu"))) > 1
