"""
What the settings say of failing, for the flow: how often an upload is tried again, and how many letters are a storm.
"""

import sys

from schemas.verdict import Mode
from worker.adapters.kafka_topics import least_limit_bytes
from worker.adapters.topic_plan import retry_message_bytes
from worker.flow.retrying import Retries
from worker.flow.storm import StormLimits
from worker.settings.tree import Settings


def retries_of(settings: Settings, mode: Mode) -> Retries:
    """
    As configured; nothing is put off but by a live worker, for nobody else reads the retry topics.
    """
    retry = settings.retry
    if mode != "live" or not retry.delays_s:
        return Retries(retry.in_process, retry.first_wait_s, retry.longest_wait_s)
    # A message that the producer or its topic does not take would end the worker, at this record again and again.
    allowed = least_limit_bytes(settings.kafka, settings.retry_topics)
    most_bytes = min(retry_message_bytes(settings.kafka), allowed or sys.maxsize)
    return Retries(
        retry.in_process, retry.first_wait_s, retry.longest_wait_s, delays_s=retry.delays_s, most_bytes=most_bytes
    )


def storm_of(settings: Settings) -> StormLimits:
    """
    As configured.
    """
    storm = settings.storm
    return StormLimits(storm.consecutive, storm.share, storm.window, storm.hold_s)
