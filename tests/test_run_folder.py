"""What lies in a run is whole, or the error is loud; one process at a time holds it."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from convsmith.errors import ResourceError, RunError, UsageError
from convsmith.run_folder import (
    EventLog,
    RunFolder,
    find_run,
    list_runs,
    read_log,
    slug,
    write_atomically,
    write_file,
)

OLD = b"the old content\n"


def _mount(path, *options):
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    path = _mount(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def read_only(tmp_path):
    """A folder that nobody may write, root included, with `file.txt` in it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file.txt").write_bytes(OLD)
    path = _mount(tmp_path / "frozen", "--bind", str(tmp_path / "below"))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


# ------------------------------------------------------------------------------------------------------ atomic writes


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    for content in (OLD, b"new", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_keeps_the_old_file_and_removes_the_new_part(small_disk):
    path = small_disk / "file.txt"
    write_atomically(path, OLD)
    with pytest.raises(ResourceError, match=rf"The disk is full: writing {re.escape(str(path))}.*Free some space"):
        write_atomically(path, b"x" * 200_000)
    assert path.read_bytes() == OLD
    assert [entry.name for entry in small_disk.iterdir()] == ["file.txt"]
    write_atomically(path, b"small enough")


def test_a_file_too_large_for_its_limit_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, OLD)
    code = (
        "import resource, signal, sys, pathlib\n"
        "from convsmith.run_folder import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_atomically(pathlib.Path(sys.argv[1]), b'x' * 5000)\n"
        "except Exception as error: print(type(error).__name__, error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ResourceError 5\n", done.stderr
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_name_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "file.txt" / "inner").mkdir(parents=True)
    with pytest.raises(RunError, match=r"file.txt was refused"):
        write_atomically(tmp_path / "file.txt", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_file_that_could_not_be_forced_to_disk_is_removed(tmp_path, monkeypatch, fails):
    def broken(*_):
        raise OSError(5, "Input/output error")

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises((OSError, TypeError)):
        write_file(tmp_path / "file", b"data" if fails == "fsync" else "no bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "doing",
    [
        lambda folder: write_atomically(folder / "file.txt", b"new"),
        lambda folder: RunFolder(folder).write_json("results.json", {}),
        lambda folder: RunFolder(folder).write_text("recipe.yaml", ""),
        lambda folder: EventLog(folder / "log.jsonl"),
        lambda folder: RunFolder.create(folder, "name", ""),
        lambda folder: RunFolder.create(folder / "runs", "name", ""),
        lambda folder: RunFolder(folder).lock().__enter__(),
    ],
    ids=["write", "json", "text", "log", "create", "create below", "lock"],
)
def test_a_read_only_folder_is_a_loud_error(read_only, doing):
    with pytest.raises(RunError, match=r"was refused: Read-only file system\..*--runs DIR") as caught:
        doing(read_only)
    assert str(read_only) in caught.value.message
    assert (read_only / "file.txt").read_bytes() == OLD


def test_runs_in_the_place_of_a_file_are_a_clear_error(tmp_path):
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(RunError, match=r"making a run folder in .* was refused"):
        RunFolder.create(tmp_path / "runs", "name", "")


def test_json_holds_no_nan_and_keeps_every_name(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("results.json", {"a": float("nan")})
    assert not run.has("results.json")
    run.write_json("results.json", {"é\u2028</script>": [1, None, 0.1]})
    assert run.read_json("results.json") == {"é\u2028</script>": [1, None, 0.1]}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": '])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(RunError, match=r"plan\.json cannot be read"):
        RunFolder(tmp_path).read_json("plan.json")


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(RunError, match=r"has no plan\.json\..*convsmith resume"):
        RunFolder(tmp_path).read_json("plan.json")
    with pytest.raises(RunError, match=r"has no recipe\.yaml\..*train again"):
        RunFolder(tmp_path).read_text("recipe.yaml")


# ----------------------------------------------------------------------------------------------------------- the lock

HOLDER = (
    "import sys, time, pathlib\n"
    "from convsmith.run_folder import RunFolder\n"
    "with RunFolder(pathlib.Path(sys.argv[1])).lock():\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_second_process_is_refused_and_the_lock_goes_with_its_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):  # the refusal itself changes nothing
            with pytest.raises(RunError, match=rf"is in use by process {holder.pid}\.") as caught, _lock(tmp_path):
                pass
            assert caught.value.exit_code == 4
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with _lock(tmp_path):
            assert (tmp_path / "lock").read_text() == str(os.getpid())
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_a_lock_ends_with_its_block_and_is_not_held_twice(tmp_path):
    with _lock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()}"), _lock(tmp_path):
        pass
    with _lock(tmp_path):
        pass


def _lock(path):
    return RunFolder(path).lock()


# ------------------------------------------------------------------------------------------------------------ the log


def test_the_log_gives_back_its_records_in_order(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    before = time.time()
    log.append("epoch", epoch=1, step=10, values={"loss": 0.5, "ids": ["é\n", "b"]})
    log.append("stopped")
    assert log.sync() == (tmp_path / "log.jsonl").stat().st_size
    log.close()
    first, second = read_log(tmp_path / "log.jsonl")
    assert (first["kind"], first["epoch"], first["step"]) == ("epoch", 1, 10)
    assert first["values"] == {"loss": 0.5, "ids": ["é\n", "b"]}
    assert before - 0.01 <= first["time"] <= time.time() + 0.01
    assert (second["kind"], second["values"]) == ("stopped", {})


def test_a_figure_that_is_no_number_is_null_in_the_log(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("progress", values={"loss": float("nan"), "rate": float("inf"), "n": 3})
    log.close()
    assert json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=pytest.fail)["values"] == {
        "loss": None,
        "rate": None,
        "n": 3,
    }


def test_records_reach_the_file_without_sync_so_that_a_kill_loses_none(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("started")
    assert [record["kind"] for record in read_log(tmp_path / "log.jsonl")] == ["started"]
    log.close()


@pytest.mark.parametrize("torn", [b'{"kind": "ep', b'{"kind": "epoch"', b"\x00\x00\x00", b'{"kind": "caf\xc3'])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("started")
    log.close()
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(torn)
    assert [record["kind"] for record in read_log(tmp_path / "log.jsonl")] == ["started"]
    assert read_log(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("damage", [b"\x00\x00\n", b"{\n", b"\n"])
def test_a_damaged_line_that_is_not_the_last_is_a_loud_error(tmp_path, damage):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("started")
    log.close()
    whole = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(whole + damage + whole)
    with pytest.raises(RunError, match="damaged in line 2"):
        read_log(tmp_path / "log.jsonl")


def test_a_new_logs_name_is_forced_to_disk_with_its_folder(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr("convsmith.run_folder.sync_folder", lambda path: forced.append(sorted(path.iterdir())))
    EventLog(tmp_path / "log.jsonl").close()
    assert forced == [[tmp_path / "log.jsonl"]]


def test_a_log_is_cut_to_its_recorded_length_and_goes_on_there(tmp_path):
    path = tmp_path / "log.jsonl"
    log = EventLog(path)
    log.append("started")
    length = log.sync()
    log.append("epoch")
    log.close()
    again = EventLog(path)
    again.cut(length)
    again.append("resumed")
    assert again.sync() == path.stat().st_size
    again.close()
    assert [record["kind"] for record in read_log(path)] == ["started", "resumed"]


def test_a_log_shorter_than_recorded_is_not_filled_with_zeros(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("started")
    log.cut(10_000)
    log.append("resumed")
    log.close()
    assert [record["kind"] for record in read_log(tmp_path / "log.jsonl")] == ["started", "resumed"]
    assert b"\x00" not in (tmp_path / "log.jsonl").read_bytes()


def test_a_log_on_a_full_disk_is_a_loud_error(small_disk):
    log = EventLog(small_disk / "log.jsonl")
    with pytest.raises(ResourceError, match="disk is full"):
        log.append("progress", values={"text": "x" * 100_000})
    (small_disk / "log.jsonl").write_bytes(b"")  # room again, so that what is still buffered can go
    log.close()


# ------------------------------------------------------------------------------------------------------- finding runs


def make_run(runs, name, text="x", age=0):
    run = RunFolder.create(runs, name, text)
    run.write_text("recipe.yaml", text)
    os.utime(run.path / "recipe.yaml", (1e9 - age, 1e9 - age))
    return run


def test_a_run_folder_is_named_by_date_name_and_recipe_and_a_second_gets_a_number(tmp_path):
    first, second = (RunFolder.create(tmp_path / "runs", "My Photos!", "recipe") for _ in range(2))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-My-Photos-[0-9a-f]{8}", first.path.name)
    assert second.path.name == first.path.name + "-2"
    assert first.name == second.name == "My-Photos"
    assert first.checkpoints.is_dir()
    assert RunFolder.create(tmp_path / "runs", "My Photos!", "another").path.name != first.path.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("../../etc", "etc"), ("..", "run"), ("", "run"), ("a/b c", "a-b-c"), ("日本", "run"), ("x" * 99, "x" * 40)],
)
def test_a_name_becomes_safe_for_a_folder(name, expected):
    assert slug(name) == expected


def test_a_run_is_finished_when_its_log_ends_so_and_its_results_and_report_are_there(tmp_path):
    run = make_run(tmp_path, "digits")
    log = EventLog(run.log_path)

    def state(kind=None):
        if kind:
            log.append(kind)
        return run.ended, run.finished

    run.write_json("results.json", {})
    run.report.write_text("page")
    assert state() == (False, False)
    assert state("started") == (False, False)
    assert state("finished") == (True, True)
    assert state("resumed") == (False, False)
    with pytest.raises(RunError, match="is not finished") as caught:
        run.refuse_unfinished()
    assert f"convsmith resume {run.path}" in caught.value.mend
    assert state("finished") == (True, True)
    run.refuse_unfinished()
    for path in (run.report, run.path / "results.json"):
        path.rename(tmp_path / "away")
        assert state() == (True, False)
        (tmp_path / "away").rename(path)
    log.close()
    with run.log_path.open("ab") as file:
        file.write(b'{"kind": "fin')
    assert not run.ended


def test_runs_are_ordered_by_when_they_were_made_not_by_when_their_files_were_touched(tmp_path):
    first, second = make_run(tmp_path, "first", age=1), make_run(tmp_path, "second", age=100)
    first.write_json("manifest.json", {"created": "2026-03-01T12:00:00+0200"})
    second.write_json("manifest.json", {"created": "2026-03-01T11:00:00+0000"})
    assert [run.name for run in list_runs(tmp_path)] == ["first", "second"]
    (second.path / "manifest.json").write_text("{")
    assert [run.name for run in list_runs(tmp_path)] == ["second", "first"]


def test_a_run_is_found_by_path_folder_name_name_prefix_and_last(tmp_path):
    old = make_run(tmp_path, "digits", age=100)
    new = make_run(tmp_path, "photos", age=1)
    (tmp_path / "no-run").mkdir()
    assert [run.path for run in list_runs(tmp_path)] == [old.path, new.path]
    assert list_runs(tmp_path / "none") == []
    for text in (str(old.path), old.path.name, "digits", "dig", old.path.name[:-3]):
        assert find_run(text, tmp_path).path == old.path, text
    assert find_run("last", tmp_path).path == new.path


def test_a_whole_name_wins_over_a_longer_one_that_begins_with_it(tmp_path):
    short, _ = make_run(tmp_path, "digits"), make_run(tmp_path, "digits-large")
    assert find_run("digits", tmp_path).path == short.path


def test_a_name_of_several_runs_is_refused_with_their_list(tmp_path):
    runs = [make_run(tmp_path, "digits", text) for text in ("a", "b", "c")]
    for text in ("digits", "dig", ""):
        with pytest.raises(UsageError, match=f"3 runs are called '{text}'") as caught:
            find_run(text, tmp_path)
        assert all(run.path.name in caught.value.mend for run in runs)


def test_no_such_run_is_refused_with_the_close_ones(tmp_path):
    with pytest.raises(UsageError, match=r"There are no runs in .*convsmith train digits"):
        find_run("digits", tmp_path)
    make_run(tmp_path, "digits")
    with pytest.raises(UsageError, match=r"no run 'digts'.*Did you mean digits\?"):
        find_run("digts", tmp_path)


def test_the_run_folder_needs_neither_torch_nor_numpy():
    code = "import sys, convsmith.run_folder as _; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
