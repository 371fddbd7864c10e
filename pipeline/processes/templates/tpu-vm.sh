#!/bin/bash
# Trains {{title}} on a TPU slice {{topology}} ({{chips}} chips). Needs gcloud, logged in, and a terminal that
# stays open (tmux or screen); the files beside it are copied to the workers.
#
#   bash {{file}} create   the slice
#   bash {{file}} setup    install on all workers and mount the runs; again after a change or a restart
#   bash {{file}} train    start or resume on all workers
#   bash {{file}} run      all of these, and again after a preemption
#   bash {{file}} delete   the slice; the runs stay
set -euo pipefail
cd "$(dirname "$0")"

slice={{name}}
place=(--zone={{zone}} --project={{project}})

create() {
  gcloud compute tpus tpu-vm create "$slice" "${place[@]}" {{slice_flags}} --version={{runtime}}
}

everywhere() {
  gcloud compute tpus tpu-vm ssh "$slice" "${place[@]}" --worker=all --command="$1"
}

setup() {
  gcloud compute tpus tpu-vm scp {{files}} "$slice:" "${place[@]}" --worker=all || return
  everywhere "$(
    cat <<'END'
set -eu
command -v ~/.local/bin/uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[ -d .venv ] || ~/.local/bin/uv venv --python 3.12 .venv
~/.local/bin/uv pip install --python .venv/bin/python {{packages}}
mkdir -p runs
mountpoint -q runs && exit 0
{{mount}}
END
  )"
}

train() {
  everywhere 'PYTHONUNBUFFERED=1 .venv/bin/spherecast train {{config_file}} --runs-dir runs'
}

state() {
  gcloud compute tpus tpu-vm describe "$slice" "${place[@]}" --format='value(state)' 2>/dev/null || echo ABSENT
}

delete() {
  gcloud compute tpus tpu-vm delete "$slice" "${place[@]}" --quiet
}

run() {
  local attempt status
  for ((attempt = 0; attempt <= {{max_restarts}}; attempt++)); do
    if [ "$(state)" != READY ]; then
      [ "$(state)" = ABSENT ] || delete
      create
    fi
    status=0
    { setup && train; } || status=$?
    [ "$status" -ne 0 ] || return 0
    sleep 60 # A slice that was preempted shows it only after a while.
    if [ "$status" -ne {{preempted}} ] && [ "$(state)" = READY ]; then
      echo "The training failed with status $status on a slice that is there; see the lines above." >&2
      return "$status"
    fi
  done
  echo "Preempted more than {{max_restarts}} times." >&2
  return {{preempted}}
}

case "${1:-}" in
  create | setup | train | run | delete) "$1" ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
