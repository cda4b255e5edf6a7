"""
What the settings say of failing, for the flow: how often an upload is tried again, and how many letters are a storm.
"""

from schemas.verdict import Mode
from worker.flow.retrying import Retries
from worker.flow.storm import StormLimits
from worker.settings.tree import Settings


def retries_of(settings: Settings, mode: Mode) -> Retries:
    """
    As configured; nothing is put off but by a live worker, for nobody else reads the retry topics.
    """
    retry = settings.retry
    delays_s = retry.delays_s if mode == "live" else ()
    return Retries(retry.in_process, retry.first_wait_s, retry.longest_wait_s, delays_s)


def storm_of(settings: Settings) -> StormLimits:
    """
    As configured.
    """
    storm = settings.storm
    return StormLimits(storm.consecutive, storm.share, storm.window, storm.hold_s)
