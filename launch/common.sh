# Functions shared by the scripts of this folder, which source this file.
# shellcheck shell=bash
# `launch_command` is the command of glm-jax and `launch_arguments` holds its arguments; `dry_run` is
# true or false.
launch_command=pretrain
launch_arguments=()
dry_run=false

# All commands, and those that several processes can run together.
all_commands="tokenizer prepare pretrain evaluate finetune sweep fill chat serve convert parity inspect compile hosts"
joined_commands="pretrain finetune"

# Prints what is wrong in one sentence and exits: bad usage.
fail() {
  echo "$(basename "$0"): $1" >&2
  exit 2
}

# The comment at the head of the script is its help.
show_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# Arguments as one line that any shell reads back as the same arguments.
quoted() {
  local argument line=""
  for argument in "$@"; do
    if [[ ! "$argument" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      argument="'${argument//\'/\'\\\'\'}'"
    fi
    line+=" $argument"
  done
  printf '%s\n' "${line# }"
}

# Gives the processes of a run a secret by which they authenticate each other.
export_run_token() {
  export GLM_JAX_RUN_TOKEN="${GLM_JAX_RUN_TOKEN:-$(od -An -N16 -tx8 /dev/urandom | tr -d ' ')}"
}

# Whether the command is one that several processes run together.
is_joined() {
  [[ " $joined_commands " == *" $launch_command "* ]]
}

# need_one_process NUMBER...: ends with bad usage where several processes would run a command that
# only one can. Every NUMBER is one of which the processes are the product.
need_one_process() {
  local _number
  is_joined && return
  for _number in "$@"; do
    [[ "$_number" == 1 ]] || fail "$launch_command runs as one process; only ${joined_commands// / and } run as several"
  done
}

# Runs a command, or only prints it.
run() {
  if [[ $dry_run == true ]]; then quoted "$@"; else "$@"; fi
}

# parse "FLAGS WITH A VALUE" "SWITCHES" ARGUMENT...
# Gives every flag's value to the variable of its name and `true` to a switch's. --gin_file and
# --gin.X, and all that follows --, is collected for glm-jax, whose command may come first.
parse() {
  # No local variable may have the name of a script's flag.
  local _valued=" ${1//[[:space:]]/ } " _switches=" $2 " _name _value
  shift 2
  if [[ "${1-}" =~ ^[a-z]+$ ]]; then
    [[ " $all_commands " == *" $1 "* ]] || fail "glm-jax has no command '$1'; expected one of $all_commands"
    launch_command="$1"
    shift
  fi
  while (($#)); do
    case "$1" in
      -h | --help) show_help; exit 0 ;;
      --dry-run) dry_run=true ;;
      --gin_file=?* | --gin.?*=*) launch_arguments+=("$1") ;;
      --) shift; launch_arguments+=("$@"); break ;;
      --*)
        _name="${1%%=*}" _name="${_name#--}" _value="${1#*=}"
        [[ "$_name" =~ ^[a-z_]+$ ]] || fail "unknown flag $1; see --help"
        if [[ "$_switches" == *" $_name "* && "$1" != *=* ]]; then
          _value=true
        elif [[ "$_valued" != *" $_name "* ]]; then
          fail "unknown flag --$_name; see --help"
        elif [[ "$1" != *=* || -z "$_value" ]]; then
          fail "--$_name needs a value: --$_name=VALUE"
        fi
        printf -v "$_name" '%s' "$_value"
        ;;
      *) fail "unexpected argument '$1'; flags are --NAME=VALUE, see --help" ;;
    esac
    shift
  done
  if is_joined && [[ " ${launch_arguments[*]-}" != *" --gin_file"* ]]; then
    fail "--gin_file=FILE is missing"
  fi
}

# Ends with bad usage unless every named variable has a value.
need() {
  local _name
  for _name in "$@"; do
    [[ -n "${!_name}" ]] || fail "--$_name=VALUE is missing"
  done
}

# Ends with bad usage unless every named variable is a positive integer.
need_counts() {
  local _name
  for _name in "$@"; do
    [[ "${!_name}" =~ ^[1-9][0-9]*$ ]] || fail "--$_name is '${!_name}'; expected a positive integer"
  done
}

# The TPU generation of a cloud accelerator type: v5litepod-16 is a v5e.
generation_of() {
  case "$1" in
    v4-*) echo v4 ;;
    v5litepod-* | v5e-*) echo v5e ;;
    v5p-*) echo v5p ;;
    v6e-*) echo v6e ;;
    *) fail "--accelerator_type is '$1'; expected v4-N, v5litepod-N, v5p-N or v6e-N" ;;
  esac
}
