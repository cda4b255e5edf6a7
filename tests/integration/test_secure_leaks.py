"""
A whole worker with secrets everywhere, all that it says is searched: logs, spans, headers, verdicts, letters, HTTP.
"""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image
from redis import Redis

from schemas.uploaded import TYPE
from tests.leaks import found_in, text_of, text_of_bytes, without_original
from tests.outcome_reader import Outcome
from tests.platform_side import Event, Headers, Published, inline, upload_event
from tests.scripted_web import ScriptedWeb, answer, scripted_web, tls_for
from tests.secured_rig import Files, authority, certified, written
from tests.span_collector import SpanCollector
from tests.worker_rig import START_DEADLINE_S, Instruments, WorkerProcess, WorkerRig
from worker.dev.kafka_secured import SecuredListener
from worker.dev.kafka_server import EmbeddedKafka
from worker.dev.redis_server import EmbeddedRedis
from worker.redaction import MASK

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(500)]

KAFKA_USER = "worker"
OF_SETTINGS = {
    "Kafka's password": "kafkaPassw0rdNeedle",
    "Redis's password": "redisPassw0rdNeedle",
    "the key's password": "certKeyPassw0rdNeedle",
    "S3's secret": "s3SecretAccessKeyNeedle0123456789",
    "the token of a web host": "bearerTokenNeedle0123456789",
    "the value of a header": "headerValueNeedle0123456789",
    "the signing key": "hmacKeyNeedle0123456789abcdef0123456789",
}
OF_EVENTS = {
    "a signed query": "X-Amz-Signature-needle-0001",
    "the query of a redirect": "X-Amz-Signature-needle-0002",
    "a secret path": "path-that-is-a-secret-0003",
    "userinfo": "userinfoNeedle0004",
    "a field of no event": "X-Amz-Signature-needle-0005",
    "a broken event": "X-Amz-Signature-needle-0006",
    "an image's comment": "bytes-of-the-image-needle-0007",
    "what is no image": "bytes-of-no-image-needle-0008",
    "an answer's body": "body-of-the-answer-needle-0009",
}
SECRETS = OF_SETTINGS | OF_EVENTS


@dataclass(frozen=True, slots=True)
class Said:
    """
    All that a worker said while it ran, and what was asked of it.
    """

    log: str
    spans: list[str]
    published: list[Published]
    outcomes: list[Outcome]
    pages: dict[str, str]
    shown: str
    asked: str
    kept: list[bytes]


def picture(comment: str) -> bytes:
    """
    A JPEG whose bytes hold a text.
    """
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(file, "JPEG", comment=comment.encode())
    return file.getvalue()


def uploads(web: ScriptedWeb) -> list[Event]:
    """
    One upload for each way in which something secret comes by.
    """
    query = f"?X-Amz-Credential=c&X-Amz-Signature={OF_EVENTS['a signed query']}"
    secret_path = OF_EVENTS["a secret path"]
    urls = {
        "good": web.url(f"/good{query}", host="localhost"),
        "gone": web.url(f"/gone{query}", host="localhost"),
        "denied": web.url(f"/denied{query}", host="localhost"),
        "failing": web.url(f"/failing{query}", host="localhost"),
        "redirected": web.url(f"/redirected{query}", host="localhost"),
        "path": web.url(f"/{secret_path}/gone{query}", host="localhost"),
        "no-image": web.url(f"/no-image{query}", host="localhost"),
        "plain": web.url(f"/good{query}", host="localhost").replace("https://", "http://"),
        "user": f"https://user:{OF_EVENTS['userinfo']}@localhost:{web.port}/good{query}",
        "nobody": f"https://localhost:1/{secret_path}{query}",
        "malformed": f"https://[{OF_EVENTS['userinfo']}/{query}",
    }
    refs = {name: {"kind": "https", "url": url} for name, url in urls.items()}
    refs["inline"] = inline(picture(OF_EVENTS["an image's comment"]))
    refs["truncated"] = inline(picture(OF_EVENTS["an image's comment"])[:400])
    refs["garbage"] = inline(OF_EVENTS["what is no image"].encode() * 20)
    refs["bucket"] = {"kind": "s3", "profile": "media", "bucket": "other", "key": f"{secret_path}/cat.jpg"}
    refs["object"] = {"kind": "s3", "profile": "media", "bucket": "uploads", "key": f"{secret_path}/cat.jpg"}
    refs["no kind"] = {"kind": f"cdn.example/a{query}"}
    refs["no scheme"] = {"kind": "https", "url": f"1https://h/x{query}"}
    refs["unknown"] = {"kind": "ftp", "url": f"ftp://host/x?{OF_EVENTS['a field of no event']}"}
    headers = upload_event("none", {}).headers
    broken = f'{{"content_id": "broken", "url": "https://h/x?sig={OF_EVENTS["a broken event"]}"'.encode()
    odd = json.dumps({"content_id": ["x", OF_EVENTS["a field of no event"]], "image": 3}).encode()
    assert TYPE in {value.decode() for _, value in headers}
    return [
        *(upload_event(name, ref) for name, ref in refs.items()),
        *(Event(name.encode(), b"{}", spoilt(headers, name, f"/a{query}")) for name in ("ce_type", "ce_time")),
        Event(b"broken", broken, headers),
        Event(b"odd", odd, headers),
        Event(b"bytes", picture(OF_EVENTS["an image's comment"]), headers),
        Event(b"bare", broken),
    ]


def spoilt(headers: Headers, name: str, value: str) -> Headers:
    """
    The headers, with another value of one.
    """
    return tuple((dict(headers) | {name: value.encode()}).items())


def routes(web: ScriptedWeb) -> None:
    """
    What the web server answers.
    """
    elsewhere = f"https://localhost:{web.port}/no-image?sig={OF_EVENTS['the query of a redirect']}"
    body = OF_EVENTS["an answer's body"].encode() * 20
    web.routes |= {
        "/good": answer(200, picture(OF_EVENTS["an image's comment"])),
        "/denied": answer(403, body),
        "/failing": answer(500, body),
        "/redirected": answer(302, body, Location=elsewhere),
        "/no-image": answer(200, body, Content_Type="image/jpeg"),
    }


@pytest.fixture(scope="module")
def web() -> Iterator[ScriptedWeb]:
    """
    A web server whose certificate our authority signed.
    """
    with scripted_web(tls_for(authority("ours"), "localhost")) as web:
        routes(web)
        yield web


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """
    The worker's certificate, its key encrypted.
    """
    folder = tmp_path_factory.mktemp("ours")
    return written(certified(), folder, key_password=OF_SETTINGS["the key's password"])


@pytest.fixture(scope="module")
def kafka_with_password() -> Iterator[EmbeddedKafka]:
    """
    A broker that asks for a certificate and a password.
    """
    certificate = certified()
    users = {KAFKA_USER: OF_SETTINGS["Kafka's password"]}
    listener = SecuredListener(
        certificate.keystore, certificate.authority, users, client_certificates=True, unrestricted=(KAFKA_USER,)
    )
    with EmbeddedKafka(secured=listener) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def redis_with_password() -> Iterator[str]:
    """
    The address of a Redis that asks for a password, which stands in it.
    """
    password = OF_SETTINGS["Redis's password"]
    with EmbeddedRedis() as redis, closing(Redis.from_url(redis.url)) as root:
        root.config_set("requirepass", password)
        yield redis.url.replace("redis://", f"redis://:{password}@")


def sets_of(kafka: EmbeddedKafka, files: Files, web: ScriptedWeb) -> list[str]:
    """
    Settings that hold a secret, and those that make them be used.
    """
    texts = {
        "kafka.bootstrap_servers": kafka.secured_servers,
        "kafka.security_protocol": "SASL_SSL",
        "kafka.sasl_mechanism": "SCRAM-SHA-512",
        "kafka.sasl_username": KAFKA_USER,
        "kafka.sasl_password": OF_SETTINGS["Kafka's password"],
        "kafka.ssl_key_password": OF_SETTINGS["the key's password"],
        "redis.hmac_keys": OF_SETTINGS["the signing key"],
        "fetch.ca_file": str(files.cafile),
        "fetch.http.web.header": "X-Api-Key",
        "fetch.http.web.value": OF_SETTINGS["the value of a header"],
        "fetch.http.web.bearer_token": OF_SETTINGS["the token of a web host"],
        "fetch.s3.media.endpoint_url": f"https://localhost:{web.port}",
        "fetch.s3.media.region": "eu-central-1",
        "fetch.s3.media.access_key_id": "AKIAEXAMPLE",
        "fetch.s3.media.secret_access_key": OF_SETTINGS["S3's secret"],
        "log.level": "debug",
        "tracing.exporter": "otlp",
    }
    return [
        *files.sets("kafka"),
        *(f"{key}={json.dumps(value)}" for key, value in texts.items()),
        f'fetch.http.web.hosts=["localhost:{web.port}"]',
        'fetch.s3.media.buckets=["uploads"]',
        "fetch.allow_private_addresses=true",
        "http.enabled=true",
        "http.port=0",
    ]


@pytest.fixture(scope="module")
def said(
    kafka_with_password: EmbeddedKafka,
    redis_with_password: str,
    files: Files,
    web: ScriptedWeb,
    instruments: Instruments,
) -> Iterator[Said]:
    """
    What a worker says from its start to its end, with one upload of each kind.
    """
    kafka, folder = kafka_with_password, files.cafile.parent
    with WorkerRig(kafka.bootstrap_servers, redis_with_password, instruments, folder) as rig:
        yield run(rig.create_topics(1), sets_of(kafka, files, web), web)


def run(rig: WorkerRig, sets: list[str], web: ScriptedWeb) -> Said:
    """
    The worker, from its start to its end, and what it left behind.
    """
    with SpanCollector() as collector:
        sets = [*sets, f"tracing.endpoint={collector.endpoint}"]
        worker = rig.start("one", *sets)
        port = worker.until_logged("http.listening", START_DEADLINE_S)["port"]
        worker.until_started()
        reader = rig.reader()
        published = rig.publish(uploads(web))
        assert reader.until_answered(published), worker.text()
        pages = {path: page(port, path) for path in ("/info", "/metrics", "/readyz", "/livez", "/startupz")}
        assert worker.stop() == 0, worker.text()
        spans = [text_of(span) for span in collector.spans]
    with closing(Redis.from_url(rig.settings.redis.url.get_secret_value())) as redis:
        kept = [redis.get(key) for key in redis.scan_iter(match="*:[ef]*")]
    return Said(
        log="\n".join(worker.lines()),
        spans=spans,
        published=published,
        outcomes=list(reader.outcomes),
        pages=pages,
        shown=config_shown(rig, sets),
        asked="\n".join(web.asked),
        kept=[value for value in kept if isinstance(value, bytes)],
    )


def page(port: int, path: str) -> str:
    """
    What the worker answers over HTTP.
    """
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as response:
        text: str = response.read().decode()
    return text


def config_shown(rig: WorkerRig, sets: list[str]) -> str:
    """
    All that ``touchstone config show`` prints for these settings.
    """
    words = [word for one in (*rig.sets, *sets) for word in ("--set", one)]
    shown = WorkerProcess(["config", "show", *words], Path.cwd())
    assert 0 == shown.wait(START_DEADLINE_S), shown.text()
    return "\n".join(shown.lines())


def test_nothing_secret_is_said_anywhere(said: Said) -> None:
    """
    No secret of the settings, no signed query, no path, no credentials and no bytes of an image, in any coding.

    Dead letters carry the record that they are about, byte for byte: there, and nowhere else, stands what it held.
    """
    places = {
        "log": said.log,
        "spans": "\n".join(said.spans),
        "headers": "\n".join(
            f"{name}: {text_of_bytes(value)}" for outcome in said.outcomes for name, value in outcome.headers
        ),
        "verdicts": "\n".join(json.dumps(one.data) for one in said.outcomes if "original" not in one.data),
        "letters": "\n".join(json.dumps(without_original(one.data)) for one in said.outcomes if "original" in one.data),
        "config show": said.shown,
        **said.pages,
    }

    assert {} == {place: found for place, text in places.items() if (found := found_in(text, SECRETS))}
    assert all(places.values()), {place: len(text) for place, text in places.items()}


def test_the_secrets_were_there_to_be_said(said: Said) -> None:
    """
    Each was used or read on the way, so that silence is no accident.
    """
    values = "\n".join(text_of_bytes(one.event.value) for one in said.published)
    decided = {one.data["content_id"]: one.data for one in said.outcomes if "verdict_id" in one.data}
    sent = {"the token of a web host", "the value of a header", "a signed query", "the query of a redirect"}

    assert sent <= set(found_in(said.asked, SECRETS))
    assert set(OF_EVENTS) - {"the query of a redirect", "an answer's body"} <= set(found_in(values, OF_EVENTS))
    assert {"good", "inline"} <= {name for name, data in decided.items() if data["outcome"]["status"] != "failed"}
    assert {"gone", "denied", "no-image", "user"} <= {
        name for name, data in decided.items() if data["outcome"]["status"] == "failed"
    }
    # Signed values are longer than unsigned ones would be; that Kafka and Redis took the passwords is seen of verdicts.
    assert said.kept
    assert said.shown.count(MASK) >= len(OF_SETTINGS)


def test_a_letter_carries_its_record_byte_for_byte(said: Said) -> None:
    """
    The one place where what an event held is found again, base64 as the contract says.
    """
    sent = {one.position: one.event for one in said.published}
    letters = [one for one in said.outcomes if "original" in one.data]
    values = [base64.b64decode(one.data["original"]["value_base64"]) for one in letters]

    assert len(letters) >= 5
    assert values == [sent[one.answers].value for one in letters]
    assert "a broken event" in found_in("".join(map(text_of_bytes, values)), OF_EVENTS)
