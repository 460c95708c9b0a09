"""`fl clients`: who was let in, who was there lately, what came of their replies; and how one is shut out."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from fl_cli import options
from fl_cli.table import ago, print_json, seconds_of, table
from fl_common.errors import SettingsError

GONE_SECONDS = 300.0  # not heard of: a server notes who is there more often than that
LEDGER = "clients.json"  # of each run: {node id: {"client", "rounds", "rejected": {reason: n}, ...}}

clients = typer.Typer(
    help="List the server's clients; shut one out; drop one that is gone.", invoke_without_command=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(clients, name="clients")


@dataclass
class Account:
    """What the histories of all runs say of one client."""

    rounds: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@clients.callback()
def list_(context: typer.Context, store: options.Store = None, as_json: options.Json = False) -> None:
    """List the clients that the server in --store knows; shut one out (revoke); drop one that is gone (forget)."""
    context.obj = store
    if context.invoked_subcommand is not None:
        return
    from fl_server.access import home_files
    from fl_server.access.client_registry import Registry

    directory = options.store_or_default(store)
    known = Registry(home_files.existing(options.home_of(store)).home).clients()
    accounts = summed(directory, {str(each.node): each.identity for each in known if each.node})
    now = time.time()
    if as_json:
        for each in known:
            print_json(_as_json(each, accounts.get(each.identity, Account())))
        return
    rows = [_row(each, accounts.get(each.identity, Account()), now) for each in known]
    head = ("client", "node", "labels", "since", "last seen", "rounds", "rejected", "state")
    table(head, rows, "no clients yet; `fl enroll token` makes a token that lets one in")


@clients.command("revoke")
def revoke(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="A client's id, its beginning, or its node id.")],
    store: options.Store = None,
) -> None:
    """Cut client ID off at once and for good: its open connection ends, and its key never comes in again."""
    from fl_server.access import home_files
    from fl_server.access.client_registry import Registry

    registry = Registry(home_files.existing(options.home_of(store or context.obj)).home)
    found = registry.found(identity)
    registry.revoke(found.identity)
    typer.echo(f"client {found.identity} is revoked")


@clients.command("forget")
def forget(
    context: typer.Context,
    identity: Annotated[
        str, typer.Argument(metavar="[ID]", help="A client's id, its beginning, or its node id.", show_default=False)
    ] = "",
    unseen: Annotated[str, typer.Option(help="Instead of one, all that were not heard of for so long: 30d, 12h.")] = "",
    store: options.Store = None,
) -> None:
    """Drop client ID, which is gone, as if it had never been let in. To come back, its key needs a token again.

    A client that was revoked cannot be dropped: its entry is what keeps its key out.
    """
    from fl_server.access import home_files
    from fl_server.access.client_registry import Registry

    if bool(identity) == bool(unseen):
        raise SettingsError("fl clients forget takes either a client's ID or --unseen, such as --unseen 30d")
    registry = Registry(home_files.existing(options.home_of(store or context.obj)).home)
    since = time.time() - seconds_of(unseen, "--unseen") if unseen else 0.0
    gone = [each for each in registry.clients() if (each.seen or each.since) < since and each.revoked is None]
    for found in gone if unseen else [registry.found(identity)]:
        registry.forget(found.identity)
        typer.echo(f"client {found.identity} is forgotten")


def summed(store: Path, client_of: Mapping[str, str]) -> dict[str, Account]:
    """Return what the histories of a store's runs say of each client. A history that cannot be read is left out."""
    accounts: dict[str, Account] = {}
    for node, entry in _entries(sorted(store.glob(f"*/{LEDGER}"))):
        client = str(entry.get("client") or client_of.get(node, ""))
        if client:
            account = accounts.setdefault(client, Account())
            account.rounds += int(entry.get("rounds", 0))
            account.rejected.update({str(reason): int(n) for reason, n in dict(entry.get("rejected", {})).items()})
    return accounts


def _entries(histories: Iterable[Path]) -> Iterable[tuple[str, dict[str, Any]]]:
    for path in histories:
        try:
            yield from json.loads(path.read_text()).items()
        except (OSError, ValueError, AttributeError) as error:
            typer.echo(f"warning: {path} cannot be read: {error}", err=True)


def _row(client: Any, account: Account, now: float) -> tuple[str, ...]:
    return (
        client.identity,
        str(client.node or "-"),
        options.spelled(client.labels),
        ago(client.since, now),
        ago(client.seen, now),
        str(account.rounds),
        str(account.rejected.total()),
        _state(client, now),
    )


def _state(client: Any, now: float) -> str:
    if client.revoked is not None:
        return "revoked"
    if now - (client.seen or client.since) > GONE_SECONDS:
        return "gone"
    return f"killed {ago(client.killed_at, now)}, {client.killed}" if client.killed_at else ""


def _as_json(client: Any, account: Account) -> dict[str, Any]:
    return {
        "client": client.identity,
        "node": client.node,
        "labels": dict(client.labels),
        "token": client.token,
        "since": client.since,
        "seen": client.seen,
        "revoked": client.revoked,
        "killed": client.killed,
        "killed_at": client.killed_at,
        "rounds": account.rounds,
        "rejected": dict(account.rejected),
    }
