#!/usr/bin/env bash
# Pretrains or finetunes as several processes on this machine that form one run, each with its own
# devices.
#
#   launch/processes.sh [COMMAND] --num_processes=N --gin_file=FILE [--gin.X=Y ...] [-- FLAG ...]
#
#   COMMAND            pretrain or finetune (pretrain)
#   --num_processes=N  how many
#   --port=P           port of process 0, to which the others connect (12355)
#   --dry-run          print the commands and do nothing
#   -- FLAG ...        further flags of the command
#
# SIGTERM and Ctrl-C are passed on to all of them, and they save and stop. The exit code is that of
# the first process, in their order, that did not end with 0.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

num_processes="" port=12355
parse "num_processes port" "" "$@"
need num_processes
need_counts num_processes port
is_joined || fail "$launch_command runs as one process: launch/local.sh $launch_command"
export_run_token

processes=()
signalled=false
pass_on() {
  signalled=true
  kill -TERM "${processes[@]}" 2>/dev/null || true
}
trap pass_on TERM INT

for ((number = 0; number < num_processes; number++)); do
  command=(glm-jax "$launch_command" "${launch_arguments[@]}" "--coordinator=localhost:$port"
    "--num_processes=$num_processes" "--process_id=$number")
  if [[ $dry_run == true ]]; then
    quoted "${command[@]}"
  else
    "${command[@]}" &
    processes+=($!)
  fi
done

status=0
for process in "${processes[@]}"; do
  ended=0
  wait "$process" || ended=$?
  # A signal ends the waiting but not yet the process.
  while [[ $signalled == true ]]; do
    signalled=false ended=0
    wait "$process" || ended=$?
  done
  [[ $status != 0 ]] || status=$ended
done
exit "$status"
