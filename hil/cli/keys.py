"""`hil keys`: which hosts may use the daemon of this machine over TCP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hil.cli.errors import reports_errors
from hil.cli.options import JsonOption
from hil.cli.terminal import print_json, print_table

app = typer.Typer(help="Keys: which hosts may use the daemon here.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="Name of the key: a person or a machine.", metavar="NAME")]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        help="Folder with the daemon's keys; else CROSSBAR_HIL_KEYS, else a folder of this account.",
        metavar="DIR",
    ),
]


@app.callback()
def keys_commands() -> None:
    """Keys: which hosts may use the daemon here. Run these on the daemon's machine, as its account."""


@app.command("new", epilog="\b\nExamples:\n  hil keys new alice\n  hil keys new lab-pc --out for-lab-pc.hilkey")
@reports_errors
def new(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; else NAME.hilkey in this folder.", metavar="FILE")
    ] = None,
    keys: KeysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a host in, and write the file that it needs.

    The file is a secret. Copy it to the host, then remove it here.
    """
    from firmware_bridge.link.keys import KEY_VARIABLE, SUFFIX, KeyFolder, fingerprint

    file = Path(f"{name}{SUFFIX}") if out is None else out / f"{name}{SUFFIX}" if out.is_dir() else out
    folder = KeyFolder.find(keys)
    was_configured = folder.is_configured
    credential = folder.new(name, file)
    found = {
        "name": name,
        "fingerprint": fingerprint(credential.public_key),
        "file": str(file),
        "folder": str(folder.path),
        "daemon_fingerprint": fingerprint(credential.daemon_key),
    }
    if as_json:
        print_json(found)
        return
    typer.echo(f"{file} lets its holder use the daemon here; key {name}, {found['fingerprint']}")
    typer.echo(
        f"copy it to the host, remove it here, and use it there: tcp://HOST:PORT?key=FILE, or {KEY_VARIABLE}=FILE"
    )
    if not was_configured:
        typer.echo("this is the first key: restart `hil serve`, which asks for keys from then on")


@app.command("list", epilog="\b\nExample:\n  hil keys list --json")
@reports_errors
def list_keys(keys: KeysOption = None, as_json: JsonOption = False) -> None:
    """Print who may use the daemon: name, fingerprint and date of each key."""
    from firmware_bridge.link.keys import KeyFolder, fingerprint

    folder = KeyFolder.find(keys)
    clients = folder.clients()
    daemon = fingerprint(folder.daemon_pair().public_key) if folder.is_configured else None
    rows = [(key.name, fingerprint(key.public_key), key.created) for key in clients]
    if as_json:
        listed = [dict(zip(("name", "fingerprint", "created"), row, strict=True)) for row in rows]
        print_json({"folder": str(folder.path), "daemon_fingerprint": daemon, "keys": listed})
    elif daemon is None:
        typer.echo(f"no keys in {folder.path}: the daemon serves this machine only; make one: hil keys new NAME")
    elif not rows:
        typer.echo(f"no keys in {folder.path}, and the daemon asks for one: nobody can use it; hil keys new NAME")
    else:
        print_table(f"Keys of daemon {daemon}", ("name", "fingerprint", "created"), rows)


@app.command("revoke", epilog="\b\nExample:\n  hil keys revoke alice")
@reports_errors
def revoke(name: NameArgument, keys: KeysOption = None, as_json: JsonOption = False) -> None:
    """Shut a host out, at once: its next message is refused, also on a connection that exists."""
    from firmware_bridge.link.keys import KeyFolder

    folder = KeyFolder.find(keys)
    folder.revoke(name)
    if as_json:
        print_json({"name": name, "folder": str(folder.path)})
    else:
        typer.echo(f"{name} can no longer use the daemon here")
