"""The store of checkpoints: whole or not at all, whatever happens while it writes."""

import contextlib
import hashlib
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import time

import pytest
import torch
from running import SERVER, differences

from rlrun.errors import CheckpointNotWritten, UserError
from rlrun.runs.files import checkpoint as checkpoint_module
from rlrun.runs.files.checkpoint import STATE, WEIGHTS, CheckpointStore, load
from rlrun.runs.files.disk import MANIFEST


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=3)


def save(store, step, value=0.0, **info):
    weights = {"layer.weight": torch.full((100, 10), value), "layer.bias": torch.zeros(10)}
    state = {"moments": (torch.full((10_000,), value), 3), "generator": {"state": 2**127}}
    return store.save(step, weights=weights, state=state, info=info)


def names(store):
    return sorted(path.name for path in store.directory.iterdir())


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # of a manifest: in a checksum
    path.write_bytes(content)


def test_what_is_saved_comes_back_bit_for_bit(store):
    weights = {
        "view": torch.randn(4, 6).t()[1:],  # neither contiguous nor the start of its memory
        "half": torch.randn(3).half(),
        "empty": torch.empty(0, 5),
    }
    state = {
        "nested": [{"a": (1, 2.5, None, "text", b"bytes", True)}, torch.arange(5)],
        "not a number": torch.tensor([float("nan"), -0.0, float("inf")]),
        "large": 2**127 + 1,
    }
    path = store.save(1_024, weights=weights, state=state, info={"eval/return": 3.5})
    loaded = store.load_last()
    assert loaded.path == path == store.directory / "step-000000001024"
    assert differences(loaded.weights, weights) == []
    assert differences(loaded.state, state) == []
    assert loaded.info["step"] == 1_024
    assert loaded.info["eval/return"] == 3.5
    # The manifest is for other tools, too.
    assert json.loads((path / MANIFEST).read_text()) == loaded.info


@pytest.mark.parametrize("name", [WEIGHTS, STATE, MANIFEST])
@pytest.mark.parametrize("kind", ["corrupted", "cut", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(store, capsys, name, kind):
    for step in (1, 2, 3):
        save(store, step)
    file = store.steps()[-1] / name
    damage(file.parent, name, kind)
    assert store.load_last().info["step"] == 2
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {file.parent} is passed over: ")
    assert warning.count("\n") == 1


def test_without_a_readable_checkpoint_it_says_so(store):
    with pytest.raises(UserError, match="no readable checkpoint in"):
        store.load_last()
    with pytest.raises(UserError, match="no best checkpoint yet"):
        store.load_best()
    corrupt(save(store, 1) / STATE)
    with pytest.raises(UserError, match="no readable checkpoint in"):
        store.load_last()


def test_rotation_keeps_the_newest_and_the_best(store):
    for step in range(1, 7):
        path = save(store, step)
        if step == 2:
            store.mark_best(path)
    assert names(store) == ["best", *(f"step-{step:012d}" for step in (2, 4, 5, 6))]
    assert store.load_best().info["step"] == 2
    store.mark_best(store.steps()[-1])
    assert names(store) == ["best", *(f"step-{step:012d}" for step in (4, 5, 6))]
    assert store.load_best().info["step"] == 6
    # The link is relative: a run's directory can be moved.
    moved = store.directory.rename(store.directory.with_name("moved"))
    assert CheckpointStore(moved, keep=3).load_best().info["step"] == 6


def test_a_damaged_best_is_not_replaced_by_another(store):
    store.mark_best(save(store, 1))
    save(store, 2)
    corrupt(store.directory / "best" / WEIGHTS)
    with pytest.raises(UserError, match=r"step-000000000001 cannot be read: .* its checksum"):
        store.load_best()


def damage(path, name, kind):
    """Do to a checkpoint's file what a disk does."""
    if kind == "corrupted":
        corrupt(path / name)
    elif kind == "cut":
        (path / name).write_bytes((path / name).read_bytes()[:-5])
    else:
        (path / name).unlink()


STEPS = (10, 20, 30, 40)
ORDERS = [subset for n in range(4) for subset in itertools.combinations(STEPS, n)]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_no_damaged_checkpoint_counts_as_one_that_is_kept(tmp_path, capsys, keep):
    four = CheckpointStore(tmp_path / "four", keep=4)
    for step in STEPS:
        save(four, step)
    kinds = itertools.product([WEIGHTS, STATE, MANIFEST], ["corrupted", "cut", "gone"])
    for damaged, (name, kind) in zip(ORDERS, itertools.cycle(kinds), strict=False):
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        shutil.copytree(four.directory, tmp_path / "checkpoints")
        store = CheckpointStore(tmp_path / "checkpoints", keep=keep)
        for step in damaged:
            damage(store.directory / f"step-{step:012d}", name, kind)
        last = store.load_last().info["step"]
        whole = [step for step in STEPS if step not in damaged]
        assert last == whole[-1]
        for _ in range(2):  # the run goes on from there, in steps that no damaged one has
            last += 1
            save(store, last)
            whole.append(last)
            assert names(store) == [f"step-{step:012d}" for step in whole[-keep:]], damaged
            assert store.has(last)
            assert store.load_last().info["step"] == last
        # What the disk does to one of this process's own is noticed, too.
        damage(store.steps()[-1], name, kind)
        assert not store.has(last)
        kept = [step for step in whole[-keep:] if step != last]
        save(store, last + 1)
        expected = [*kept, last + 1][-keep:]
        assert names(store) == [f"step-{step:012d}" for step in expected], damaged


def test_checkpoints_of_a_future_that_was_given_up_are_removed(store):
    # They could not be read for a moment, so the run went on from an earlier one.
    for step in (10, 20, 30):
        save(store, step)
    save(CheckpointStore(store.directory, keep=1), 11)
    assert names(store) == ["step-000000000011"]


def test_a_damaged_best_stays_while_it_is_the_best(store):
    for step in (1, 2):
        save(store, step)
    store.mark_best(store.steps()[0])
    corrupt(store.steps()[0] / STATE)
    for step in (3, 4, 5):
        save(store, step)
    assert names(store) == ["best", *(f"step-{step:012d}" for step in (1, 3, 4, 5))]
    store.mark_best(store.steps()[-1])
    assert names(store) == ["best", *(f"step-{step:012d}" for step in (3, 4, 5))]


def test_nothing_is_read_twice_to_know_that_it_is_whole(store):
    for step in (1, 2, 3):
        save(store, step)
    again = CheckpointStore(store.directory, keep=3)
    read = []
    sys.addaudithook(lambda event, arguments: event == "open" and read.append(str(arguments[0])))
    save(again, 4)
    save(again, 5)
    assert sum(name.endswith(f"{2:012d}/{STATE}") for name in read) == 1


def test_the_same_step_again_replaces_what_was_there(store):
    store.mark_best(save(store, 7, value=1.0))
    save(store, 7, value=2.0)
    assert names(store) == ["best", "step-000000000007"]
    for loaded in (store.load_last(), store.load_best()):
        assert loaded.weights["layer.weight"][0, 0] == 2.0


def test_what_a_killed_process_left_is_put_right(store):
    save(store, 1, value=1.0)
    save(store, 2, value=2.0)
    torn = store.directory / ".writing-step-000000000003"
    torn.mkdir()
    (torn / WEIGHTS).write_bytes(b"half")
    assert store.load_last().info["step"] == 2  # a reader is not disturbed by it
    # Killed while it replaced step 2: between the two renames.
    store.steps()[-1].rename(store.directory / ".replaced-step-000000000002")
    store.repair()
    assert names(store) == ["step-000000000001", "step-000000000002"]
    assert store.load_last().weights["layer.weight"][0, 0] == 2.0
    # Killed after them: the new one stays.
    (store.directory / ".replaced-step-000000000002").mkdir()
    save(store, 3)
    assert names(store) == [f"step-{step:012d}" for step in (1, 2, 3)]
    assert store.load_last().info["step"] == 3


class Hostile:
    """Pickles to a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("with_torch", [True, False])
def test_a_hostile_checkpoint_runs_no_code(store, tmp_path, with_torch):
    path = save(store, 1)
    store.mark_best(path)
    trap = tmp_path / "trap"
    if with_torch:
        torch.save({"counters": Hostile(trap)}, path / STATE)
    else:
        (path / STATE).write_bytes(pickle.dumps({"counters": Hostile(trap)}, protocol=2))
    # Whoever made it knows how to make its checksum, too.
    checksums = {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in (WEIGHTS, STATE)
    }
    (path / MANIFEST).write_text(json.dumps({"step": 1, "sha256": checksums}))
    with pytest.raises(ValueError, match="holds more than data and was not read"):
        load(path)
    with pytest.raises(UserError, match="no readable checkpoint"):
        store.load_last()
    with pytest.raises(UserError, match="holds more than data"):
        store.load_best()
    assert not trap.exists()
    with path.joinpath(STATE).open("rb") as file, contextlib.suppress(Exception):
        torch.load(file, weights_only=False)
    assert trap.exists(), "it was not hostile"


@contextlib.contextmanager
def full_disk(largest_file):
    """Have writes beyond a size of file fail, as those on a full disk do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("largest_file", [1_000, 20_000], ids=["weights", "state"])
def test_a_full_disk_leaves_the_earlier_checkpoints(store, largest_file):
    for step in (1, 2, 3):
        save(store, step)
    with (
        full_disk(largest_file),
        pytest.raises(CheckpointNotWritten, match=r"step-000000000004 .*File too large"),
    ):
        save(store, 4)
    assert names(store) == [f"step-{step:012d}" for step in (1, 2, 3)]
    assert store.load_last().info["step"] == 3
    save(store, 4)
    assert store.load_last().info["step"] == 4


def test_a_mistake_in_the_state_is_not_taken_for_a_full_disk(store):
    with pytest.raises(Exception, match="pickle"):
        store.save(1, weights={}, state={"function": lambda: None}, info={})
    assert names(store) == []


def save_for_ever(directory, first, saved):
    store = CheckpointStore(directory, keep=2)
    step = first
    while True:
        # Every step twice: the second one replaces the first.
        for _ in range(2):
            save(store, step, value=float(step))
        if step % 3 == 0:
            store.mark_best(store.steps()[-1])
        saved.send(step)
        step += 1


def test_kill_9_at_any_moment_leaves_the_newest_whole_checkpoint(tmp_path):
    directory = tmp_path / "checkpoints"
    generator = random.Random(0)
    step = 0
    for _ in range(8):
        receiver, sender = SERVER.Pipe(duplex=False)
        process = SERVER.Process(
            target=save_for_ever, args=(directory, step + 1, sender), daemon=True
        )
        process.start()
        sender.close()
        reported = receiver.recv()
        time.sleep(generator.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                reported = receiver.recv()

        store = CheckpointStore(directory, keep=2)
        store.repair()
        assert not list(directory.glob(".*-step-*"))
        loaded = store.load_last()
        step = loaded.info["step"]
        assert reported <= step <= reported + 1
        for tensor in (loaded.weights["layer.weight"], loaded.state["moments"][0]):
            assert (tensor == step).all()
        if (directory / "best").is_symlink():
            assert store.load_best().info["step"] % 3 == 0
    assert (directory / "best").is_symlink()


@pytest.mark.parametrize("moment", ["_sha256", "sync"])
def test_a_checkpoint_is_written_again_if_it_is_deleted_meanwhile(
    store, monkeypatch, capsys, moment
):
    save(store, 1)
    original = getattr(checkpoint_module, moment)
    deletions = itertools.count()

    def delete_once(path):
        if next(deletions) == 0:
            shutil.rmtree(store.directory)
        return original(path)

    monkeypatch.setattr(checkpoint_module, moment, delete_once)
    path = save(store, 2, 0.5)
    assert names(store) == [path.name]
    assert load(path).weights["layer.weight"][0, 0] == 0.5
    assert "was deleted: the checkpoints before step 2 are gone" in capsys.readouterr().err


def test_a_checkpoint_that_is_deleted_each_time_is_an_error(store, monkeypatch):
    def delete(path):
        shutil.rmtree(store.directory)
        raise FileNotFoundError(path)

    monkeypatch.setattr(checkpoint_module, "_sha256", delete)
    with pytest.raises(CheckpointNotWritten, match="could not be written: "):
        save(store, 1)


def test_the_best_checkpoint_may_be_deleted_before_it_is_marked(store):
    path = save(store, 1)
    shutil.rmtree(store.directory)
    store.mark_best(path)
    assert not store.directory.exists()
