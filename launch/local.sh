#!/usr/bin/env bash
# Pretrains, or runs another command, as one process on the devices of this machine.
#
#   launch/local.sh [COMMAND] --gin_file=FILE [--gin.X=Y ...] [-- ARGUMENT ...]
#
#   COMMAND         of glm-jax: finetune, evaluate, ... (pretrain)
#   --generation=G  the machine has TPUs of this generation (v4, v5e, v5p or v6e): sets
#                   LIBTPU_INIT_ARGS to the flags of glm_jax/compile/tpu_flags.py
#   --dry-run       print the command and do nothing
#   -- ARGUMENT ... further arguments of the command; --gin_file is only for those that take it
#
# $PYTHON, or else python3, is asked for the flags; glm-jax is looked for on the PATH.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

generation=""
parse "generation" "" "$@"

command=(glm-jax "$launch_command" ${launch_arguments[@]+"${launch_arguments[@]}"})
if [[ -n "$generation" ]]; then
  libtpu_arguments="$("${PYTHON:-python3}" -m glm_jax.compile.tpu_flags "$generation")"
  command=(env "LIBTPU_INIT_ARGS=$libtpu_arguments" "${command[@]}")
fi
if [[ $dry_run == true ]]; then quoted "${command[@]}"; else exec "${command[@]}"; fi
