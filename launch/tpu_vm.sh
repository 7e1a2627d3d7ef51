#!/usr/bin/env bash
# Pretrains, or runs another command, on TPU VMs: asks for them in the queue, waits, runs, and with
# --spot asks again whenever they are taken away. Started again, it uses the VMs that it finds.
#
#   launch/tpu_vm.sh [COMMAND] --name=N --zone=Z --accelerator_type=TYPE --image=IMAGE [--spot]
#                    --gin_file=FILE [--gin.X=Y ...] [-- ARGUMENT ...]
#
#   COMMAND                  of glm-jax: finetune, evaluate, ... (pretrain)
#   --name=N                 name of the queued resource
#   --zone=Z                 where the quota is
#   --accelerator_type=TYPE  of one slice, such as v5litepod-256 or v5p-128
#   --image=IMAGE            made from the Dockerfile, in a registry that the VMs can read
#   --num_slices=K           slices (1)
#   --project=P              gcloud's default if left out
#   --runtime_version=R      the VMs' system; that of the generation if left out
#   --startup_script=FILE    run by every VM when it starts, such as one that mounts the folder below
#   --folder=F               a folder of the VMs that the run sees under the same name
#   --spot                   cheaper, and taken away at any time
#   --max_creations=C        how often the VMs are asked for before giving up (20)
#   --poll_seconds=S         between looks at the queue, and before believing that a run that
#                            stopped was not stopped by losing its VMs (60)
#   --delete                 delete the VMs when the run has ended well
#   --dry-run                print the commands and do nothing
#   -- ARGUMENT ...          further arguments of the command
#
# Pretraining and finetuning run on any slice, all other commands as one process: on a slice of one
# host. The gin FILE is a path in the image, such as configs/runs/glm_10b.gin. The run folder must
# be in a folder that all VMs share, and that outlives them. VMs cost money until they are deleted,
# also after a run that failed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name="" zone="" accelerator_type="" image="" num_slices=1 project="" runtime_version="" spot=false
max_creations=20 poll_seconds=60 delete=false startup_script="" folder=""
parse "name zone accelerator_type image num_slices project runtime_version startup_script folder
  max_creations poll_seconds" "spot delete" "$@"
need name zone accelerator_type image
need_counts num_slices max_creations poll_seconds
need_one_process "$num_slices"
generation="$(generation_of "$accelerator_type")"
if [[ -z "$runtime_version" ]]; then
  case "$generation" in
    v4) runtime_version=tpu-ubuntu2204-base ;;
    v5e) runtime_version=v2-alpha-tpuv5-lite ;;
    v5p) runtime_version=v2-alpha-tpuv5 ;;
    v6e) runtime_version=v2-alpha-tpuv6e ;;
  esac
fi

resource=(gcloud compute tpus queued-resources)
where=("--zone=$zone")
[[ -z "$project" ]] || where+=("--project=$project")

create_command=("${resource[@]}" create "$name" "${where[@]}"
  "--accelerator-type=$accelerator_type" "--runtime-version=$runtime_version")
if ((num_slices > 1)); then
  create_command+=("--node-count=$num_slices")
else
  create_command+=("--node-id=$name")
fi
if [[ -n "$startup_script" ]]; then
  [[ -f "$startup_script" ]] || fail "--startup_script is '$startup_script', which is no file"
  create_command+=("--metadata-from-file=startup-script=$startup_script")
fi
[[ $spot == false ]] || create_command+=(--spot)

state_command=("${resource[@]}" describe "$name" "${where[@]}" "--format=value(state.state)")
delete_command=("${resource[@]}" delete "$name" "${where[@]}" --force --quiet)

# A run left over from a connection that broke would hold the devices: it saves, stops and goes.
remote="sudo gcloud auth configure-docker $(quoted "${image%%/*}") --quiet"
remote+="; { sudo docker stop --time=120 glm; sudo docker rm glm; } > /dev/null 2>&1"
container=(sudo docker run --name=glm --privileged --network=host --ulimit=memlock=-1:-1
  --stop-timeout=120)
[[ -z "$folder" ]] || container+=("--volume=$folder:$folder")
process=(launch/local.sh "$launch_command" "--generation=$generation" --)
is_joined && process+=(--distributed)
process+=(${launch_arguments[@]+"${launch_arguments[@]}"})
remote+="; $(quoted "${container[@]}" "$image" "${process[@]}")"
train_command=("${resource[@]}" ssh "$name" "${where[@]}" --node=all --worker=all
  "--command=$remote")

if [[ $dry_run == true ]]; then
  quoted "${create_command[@]}"
  echo "# every $poll_seconds s until it says ACTIVE:"
  quoted "${state_command[@]}"
  quoted "${train_command[@]}"
  if [[ $spot == true ]]; then
    echo "# if the VMs were preempted, then from the start again, $max_creations times at most:"
    quoted "${delete_command[@]}"
  fi
  if [[ $delete == true ]]; then
    echo "# when the run has ended well:"
    quoted "${delete_command[@]}"
  fi
  exit 0
fi

state() { "${state_command[@]}" 2> /dev/null || echo NONE; }

give_up() {
  echo "tpu_vm.sh: $1; what is left of $name costs money until: $(quoted "${delete_command[@]}")" >&2
  exit 1
}

creations=0
while true; do
  current="$(state)"
  case "$current" in
    NONE)
      ((creations < max_creations)) || give_up "asked for $name $creations times in vain"
      ((creations += 1))
      echo "asking for $name, attempt $creations of at most $max_creations"
      "${create_command[@]}"
      ;;
    ACTIVE)
      status=0
      "${train_command[@]}" || status=$?
      sleep "$poll_seconds"
      if [[ "$(state)" == ACTIVE ]]; then
        [[ $status == 0 ]] || give_up "the run failed with exit code $status on VMs that are still there"
        break
      fi
      echo "the VMs of $name were preempted"
      ;;
    SUSPENDED | FAILED)
      [[ $spot == true ]] || give_up "$name is $current"
      echo "$name is $current"
      "${delete_command[@]}"
      ;;
    *)
      echo "$name is $current"
      sleep "$poll_seconds"
      ;;
  esac
done
echo "the run has ended well"
if [[ $delete == true ]]; then
  "${delete_command[@]}"
else
  echo "the VMs cost money until: $(quoted "${delete_command[@]}")"
fi
