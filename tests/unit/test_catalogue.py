"""The catalogue of a folder of runs: states, index, names of runs, tags."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from array_runs import SHAPE, append_pulse, array_run, counts_run, create_run

from hil import catalogue as catalogue_module
from hil.catalogue import FILE_NAME, Catalogue, Entry, Run, examine, find_run, is_being_written, open_catalogue
from hil.errors import ConfigError, DataError
from hil.run_tags import Label, change_label, read_labels


def states(folder: Path) -> dict[str, str]:
    return {run.run_id: run.state for run in open_catalogue(folder).runs}


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the run files that were read."""
    names: list[str] = []

    def counting(path: Path, mtime_ns: int, size_bytes: int) -> Entry:
        names.append(path.name)
        return examine(path, mtime_ns, size_bytes)

    monkeypatch.setattr(catalogue_module, "examine", counting)
    return names


class TestList:
    def test_every_end_of_a_run_has_its_state(self, tmp_path: Path) -> None:
        complete = array_run(tmp_path).stem
        failed = create_run(tmp_path)
        failed.finish("failed", cause="RuntimeError: no link")
        aborted = create_run(tmp_path)
        aborted.finish("aborted")
        killed = create_run(tmp_path)
        killed.close()
        running = create_run(tmp_path)
        (tmp_path / "foreign.h5").write_bytes(b"no HDF5")
        (tmp_path / "empty.h5").touch()
        whole = array_run(tmp_path)
        whole.write_bytes(whole.read_bytes()[:9000])
        assert states(tmp_path) == {
            complete: "complete",
            failed.path.stem: "failed",
            aborted.path.stem: "aborted",
            killed.path.stem: "incomplete",
            running.path.stem: "running",
            "foreign": "unreadable",
            "empty": "unreadable",
            whole.stem: "unreadable",
        }
        running.close()
        assert states(tmp_path)[running.path.stem] == "incomplete"

    def test_says_what_a_run_was_about(self, tmp_path: Path) -> None:
        array_run(tmp_path, backend={"name": "tcp://host", "kind": "emulator"})
        (run,) = open_catalogue(tmp_path).runs
        entry = run.entry
        assert (entry.experiment, entry.backend, entry.n_cells, entry.n_points) == ("array-form", "emulator", 60, 60)
        assert entry.started_unix_s == pytest.approx(time.time(), abs=60)
        assert run.duration_s is not None
        assert 0 <= run.duration_s < 60
        assert run.as_dict()["id"] == run.run_id

    def test_a_killed_run_has_cells_and_the_time_of_its_newest_row(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        mask = np.zeros(SHAPE, np.bool_)
        mask[2, 3:6] = True
        append_pulse(run, 0, mask, outcome=None)
        run.close()
        (found,) = open_catalogue(tmp_path).runs
        assert found.entry.n_cells == 3
        assert found.duration_s is not None

    def test_newest_first(self, tmp_path: Path) -> None:
        names = [array_run(tmp_path).stem for _ in range(4)]
        assert [run.run_id for run in open_catalogue(tmp_path).runs] == names[::-1]

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            open_catalogue(tmp_path / "nowhere")

    def test_a_folder_without_runs_stays_empty(self, tmp_path: Path) -> None:
        assert open_catalogue(tmp_path).runs == ()
        assert list(tmp_path.iterdir()) == []

    def test_select(self, tmp_path: Path) -> None:
        old = array_run(tmp_path).stem
        lsm = counts_run(tmp_path).stem
        create_run(tmp_path).finish("failed")
        change_label(tmp_path, old, lambda label: label.changed(["good"]))
        found = open_catalogue(tmp_path)
        started = {run.run_id: run.entry.started_unix_s for run in found.runs}
        assert [run.run_id for run in found.select(experiment="lsm")] == [lsm]
        assert [run.run_id for run in found.select(tag="good")] == [old]
        assert [run.state for run in found.select(status="failed")] == ["failed"]
        assert old not in {run.run_id for run in found.select(since_unix_s=started[lsm])}
        assert len(found.select(since_unix_s=started[lsm])) == 2
        assert found.select(tag="good", status="failed") == []


class TestIndex:
    def test_only_what_changed_is_read_again(self, tmp_path: Path, examined: list[str]) -> None:
        paths = [array_run(tmp_path) for _ in range(3)]
        open_catalogue(tmp_path)
        assert len(examined) == 3
        examined.clear()
        open_catalogue(tmp_path)
        assert examined == []
        os.utime(paths[1], ns=(1, 1))
        open_catalogue(tmp_path)
        assert examined == [paths[1].name]

    def test_follows_a_run_from_start_to_end(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        assert states(tmp_path) == {run.path.stem: "running"}
        run.finish()
        assert states(tmp_path) == {run.path.stem: "complete"}

    def test_forgets_what_is_gone(self, tmp_path: Path) -> None:
        gone, stays = array_run(tmp_path), array_run(tmp_path)
        open_catalogue(tmp_path)
        gone.unlink()
        assert list(states(tmp_path)) == [stays.stem]
        with sqlite3.connect(tmp_path / FILE_NAME) as db:
            assert db.execute("SELECT file FROM runs").fetchall() == [(stays.name,)]
        db.close()

    def test_a_deleted_index_loses_nothing(self, tmp_path: Path) -> None:
        name = array_run(tmp_path).stem
        change_label(tmp_path, name, lambda label: label.changed(["good"], note="first"))
        before = open_catalogue(tmp_path)
        (tmp_path / FILE_NAME).unlink()
        assert open_catalogue(tmp_path) == before
        assert before.runs[0].label == Label(("good",), "first")

    @pytest.mark.parametrize("content", [b"", b"no data base" * 100, None], ids=["empty", "foreign", "other version"])
    def test_an_index_of_no_use_is_made_anew(self, tmp_path: Path, content: bytes | None, examined: list[str]) -> None:
        name = array_run(tmp_path).stem
        open_catalogue(tmp_path)
        if content is None:
            with sqlite3.connect(tmp_path / FILE_NAME) as db:
                db.execute("PRAGMA user_version = 99")
            db.close()
        else:
            (tmp_path / FILE_NAME).write_bytes(content)
        assert states(tmp_path) == {name: "complete"}
        examined.clear()
        found = open_catalogue(tmp_path)
        assert (examined, found.notes) == ([], ())

    def test_a_locked_index_is_a_note(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogue_module, "_LOCK_WAIT_S", 0.01)
        array_run(tmp_path)
        open_catalogue(tmp_path)
        array_run(tmp_path)
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        found = open_catalogue(tmp_path)
        other.close()
        assert len(found.runs) == 2
        assert "locked" in " ".join(found.notes)

    def test_a_folder_that_cannot_be_written_is_a_note(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        array_run(tmp_path)

        def refused(*_: object) -> None:
            raise sqlite3.OperationalError("attempt to write a readonly database")

        monkeypatch.setattr(catalogue_module, "_write", refused)
        found = open_catalogue(tmp_path)
        assert len(found.runs) == 1
        assert "readonly" in found.notes[0]

    def test_lists_a_thousand_runs_in_well_under_a_second(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(1000):
            (tmp_path / f"run-{number}.h5").touch()

        def quick(path: Path, mtime_ns: int, size_bytes: int) -> Entry:
            return Entry(path.name, mtime_ns, size_bytes, path.stem, status="complete", started_unix_s=1.0)

        monkeypatch.setattr(catalogue_module, "examine", quick)
        open_catalogue(tmp_path)
        started = time.perf_counter()
        assert len(open_catalogue(tmp_path).runs) == 1000
        assert time.perf_counter() - started < 0.5

    def test_probing_does_not_hold_a_file(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        assert is_being_written(run.path)
        run.close()
        assert not is_being_written(run.path)
        assert not is_being_written(tmp_path / "nothing.h5")


class TestFind:
    def folder_of(self, *names: str) -> Catalogue:
        runs = [
            Run(Path(f"{name}.h5"), Entry(f"{name}.h5", 0, 0, name, status="complete"), "complete", Label((f"t{k}",)))
            for k, name in enumerate(names)
        ]
        return Catalogue(Path("runs"), tuple(runs))

    def test_by_id_part_tag_or_last(self) -> None:
        found = self.folder_of("20260314T150926Z-form-1f0c9a7e", "20260307T150926Z-form-22222222")
        assert found.find("last") is found.runs[0]
        assert found.find("2222") is found.runs[1]
        assert found.find("20260307") is found.runs[1]
        assert found.find("t1") is found.runs[1]
        assert found.find("20260314T150926Z-form-1f0c9a7e") is found.runs[0]
        assert found.runs[0].short_id == "1f0c9a7e"

    def test_a_whole_id_wins_over_longer_ones(self) -> None:
        found = self.folder_of("run", "run-2")
        assert found.find("run") is found.runs[0]

    def test_several_are_named(self) -> None:
        with pytest.raises(ConfigError, match=r"means 2 runs: a-form, b-form\."):
            self.folder_of("a-form", "b-form", "c-read").find("form")

    @pytest.mark.parametrize("name", ["nothing", "", "T1"])
    def test_none(self, name: str) -> None:
        with pytest.raises(ConfigError, match="no run in runs has"):
            self.folder_of("a-form").find(name)

    def test_last_is_the_newest_that_can_be_read(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        (tmp_path / "z.h5").touch()
        assert find_run("last", tmp_path) == path
        path.unlink()
        with pytest.raises(ConfigError, match="there is no run"):
            find_run("last", tmp_path)

    def test_a_path_needs_no_catalogue(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        assert find_run(str(path), Path("nowhere")) == path
        assert find_run(path.name, tmp_path) == path
        assert not (tmp_path / FILE_NAME).exists() or find_run(path.stem, tmp_path) == path
        with pytest.raises(ConfigError, match="there is no run file"):
            find_run(str(tmp_path / "x.h5"), tmp_path)

    def test_copies_of_one_run_are_told_apart_by_their_files(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        (tmp_path / "copy.h5").write_bytes(path.read_bytes())
        with pytest.raises(ConfigError, match=r"copy\.h5.*give its path"):
            find_run(path.stem, tmp_path)
        assert find_run("copy", tmp_path).name == "copy.h5"


class TestTags:
    def test_add_and_remove(self, tmp_path: Path) -> None:
        change_label(tmp_path, "a", lambda label: label.changed(["x", "b"], note=" two\nwords "))
        change_label(tmp_path, "b", lambda label: label.changed(["x"]))
        assert read_labels(tmp_path) == {"a": Label(("b", "x"), "two words"), "b": Label(("x",))}
        assert change_label(tmp_path, "a", lambda label: label.changed(remove=["b", "x"], note="")) == Label()
        assert list(read_labels(tmp_path)) == ["b"]
        assert sorted(item.name for item in tmp_path.iterdir()) == ["tags.json"]

    @pytest.mark.parametrize("tag", ["", "two words", "a,b", "-x", "x" * 51])
    def test_tags_that_cannot_be(self, tag: str) -> None:
        with pytest.raises(ConfigError, match="is not allowed"):
            Label().changed([tag])

    def test_removing_what_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match="has no tag 'x'"):
            Label(("y",)).changed(remove=["x"])

    def test_long_notes(self) -> None:
        with pytest.raises(ConfigError, match="exceeds 1000"):
            Label().changed(note="x" * 1001)

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "[]",
            "{}",
            '{"format": "other", "format_version": 1, "runs": {}}',
            '{"format": "crossbar-hil tags", "format_version": 1, "runs": {"a": {}}}',
            '{"format": "crossbar-hil tags", "format_version": 2, "runs": {}}',
        ],
    )
    def test_a_damaged_file_is_kept_and_breaks_no_list(self, tmp_path: Path, content: str) -> None:
        run_id = array_run(tmp_path).stem
        (tmp_path / "tags.json").write_text(content)
        with pytest.raises(DataError, match="damaged or of another kind"):
            change_label(tmp_path, run_id, lambda label: label.changed(["x"]))
        assert (tmp_path / "tags.json").read_text() == content
        found = open_catalogue(tmp_path)
        assert [run.run_id for run in found.runs] == [run_id]
        assert "tags are not shown" in found.notes[0]
