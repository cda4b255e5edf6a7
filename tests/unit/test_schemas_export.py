"""
The exported contract: committed files are what the models say, and the command says so when they are not.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from schemas.export import ASYNCAPI_FILE, COMMITTED, Drift, drift, export_to, exported
from tests.peers import validator_of
from worker.cli.schemas import schemas
from worker.errors import EXIT_FOUND, ConfigInvalid

DOCUMENTS = {name: json.loads(content) for name, content in exported().items()}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(schemas, ["export", *arguments])


def test_the_committed_files_say_what_the_models_say() -> None:
    """
    No file is missing, different or left over; the remedy is ``touchstone schemas export``.
    """
    assert drift(COMMITTED) == ()


def test_an_export_is_the_same_bytes_every_time() -> None:
    """
    Otherwise drift would be found where there is none.
    """
    assert exported() == exported()


def test_each_kind_of_drift_is_named(tmp_path: Path) -> None:
    """
    Missing, differing and left-over files are told apart.
    """
    written = export_to(tmp_path)
    written[0].unlink()
    written[1].write_text("{}")
    (tmp_path / "image.verdict.v0.schema.json").write_text("{}")

    assert drift(tmp_path) == (
        Drift(written[0].name, "missing"),
        Drift(written[1].name, "differs"),
        Drift("image.verdict.v0.schema.json", "unknown"),
    )


def test_the_command_writes_and_then_finds_no_drift(tmp_path: Path) -> None:
    """
    ``export`` makes the folder; ``export --check`` agrees and exits 0.
    """
    folder = tmp_path / "new" / "json"
    written = _run("--out", str(folder), "--json")
    checked = _run("--check", "--out", str(folder))

    assert (written.exit_code, checked.exit_code) == (0, 0)
    assert json.loads(written.output) == {"folder": str(folder), "written": list(exported())}


def test_the_command_exits_1_on_drift_and_says_what_to_run(tmp_path: Path) -> None:
    """
    Each file that differs is named, for people and for machines.
    """
    differing = export_to(tmp_path)[0]
    differing.write_text("{}")
    people = _run("--check", "--out", str(tmp_path))
    machines = _run("--check", "--out", str(tmp_path), "--json")

    assert (people.exit_code, machines.exit_code) == (EXIT_FOUND, EXIT_FOUND)
    assert f"{differing}: differs" in people.output
    assert f"run `touchstone schemas export --out {tmp_path}`" in people.output
    assert json.loads(machines.output)["drift"] == [{"file": differing.name, "problem": "differs"}]


def test_a_folder_that_cannot_be_used_is_a_usage_error(tmp_path: Path) -> None:
    """
    Nothing to compare with and nowhere to write end with a message of ours.
    """
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    missing = _run("--check", "--out", str(tmp_path / "missing"))
    blocked = _run("--out", str(in_the_way / "json"))

    assert isinstance(missing.exception, ConfigInvalid)
    assert isinstance(blocked.exception, ConfigInvalid)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != ASYNCAPI_FILE])
def test_each_schema_says_who_it_is(name: str) -> None:
    """
    Dialect, id, title and description; and nothing in it is closed to the fields of a later minor version.
    """
    schema = DOCUMENTS[name]

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:touchstone:schema:{name.removesuffix('.schema.json')}:1.1"
    assert schema["title"]
    assert schema["description"]
    assert '"additionalProperties": false' not in json.dumps(schema)


def test_enumerations_are_open_and_outcomes_are_not() -> None:
    """
    A reason or an error of tomorrow is valid today; a fourth status is not.
    """
    definitions = DOCUMENTS["image.verdict.v1.schema.json"]["$defs"]
    opened = [name for name in definitions if {"type": "string"} in definitions[name].get("anyOf", [])]

    assert opened == ["Action", "ErrorClass", "ErrorCode", "ReasonCode", "Stage"]
    assert definitions["OutcomeV1"]["properties"]["status"]["enum"] == ["decided", "abstained", "failed"]


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """
    Within the document by JSON pointer, outside of it to a file that is exported with it.
    """
    document = DOCUMENTS[ASYNCAPI_FILE]
    references = set(_references(document))

    for reference in references:
        file, _, pointer = reference.partition("#")
        assert (file.removeprefix("./") in DOCUMENTS) if file else _follow(document, pointer)
    assert references


def test_the_examples_of_the_asyncapi_document_are_valid() -> None:
    """
    Payloads satisfy the schema of their message, and headers that of its headers.
    """
    messages = DOCUMENTS[ASYNCAPI_FILE]["components"]["messages"]
    shown = [(message, example) for message in messages.values() for example in message["examples"]]

    assert len(shown) == 12
    for message, example in shown:
        payload = example["payload"]
        validator_of(message["name"]).validate(payload.get("data", payload))
        assert set(message.get("headers", {}).get("required", [])) <= set(example.get("headers", {}))
        for name, schema in message.get("headers", {}).get("properties", {}).items():
            assert example["headers"].get(name, "") == schema.get("const", example["headers"].get(name, ""))


def _references(node: Any) -> list[str]:  # noqa: ANN401 - any JSON
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for part in node.values() for found in _references(part)]
    return [found for part in node for found in _references(part)] if isinstance(node, list) else []


def _follow(document: dict[str, Any], pointer: str) -> bool:
    node: Any = document
    for step in pointer.strip("/").split("/"):
        node = node.get(step) if isinstance(node, dict) else None
    return node is not None
