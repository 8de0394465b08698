"""Who may use a daemon over TCP: the daemon's CURVE pair, the public keys of its hosts, and the file that a host holds.

CURVE is ZeroMQ's encryption and authentication with Curve25519 (ZMTP-CURVE, ZeroMQ RFC 26). Keys are written in Z85
(ZeroMQ RFC 32): 40 characters for 32 bytes.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import zmq
import zmq.utils.z85 as z85

from hil.errors import AccessError, ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the same module under its old name
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "CROSSBAR_HIL_KEYS"
KEY_VARIABLE = "CROSSBAR_HIL_KEY"
SUFFIX = ".hilkey"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_CHARACTERS = 40
_FORMAT = 1
_ACCOUNT = "use the account of the daemon"
#: a folder that changed more recently may change again within one tick of the file system's clock, unnoticed
_SETTLED_NS = 100_000_000


@dataclass(frozen=True)
class ClientKey:
    """A host that may connect.

    Attributes:
        name: as given to `hil keys new`.
        public_key: in Z85.
        created: when, as an ISO 8601 text in UTC.
    """

    name: str
    public_key: str
    created: str


@dataclass(frozen=True)
class DaemonPair:
    """The daemon's own key pair, in Z85."""

    public_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Credential:
    """What a host needs to use a daemon: its own pair and the daemon's public key, in Z85."""

    name: str
    public_key: str
    secret_key: str = field(repr=False)
    daemon_key: str

    @staticmethod
    def read(path: Path) -> Credential:
        """Read a credential file.

        Raises:
            ConfigError: no such file, or not a credential.
            AccessError: others can read it.
        """
        new_one = f"copy the file that `hil keys new NAME` wrote on the daemon's machine, and name it ({KEY_VARIABLE})"
        found = _read_toml(path, f"credential {path}", fix=new_one)
        _refuse_open(path, 0o077)
        credential = Credential(
            *(str(found.get(name, "")) for name in ("name", "public_key", "secret_key", "daemon_key"))
        )
        if (
            found.get("format") != _FORMAT
            or not _NAME.fullmatch(credential.name)
            or not _is_key(credential.daemon_key)
            or not _is_pair(credential.public_key, credential.secret_key)
        ):
            raise ConfigError(f"credential {path} is damaged, or of another version", fix=new_one)
        return credential

    def text(self) -> str:
        """The content of the file."""
        return (
            "# Access to a crossbar-hil daemon. This file is a secret: whoever has it can drive the array.\n"
            f"format = {_FORMAT}\n"
            f'name = "{self.name}"\n'
            f'public_key = "{self.public_key}"\n'
            f'secret_key = "{self.secret_key}"\n'
            f'daemon_key = "{self.daemon_key}"\n'
        )


@dataclass(frozen=True)
class _Authorised:
    """The public keys as read at one moment; `stamp` is what told that state of the folder from others."""

    stamp: tuple[int, int] | None
    settled: bool
    names: Mapping[str, str]


class KeyFolder:
    """The daemon's keys: `daemon.toml` with its own pair, and `clients/NAME.toml` with one public key each.

    Files appear whole and under their final name or not at all, so that a daemon can read while `hil keys` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._daemon_file = path / "daemon.toml"
        self._clients = path / "clients"
        self._authorised = _Authorised(None, False, {})

    @staticmethod
    def find(path: Path | None = None) -> KeyFolder:
        """The folder to use: `path`, else the one that CROSSBAR_HIL_KEYS names, else the user's own."""
        if path is None and (named := os.environ.get(FOLDER_VARIABLE)):
            path = Path(named)
        if path is None:
            import platformdirs

            path = platformdirs.user_config_path("crossbar-hil") / "keys"
        return KeyFolder(Path(os.path.expanduser(path)))

    @property
    def is_configured(self) -> bool:
        """Whether a daemon with this folder asks for keys. It does so once one was made, also when all are revoked.

        Raises:
            AccessError: this account may not look.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is no folder of keys, it is a file", fix="name the folder")
        try:
            return self._daemon_file.exists()
        except PermissionError:
            raise AccessError(
                f"folder {self.path} belongs to another account", fix=f"{_ACCOUNT}, or name another folder"
            ) from None

    def new(self, name: str, out: Path) -> Credential:
        """Let a host in: write its credential to `out`, then register its public key.

        Raises:
            ConfigError: a bad name, one that is taken, or a file that exists or cannot be written.
            AccessError: others can write the folder, or read the daemon's secret key.
        """
        client_file = self._client_file(name)
        daemon = self._daemon_pair_made()
        if client_file.exists():
            raise ConfigError(
                f"a key named {name!r} exists already", fix=f"choose another name, or first: hil keys revoke {name}"
            )
        public_key, secret_key = (key.decode() for key in zmq.curve_keypair())
        credential = Credential(name, public_key, secret_key, daemon.public_key)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        _write_new(out, credential.text(), fix="name another file with --out")
        try:
            text = f'public_key = "{public_key}"\ncreated = "{created}"\n'
            _write_new(client_file, text, fix="choose another name")
        except BaseException:
            out.unlink()
            raise
        return credential

    def clients(self) -> list[ClientKey]:
        """Who may connect, by name. A file that is no key lets nobody in and is named in the log."""
        try:
            files = sorted(file for file in self._clients.iterdir() if file.suffix == ".toml")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AccessError(f"keys in {self._clients} cannot be read: {error.strerror}", fix=_ACCOUNT) from None
        found = (_client_key(file) for file in files if _NAME.fullmatch(file.stem))
        return [key for key in found if key is not None]

    def revoke(self, name: str) -> None:
        """Shut a host out, from its next message on.

        Raises:
            ConfigError: there is no such key, or it cannot be removed.
        """
        try:
            self._client_file(name).unlink()
        except FileNotFoundError:
            names = ", ".join(key.name for key in self.clients()) or "none"
            raise ConfigError(
                f"there is no key named {name!r} in {self.path}", fix=f"choose one of these: {names}"
            ) from None
        except OSError as error:
            raise ConfigError(f"key {name!r} cannot be removed: {error.strerror}", fix=_ACCOUNT) from None

    def authorised(self) -> Mapping[str, str]:
        """Public key (Z85) -> name of everyone who may connect now. A folder that cannot be read lets nobody in.

        Cheap enough for every message: files are read again only after the folder has changed.
        """
        try:
            status = self._clients.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.error("keys in %s cannot be read, so nobody is let in: %s", self._clients, error.strerror)
            return {}
        stamp = (status.st_ino, status.st_mtime_ns)
        if not (self._authorised.settled and self._authorised.stamp == stamp):
            settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
            try:
                names = {key.public_key: key.name for key in self.clients()}
            except AccessError as error:
                log.error("nobody is let in: %s", error)
                return {}
            self._authorised = _Authorised(stamp, settled, names)
        return self._authorised.names

    def daemon_pair(self) -> DaemonPair:
        """The daemon's own pair.

        Raises:
            ConfigError: there is none yet, or it is damaged.
            AccessError: others can read the secret key, or write the folder.
        """
        if not self.is_configured:
            raise ConfigError(f"there are no keys in {self.path}", fix="make a first one: hil keys new NAME")
        found = _read_toml(self._daemon_file, f"the daemon's key pair {self._daemon_file}", fix=_ACCOUNT)
        _refuse_open(self._daemon_file, 0o077)
        for folder in (self.path, self._clients):
            if folder.exists():
                _refuse_open(folder, 0o022)
        pair = DaemonPair(str(found.get("public_key", "")), str(found.get("secret_key", "")))
        if not _is_pair(pair.public_key, pair.secret_key):
            raise ConfigError(
                f"the daemon's key pair {self._daemon_file} is damaged",
                fix=f"remove {self.path} and make all keys anew: hil keys new NAME",
            )
        return pair

    def _daemon_pair_made(self) -> DaemonPair:
        """The daemon's own pair, which is made at the first call."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clients.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"folder {self.path} cannot be made: {error.strerror}",
                fix=f"name another: --keys, or {FOLDER_VARIABLE}",
            ) from None
        if not self.is_configured:
            public_key, secret_key = (key.decode() for key in zmq.curve_keypair())
            text = (
                "# The daemon's own keys. This file is a secret and stays on this machine.\n"
                f'public_key = "{public_key}"\nsecret_key = "{secret_key}"\n'
            )
            # Where another `hil keys new` was quicker, its pair counts.
            with suppress(FileExistsError):
                _write_whole(self._daemon_file, text)
        return self.daemon_pair()

    def _client_file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name[:80]!r} is no name for a key",
                fix="use up to 64 letters, digits, dots, hyphens and underscores, beginning with a letter or digit",
            )
        return self._clients / f"{name}.toml"


def fingerprint(public_key: str) -> str:
    """A short text that tells keys apart: the first 8 bytes of SHA-256 of the key."""
    digest = hashlib.sha256(z85.decode(public_key.encode())).hexdigest()
    return ":".join(digest[k : k + 4] for k in range(0, 16, 4))


def _client_key(file: Path) -> ClientKey | None:
    """A registered key; None for one that was removed meanwhile or is none."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is ignored: %s", file, error)
        return None
    public_key = str(found.get("public_key", ""))
    if not _is_key(public_key):
        log.warning("%s is ignored: it holds no public key", file)
        return None
    return ClientKey(file.stem, public_key, str(found.get("created", "")))


def _is_key(text: str) -> bool:
    try:
        return len(text) == _KEY_CHARACTERS and z85.encode(z85.decode(text.encode())).decode() == text
    except (KeyError, ValueError, struct.error):
        return False


def _is_pair(public_key: str, secret_key: str) -> bool:
    if not (_is_key(public_key) and _is_key(secret_key)):
        return False
    return zmq.curve_public(secret_key.encode()).decode() == public_key


def _read_toml(path: Path, what: str, *, fix: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}", fix=fix) from None
    # The parser's own text could show a part of the key.
    except ValueError:
        raise ConfigError(f"{what} is damaged: it is not TOML", fix=fix) from None


def _refuse_open(path: Path, bits: int) -> None:
    """Raise `AccessError` where a file or folder grants others what `bits` of its mode stand for."""
    if os.name != "posix":
        return
    mode = path.stat().st_mode & 0o777
    if mode & bits:
        right = 0o700 if path.is_dir() else 0o600
        raise AccessError(
            f"{path} has mode {mode:03o}: other accounts could {'change' if path.is_dir() else 'read'} keys",
            fix=f"chmod {right:o} {path}",
        )


def _write_new(path: Path, text: str, *, fix: str) -> None:
    """`_write_whole`, with the errors of this package."""
    try:
        _write_whole(path, text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already and is left as it is", fix=fix) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", fix=fix) from None


def _write_whole(path: Path, text: str) -> None:
    """Make a file that only its owner reads; it appears under its name when it is complete, and replaces none.

    Raises:
        FileExistsError: there is such a file.
        OSError: it cannot be written.
    """
    aside = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _move_new(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _move_new(aside: Path, path: Path) -> None:
    """Rename, but never onto a file that exists: a link fails there, where a rename would replace."""
    try:
        os.link(aside, path)
    except OSError as error:
        # FAT and some network file systems know no links; what is left there is a look before the rename.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        aside.rename(path)
