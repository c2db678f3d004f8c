"""The test cluster is what it says: a real Slurm with limits, preemption and accounting, containers, a login node, and faults to order."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from cluster import faults
from cluster.testbed import HERE, Bed, DownError, until

pytestmark = pytest.mark.usefixtures("idle")


def registry(cluster: Bed) -> str:
    return (cluster.folder / "env.toml").read_text().partition('container_image = "')[2].partition("/")[0]


def test_every_daemon_answers(cluster: Bed) -> None:
    done = subprocess.run(
        [HERE / "check.sh"], capture_output=True, text=True, check=False, env={**cluster.env(), "BED": str(cluster.folder)}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_bring_up_changes_nothing_and_costs_little(cluster: Bed) -> None:
    pid = cluster.pid("slurmctld")
    began = time.monotonic()
    cluster.up()
    assert cluster.pid("slurmctld") == pid
    assert time.monotonic() - began < 5


def test_a_job_runs_on_a_node_of_its_own_and_sacct_shows_it(cluster: Bed, tmp_path: Path) -> None:
    mine = tmp_path / "mine"  # below this machine's /tmp
    mine.touch()
    script = f"hostname; hostname --ip-address; ls {mine} 2> /dev/null | wc -l; ls ~ | wc -l; nproc; ls /dev | grep -c null"
    job = cluster.login(f"sbatch --parsable --account=research --output={cluster.name}/jobs/%j.out --gres=gpu:2 --wrap '{script}'").strip()
    cluster.until_state(job, "COMPLETED")
    name, address, in_tmp, *_ = (cluster.folder / f"jobs/{job}.out").read_text().split()
    assert (name, in_tmp) == ("n1", "0")
    assert address.endswith(".11")
    row = until(lambda: cluster.login(f"sacct -X -n -P -j {job} -o state,exitcode,account,alloctres").strip())
    state, code, account, resources = row.split("|")
    assert (state, code, account) == ("COMPLETED", "0:0", "research")
    assert "gres/gpu=2" in resources


def test_job_comments_are_not_kept_by_accounting(cluster: Bed) -> None:
    job = cluster.sbatch("true", "--comment=run-7f3a", "--job-name=kept")
    cluster.until_state(job, "COMPLETED")
    # For a moment the name is `allocation`: accounting may hear of a short job's end before its beginning.
    until(lambda: cluster.slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "jobname,comment").strip() == "kept|")


def test_containers_out_of_a_squashed_image_and_out_of_the_registry(cluster: Bed) -> None:
    run = "srun --account=research --no-container-mount-home --container-image"
    assert "sums" in cluster.login(f"{run}={cluster.name}/images/toy.sqsh nemo-evaluator ls")
    folder = f"{cluster.name}/jobs:/work:ro"
    shown = cluster.login(
        f"{run}={registry(cluster)}#evalmake/tiny:1 --container-mounts={folder} sh -c 'cat /etc/os-release; touch /work/x'; true"
    )
    assert shown.strip() == 'NAME="tiny"'
    # As enroot 3 has it: no / after HOST:PORT.
    shown = cluster.login(f"{run}={registry(cluster)}/evalmake/tiny:1 true", check=False)
    assert "pyxis: failed to import docker image" in shown
    assert "Invalid image reference" in shown
    assert "pyxis: failed to create container filesystem" in cluster.login(f"{run}=/no/such.sqsh true", check=False)


def test_a_wrong_account_and_too_many_jobs_are_refused_and_one_job_runs_at_a_time(cluster: Bed) -> None:
    assert "Invalid account" in cluster.login("sbatch --account=nobodys --wrap true", check=False)
    assert "Invalid account" in cluster.login("echo '#!/bin/bash' | sbatch --test-only --account=nobodys", check=False)
    first, second = (cluster.sbatch("sleep 60", "--partition=interactive") for _ in range(2))
    cluster.until_state(first, "RUNNING")
    cluster.until_state(second, "PENDING QOSMaxJobsPerUserLimit")
    shown = cluster.login("sbatch --account=research --partition=interactive --wrap true", check=False)
    assert "QOSMaxSubmitJobPerUserLimit" in shown


def test_a_job_of_a_higher_partition_preempts(cluster: Bed) -> None:
    requeued, ended = (cluster.sbatch("sleep 60", "--partition=preemptible", "--exclusive", flag) for flag in ("--requeue", "--no-requeue"))
    for job in (requeued, ended):
        cluster.until_state(job, "RUNNING")
    urgent = [cluster.sbatch("sleep 60", "--exclusive") for _ in range(2)]
    cluster.until_state(ended, "PREEMPTED")
    cluster.until_state(requeued, "PENDING BeginTime", "PENDING Resources", "PENDING Priority")
    assert "Restarts=1" in cluster.slurm("scontrol", "show", "job", requeued)
    for job in urgent:
        cluster.until_state(job, "RUNNING")


def test_jobs_of_somebody_else_are_in_the_queue_too(cluster: Bed) -> None:
    job = cluster.slurm(
        "sbatch", "--parsable", "--uid=nobody", "--account=research", "--output=/dev/null", "--chdir=/", "--wrap=sleep 60"
    ).strip()
    cluster.until_state(job, "RUNNING")
    assert cluster.login(f"squeue -h -j {job} -o %u").strip() == "nobody"


def test_sshd_has_its_defaults_and_greets(cluster: Bed) -> None:
    shown = subprocess.run(
        ["/usr/sbin/sshd", "-T", "-f", cluster.name / "etc/sshd_config"], capture_output=True, text=True, check=True
    ).stdout
    assert "maxsessions 10" in shown
    assert "maxstartups 10:30:100" in shown
    log = cluster.folder / "ssh.log"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        ["ssh", cluster.alias, "true"], env=cluster.env(BED_SSH_LOG=str(log)), capture_output=True, text=True, check=True, timeout=20
    )
    assert "private computer system" in done.stderr
    assert len(log.read_text().splitlines()) == 1


def test_the_stock_launcher_evaluates_on_it(cluster: Bed) -> None:
    output = cluster.name / "jobs/stock"
    launcher = Path(sys.executable).with_name("nemo-evaluator-launcher")
    began = time.monotonic()
    done = subprocess.run(
        [launcher, "run", "--config", cluster.name / "cluster-eval.yaml",
         "-o", f"execution.hostname={cluster.alias}", "-o", "execution.username=root", "-o", "execution.account=research",
         "-o", f"execution.output_dir={output}", "-o", "++env_vars.PYXIS_CONTAINER_WRITABLE=lit:1"],  # enroot's default is read-only
        env=cluster.env(), capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    invocation = done.stdout.partition("Invocation ID: ")[2].split()[0]
    submitted = time.monotonic() - began
    found = until(lambda: files if len(files := [*output.glob(f"*-{invocation}/*/artifacts/results.yml")]) == 2 else [], 90)
    print(f"submitted in {submitted:.1f} s, evaluated in {time.monotonic() - began - submitted:.1f} s more")
    scores: dict[str, float] = {}
    for file in found:
        scores |= {
            name: task["metrics"]["accuracy"]["scores"]["accuracy"]["value"]
            for name, task in yaml.safe_load(file.read_text())["results"]["tasks"].items()
        }
    assert scores == {"sums": 1.0, "differences": 1.0}
    # Slurm's default: the successor that each job queued for itself stays in the queue, and will never start.
    until(lambda: set(cluster.slurm("squeue", "-h", "-o", "%r").split()) == {"DependencyNeverSatisfied"}, 20)
    cluster.cancel_all()


def test_the_second_sbatch_can_fail(cluster: Bed) -> None:
    submit = "sbatch --parsable --account=research --wrap true"
    with faults.sbatch_fails(cluster, call=2):
        shown = cluster.login(f"{submit}; sbatch --test-only --account=research --wrap true; {submit}; {submit}", check=False)
    assert len([line for line in shown.splitlines() if line.isdigit()]) == 2
    assert "Socket timed out" in shown
    with faults.sbatch_fails(cluster, call=1, when="after"):
        assert "Socket timed out" in cluster.login(submit + " --job-name=lost --begin=now+60", check=False)
    assert cluster.slurm("squeue", "-h", "-n", "lost", "-o", "%T").strip() == "PENDING"


def test_the_controller_and_accounting_can_be_away(cluster: Bed) -> None:
    with faults.stopped(cluster, "slurmctld"):
        assert "Unable to contact slurm controller" in cluster.login("squeue", check=False, timeout=60)
    assert cluster.login("squeue -h") == ""
    with faults.stopped(cluster, "slurmdbd"):
        assert "Connection refused" in cluster.login("sacct", check=False)
        job = cluster.sbatch("true")
        cluster.until_state(job, "COMPLETED")
    until(lambda: cluster.slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "state").strip() == "COMPLETED")


def test_a_node_can_lose_power_and_come_back(cluster: Bed) -> None:
    job = cluster.sbatch("sleep 60", "--nodelist=n2", "--no-requeue")
    cluster.until_state(job, "RUNNING")
    with faults.node_killed(cluster, "n2"):
        cluster.slurm("scontrol", "update", "nodename=n2", "state=down", "reason=power")
        cluster.until_state(job, "NODE_FAIL")
    until(lambda: cluster.slurm("sinfo", "-h", "-n", "n2", "-p", "cpu", "-o", "%t").strip() == "idle")
    with faults.node_drained(cluster, "n2"):
        job = cluster.sbatch("true", "--partition=cpu")
        until(lambda: "DRAINED" in cluster.state(job), otherwise=lambda: cluster.state(job))


def test_login_sessions_can_die_and_the_line_can_be_slow_or_cut(cluster: Bed) -> None:
    def follow() -> subprocess.Popen[str]:
        follower = subprocess.Popen(
            ["ssh", cluster.alias, "echo begun; sleep 60"], env=cluster.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert follower.stdout
        assert follower.stdout.readline() == "begun\n"
        return follower

    # A connection that other tests or commands share stays for ten minutes, and one that ended is there for a moment more.
    faults.kill_sessions(cluster)
    until(lambda: not faults.children(cluster.pid("sshd")))
    with follow() as follower:
        assert faults.kill_sessions(cluster) == 1
        assert follower.wait(10) == 255
    began = time.monotonic()
    cluster.login("true")
    direct = time.monotonic() - began
    with faults.network(cluster, latency=0.1) as line:
        began = time.monotonic()
        cluster.login("true")
        assert time.monotonic() - began > direct + 0.5
        with follow() as follower:
            line.cut()
            assert follower.wait(10) == 255
        assert line.connections == 2
    cluster.login("true")


def test_killed_sessions_take_a_shared_connection_and_all_that_goes_through_it(cluster: Bed) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        shared = ["ssh", "-S", f"{folder}/s", "-o", "BatchMode=yes"]
        quiet = {"env": cluster.env(), "stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*shared, "-fNM", cluster.alias], **quiet, stdout=subprocess.DEVNULL, check=True, timeout=20)
        follow = [*shared, cluster.alias, "echo begun; sleep 60"]
        followers = [subprocess.Popen(follow, **quiet, stdout=subprocess.PIPE) for _ in range(2)]
        assert [follower.stdout and follower.stdout.readline() for follower in followers] == [b"begun\n"] * 2
        assert faults.kill_sessions(cluster) > 0
        assert [follower.wait(10) for follower in followers] == [255, 255]
        until(lambda: not Path(folder, "s").exists())  # the master has ended


def test_folders_can_be_full_or_closed(cluster: Bed) -> None:
    with faults.disk_full(cluster) as folder:
        assert "No space left" in cluster.login(f"echo x > {folder}/file", check=False)
    cluster.login(f"echo x > {folder}/file && rm {folder}/file")
    assert "Read-only" in cluster.login(f"mkdir {cluster.name}/readonly/jobs", check=False)


def test_a_bed_without_accounting_beside_it_in_a_long_path_with_spaces(cluster: Bed, tmp_path: Path) -> None:
    other = Bed(tmp_path / ("a bed " + "long" * 15), {"WITH_ACCT": "0", "WITH_IMAGE": "0", "NODES": "1"})
    try:
        other_name = other.up().name
        job = other.sbatch("true", "--account=whatever")
        other.until_state(job, "COMPLETED")
        assert "accounting storage is disabled" in other.login("sacct", check=False)
        assert other.login("squeue -h --states=all -o %i").split() == [job]
        assert job not in cluster.slurm("squeue", "-h", "-o", "%i")
    finally:
        other.down(purge=True)
    assert not other.folder.exists()
    assert not other_name.exists()
    assert "n2" in cluster.slurm("sinfo", "-h", "-N")


def test_without_its_packages_the_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "dpkg-query"
    empty.write_text("#!/bin/sh\nexit 1\n")
    empty.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(DownError, match=r"^error: system packages are missing \(.*slurm-wlm .*\): run make test-deps$"):
        Bed(tmp_path / "bed").up()
