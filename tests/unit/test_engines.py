"""
What the options and the settings make of an engine: which settings travel, and what is refused before any work.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.small_encoder import encoder_settings, loaded
from worker.cli.bank_engine import chosen_engine
from worker.dev.small_encoder import write_small_encoder
from worker.engines import open_in_actor, order_of
from worker.errors import ConfigInvalid
from worker.settings.images import DecodeSettings
from worker.settings.tree import EncoderSettings, KafkaSettings, Settings
from worker.views import GLOBAL_ONLY, ViewSpec

NOTHING_ASKED: dict[str, Any] = dict.fromkeys(("ray_address", "actors", "actor_cpus", "actor_gpus"))


def test_no_secret_travels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    An order holds the sections that an actor needs; its paths hold in any working directory, its threads are capped.
    """
    monkeypatch.chdir(tmp_path)
    encoder = EncoderSettings(model="local-dir:model", checkpoint_sha256="ab" * 32, threads=8, instances=3)
    kafka = KafkaSettings(
        security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="me", sasl_password=SecretStr("hushhush")
    )
    decode = DecodeSettings(threads=16, trust_anchors=Path("anchors.pem"))
    order = order_of(Settings(encoder=encoder, kafka=kafka, decode=decode), GLOBAL_ONLY, 2)
    text = order.model_dump_json()

    assert {"encoder", "decode", "batch", "views"} == json.loads(text).keys()
    assert "hush" not in text
    assert f"local-dir:{tmp_path}/model" == order.encoder.model
    assert (2, 1, 2) == (order.encoder.threads, order.encoder.instances, order.decode.threads)
    assert order.decode.trust_anchors is None


def test_an_actor_opens_what_was_ordered(tmp_path: Path) -> None:
    """
    The order's text is all that it needs to come to the same encoder, decoder and views.
    """
    small = write_small_encoder(tmp_path / "model")
    views = ViewSpec(native_crops=3, reencode_quality=90)
    settings = Settings(encoder=encoder_settings(small), decode=DecodeSettings(isolation="threads"))
    opened = open_in_actor(order_of(settings, views, 1).model_dump_json())

    assert loaded(small).fingerprint == opened.encoder.fingerprint
    assert (views, 1, 32) == (opened.views, opened.threads, opened.batch_size)


@pytest.mark.parametrize(
    ("option", "value"), [("actors", 2), ("actor_cpus", 1), ("actor_gpus", 0.0), ("ray_address", "auto")]
)
def test_options_of_ray_need_ray(option: str, value: object) -> None:
    """
    Who says how many actors means a cluster: that it was not asked for is told, not passed over.
    """
    options = NOTHING_ASKED | {"engine": "local", option: value}

    with pytest.raises(ConfigInvalid, match=f"--{option.replace('_', '-')} is for actors .*needs --engine ray"):
        chosen_engine(options, Settings(), GLOBAL_ONLY)
    assert chosen_engine(NOTHING_ASKED | {"engine": "local"}, Settings(), GLOBAL_ONLY) is None


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A worker without the extra says how to get it.
    """
    for name in [name for name in sys.modules if name.startswith("worker.adapters.ray_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ConfigInvalid, match=r"`pip install 'touchstone-worker\[ray\]'` here and on every node"):
        chosen_engine(NOTHING_ASKED | {"engine": "ray"}, Settings(), GLOBAL_ONLY)
