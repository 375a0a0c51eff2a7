# What the machine must have for the parts that tests/run was asked for: collected first, shown and asked about once, then installed.
# shellcheck shell=bash

packages=() # for apt-get
components=() # for rustup
services=() # of these packages, which Debian starts at once and at every boot, on all addresses
too_old=()
plan=()

# How long another package manager is waited for.
lock_patience=${TESTS_LOCK_SECONDS:-900}

# need COMMAND PACKAGE...: the packages, where there is no such command.
need() {
  command -v "$1" >/dev/null 2>&1 || want "$1 is missing" "${@:2}"
}

# want REASON PACKAGE...
want() {
  local package
  for package in "${@:2}"; do
    [[ " ${packages[*]} " == *" $package "* ]] && continue
    packages+=("$package")
    plan+=("install $package: $1")
  done
}

# The package brings a service of the same name, which nobody here asked for: it is masked before it comes.
need_without_service() {
  local unit=$1.service
  command -v "$1" >/dev/null 2>&1 && return
  want "$1 is missing" "$2"
  if booted_by_systemd && [ ! -e "/etc/systemd/system/$unit" ] && [[ " ${services[*]} " != *" $unit "* ]]; then
    services+=("$unit")
    plan+=("mask $unit, which $2 would start (\`systemctl unmask $unit\` undoes it)")
  fi
}

booted_by_systemd() {
  case $(systemctl is-system-running 2>/dev/null || true) in
    '' | offline | unknown) return 1 ;;
  esac
}

# rust-toolchain.toml names the compiler by its version. Where rustup has that one by another name alone, such as stable, nothing
# needs to be fetched.
choose_toolchain() {
  local version it
  [ -z "${RUSTUP_TOOLCHAIN:-}" ] && [ -f rust-toolchain.toml ] && command -v rustup >/dev/null 2>&1 || return 0
  version=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
  while read -r it _; do
    [[ $it != "$version"-* ]] || return 0
  done < <(rustup toolchain list)
  while read -r it _; do
    [[ $(RUSTUP_TOOLCHAIN=$it rustc --version 2>/dev/null) == "rustc $version "* ]] || continue
    export RUSTUP_TOOLCHAIN=$it
    say "rustup has Rust $version as $it"
    return 0
  done < <(rustup toolchain list)
}

# A minimal toolchain comes without these.
need_component() {
  cargo "$1" --version >/dev/null 2>&1 && return
  if command -v rustup >/dev/null 2>&1; then
    components+=("$2")
    plan+=("add $2 to the Rust toolchain: cargo $1 is missing")
  else
    too_old+=("cargo $1 is missing: install it with your Rust")
  fi
}

need_python() {
  need python3 python3
  if ! command -v python3 >/dev/null 2>&1; then
    want "python3 is missing" python3-venv
  elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    too_old+=("$(python3 --version) is too old: 3.11 is needed")
  elif ! python3 -c 'import ensurepip' 2>/dev/null; then
    want "python3 makes no environments" python3-venv
  fi
}

need_node() {
  need node nodejs
  if command -v node >/dev/null 2>&1 && [ "$(node -p 'typeof fetch')" != function ]; then
    too_old+=("node $(node --version) is too old: 18 is needed")
  fi
}

# Makes the machine ready for these parts, or ends.
prepare() {
  collect "$@"
  [ $((${#plan[@]} + ${#too_old[@]})) -gt 0 ] || return 0
  say "this machine lacks what is needed for: $*"
  printf '  %s\n' "${too_old[@]}" "${plan[@]}" | sed '/^ *$/d'
  [ ${#too_old[@]} -eq 0 ] || by_hand "this cannot be installed from here"
  [ ${#packages[@]} -eq 0 ] || can_install
  ask
  install_missing
  collect "$@"
  [ ${#plan[@]} -eq 0 ] || by_hand "it was installed, and is still not found"
}

collect() {
  local it
  packages=() components=() services=() too_old=() plan=()
  command -v cargo >/dev/null 2>&1 || too_old+=("cargo is missing: install Rust")
  need cc gcc libc6-dev
  for it in "$@"; do
    "needs_$it"
  done
}

can_install() {
  command -v apt-get >/dev/null 2>&1 || by_hand "there is no apt-get here; Debian's names for the packages are given"
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || by_hand "packages are installed by root, and there is no sudo"
    as_root=(sudo)
  fi
}

# Asks on the terminal itself, wherever the output goes. Nobody answers in CI, which may have a terminal all the same.
ask() {
  local answer
  if [ "${yes:?}" = 1 ] || [ ! -t 0 ] || [ -n "${CI:-}" ]; then
    return 0
  fi
  printf '\nDo this now? [y/N] ' >/dev/tty
  read -r answer </dev/tty || answer=
  case "$answer" in
    y | Y | yes | Yes | YES) ;;
    *) by_hand "nothing was changed" ;;
  esac
}

by_hand() {
  local it
  {
    printf '\n%s. To do it by hand:\n' "$1"
    for it in "${too_old[@]}"; do printf '  %s\n' "$it"; done
    for it in "${services[@]}"; do printf '  systemctl mask %s\n' "$it"; done
    [ ${#packages[@]} -eq 0 ] || printf '  apt-get install --no-install-recommends %s\n' "${packages[*]}"
    [ ${#components[@]} -eq 0 ] || printf '  rustup component add %s\n' "${components[*]}"
    printf 'Then run the tests again; with --yes they do not ask.\n'
  } >&2
  exit 1
}

install_missing() {
  local it
  for it in "${services[@]}"; do
    say "masking $it"
    "${as_root[@]}" systemctl mask --quiet "$it"
  done
  if [ ${#packages[@]} -gt 0 ]; then
    say "installing ${packages[*]}"
    # Where one source of several is broken, what is known of the others may do.
    apt_get update -qq || say "apt-get update failed: going on with the lists that are there"
    apt_get install -y -qq --no-install-recommends "${packages[@]}"
  fi
  if [ ${#components[@]} -gt 0 ]; then
    say "adding ${components[*]} to the Rust toolchain"
    rustup component add "${components[@]}"
  fi
}

# Another package manager at work is waited for. apt waits for dpkg's locks if it is told to, without a word when it is quiet; on
# the locks of its lists and of what it downloads it gives up at once.
apt_get() {
  local errors waiting=0 code end=$((SECONDS + lock_patience))
  errors=$(mktemp)
  while true; do
    code=0
    "${as_root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
      apt-get -o "DPkg::Lock::Timeout=$((waiting * 5))" "$@" </dev/null >/dev/null 2>"$errors" || code=$?
    if [ $code = 0 ] || ! grep -q 'Could not get lock' "$errors"; then
      break
    elif [ $SECONDS -ge $end ]; then
      echo "another package manager was at work for all of $lock_patience s: try again when it has ended" >&2
      break
    elif [ $waiting = 0 ]; then
      waiting=1
      say "waiting until another package manager has ended, for up to $lock_patience s"
      sed -n 's/^E: \(Could not get lock\)/  \1/p' "$errors"
    fi
    sleep 1
  done
  [ $code = 0 ] || cat "$errors" >&2
  rm -f "$errors"
  return $code
}
