"""
The naive loop with the first improvement that everybody makes: as many uploads as a poll gives are encoded together.

Still one thread, fp32 and Pillow: nothing is decoded while the encoder computes. The loop itself is ``naive.py``'s way.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from worker.bench.naive_tools import NaiveTools, verdict_of

_WAIT_MS: Final = 200


def judge_together(tools: NaiveTools, records: Sequence[Any]) -> list[bytes]:
    """
    The verdicts on these uploads, in order; what Redis knows is not encoded again.
    """
    events = [json.loads(record.value) for record in records]
    datas = [tools.read(event) for event in events]
    keys = [f"{tools.job.namespace}:{hashlib.sha256(data).hexdigest()}" for data in datas]
    kept = tools.redis.mget(keys)
    new = [at for at, value in enumerate(kept) if value is None]
    if new:
        vectors = tools.embedder.vectors_of([tools.embedder.tensor_of(datas[at]) for at in new])
        writes = tools.redis.pipeline(transaction=False)
        for at, vector in zip(new, vectors, strict=True):
            kept[at] = vector.tobytes()
            writes.set(keys[at], kept[at], ex=3600)
        writes.execute()
    together = np.stack([np.frombuffer(value, dtype=np.float32) for value in kept])
    nearest = tools.references.nearest(together, tools.job.k)
    return [verdict_of(event["content_id"], found) for event, found in zip(events, nearest, strict=True)]


def judge_batches(tools: NaiveTools) -> None:
    """
    Judge what comes, a poll's uploads at a time, until the process is ended.
    """
    while True:
        polled = tools.consumer.poll(timeout_ms=_WAIT_MS, max_records=tools.job.batch)
        records = [record for found in polled.values() for record in found]
        if not records:
            continue
        for record, verdict in zip(records, judge_together(tools, records), strict=True):
            tools.producer.send(tools.job.verdicts, key=record.key, value=verdict)
        tools.producer.flush()
        tools.consumer.commit()
