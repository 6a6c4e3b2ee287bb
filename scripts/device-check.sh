#!/usr/bin/env bash
# Builds the runtime on a machine with a GPU and checks it there: conformance, one model on CPU and GPU, several
# ranks, compute-sanitizer, bench. Part of the pack of `npm run pack:device`; needs a C++ compiler, CMake and the
# CUDA toolkit, neither Node nor a network.
#
#   bash device-check.sh [--cpu-only] [--quick]
#
# --cpu-only leaves out what needs CUDA; --quick leaves out full N, the sanitizers and the bench. Everything is
# written below $OUT (default: out): one text file a step, bench.json, summary.json. Status 0: every step passed.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here/out}
build=${BUILD:-$here/build}
cuda=1
quick=0
for argument in "$@"; do
  case $argument in
    --cpu-only) cuda=0 ;;
    --quick) quick=1 ;;
    *)
      echo "device-check.sh: unknown option $argument (--cpu-only, --quick)" >&2
      exit 2
      ;;
  esac
done
mkdir -p "$out" "$out/work"
steps=()
failed=0

# record NAME STATE SECONDS, STATE passed, failed or skipped
record() {
  printf '%-24s %s %s s\n' "$1" "$2" "$3"
  steps+=("{\"name\": \"$1\", \"state\": \"$2\", \"seconds\": $3}")
  [[ $2 != failed ]] || failed=1
}

# step NAME COMMAND...
step() {
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$out/$name.txt" 2>&1 </dev/null; then record "$name" passed $((SECONDS - start)); else
    record "$name" failed $((SECONDS - start))
    tail -n 5 "$out/$name.txt" | sed 's/^/    /'
    return 1
  fi
}

skip() {
  echo "$2" >"$out/$1.txt"
  record "$1" skipped 0
}

finish() {
  local IFS=,
  printf '{"steps": [%s]}\n' "${steps[*]}" >"$out/summary.json"
  exit $failed
}

make_build() {
  local flags=(-DCMAKE_BUILD_TYPE=Release -DAEGIS_ADDON=OFF "-DAEGIS_PLAN_HEADER=$here/generated"
    "-DSODIUM_INCLUDE=$here/third_party/include" "-DSODIUM_LIBRARY=$here/third_party/lib/libsodium.a"
    "-DNLOHMANN_INCLUDE=$here/third_party/include" "-DCMAKE_CXX_FLAGS=-isystem $here/third_party/include")
  ((cuda == 0)) || flags+=(-DAEGIS_CUDA=ON)
  cmake -S "$here/runtime" -B "$build" "${flags[@]}" && cmake --build "$build" -j "$(nproc)"
}

keys_of() { "$build/bin/aegis-seeded-keys" "$here/example/ranks1.aegis" "$out/work/keys" "$(<"$here/example/seed")"; }

# one_run RANKS BACKEND CHANNEL: the response's hash is that of the pack, and NCCL was not gone round
one_run() {
  local json=$out/run-$1-$2-$3.json
  "$build/bin/aegis-exec" "$here/example/ranks$1.aegis" --weights "$here/example/model.weights" \
    --keys "$out/work/keys/eval.keys" --in "$here/example/request.ct" -o "$out/work/response.ct" \
    --backend "$2" --channel "$3" --json >"$json" 2>"$json.err" || { cat "$json" "$json.err"; return 1; }
  cat "$json.err"
  if grep -q 'NCCL does not work' "$json.err"; then return 1; fi
  grep -o '"outputSha256": *"[0-9a-f]*"' "$json" | grep -qF "$(<"$here/example/outputSha256")" || {
    echo "another output than the pack's $(<"$here/example/outputSha256")"
    cat "$json"
    return 1
  }
}

nccl_is_here() { ldconfig -p 2>/dev/null | grep -q 'libnccl\.so' || [[ -n ${AEGIS_NCCL_LIBRARY:-} ]]; }

bench() {
  local backend=$1
  shift
  "$build/bin/aegis-bench" --json --backend "$backend" "$@" >"$out/bench-$backend.json" && cat "$out/bench-$backend.json"
}

step build make_build || finish
conformance=$build/bin/aegis_conformance
step conformance-emulated "$conformance" --table cuda-emulated
step keys keys_of || finish
for ranks in 1 2 4; do step "run-cpu-$ranks" one_run $ranks cpu local; done
if ((cuda == 0)); then finish; fi

nvidia-smi >"$out/nvidia-smi.txt" 2>&1
step conformance-cuda "$conformance" --table cuda
((quick == 1)) || step conformance-cuda-full "$conformance" --table cuda --full
for ranks in 1 2 4; do step "run-cuda-$ranks" one_run $ranks cuda local; done
for ranks in 2 4; do
  if nccl_is_here; then NCCL_MULTI_RANK_GPU_ENABLE=1 step "run-nccl-$ranks" one_run $ranks cuda nccl; else
    skip "run-nccl-$ranks" 'no libnccl.so'
  fi
done
if ((quick == 1)); then finish; fi
for tool in memcheck racecheck; do
  if command -v compute-sanitizer >/dev/null; then
    step "sanitizer-$tool" compute-sanitizer --tool $tool --error-exitcode 1 "$conformance" --table cuda
  else skip "sanitizer-$tool" 'no compute-sanitizer'; fi
done
profile=()
name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
case $name in
  *H100*) profile=(--profile "$here/profiles/h100-80g.json") ;;
  *H200*) profile=(--profile "$here/profiles/h200.json") ;;
  *A100*) profile=(--profile "$here/profiles/a100-40g-nvlink.json") ;;
  *B200*) profile=(--profile "$here/profiles/b200.json") ;;
esac
step bench-cuda bench cuda "${profile[@]}"
step bench-cpu bench cpu --threads "$(nproc)"
finish
