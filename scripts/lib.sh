# shellcheck shell=bash
# What every script needs before the first line of TypeScript can run: the pinned Bun, and the dependencies.
# Sourced by the scripts beside it. Everything it says goes to stderr.

ROOT=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)

say() { printf '%s\n' "$*" >&2; }

# The one place that names the version is package.json ("packageManager").
pinned_bun_version() {
  [[ $(<"$ROOT/package.json") =~ \"packageManager\":[[:space:]]*\"bun@([0-9]+\.[0-9]+\.[0-9]+)\" ]] || {
    say "package.json names no \"packageManager\": \"bun@x.y.z\"."
    return 1
  }
  printf '%s' "${BASH_REMATCH[1]}"
}

# satisfies FOUND PINNED: the same major.minor, and at least the pinned patch.
satisfies() {
  [[ $1 =~ ^([0-9]+\.[0-9]+)\.([0-9]+) ]] || return 1
  local series=${BASH_REMATCH[1]} patch=${BASH_REMATCH[2]}
  [[ $series == "${2%.*}" && $patch -ge ${2##*.} ]]
}

# A folder of this user's, outside the clone, that survives where it can.
cache_dir() {
  local base candidate
  for base in "${XDG_CACHE_HOME:-}" "${HOME:+$HOME/.cache}"; do
    [[ $base == /* ]] || continue
    candidate=$base/merkato
    if mkdir -p "$candidate" 2>/dev/null && [[ -w $candidate ]]; then
      printf '%s' "$candidate"
      return
    fi
  done
  candidate=${TMPDIR:-/tmp}/merkato-cache-$EUID
  # A binary is run from here, and others can write to the folder above it.
  if (umask 077 && mkdir -p "$candidate") 2>/dev/null && [[ -O $candidate && ! -L $candidate ]]; then
    printf '%s' "$candidate"
  else
    say "Cannot write to a cache folder: set XDG_CACHE_HOME or HOME to one that you own."
    return 1
  fi
}

# install_bun VERSION CACHE: puts the binary at CACHE/bun-VERSION/bin/bun. The npm package `bun` is only a launcher that
# its install script replaces; install scripts may be blocked, so take the binary of the platform's package directly. The
# last step is the rename of one file: two of us at once, or one killed half-way, leave a whole binary or none.
install_bun() {
  local version=$1 home=$2/bun-$1 staging binary log found=
  if ! command -v npm >/dev/null && ! command -v bun >/dev/null; then
    say "Merkato runs on Bun $version, and neither bun nor npm is on the PATH: install Node.js (https://nodejs.org) or Bun (https://bun.com), then run this again."
    return 1
  fi
  say "Installing Bun $version into $home (once) …"
  mkdir -p "$home/bin" && staging=$(mktemp -d "$home/.staging-XXXXXX") || return 1
  log=$staging/install.log
  printf '{ "private": true }\n' >"$staging/package.json"
  if command -v npm >/dev/null; then
    # Where there is no home to keep npm's cache in, it lives and goes with the staging folder.
    if [[ ! -w ${HOME:-} ]]; then export npm_config_cache=$staging/npm-cache; fi
    npm install --prefix "$staging" --ignore-scripts --no-audit --no-fund --no-save "bun@$version" >"$log" 2>&1
  else
    (cd "$staging" && bun add --ignore-scripts --exact "bun@$version") >"$log" 2>&1
  fi || {
    say "Could not install bun@$version from the npm registry:"
    cat -- "$log" >&2
    rm -rf -- "$staging"
    return 1
  }
  # More than one platform's package may be there (glibc and musl): the right one is the one that runs.
  while IFS= read -r binary; do
    if [[ $("$binary" --version 2>/dev/null) == "$version" ]] && mv -f -- "$binary" "$home/bin/bun"; then
      found=yes
      ln -sf bun "$home/bin/bunx"
      break
    fi
  done < <(find "$staging" -path '*/@oven/*/bin/bun' -type f)
  rm -rf -- "$staging"
  [[ -n $found ]] || {
    say "bun@$version has no binary that runs on this machine ($(uname -sm))."
    return 1
  }
}

# Afterwards `bun` on the PATH is one that satisfies the pin.
ensure_bun() {
  local pinned cache
  pinned=$(pinned_bun_version) || return 1
  if command -v bun >/dev/null && satisfies "$(bun --version 2>/dev/null)" "$pinned"; then return 0; fi
  cache=$(cache_dir) || return 1
  if [[ ! -x $cache/bun-$pinned/bin/bun ]]; then install_bun "$pinned" "$cache" || return 1; fi
  export PATH=$cache/bun-$pinned/bin:$PATH
}

deps_are_current() { cmp -s "$ROOT/bun.lock" "$ROOT/node_modules/.merkato-stamp"; }

# The dependencies exactly as locked; nothing to do when this lock file has been installed already.
ensure_deps() {
  if deps_are_current; then return 0; fi
  say "Installing dependencies …"
  mkdir -p "$ROOT/node_modules" || return 1
  (
    # Two scripts may start at once on a fresh clone (macOS has no flock; there they race as two `bun install` do).
    if command -v flock >/dev/null; then flock 9; fi
    if deps_are_current; then exit 0; fi
    if ! output=$(cd "$ROOT" && bun install --frozen-lockfile 2>&1 9>&-); then
      say "$output"
      say "The dependencies could not be installed. (After a change of a package.json: run \`bun install\` and commit bun.lock.)"
      exit 1
    fi
    cp -- "$ROOT/bun.lock" "$ROOT/node_modules/.merkato-stamp"
  ) 9>"$ROOT/node_modules/.merkato-lock"
}
