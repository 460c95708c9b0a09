"""Who may come in: the clients that a server knows and the tokens that admit new ones, in one SQLite file of its home.

Commands and the SuperLink open it side by side: every change is one transaction. The file holds no key of a client but
public ones, and of a token only the SHA-256 of its secret.
"""

import hmac
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from fl_common.errors import AccessError, StoreError
from fl_common.trust import keys
from fl_common.trust.enrolment import SHUT_OUT
from fl_common.trust.tokens import Token
from fl_server.access.client_records import Client, Labels, TokenRecord, client_of, token_of
from fl_server.store.disk.whole_writes import away, in_a_line, is_damage, told

log = logging.getLogger(__name__)

FILE = "clients.db"
BUSY_SECONDS = 10.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS client (
    id TEXT PRIMARY KEY, public_key BLOB NOT NULL, node TEXT NOT NULL DEFAULT '', labels TEXT NOT NULL,
    token TEXT NOT NULL, since REAL NOT NULL, seen REAL, revoked REAL
);
CREATE TABLE IF NOT EXISTS token (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL, labels TEXT NOT NULL, uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0, made REAL NOT NULL, expires REAL NOT NULL, revoked REAL
);
CREATE TABLE IF NOT EXISTS forgotten (id TEXT PRIMARY KEY, public_key BLOB NOT NULL, moment REAL NOT NULL);
"""
LATER = ("killed TEXT NOT NULL DEFAULT ''", "killed_at REAL")  # columns of a client that the first files had not
NOT_VALID = "the enrolment token is not valid here"  # one answer for unknown, wrong and revoked: no oracle


class Registry:
    """The clients and tokens of one server. Every method is one transaction, from any thread."""

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._out: tuple[int, frozenset[str], frozenset[str]] | None = None  # revoked, forgotten
        self._path = home / FILE
        try:
            self._path.touch(mode=0o600)
            self._db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(SCHEMA)
            self._add_columns()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot open {self._path}: {_why(error, self._path)}") from None

    def _add_columns(self) -> None:
        """Bring a file of an earlier version up to this one."""
        if not self._lacking():
            return
        self._db.execute("BEGIN IMMEDIATE")  # another process may be about to do the same
        for column in self._lacking():
            self._db.execute(f"ALTER TABLE client ADD COLUMN {column}")
        self._db.execute("COMMIT")

    def _lacking(self) -> list[str]:
        known = {row["name"] for row in self._db.execute("PRAGMA table_info(client)")}
        return [column for column in LATER if column.partition(" ")[0] not in known]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # Tokens

    def add_token(self, token: Token, *, uses: int, seconds: float, labels: Labels) -> None:
        """Let a new token admit `uses` clients within `seconds` from now."""
        now = self._clock()
        row = (token.identity, token.digest, json.dumps(dict(labels)), uses, now, now + seconds)
        with self._change() as db:
            db.execute("INSERT INTO token (id, digest, labels, uses, made, expires) VALUES (?, ?, ?, ?, ?, ?)", row)

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens, the oldest first."""
        with self._reading() as db:
            return [token_of(row) for row in db.execute("SELECT * FROM token ORDER BY made").fetchall()]

    def revoke_token(self, identity: str) -> None:
        """Let a token admit nobody from now on. Raises StoreError where there is none of that id."""
        with self._change() as db:
            changed = db.execute("UPDATE token SET revoked = ? WHERE id = ?", (self._clock(), identity)).rowcount
        if not changed:
            raise StoreError(f"there is no token {identity!r}. See `fl enroll list`.")

    def knows(self, token: Token) -> bool:
        """Say whether a token was made here, good or not: only who was given it can show it. Changes nothing."""
        with self._reading() as db:
            row = db.execute("SELECT digest FROM token WHERE id = ?", (token.identity,)).fetchone()
        return hmac.compare_digest(row["digest"] if row else bytes(len(token.digest)), token.digest)

    def admit(self, token: Token, public_key: bytes) -> Client:
        """Enrol the holder of a key by a token, and count a use of it. A key that is enrolled already counts none.

        Raises AccessError where the token or the key is not good.
        """
        identity, now = keys.client_id(public_key), self._clock()
        with self._change() as db:
            row = db.execute("SELECT * FROM token WHERE id = ?", (token.identity,)).fetchone()
            known = row["digest"] if row else bytes(len(token.digest))
            if not hmac.compare_digest(known, token.digest) or row is None or row["revoked"] is not None:
                raise AccessError(NOT_VALID)
            if now >= row["expires"]:
                raise AccessError("the enrolment token has expired. Make a new one with `fl enroll token`.")
            before = _client(db, identity)
            if before is not None:
                return _unrevoked(before)
            if row["used"] >= row["uses"]:
                raise AccessError("the enrolment token is used up. Make a new one with `fl enroll token`.")
            db.execute("UPDATE token SET used = used + 1 WHERE id = ?", (token.identity,))
            return _insert(db, identity, public_key, row["labels"], token.identity, now)

    # Clients

    def add_key(self, public_key: bytes, labels: Labels) -> Client:
        """Enrol the holder of a public key by hand. Raises AccessError where that key was revoked."""
        identity = keys.client_id(public_key)
        canonical = keys.public_pem(keys.read_public(public_key))
        with self._change() as db:
            before = _client(db, identity)
            if before is not None:
                return _unrevoked(before)
            return _insert(db, identity, canonical, json.dumps(dict(labels)), "", self._clock())

    def clients(self) -> list[Client]:
        """Return all clients ever let in, the oldest first."""
        with self._reading() as db:
            return [client_of(row) for row in db.execute("SELECT * FROM client ORDER BY since, id").fetchall()]

    def client(self, identity: str) -> Client | None:
        """Return a client by its whole id."""
        with self._reading() as db:
            return _client(db, identity)

    def found(self, start: str) -> Client:
        """Return the one client whose id, or node id, begins so. Raises StoreError where that is none or several."""
        matching = [each for each in self.clients() if each.identity.startswith(start) or str(each.node) == start]
        if len(matching) != 1 or not start:
            which = "several clients" if matching else "no client"
            raise StoreError(f"{which} whose id begins with {start!r}. See `fl clients`.")
        return matching[0]

    def revoke(self, identity: str) -> None:
        """Shut a client out for good: neither this session nor a token lets its key in again."""
        with self._change() as db:
            db.execute("UPDATE client SET revoked = ? WHERE id = ? AND revoked IS NULL", (self._clock(), identity))

    def forget(self, identity: str) -> None:
        """Drop a client, as if it had never been let in: its key needs a token again. Raises StoreError where revoked.

        What is left of it is the note that shuts out its node, which Flower does not forget.
        """
        with self._change() as db:
            client = _client(db, identity)
            if client is None:
                return
            if client.revoked is not None:
                raise StoreError(f"client {identity} was revoked: its entry is what keeps its key out, so it stays")
            row = (identity, client.public_key, self._clock())
            db.execute("INSERT OR REPLACE INTO forgotten (id, public_key, moment) VALUES (?, ?, ?)", row)
            db.execute("DELETE FROM client WHERE id = ?", (identity,))

    def public_key(self, identity: str) -> bytes | None:
        """Return the public key of a client that was ever let in, forgotten ones included."""
        query = "SELECT public_key FROM client WHERE id = ? UNION SELECT public_key FROM forgotten WHERE id = ?"
        with self._reading() as db:
            row = db.execute(query, (identity, identity)).fetchone()
        return bytes(row["public_key"]) if row else None

    def settle(self, identity: str, node: int) -> None:
        """Note the node id that Flower has given a client."""
        with self._change() as db:
            db.execute("UPDATE client SET node = ? WHERE id = ?", (str(node), identity))

    def note_seen(self, moments: Mapping[str, float]) -> None:
        """Note when clients were last heard of."""
        rows = [(moment, identity) for identity, moment in moments.items()]
        with self._change() as db:
            db.executemany("UPDATE client SET seen = ? WHERE id = ?", rows)

    def note_killed(self, identity: str, why: str) -> None:
        """Note that a client tells that the one before it was killed, and for what."""
        with self._change() as db:
            db.execute("UPDATE client SET killed = ?, killed_at = ? WHERE id = ?", (why, self._clock(), identity))

    def revoked(self) -> frozenset[str]:
        """Return the ids of those shut out for good. As cheap as `forgotten`."""
        return self._shut_out()[1]

    def forgotten(self) -> frozenset[str]:
        """Return the ids of those that were dropped and have not enrolled again."""
        return self._shut_out()[2]

    def _shut_out(self) -> tuple[int, frozenset[str], frozenset[str]]:
        """Return both. They are read again only when another connection has written."""
        with self._reading() as db:
            version = db.execute("PRAGMA data_version").fetchone()[0]
            if self._out is None or self._out[0] != version:
                revoked = db.execute("SELECT id FROM client WHERE revoked IS NOT NULL").fetchall()
                forgotten = db.execute("SELECT id FROM forgotten").fetchall()
                self._out = (version, *(frozenset(row["id"] for row in rows) for rows in (revoked, forgotten)))
            return self._out

    def examine(self) -> None:
        """Raise StoreError where the file is damaged."""
        with self._reading() as db:
            if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
            for table in ("client", "token", "forgotten"):
                for row in db.execute(f"SELECT * FROM {table}").fetchall():  # noqa: S608
                    _ = json.loads(row["labels"]) if "labels" in row.keys() else None  # noqa: SIM118  of a Row

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except (sqlite3.Error, ValueError, LookupError, TypeError) as error:
                raise StoreError(f"cannot read {self._path}: {_why(error, self._path)}") from None

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")  # one writer at a time: a token's last use has one taker
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise StoreError(f"the registry of clients cannot be changed: {told(error) or error}") from None
                raise
            finally:
                self._out = None


def examine(home: Path) -> None:
    """Look at the registry of a server that starts. Raises StoreError, which says what to do, where it is damaged."""
    began = (home / "state.db").exists() and any((home / name).exists() for name in ("ca.key", "certificates.json"))
    lost = began and not ((path := home / FILE).exists() and path.stat().st_size)
    with closing(Registry(home)) as registry:
        registry.examine()
    if lost:
        log.warning(
            "%s was missing or empty, and is made anew: clients that were there come back without their labels, others "
            "need a new token, and who was revoked should be revoked again",
            home / FILE,
        )


def _why(error: Exception, path: Path) -> str:
    """Say what is wrong with the file, and what to do about it."""
    if isinstance(error, sqlite3.Error | OSError) and not is_damage(error):
        return told(error) or str(error)
    return (
        f"{in_a_line(error)}. It says who may come in: put it back from a backup while the server is stopped. Without "
        f"one, move it out of the way ({away(path)}) and start the server: each client needs a new token then (`fl "
        "enroll token`), and who was revoked must be revoked again."
    )


def _insert(db: sqlite3.Connection, identity: str, public_key: bytes, labels_: str, token: str, now: float) -> Client:
    db.execute("DELETE FROM forgotten WHERE id = ?", (identity,))
    db.execute(
        "INSERT INTO client (id, public_key, labels, token, since) VALUES (?, ?, ?, ?, ?)",
        (identity, public_key, labels_, token, now),
    )
    return Client(identity, public_key, 0, json.loads(labels_), token, now, None, None)


def _client(db: sqlite3.Connection, identity: str) -> Client | None:
    row = db.execute("SELECT * FROM client WHERE id = ?", (identity,)).fetchone()
    return client_of(row) if row else None


def _unrevoked(client: Client) -> Client:
    if client.revoked is not None:
        raise AccessError(f"client {client.identity} was revoked: {SHUT_OUT}")
    return client
