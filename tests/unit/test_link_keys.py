"""Keys of the TCP link: files that only their owner reads, names, credentials, revocation, and `hil keys`."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
import zmq.utils.z85 as z85
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from firmware_bridge.link import keys as link_keys
from firmware_bridge.link.keys import Credential, KeyFolder, fingerprint
from hil.cli.keys import app
from hil.errors import AccessError, ConfigError

posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CROSSBAR_HIL_KEY", "CROSSBAR_HIL_KEYS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def settle(folder: KeyFolder) -> None:
    """Let the last change of the folder be an hour ago."""
    an_hour_ago = time.time() - 3600
    os.utime(folder.path / "clients", (an_hour_ago, an_hour_ago))


class TestNew:
    def test_the_credential_holds_the_clients_pair_and_the_daemons_public_key(
        self, folder: KeyFolder, tmp_path: Path
    ) -> None:
        assert not folder.is_configured
        made = folder.new("alice", tmp_path / "alice.hilkey")
        assert folder.is_configured
        read = Credential.read(tmp_path / "alice.hilkey")
        assert read == made
        assert read.daemon_key == folder.daemon_pair().public_key
        assert zmq.curve_public(read.secret_key.encode()).decode() == read.public_key
        assert folder.authorised() == {read.public_key: "alice"}

    def test_all_hosts_meet_the_same_daemon_and_have_keys_of_their_own(self, folder: KeyFolder, tmp_path: Path) -> None:
        made = [folder.new(f"host-{k}", tmp_path / f"{k}.hilkey") for k in range(4)]
        assert len({key.daemon_key for key in made}) == 1
        assert len({key.public_key for key in made} | {made[0].daemon_key}) == 5
        assert [key.name for key in folder.clients()] == [f"host-{k}" for k in range(4)]

    @posix
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_secrets_are_never_readable_by_others_not_even_while_they_are_written(
        self, folder: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
    ) -> None:
        (tmp_path / "out").mkdir()
        seen: list[int] = []

        def fsync(descriptor: int) -> None:
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

        monkeypatch.setattr(os, "fsync", fsync)
        before = os.umask(umask)
        try:
            folder.new("alice", tmp_path / "out" / "alice.hilkey")
        finally:
            os.umask(before)
        assert seen == [0o600] * 3
        assert mode(tmp_path / "out" / "alice.hilkey") == 0o600
        assert mode(folder.path) == mode(folder.path / "clients") == 0o700
        assert {mode(file) for file in folder.path.rglob("*.toml")} == {0o600}

    def test_nothing_is_left_aside(self, folder: KeyFolder, tmp_path: Path) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {"alice.hilkey", "keys/daemon.toml", "keys/clients/alice.toml"}

    def test_a_file_is_never_overwritten_and_nobody_is_let_in_then(self, folder: KeyFolder, tmp_path: Path) -> None:
        out = tmp_path / "alice.hilkey"
        out.write_text("mine")
        with pytest.raises(ConfigError, match=r"alice\.hilkey exists already.*--out"):
            folder.new("alice", out)
        assert out.read_text() == "mine"
        assert folder.authorised() == {}

    def test_a_name_that_is_taken_keeps_its_key(self, folder: KeyFolder, tmp_path: Path) -> None:
        first = folder.new("alice", tmp_path / "1.hilkey")
        with pytest.raises(ConfigError, match=r"'alice' exists already.*hil keys revoke alice"):
            folder.new("alice", tmp_path / "2.hilkey")
        assert folder.authorised() == {first.public_key: "alice"}
        assert not (tmp_path / "2.hilkey").exists()

    def test_no_credential_is_left_when_the_key_cannot_be_registered(self, folder: KeyFolder, tmp_path: Path) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        (folder.path / "clients" / "bob.toml").symlink_to(tmp_path / "nowhere")
        with pytest.raises(ConfigError, match=r"bob\.toml exists already"):
            folder.new("bob", tmp_path / "bob.hilkey")
        assert not (tmp_path / "bob.hilkey").exists()

    def test_a_folder_that_is_not_there_is_named(self, folder: KeyFolder, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none/alice\.hilkey cannot be written: No such file"):
            folder.new("alice", tmp_path / "none" / "alice.hilkey")
        assert folder.authorised() == {}

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../x", "a/b", "-x", ".x", "a b", "a\n", "é", "x" * 65, 'a"', "a\\"]
    )
    def test_a_name_is_no_path_and_no_option(self, folder: KeyFolder, tmp_path: Path, name: str) -> None:
        for act in (lambda: folder.new(name, tmp_path / "x.hilkey"), lambda: folder.revoke(name)):
            with pytest.raises(ConfigError, match="is no name for a key"):
                act()
        assert not folder.path.exists()

    def test_several_at_once_make_one_daemon_pair(self, folder: KeyFolder, tmp_path: Path) -> None:
        made: list[Credential] = []
        threads = [
            threading.Thread(target=lambda k=k: made.append(folder.new(f"n{k}", tmp_path / f"{k}.hilkey")))
            for k in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {key.daemon_key for key in made} == {folder.daemon_pair().public_key}
        assert len(folder.authorised()) == 8

    def test_folders_without_hard_links_work_too(
        self, folder: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def link(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        folder.new("alice", tmp_path / "alice.hilkey")
        with pytest.raises(ConfigError, match="exists already"):
            folder.new("bob", tmp_path / "alice.hilkey")
        assert list(folder.authorised().values()) == ["alice"]


class TestAuthorised:
    def test_every_change_holds_at_once(self, folder: KeyFolder, tmp_path: Path) -> None:
        reader = KeyFolder(folder.path)
        for k in range(30):
            key = folder.new("alice", tmp_path / f"{k}.hilkey")
            assert reader.authorised() == {key.public_key: "alice"}
            folder.revoke("alice")
            assert reader.authorised() == {}

    def test_a_change_within_one_tick_of_the_clock_holds_too(self, folder: KeyFolder, tmp_path: Path) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        tick_ns = time.time_ns()
        for change in (lambda: folder.new("bob", tmp_path / "bob.hilkey"), lambda: folder.revoke("alice")):
            os.utime(folder.path / "clients", ns=(tick_ns, tick_ns))
            folder.authorised()
            change()
            os.utime(folder.path / "clients", ns=(tick_ns, tick_ns))
        assert set(folder.authorised().values()) == {"bob"}

    def test_a_change_long_after_the_last_holds_at_once(self, folder: KeyFolder, tmp_path: Path) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        bob = folder.new("bob", tmp_path / "bob.hilkey")
        settle(folder)
        assert set(folder.authorised().values()) == {"alice", "bob"}
        KeyFolder(folder.path).revoke("alice")
        assert folder.authorised() == {bob.public_key: "bob"}

    def test_files_are_not_read_again_while_nothing_changes(
        self, folder: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        settle(folder)
        names = folder.authorised()
        monkeypatch.setattr(folder, "clients", lambda: pytest.fail("read again"))
        assert folder.authorised() == names

    def test_a_damaged_key_lets_nobody_in_and_shuts_nobody_else_out(
        self, folder: KeyFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        bob = folder.new("bob", tmp_path / "bob.hilkey")
        for name, text in (
            ("a", "no TOML"),
            ("b", ""),
            ("c", 'public_key = "short"'),
            ("d", f'public_key = "{"~" * 40}"'),
        ):
            (folder.path / "clients" / f"{name}.toml").write_text(text)
        with caplog.at_level(logging.WARNING):
            assert folder.authorised() == {bob.public_key: "bob"}
        assert sum("is ignored" in record.getMessage() for record in caplog.records) == 4

    def test_a_folder_that_cannot_be_read_lets_nobody_in(
        self, folder: KeyFolder, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert folder.authorised() == {}
        folder.path.mkdir()
        (folder.path / "clients").write_text("a file")
        assert folder.authorised() == {}
        assert "nobody is let in" in caplog.text

    def test_a_daemon_asks_for_keys_also_when_all_are_revoked(self, folder: KeyFolder, tmp_path: Path) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        folder.revoke("alice")
        assert folder.is_configured
        assert folder.authorised() == {}

    def test_a_name_is_free_again_after_it_was_revoked(self, folder: KeyFolder, tmp_path: Path) -> None:
        first = folder.new("alice", tmp_path / "1.hilkey")
        folder.revoke("alice")
        second = folder.new("alice", tmp_path / "2.hilkey")
        assert first.public_key != second.public_key
        assert folder.authorised() == {second.public_key: "alice"}

    def test_revoking_a_stranger_names_those_there_are(self, folder: KeyFolder, tmp_path: Path) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        with pytest.raises(ConfigError, match=r"no key named 'bob'.*choose one of these: alice"):
            folder.revoke("bob")


class TestModes:
    @posix
    @pytest.mark.parametrize("bits", [0o640, 0o604, 0o620])
    def test_a_daemon_secret_that_others_can_reach_is_refused(
        self, folder: KeyFolder, tmp_path: Path, bits: int
    ) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        file = folder.path / "daemon.toml"
        file.chmod(bits)
        for act in (folder.daemon_pair, lambda: folder.new("bob", tmp_path / "bob.hilkey")):
            with pytest.raises(AccessError, match=f"mode {bits:o}.*chmod 600 {file}"):
                act()
        file.chmod(0o600)
        folder.daemon_pair()

    @posix
    @pytest.mark.parametrize("name", [".", "clients"])
    def test_a_folder_that_others_can_write_is_refused(self, folder: KeyFolder, tmp_path: Path, name: str) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        (folder.path / name).chmod(0o770)
        with pytest.raises(AccessError, match=r"could change keys.*chmod 700"):
            folder.daemon_pair()

    @posix
    def test_a_credential_that_others_can_read_is_refused(self, folder: KeyFolder, tmp_path: Path) -> None:
        file = tmp_path / "alice.hilkey"
        folder.new("alice", file)
        file.chmod(0o644)
        with pytest.raises(AccessError, match=f"chmod 600 {file}"):
            Credential.read(file)

    def test_a_daemon_without_keys_says_how_to_make_them(self, folder: KeyFolder) -> None:
        with pytest.raises(ConfigError, match=r"no keys in .*hil keys new NAME"):
            folder.daemon_pair()

    @pytest.mark.parametrize("text", ["", "?", 'public_key = "x"\nsecret_key = "y"'])
    def test_a_damaged_daemon_pair_is_named(self, folder: KeyFolder, tmp_path: Path, text: str) -> None:
        folder.new("alice", tmp_path / "alice.hilkey")
        (folder.path / "daemon.toml").write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            folder.daemon_pair()


class TestCredential:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.hilkey cannot be read: No such file.*hil keys new NAME"):
            Credential.read(tmp_path / "none.hilkey")

    @pytest.mark.parametrize("field", ["format", "name", "public_key", "secret_key", "daemon_key"])
    @pytest.mark.parametrize("change", ["absent", "short", "other"])
    def test_a_damaged_one_is_refused_without_showing_its_secret(
        self, folder: KeyFolder, tmp_path: Path, field: str, change: str
    ) -> None:
        file = tmp_path / "alice.hilkey"
        made = folder.new("alice", file)
        lines = file.read_text().splitlines()
        at = next(k for k, line in enumerate(lines) if line.startswith(f"{field} ="))
        other = {"format": "2", "name": '"../x"', "daemon_key": f'"{"~" * 40}"'}.get(field, f'"{made.daemon_key}"')
        lines[at] = {"absent": "", "short": lines[at][:-5] or "x", "other": f"{field} = {other}"}[change]
        file.write_text("\n".join(lines))
        with pytest.raises(ConfigError, match="damaged") as raised:
            Credential.read(file)
        assert made.secret_key[:8] not in str(raised.value)

    def test_secrets_stay_out_of_logs(self, folder: KeyFolder, tmp_path: Path) -> None:
        made = folder.new("alice", tmp_path / "alice.hilkey")
        assert made.secret_key not in repr(made)
        assert folder.daemon_pair().secret_key not in repr(folder.daemon_pair())

    @settings(max_examples=50)
    @given(st.binary(min_size=32, max_size=32))
    def test_every_32_bytes_are_a_key_with_a_fingerprint(self, key: bytes) -> None:
        text = z85.encode(key).decode()
        assert link_keys._is_key(text)
        assert re.fullmatch("[0-9a-f]{4}(:[0-9a-f]{4}){3}", fingerprint(text))

    @settings(max_examples=50)
    @given(st.text(max_size=39) | st.text(min_size=41, max_size=50) | st.text(',;"~\\é', min_size=40, max_size=40))
    def test_other_texts_are_no_key(self, text: str) -> None:
        assert not link_keys._is_key(text)

    def test_a_group_above_32_bits_is_no_key(self) -> None:
        assert link_keys._is_key("%nSc0" * 8)
        assert not link_keys._is_key("%nSc1" * 8)


class TestCommands:
    @pytest.fixture
    def hil_keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CROSSBAR_HIL_KEYS", str(tmp_path / "keys"))

        def run(*arguments: str) -> Result:
            result = CliRunner().invoke(app, list(arguments))
            assert result.exception is None or isinstance(result.exception, SystemExit)
            return result

        return run

    def test_new_list_revoke(self, hil_keys: Callable[..., Result], tmp_path: Path) -> None:
        ran = hil_keys("new", "alice")
        assert ran.exit_code == 0
        credential = Credential.read(tmp_path / "alice.hilkey")
        assert "alice.hilkey" in ran.stdout
        assert fingerprint(credential.public_key) in ran.stdout
        assert "restart" in ran.stdout
        assert "restart" not in hil_keys("new", "bob").stdout

        listed = json.loads(hil_keys("list", "--json").stdout)
        assert [key["name"] for key in listed["keys"]] == ["alice", "bob"]
        assert listed["keys"][0]["fingerprint"] == fingerprint(credential.public_key)
        assert listed["daemon_fingerprint"] == fingerprint(credential.daemon_key)
        assert re.match(r"\d{4}-\d\d-\d\dT", listed["keys"][0]["created"])
        assert "alice" in hil_keys("list").stdout

        assert hil_keys("revoke", "alice").exit_code == 0
        assert [key["name"] for key in json.loads(hil_keys("list", "--json").stdout)["keys"]] == ["bob"]

    def test_no_secret_is_ever_printed(self, hil_keys: Callable[..., Result], tmp_path: Path) -> None:
        printed = [
            hil_keys(*arguments).output
            for arguments in (("new", "a"), ("new", "b", "--json"), ("new", "a"), ("list",), ("list", "--json"))
        ]
        folder = KeyFolder(tmp_path / "keys")
        secrets = [Credential.read(tmp_path / f"{name}.hilkey").secret_key for name in "ab"]
        for secret in (*secrets, folder.daemon_pair().secret_key):
            assert not any(secret in text for text in printed)

    def test_without_keys_the_list_says_what_that_means(self, hil_keys: Callable[..., Result]) -> None:
        assert "this machine only" in hil_keys("list").stdout
        assert json.loads(hil_keys("list", "--json").stdout)["keys"] == []
        hil_keys("new", "alice")
        hil_keys("revoke", "alice")
        assert "nobody can use it" in hil_keys("list").stdout

    def test_the_folder_named_by_option_counts_most(self, hil_keys: Callable[..., Result], tmp_path: Path) -> None:
        hil_keys("new", "alice", "--keys", str(tmp_path / "other"), "--out", str(tmp_path / "a.key"))
        assert (tmp_path / "other" / "daemon.toml").exists()
        assert not (tmp_path / "keys").exists()
        assert Credential.read(tmp_path / "a.key").name == "alice"

    def test_out_may_be_a_folder(self, hil_keys: Callable[..., Result], tmp_path: Path) -> None:
        (tmp_path / "usb").mkdir()
        hil_keys("new", "alice", "--out", "usb")
        assert (tmp_path / "usb" / "alice.hilkey").exists()

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("new", "../x"), "is no name for a key"),
            (("new", "alice", "--out", "none/x.hilkey"), "cannot be written"),
            (("revoke", "bob"), "no key named 'bob'"),
        ],
    )
    def test_bad_input_is_one_message(
        self, hil_keys: Callable[..., Result], arguments: tuple[str, ...], text: str
    ) -> None:
        ran = hil_keys(*arguments)
        assert ran.exit_code == 2
        assert text in ran.stderr
        assert ran.stderr.startswith("error: ")
        assert "Traceback" not in ran.output

    @pytest.mark.skipif(sys.platform != "linux", reason="the folder is another elsewhere")
    def test_without_option_and_variable_the_users_folder_is_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert KeyFolder.find().path == tmp_path / "crossbar-hil" / "keys"
