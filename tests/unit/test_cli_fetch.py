"""
``touchstone fetch``: the facts of one image, or why it fails, for people and for machines.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import Touchstone, command_line
from tests.https_rig import SECRET, authority
from tests.scripted_web import ScriptedWeb, answer, scripted_web, tls_for
from worker.errors import EXIT_FOUND, EXIT_OK, EXIT_USAGE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    A picture of 40 x 30, and a text.
    """
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "cat.png")
    (tmp_path / "note.jpg").write_text("no picture at all")
    return tmp_path


@pytest.fixture
def touchstone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Touchstone:
    """
    Runs ``touchstone fetch ...`` with that folder as the root of file: references.
    """
    monkeypatch.chdir(folder)
    return command_line(monkeypatch, capsys, "fetch", last=("--set", f"fetch.file_root={folder}"))


@pytest.fixture
def web(folder: Path) -> Iterator[ScriptedWeb]:
    """
    An https server at 127.0.0.1 that has the picture, and an address that redirects to it.
    """
    authority().cert_pem.write_to_path(str(folder / "ca.pem"))
    with scripted_web(tls_for(authority(), "127.0.0.1")) as server:
        server.routes["/cat.png"] = answer(200, (folder / "cat.png").read_bytes())
        server.routes["/old"] = answer(302, Location=f"/cat.png?sig={SECRET}")
        yield server


def trusting(folder: Path) -> list[str]:
    """
    The settings with which that server may be asked.
    """
    return ["--set", f"fetch.ca_file={folder / 'ca.pem'}", "--set", "fetch.allow_private_addresses=true"]


def test_the_facts_of_an_image(touchstone: Touchstone, web: ScriptedWeb, folder: Path) -> None:
    """
    Size, hash, format by content, every hop, the address connected to and the time; no query is repeated.
    """
    url = web.url(f"/old?sig={SECRET}", host="127.0.0.1")
    ran = touchstone(url, "--json", *trusting(folder))
    data = (folder / "cat.png").read_bytes()
    place = web.url("", host="127.0.0.1")
    hops = [{"place": place, "address": "127.0.0.1", "status": status} for status in (302, 200)]

    assert EXIT_OK == ran.code
    assert {
        "reference": web.url("/old", host="127.0.0.1"),
        "seconds": ran.json["seconds"],
        "bytes": len(data),
        "sha256": sha256(data).hexdigest(),
        "format": "PNG",
        "width": 40,
        "height": 30,
        "address": "127.0.0.1",
        "hops": hops,
        "error": None,
    } == ran.json
    assert 0 < ran.json["seconds"] < 10
    assert SECRET not in ran.out + ran.err


def test_the_same_for_people(touchstone: Touchstone, web: ScriptedWeb, folder: Path) -> None:
    """
    A table with one fact in each line.
    """
    ran = touchstone(web.url("/old", host="127.0.0.1"), *trusting(folder))
    rows = {tuple(line.split(maxsplit=1)) for line in ran.out.splitlines()}

    assert EXIT_OK == ran.code
    assert ("format", "PNG") in {(name, value.strip()) for name, value in rows if name == "format"}
    assert "40 x 30" in ran.out
    assert f"hop 2 {web.url('', host='127.0.0.1')} 200" in " ".join(ran.out.split())


def test_the_rules_are_the_workers(touchstone: Touchstone, web: ScriptedWeb, folder: Path) -> None:
    """
    What the worker would refuse is refused, with the code of the verdict and its class, and nobody is asked.
    """
    url = web.url("/cat.png", host="127.0.0.1")
    private = touchstone(url, "--json", "--set", f"fetch.ca_file={folder / 'ca.pem'}")
    unlisted = touchstone(url, "--json", *trusting(folder), "--set", 'fetch.allowed_hosts=["cdn.example"]')

    assert (EXIT_FOUND, "REF_FORBIDDEN", "policy") == (
        private.code,
        private.json["error"]["code"],
        private.json["error"]["class"],
    )
    assert "fetch.allowed_hosts" in unlisted.json["error"]["detail"]
    assert 0 == web.connections


def test_a_failure_says_what_the_host_said(touchstone: Touchstone, web: ScriptedWeb, folder: Path) -> None:
    """
    Status and Retry-After stand beside the code; the hops up to it are shown.
    """
    web.routes["/later"] = answer(503, Retry_After="30")
    ran = touchstone(web.url("/later", host="127.0.0.1"), "--json", *trusting(folder))
    error = ran.json["error"]

    assert EXIT_FOUND == ran.code
    assert ("FETCH_UPSTREAM", "transient", "fetch") == (error["code"], error["class"], error["stage"])
    assert (503, 30.0) == (error["http_status"], error["retry_after_s"])
    assert [503] == [hop["status"] for hop in ran.json["hops"]]


def test_bytes_that_are_no_image(touchstone: Touchstone) -> None:
    """
    What was fetched is told, and why it cannot be decoded.
    """
    ran = touchstone("file:note.jpg", "--json")

    assert EXIT_FOUND == ran.code
    assert (17, None) == (ran.json["bytes"], ran.json["format"])
    assert ("FORMAT_UNSUPPORTED", "decode") == (ran.json["error"]["code"], ran.json["error"]["stage"])


def test_files_below_their_root(touchstone: Touchstone, folder: Path) -> None:
    """
    Relative to it or below it, with or without slashes; not outside.
    """
    paths = [
        "file:cat.png",
        f"file:{folder}/cat.png",
        f"file://{folder}/cat.png",
        "file:../cat.png",
        "file:/etc/passwd",
    ]
    codes = [touchstone(path).code for path in paths]

    assert [EXIT_OK] * 3 + [EXIT_FOUND] * 2 == codes


def test_an_object_without_a_profile(touchstone: Touchstone) -> None:
    """
    A reference to S3 is read as one, and refused where nothing is configured.
    """
    ran = touchstone("s3://uploads/a/cat.jpg", "--profile", "media", "--json")

    assert (EXIT_FOUND, "REF_FORBIDDEN") == (ran.code, ran.json["error"]["code"])


@pytest.mark.parametrize(
    "words",
    [
        ["cat.png"],
        ["ftp://a.test/cat.png"],
        ["s3://UP"],
        ["s3://uploads"],
        ["file:"],
        ["file:cat.png", "--profile", "media"],
        [f"https://a.test/?sig={SECRET}{'x' * 5000}"],
        ["s3://uploads/cat.png", "--profile", "not a name"],
    ],
)
def test_what_no_event_may_carry_is_a_mistake(touchstone: Touchstone, words: list[str]) -> None:
    """
    It is told apart from an image that fails, and no query is repeated.
    """
    ran = touchstone(*words)

    assert EXIT_USAGE == ran.code
    assert "expected" in ran.err or "leave them out" in ran.err
    assert SECRET not in ran.err


def test_credentials_are_sent_and_not_shown(touchstone: Touchstone, web: ScriptedWeb, folder: Path) -> None:
    """
    A profile for the host goes with the request; the output says nothing of it.
    """
    profile = [
        "--set",
        f'fetch.http.media.hosts=["127.0.0.1:{web.port}"]',
        "--set",
        f"fetch.http.media.bearer_token={SECRET}",
    ]
    ran = touchstone(web.url("/cat.png", host="127.0.0.1"), "--json", *trusting(folder), *profile)

    assert EXIT_OK == ran.code
    assert f"Bearer {SECRET}" in web.asked[0]
    assert SECRET not in json.dumps(ran.json) + ran.err
