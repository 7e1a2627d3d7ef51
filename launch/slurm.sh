#!/usr/bin/env bash
# Submits a pretraining run, or another command, to Slurm. Submit it again to resume: jobs of one
# name follow each other.
#
#   launch/slurm.sh [COMMAND] --nodes=N [--gpus_per_node=G] --gin_file=FILE [--gin.X=Y ...]
#                   [-- ARGUMENT ...]
#
#   COMMAND            of glm-jax: finetune, evaluate, ... (pretrain)
#   --nodes=N          how many
#   --gpus_per_node=G  GPUs of each node, with one process for each; without, one process per node
#   --partition=P      where; the cluster's default if left out
#   --time=T           time limit as Slurm writes it, such as 12:00:00
#   --job_name=NAME    also names the log, NAME-JOB.log (glm)
#   --save_seconds=S   warning before the time limit, in which the run saves and stops (300)
#   --dry-run          print the command and do nothing
#   -- ARGUMENT ...    further arguments of the command
#
# Pretraining and finetuning run on any number of nodes, all other commands as one process on one
# node. The run folder and the data must be visible on every node, and glm-jax on the PATH there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes="" gpus_per_node="" partition="" time="" job_name=glm save_seconds=300
parse "nodes gpus_per_node partition time job_name save_seconds" "" "$@"
need nodes
need_counts nodes save_seconds
[[ -z "$gpus_per_node" ]] || need_counts gpus_per_node

need_one_process "$nodes" "${gpus_per_node:-1}"
process=(glm-jax "$launch_command")
is_joined && process+=(--distributed)
process+=(${launch_arguments[@]+"${launch_arguments[@]}"})
# One process that fails ends the others' job step at once.
step="exec srun --kill-on-bad-exit=1 $(quoted "${process[@]}")"
# sbatch passes the environment on to every process.
export_run_token
# sbatch starts the wrapped line with sh; the signal goes to the processes of the step.
command=(sbatch "--job-name=$job_name" "--nodes=$nodes" "--ntasks-per-node=${gpus_per_node:-1}"
  "--signal=TERM@$save_seconds" --dependency=singleton --requeue
  --open-mode=append "--output=$job_name-%j.log")
[[ -z "$gpus_per_node" ]] || command+=("--gpus-per-node=$gpus_per_node")
[[ -z "$partition" ]] || command+=("--partition=$partition")
[[ -z "$time" ]] || command+=("--time=$time")
run "${command[@]}" "--wrap=$step"
