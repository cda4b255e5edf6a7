"""
The loop that a user would write: poll one, decode, encode it alone, search, keep the vector, send, commit.

Pillow, open_clip's own transform and fp32, as in the manuals. Run as a process of its own, as the worker is:
``python -m worker.bench.naive JOB``, where JOB is JSON.
"""

import hashlib
import json
import sys
from typing import Any

import numpy as np

from worker.bench.naive_batched import judge_batches
from worker.bench.naive_tools import NaiveJob, NaiveTools, verdict_of


def judge_one(tools: NaiveTools, record: Any) -> bytes:  # noqa: ANN401 - kafka-python is untyped
    """
    The verdict on one upload, its embedding looked up in Redis before and kept there afterwards.
    """
    event = json.loads(record.value)
    data = tools.read(event)
    key = f"{tools.job.namespace}:{hashlib.sha256(data).hexdigest()}"
    kept = tools.redis.get(key)
    if kept is None:
        vector = tools.embedder.vectors_of([tools.embedder.tensor_of(data)])
        tools.redis.set(key, vector.tobytes(), ex=3600)
    else:
        vector = np.frombuffer(kept, dtype=np.float32)[None]
    return verdict_of(event["content_id"], tools.references.nearest(vector, tools.job.k)[0])


def judge_one_by_one(tools: NaiveTools) -> None:
    """
    Judge what comes, one upload after the other, until the process is ended.
    """
    for record in tools.consumer:
        tools.producer.send(tools.job.verdicts, key=record.key, value=judge_one(tools, record))
        tools.consumer.commit()


def main() -> None:
    """
    The loop of the job on the command line.
    """
    tools = NaiveTools.open(NaiveJob.from_json(sys.argv[1]))
    if tools.job.batch > 1:
        judge_batches(tools)
    else:
        judge_one_by_one(tools)


if __name__ == "__main__":
    main()
