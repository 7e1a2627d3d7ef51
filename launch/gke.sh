#!/usr/bin/env bash
# Submits a pretraining run, or another command, to a GKE cluster with TPUs, through xpk.
#
#   launch/gke.sh [COMMAND] --cluster=C --workload=W --accelerator_type=TYPE --image=IMAGE
#                 --gin_file=FILE [--gin.X=Y ...] [-- ARGUMENT ...]
#
#   COMMAND                  of glm-jax: finetune, evaluate, ... (pretrain)
#   --cluster=C              made by `xpk cluster create`
#   --workload=W             name of this run in the cluster
#   --accelerator_type=TYPE  of one slice, such as v5litepod-256 or v5p-128
#   --image=IMAGE            made from the Dockerfile, in a registry that the cluster can read
#   --num_slices=K           slices (1)
#   --project=P, --zone=Z    of the cluster; gcloud's defaults if left out
#   --max_restarts=R         how often the run is restarted after a lost host or slice (50)
#   --dry-run                print the command and do nothing
#   -- ARGUMENT ...          further arguments of the command
#
# Pretraining and finetuning run on any slice, all other commands as one process: on a slice of one
# host. FILE is a path in the image, such as configs/runs/glm_10b.gin. The run folder must be in
# storage that all hosts mount (`xpk storage`); a restarted run resumes from its newest checkpoint.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cluster="" workload="" accelerator_type="" image="" num_slices=1 project="" zone="" max_restarts=50
parse "cluster workload accelerator_type image num_slices project zone max_restarts" "" "$@"
need cluster workload accelerator_type image
need_counts num_slices max_restarts
generation="$(generation_of "$accelerator_type")"

need_one_process "$num_slices"

process=(launch/local.sh "$launch_command" "--generation=$generation" --)
is_joined && process+=(--distributed)
process+=(${launch_arguments[@]+"${launch_arguments[@]}"})
command=(xpk workload create "--cluster=$cluster" "--workload=$workload"
  "--tpu-type=$accelerator_type" "--num-slices=$num_slices" "--docker-image=$image"
  "--max-restarts=$max_restarts" "--command=$(quoted "${process[@]}")")
[[ -z "$project" ]] || command+=("--project=$project")
[[ -z "$zone" ]] || command+=("--zone=$zone")
run "${command[@]}"
