"""Each way to tell a process its place in a training, and what is said where it is told too little."""

from __future__ import annotations

import pytest

from pipeline.processes.membership import find_membership
from transforms.errors import InputError

SLURM = {
    "SLURM_JOB_ID": "12345678",
    "SLURM_STEP_NODELIST": "gpu[03-05,09]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3", "HOSTNAME": "trial-workers-0-3.trial"}


def _place(found):
    return found.process, found.processes, found.coordinator


def test_nothing_told_is_one_process():
    for environment in ({}, {"SPHERECAST_PROCESSES": "1"}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}):
        found = find_membership(environment)
        assert _place(found) == (0, 1, None)
        assert str(found) == "one process"


def test_arguments_go_before_the_environment_and_both_before_the_scheduler():
    environment = {"SPHERECAST_COORDINATOR": "a:1", "SPHERECAST_PROCESSES": "2", "SPHERECAST_PROCESS": "1", **SLURM}
    assert _place(find_membership(environment)) == (1, 2, "a:1")
    assert _place(find_membership(environment, "b:2", 8, 7)) == (7, 8, "b:2")
    assert _place(find_membership(environment, processes=1, process=0)) == (0, 1, None)


def test_a_slurm_step_tells_all():
    found = find_membership(SLURM)
    assert _place(found) == (2, 4, "gpu03:25678")
    assert found.devices is None
    assert _place(find_membership(SLURM, "other:99")) == (2, 4, "other:99")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n7", "n7"),
        ("n7,n8", "n7"),
        ("n[007-9]", "n007"),
        ("n[3,5]", "n3"),
        ("a,n[3,5]", "a"),
        ("r[1-2]-ib,x", "r1-ib"),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    found = find_membership({**SLURM, "SLURM_STEP_NODELIST": nodes})
    assert found.coordinator.rpartition(":")[0] == first


def test_tasks_that_see_all_gpus_of_a_node_share_them_out():
    tasks = {**SLURM, "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)"}
    assert find_membership({**tasks, "SLURM_NODEID": "1", "SLURM_LOCALID": "1"}).devices == (2, 3)
    assert find_membership({**tasks, "SLURM_NODEID": "3"}).devices is None
    assert find_membership({**tasks, "SLURM_NODEID": "1", "CUDA_VISIBLE_DEVICES": "0"}).devices is None
    assert find_membership({**tasks, "SLURM_NODEID": "1", "SLURM_GPUS_PER_TASK": "4"}).devices is None
    with pytest.raises(InputError, match="2 tasks on this node see 3 GPUs"):
        find_membership({**tasks, "SLURM_NODEID": "1", "CUDA_VISIBLE_DEVICES": "0,1,2"})


def test_a_pod_needs_the_number_of_pods():
    found = find_membership({**POD, "SPHERECAST_PROCESSES": "4"})
    assert _place(found) == (3, 4, "trial-workers-0-0.trial:8476")
    with pytest.raises(
        InputError, match=r"got coordinator .* \(Kubernetes\), but not processes .*SPHERECAST_PROCESSES"
    ):
        find_membership(POD)
    with pytest.raises(InputError, match=r"but not coordinator .*--coordinator"):
        find_membership({**POD, "HOSTNAME": "elsewhere"}, processes=4)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"processes": 2}, r"not coordinator .*SPHERECAST_COORDINATOR; process .*--process"),
        ({"process": 1}, "not coordinator .*; processes"),
        ({"coordinator": "here", "processes": 2, "process": 0}, "expected host:port"),
        ({"coordinator": "here:0", "processes": 2, "process": 0}, "expected host:port"),
        ({"coordinator": "here:1", "processes": 2, "process": 2}, "got 2 of 2, expected 0 to 1"),
        ({"coordinator": "here:1", "processes": 0, "process": 0}, "expected 1 or more"),
        ({"coordinator": "here:1", "processes": 1, "process": 1}, "got 1 of 1"),
    ],
)
def test_what_is_missing_or_wrong_is_named(arguments, fault):
    with pytest.raises(InputError, match=fault):
        find_membership({}, **arguments)


def test_a_number_that_is_none_is_refused():
    with pytest.raises(InputError, match="SPHERECAST_PROCESSES: got 'many', expected a whole number"):
        find_membership({"SPHERECAST_PROCESSES": "many"})
