#!/usr/bin/env bash
# Does all set-up: Debian packages, npm packages, the C++ runtime, the TypeScript build. Safe to repeat; a run that
# finds nothing to do takes about a second. Everything is printed to standard error, so that the standard output of
# the command that follows stays its own.
set -euo pipefail
exec 1>&2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(cmake g++ make pkg-config flatbuffers-compiler libflatbuffers-dev libsodium-dev nlohmann-json3-dev)
mkdir -p build

fail() {
  printf 'setup: %s\n' "$1"
  exit 1
}

# Two runs at once (a test run beside a demo) would build into the same folder.
if command -v flock >/dev/null; then
  exec 9>build/.setup.lock
  flock -n 9 || { echo 'setup: waiting for another set-up of this folder'; flock 9; }
fi

# step NAME COMMAND...: one line with the seconds it took; the command's output is shown when it fails.
step() {
  local name=$1 log="build/setup-${1// /-}.log" start=$EPOCHREALTIME status=0
  shift
  printf 'setup: %-20s' "$name"
  # Not `"$@" || status=$?`: there `set -e` would be off inside, and a step would go on past its first failure.
  set +e
  (set -e; "$@") >"$log" 2>&1 </dev/null 9>&-
  status=$?
  set -e
  local tenths=$(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 100000))
  printf '%4d.%d s\n' $((tenths / 10)) $((tenths % 10))
  if ((status != 0)); then
    tail -n 60 "$log"
    fail "$name failed with status $status; the whole output is in $log"
  fi
}

missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
  for package in "${packages[@]}"; do
    grep -qxF "installed $package" <<<"$installed" && continue
    # A compiler from elsewhere is as good as Debian's.
    case $package in
      cmake | g++ | make | pkg-config) command -v "$package" >/dev/null && continue ;;
    esac
    echo "$package"
  done
}

as_root=()
install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -q -y --no-install-recommends "$@"
}

# npm leaves a record of what it installed beside the packages; it must agree with the lock file.
npm_matches() {
  node -e '
    const fs = require("fs");
    const read = (path) => JSON.parse(fs.readFileSync(path, "utf8")).packages;
    const installed = read("node_modules/.package-lock.json");
    for (const [path, wanted] of Object.entries(read("package-lock.json"))) {
      if (path === "") continue;
      const found = installed[path];
      if (found === undefined ? wanted.optional !== true : found.version !== wanted.version) process.exit(1);
    }' 2>/dev/null
}

configure_runtime() {
  local cache=build/runtime/CMakeCache.txt
  # A cache made in another folder (a copied checkout) cannot be used.
  if [[ -f $cache ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD/runtime" "$cache"; then rm -rf build/runtime; fi
  # Later changes of CMakeLists.txt make the build configure itself again; an MPI that was installed since does not.
  if [[ -f build/runtime/Makefile || -f build/runtime/build.ninja ]]; then
    if [[ -f build/runtime/bin/aegis_mpi.so ]] || ! command -v mpicxx >/dev/null; then return; fi
  fi
  cmake -S runtime -B build/runtime -DCMAKE_BUILD_TYPE=Release
}

build_runtime() {
  configure_runtime
  cmake --build build/runtime -j "$(nproc)"
  ln -sfn runtime/bin build/bin
}

sources() { find src -name '*.ts' | LC_ALL=C sort; }

typescript_is_built() {
  [[ -f build/.typescript && -f dist/cli/main.js ]] || return 1
  [[ -z $(find src tsconfig.json tsconfig.build.json package-lock.json -newer build/.typescript -print -quit) ]] ||
    return 1
  [[ $(sources) == "$(<build/.typescript)" ]]
}

build_typescript() {
  local list
  list=$(sources)
  # Outputs of deleted or renamed sources would stay importable.
  [[ -f build/.typescript && $list == "$(<build/.typescript)" ]] || rm -rf dist
  # The stamp is dated at the start: an edit during the build counts as newer.
  printf '%s\n' "$list" >build/.typescript.new
  npm run --silent build
  chmod +x dist/cli/main.js
  mv build/.typescript.new build/.typescript
}

node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null) || fail 'node is missing: install Node.js 20'
((node_major >= 20)) || fail "Node.js 20 or newer is needed, this is $(node --version)"

command -v dpkg-query >/dev/null || fail "this is not a Debian system: set-up installs with apt-get only \
(needed: ${packages[*]})"
mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)); then
  if (($(id -u) != 0)); then
    command -v sudo >/dev/null || fail "these Debian packages are missing, and there is neither root nor sudo to \
install them: ${missing[*]}"
    # With a terminal sudo may ask for the password; without one it must not wait for it.
    if [[ -t 2 && -r /dev/tty ]]; then sudo -v </dev/tty; fi
    as_root=(sudo -n)
  fi
  step 'debian packages' install_packages "${missing[@]}"
fi
npm_matches || step 'npm packages' npm ci --no-audit --no-fund
step 'runtime' build_runtime
typescript_is_built || step 'typescript' build_typescript
