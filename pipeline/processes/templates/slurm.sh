#!/bin/bash
# Trains {{title}} on {{nodes}} nodes ({{devices}} devices), one process a node.
# Start or resume, beside {{config_file}}: sbatch {{file}}
#SBATCH --job-name={{name}}
#SBATCH --nodes={{nodes}}
#SBATCH --ntasks-per-node=1
{{gpus}}
{{cpus}}
{{memory}}
{{partition}}
{{account}}
#SBATCH --time={{time}}
#SBATCH --signal=TERM@{{grace_seconds}}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={{name}}-%j.log
set -uo pipefail
cd "$SLURM_SUBMIT_DIR"
{{activate}}
{{platform}}
export PYTHONUNBUFFERED=1

# A process that left gives the others time for their checkpoint; a process that failed takes them with it after that.
srun --kill-on-bad-exit=0 --wait={{grace_seconds}} \
  spherecast train {{config_file}} --runs-dir {{runs}} &
step=$!
told=
trap 'told=yes; kill -TERM "$step"' TERM
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do # The trap ended the wait, not the step.
  wait "$step"
  status=$?
done
# Near the time limit the signal goes to the processes alone. One to this script is Slurm's own: a job that was
# preempted it requeues itself, and one that was cancelled shall stay so.
if [ "$status" -eq {{preempted}} ] && [ -z "$told" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt {{max_restarts}} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
