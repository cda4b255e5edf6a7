"""
``touchstone bench stages``: the stages of one batch of uploads, each measured alone, in turns.

What the stages are is in ``stages.py`` and ``stage_servers.py``.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.bench.corpus import KINDS, write_pictures
from worker.bench.cpu_time import cores_here
from worker.bench.machine import machine
from worker.bench.report import Report
from worker.bench.roofline import roofline_per_s
from worker.bench.stage_servers import server_stages
from worker.bench.stages import best_costs, best_device_s, facts_cost_s, figures_of, measured_stages, stages_of
from worker.bench.stand import opened_stand
from worker.encoders import encodes_on_gpu

Progress = Callable[[str, int, int], None]

ROOFLINE_NOTE: Final = (
    "roofline: decoding without perceptual hash and content credentials, whose cost is facts_ms_per_upload, and "
    "encoding in the cheapest of the measured batch sizes"
)


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
    The whole benchmark, with what it writes in ``folder``. Raises ``CannotStart`` and its kinds.
    """
    with ExitStack() as stack:
        stand = stack.enter_context(
            opened_stand("stages", sets, folder=folder, references=plan.references, servers=plan.servers)
        )
        root, subject = stand.root, stand.subject
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
    notes += subject.encoder.notes
    return Report("touchstone bench stages", summary, figures_of(found), machine(), notes)
