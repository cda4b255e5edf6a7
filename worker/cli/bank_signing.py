"""
``touchstone bank keygen`` and ``sign``: who vouches for a bank.

Options and exit codes only. The work is done in ``worker.bank.signing_key``.
"""

import json
from pathlib import Path

import click

from worker.errors import EXIT_OK

JSON = click.option("--json", "as_json", is_flag=True, help="One object on stdout.")


@click.command()
@click.argument("key", metavar="KEYFILE", type=click.Path(path_type=Path))
@JSON
def keygen(key: Path, *, as_json: bool) -> int:
    """
    Make an ed25519 key in KEYFILE that signs banks, and print its public half for bank.trusted_keys.

    Only its owner can read the file. Keep it off the machines that judge: they need the public half alone.
    """
    from worker.bank.signature import key_id  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.bank.signing_key import make_key  # noqa: PLC0415 - likewise

    public = make_key(key)
    if as_json:
        click.echo(json.dumps({"key": str(key), "key_id": key_id(public), "public_key": public}, indent=2))
    else:
        click.echo(f"made key {key_id(public)} in {key}; workers trust it with")
        click.echo(f'[bank]\ntrusted_keys = ["{public}"]')
    return EXIT_OK


@click.command()
@click.argument("path", metavar="BANK", type=click.Path(path_type=Path))
@click.option("--key", required=True, metavar="KEYFILE", type=click.Path(path_type=Path), help="Made by `bank keygen`.")
@JSON
def sign(path: Path, *, key: Path, as_json: bool) -> int:
    """
    Sign BANK, once every check of its files has passed; a changed bank has to be signed again.

    Signatures of other keys stay, so that a bank can be signed by the next key before workers stop trusting the last.
    A bank whose signature does not hold is refused: remove its manifest.sig if you changed it yourself.
    """
    from worker.bank.signature import key_id  # noqa: PLC0415 - pydantic models; --help needs none
    from worker.bank.signing_key import read_key, sign_bank  # noqa: PLC0415 - likewise

    public = sign_bank(path, read_key(key))
    if as_json:
        click.echo(json.dumps({"bank": str(path), "key_id": key_id(public), "public_key": public}, indent=2))
    else:
        click.echo(f"bank {path} is signed by key {key_id(public)}")
    return EXIT_OK
