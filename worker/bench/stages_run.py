"""
``touchstone bench stages``: the stages of one batch of uploads, each measured alone, in turns.

What the stages are is in ``stages.py`` and ``stage_servers.py``.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from worker.bench.corpus import KINDS, write_pictures
from worker.bench.cpu_time import cores_here
from worker.bench.encoders import bench_encoder
from worker.bench.live import Servers, bench_servers, lane_sets, settings_of
from worker.bench.machine import machine
from worker.bench.report import Report
from worker.bench.roofline import roofline_per_s
from worker.bench.stage_servers import server_stages
from worker.bench.stages import best_costs, best_device_s, facts_cost_s, figures_of, measured_stages, stages_of
from worker.bench.subjects import opened_subject
from worker.encoders import encodes_on_gpu
from worker.errors import ConfigInvalid

Progress = Callable[[str, int, int], None]

ROOFLINE_NOTE: Final = (
    "roofline: decoding without perceptual hash and content credentials, whose cost is facts_ms_per_upload, and "
    "encoding in the cheapest of the measured batch sizes"
)
NOWHERE = Servers("localhost:9092", "redis://localhost:6379/0")
"""Of a run without servers: nobody asks them."""


@dataclass(frozen=True, slots=True)
class StagesPlan:
    """
    Which images, how many references, how many rounds, and whether the stages with servers are measured.
    """

    kind: str
    references: int
    rounds: int
    servers: bool


def run_stages(plan: StagesPlan, sets: Sequence[str], *, folder: Path, progress: Progress) -> Report:
    """
    The whole benchmark, with what it writes in ``folder``. Raises ``CannotStart`` and ``ConfigInvalid``.
    """
    if plan.kind not in KINDS:
        raise ConfigInvalid(f"--image-size is {plan.kind!r}; expected one of {', '.join(KINDS)}")
    with ExitStack() as stack:
        servers = stack.enter_context(bench_servers(os.environ)) if plan.servers else NOWHERE
        root = folder / "pictures"
        root.mkdir(parents=True, exist_ok=True)
        own = [f'fetch.file_root="{root}"', f'encoder.export_dir="{folder / "exports"}"']
        named = lane_sets(uuid4().hex[:8], "stages", servers, [*own, *sets])
        encoder = bench_encoder(settings_of(named).encoder, folder / "encoders")
        subject = opened_subject(named, encoder, references=plan.references, folder=folder / "banks")
        stack.callback(subject.store.close)
        paths = write_pictures(root, subject.settings.batch.size, KINDS[plan.kind])
        inputs = subject.inputs(paths)
        stages = stages_of(inputs, subject.settings)
        if plan.servers:
            stages += stack.enter_context(server_stages(inputs, subject.settings, folder=folder, rounds=plan.rounds))
        done = itertools.count(1)
        count = plan.rounds * len(stages)
        found = measured_stages(stages, plan.rounds, on_done=lambda *_: progress("measured", next(done), count))
    on_device = encodes_on_gpu(subject.settings.encoder)
    costs, device_s = best_costs(found, on_device=on_device), best_device_s(found, on_device=on_device)
    summary = {
        **subject.told(),
        "cores": cores_here(),
        "image_size": plan.kind,
        "batch_size": subject.settings.batch.size,
        "references": subject.instruments.bank.identity.entries,
        "roofline_images_per_s": roofline_per_s(costs, cores_here(), device_s=device_s),
        "stage_costs_ms": {name: cost_s * 1000 for name, cost_s in costs.items()},
        "facts_ms_per_upload": None if (facts_s := facts_cost_s(found)) is None else facts_s * 1000,
    }
    notes = [ROOFLINE_NOTE]
    notes += encoder.notes
    return Report("touchstone bench stages", summary, figures_of(found), machine(), notes)
