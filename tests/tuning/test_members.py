"""The chief and the workers of a search, in processes of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import grpc
import pytest
from keras_tuner.errors import FatalRuntimeError
from searches import DATA, begin, tuner_in
from small import TESTS

from keras_hybrid._support import processes
from keras_hybrid.tuning import members, record

ADDRESS = {
    "KERASTUNER_ORACLE_IP": "127.0.0.1",
    "KERASTUNER_ORACLE_PORT": "8000",
    "KERASTUNER_TUNER_ID": "worker0",
}
SCRIPT = """
import os, sys
sys.path[:0] = {paths}
from keras_hybrid._support import processes
processes.die_with_parent()
import searches as s
folder, name = sys.argv[1], os.environ["KERASTUNER_TUNER_ID"]
try:
    # What a worker is told to overwrite is its chief's.
    tuner = s.tuner_in(folder, seeds=2, overwrite="worker" in name)
    tuner.search(**s.DATA, epochs=8)
except ValueError as error:
    sys.stderr.write(str(error))
    sys.exit(2)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    paths = [str(TESTS), os.path.dirname(__file__)]
    path.write_text(SCRIPT.format(paths=paths))
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def results(folder):
    search = record.load(folder)
    return {t.plan: t.scores("val_loss") for t in search.complete}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What the search gives in one process."""
    tuner = tuner_in(tmp_path_factory.mktemp("alone"), seeds=2)
    tuner.search(**DATA, epochs=8)
    return results(tuner.folder)


# ---- What the environment says ----------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"KERASTUNER_ORACLE_PORT": None}, "without KERASTUNER_ORACLE_PORT"),
        ({"KERASTUNER_TUNER_ID": None}, "without KERASTUNER_TUNER_ID"),
        ({"KERASTUNER_ORACLE_IP": None}, "without KERASTUNER_ORACLE_IP"),
        ({"KERASTUNER_ORACLE_PORT": "http"}, "the number of a port.*'http'"),
        ({"KERASTUNER_ORACLE_PORT": "99999"}, "the number of a port"),
        ({"KERAS_HYBRID_CHIEF_WAIT": "soon"}, "a number of seconds.*'soon'"),
        ({"KERAS_HYBRID_CHIEF_WAIT": "0"}, "a number of seconds"),
        ({"KERAS_HYBRID_CHIEF_WAIT": "nan"}, "a number of seconds"),
    ],
)
def test_bad_environments(tmp_path, monkeypatch, changes, message):
    for name, value in {**ADDRESS, **changes}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        tuner_in(tmp_path)


def test_who_a_process_is(monkeypatch):
    assert not members.is_chief()
    assert not members.is_worker()
    for name, value in ADDRESS.items():
        monkeypatch.setenv(name, value)
    assert members.is_worker()
    assert not members.is_chief()
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert members.is_chief()
    assert not members.is_worker()


# ---- The chief --------------------------------------------------------------


class Failure(grpc.RpcError):
    def __init__(self, code):
        self.of = code

    def code(self):
        return self.of

    def details(self):
        return "Exception calling application: three in a row"


class Stub:
    """Answers after it has failed so often; remembers its timeouts."""

    def __init__(self, failures, code=grpc.StatusCode.UNAVAILABLE):
        self.failures = failures
        self.code = code
        self.timeouts = []

    def GetTrial(self, message, wait_for_ready, timeout):  # noqa: N802
        assert wait_for_ready
        self.timeouts.append(timeout)
        if len(self.timeouts) > self.failures:
            return message
        raise Failure(self.code)


def test_requests_that_the_chief_s_end_cut_off_are_made_again():
    stub = Stub(failures=2)
    requests = members.Requests(stub, "here:1", 30)
    # KerasTuner would have it wait for an hour.
    assert requests.GetTrial("a", wait_for_ready=True, timeout=3600) == "a"
    assert len(stub.timeouts) == 3
    assert all(0 < timeout <= 30 for timeout in stub.timeouts)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED"])
def test_requests_without_an_answer_end_with_a_clear_error(code):
    stub = Stub(failures=99, code=grpc.StatusCode[code])
    requests = members.Requests(stub, "here:1", 0.5)
    with pytest.raises(ValueError, match="not answer at here:1.*GetTrial"):
        requests.GetTrial("a")


def test_requests_that_the_chief_refuses_are_not_made_again():
    stub = Stub(failures=1, code=grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(Failure):
        members.Requests(stub, "here:1", 30).GetTrial("a")
    assert len(stub.timeouts) == 1


def test_an_error_within_the_chief_ends_its_worker_with_it():
    stub = Stub(failures=99, code=grpc.StatusCode.UNKNOWN)
    with pytest.raises(FatalRuntimeError, match="failed: .*three in a row"):
        members.Requests(stub, "here:1", 30).GetTrial("a")
    assert len(stub.timeouts) == 1


def test_a_chief_that_cannot_be_reached_is_a_clear_error(tmp_path, monkeypatch):
    port = free_port()
    for name, value in ADDRESS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    monkeypatch.setenv("KERAS_HYBRID_CHIEF_WAIT", "1")
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"not answer at 127.0.0.1:{port}"):
        tuner_in(tmp_path)
    assert time.monotonic() - started < 20


def test_a_port_in_use_is_a_clear_error(tmp_path, monkeypatch):
    """gRPC would serve beside the other one, each some of the requests."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for name, value in ADDRESS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
        monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
        with pytest.raises(ValueError, match="two searches need two ports"):
            tuner_in(tmp_path).search(**DATA, epochs=8)


def test_a_folder_that_is_not_shared_is_a_clear_error(tmp_path, monkeypatch):
    tuner = tuner_in(tmp_path)
    for name, value in ADDRESS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KERAS_HYBRID_CHIEF_WAIT", "0.1")
    with pytest.raises(ValueError, match="must share the folder"):
        begin(tuner)
    monkeypatch.delenv("KERASTUNER_ORACLE_IP")
    begin(tuner)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    begin(tuner)


# ---- On this machine --------------------------------------------------------


def _processes(script):
    """The processes that run a script, by KerasTuner's id."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read()
            with open(f"/proc/{entry}/environ", "rb") as file:
                environment = file.read()
        except (OSError, ValueError):
            continue
        if str(script).encode() in command:
            for part in environment.split(b"\0"):
                if part.startswith(b"KERASTUNER_TUNER_ID="):
                    found[part.partition(b"=")[2].decode()] = int(entry)
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.isdir("/proc"), reason="finds processes in /proc"
)
def test_chief_and_workers_survive_kills(tmp_path, script, expected):
    folder = tmp_path / "shared"
    killed = []

    def kill_one():
        """A worker in the middle of its first trial, then the chief."""
        records = list(folder.glob("*/trial_*/seed-*.json"))
        trials = list(folder.glob("*/trial_*"))
        running = _processes(script)
        if not killed and trials and "tuner1" in running:
            os.kill(running["tuner1"], signal.SIGKILL)
            killed.append("tuner1")
        elif len(killed) == 1 and records and "chief" in running:
            os.kill(running["chief"], signal.SIGKILL)
            killed.append("chief")

    started = time.monotonic()
    processes.run(
        [sys.executable, str(script), str(folder)],
        2,
        folder / "hybrid",
        stall_limit=120,
        watch=kill_one,
    )
    assert time.monotonic() - started < 240
    assert killed == ["tuner1", "chief"]
    assert _processes(script) == {}, "no orphans"
    assert len(expected) == 3
    assert results(folder / "hybrid") == expected


# ---- On several machines: nothing in common but the search's folder ---------


class Machines:
    """Processes with working folders of their own, started one by one."""

    def __init__(self, root, script):
        self.root = root
        self.script = script
        self.running = {}

    def start(self, name, port, folder, wait=60):
        place = self.root / f"machine-{name}-{port}"
        place.mkdir(exist_ok=True)
        self.running[name, port] = subprocess.Popen(
            [sys.executable, str(self.script), str(folder)],
            cwd=place,
            env={
                **os.environ,
                "KERASTUNER_TUNER_ID": name,
                "KERASTUNER_ORACLE_IP": "127.0.0.1",
                "KERASTUNER_ORACLE_PORT": str(port),
                "KERAS_HYBRID_CHIEF_WAIT": str(wait),
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, name, port):
        process = self.running.pop((name, port))
        process.kill()
        process.communicate()

    def ends(self, name, port, timeout=150):
        """Returns the exit code and the last lines of what it said."""
        process = self.running[name, port]
        _, said = process.communicate(timeout=timeout)
        return process.returncode, said[-500:]

    def left_behind(self):
        return [p for p in self.root.glob("machine-*/*")]


@pytest.fixture
def machines(tmp_path, script):
    made = Machines(tmp_path, script)
    yield made
    for process in made.running.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def wait_until(happens, seconds=120):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.1)


@pytest.mark.slow
def test_machines_that_are_killed_and_started_again(
    tmp_path, machines, expected
):
    """The worker in its first trial, then the chief, by hand."""
    port, folder = free_port(), tmp_path / "shared"
    names = ("chief", "worker0", "worker1")
    for name in names:
        machines.start(name, port, folder)
    wait_until(lambda: list(folder.glob("*/trial_*/")))
    machines.kill("worker0", port)
    machines.start("worker0", port, folder)
    wait_until(lambda: list(folder.glob("*/trial_*/seed-*.json")))
    machines.kill("chief", port)
    time.sleep(3)
    machines.start("chief", port, folder)
    for name in names:
        assert machines.ends(name, port)[0] == 0, machines.ends(name, port)
    assert len(expected) == 3
    assert results(folder / "hybrid") == expected
    assert machines.left_behind() == []


@pytest.mark.slow
def test_two_searches_at_once_on_two_ports(tmp_path, machines, expected):
    ports = [free_port(), free_port()]
    for port in ports:
        for name in ("chief", "worker0"):
            machines.start(name, port, tmp_path / f"shared-{port}")
    for port in ports:
        for name in ("worker0", "chief"):
            code, said = machines.ends(name, port)
            assert code == 0, said
        assert results(tmp_path / f"shared-{port}" / "hybrid") == expected


@pytest.mark.slow
def test_a_chief_that_is_gone_for_good_ends_its_workers(tmp_path, machines):
    """And what they have finished is there when it is started again."""
    port, folder = free_port(), tmp_path / "shared"
    machines.start("chief", port, folder)
    machines.start("worker0", port, folder, wait=15)
    wait_until(lambda: list(folder.glob("*/trial_*/seed-*.json")))
    machines.kill("chief", port)
    code, said = machines.ends("worker0", port)
    assert code == 2
    assert f"does not answer at 127.0.0.1:{port} for 15 s" in said
    kept = list(folder.glob("*/trial_*/seed-*.json"))
    assert kept
    alone = tuner_in(folder, seeds=2)
    before = {path: path.stat().st_mtime_ns for path in kept}
    alone.search(**DATA, epochs=8)
    assert before == {path: path.stat().st_mtime_ns for path in kept}
    assert len(record.load(alone.folder).complete) == 3


@pytest.mark.slow
def test_a_worker_with_a_folder_of_its_own_is_refused(tmp_path, machines):
    port = free_port()
    machines.start("chief", port, tmp_path / "shared")
    machines.start("worker0", port, tmp_path / "elsewhere", wait=20)
    code, said = machines.ends("worker0", port)
    assert code == 2
    assert "must share the folder of the search" in said
    assert not list(tmp_path.glob("elsewhere/*/trial_*"))
