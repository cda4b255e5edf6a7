"""
What every benchmark on real servers begins with: servers, a file root, an encoder, a bank, and the settings of a lane.

Which lanes run there, and what they are given, is in the file of each benchmark.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from worker.bench.encoders import bench_encoder
from worker.bench.live import Lane, Servers, bench_servers, lane_sets, settings_of, worker_command
from worker.bench.subjects import Subject, opened_subject

NOWHERE: Final = Servers("localhost:9092", "redis://localhost:6379/0")
"""Of a run without servers: nobody asks them."""


@dataclass(frozen=True, slots=True)
class Stand:
    """
    Where a run takes place: ``folder`` for what it writes, ``root`` the file root within, and who is measured.
    """

    folder: Path
    root: Path
    servers: Servers
    subject: Subject

    def lane(self, name: str, sets: Sequence[str] = (), *, alone: bool = True) -> tuple[Lane, list[str]]:
        """
        A lane, and the command line of a worker in it; ``sets`` win over the subject's settings.

        Topics, group and Redis namespace are the subject's own; where there are others beside it, and so it is not
        ``alone``, they are the lane's.
        """
        others = [] if alone else lane_sets(uuid4().hex[:8], name, self.servers)
        named = [*self.subject.sets, *others, *sets]
        return Lane(name, settings_of(named), self.servers, log_file=self.folder / f"{name}.log"), worker_command(named)


@contextmanager
def opened_stand(
    name: str, sets: Sequence[str], *, folder: Path, references: int, servers: bool = True
) -> Iterator[Stand]:
    """
    All of it while inside, for the benchmark of this name; ``sets`` are the caller's and win over its own.

    Without ``servers`` none is asked for. Raises ``CannotStart`` and its kinds.
    """
    root = folder / "pictures"
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        where = stack.enter_context(bench_servers(os.environ)) if servers else NOWHERE
        own = [
            f"fetch.file_root={json.dumps(str(root))}",
            f"encoder.export_dir={json.dumps(str(folder / 'exports'))}",
        ]
        named = lane_sets(uuid4().hex[:8], name, where, [*own, *sets])
        encoder = bench_encoder(settings_of(named).encoder, folder / "encoders")
        subject = opened_subject(named, encoder, references=references, folder=folder / "banks")
        stack.callback(subject.store.close)
        yield Stand(folder, root, where, subject)
