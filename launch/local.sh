#!/usr/bin/env bash
# Pretrains as one process on the devices of this machine.
#
#   launch/local.sh --gin_file=FILE [--gin.X=Y ...] [-- FLAG ...]
#
#   --generation=G  the machine has TPUs of this generation (v4, v5e, v5p or v6e): sets
#                   LIBTPU_INIT_ARGS to the flags of glm_jax/compile/tpu_flags.py
#   --dry-run       print the command and do nothing
#   -- FLAG ...     further flags of `glm-jax pretrain`
#
# $PYTHON, or else python3, is asked for the flags; glm-jax is looked for on the PATH.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

generation=""
parse "generation" "" "$@"

command=(glm-jax pretrain "${launch_arguments[@]}")
if [[ -n "$generation" ]]; then
  libtpu_arguments="$("${PYTHON:-python3}" -m glm_jax.compile.tpu_flags "$generation")"
  command=(env "LIBTPU_INIT_ARGS=$libtpu_arguments" "${command[@]}")
fi
if [[ $dry_run == true ]]; then quoted "${command[@]}"; else exec "${command[@]}"; fi
