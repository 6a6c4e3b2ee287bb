#!/usr/bin/env bash
# Runs the fuzz targets of build/fuzz one after another and prints a line for each: executions, executions a second,
# findings. Builds them first if need be (clang++, or clang++-14; else says so and ends with 3).
#   scripts/fuzz.sh [EXECUTIONS OF EACH TARGET, 100000] [FOLDER FOR CORPORA AND FINDINGS, build/fuzz-corpora] [TARGET...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
runs=${1:-100000}
folder=${2:-build/fuzz-corpora}
shift $(($# < 2 ? $# : 2))
if [[ -z ${AEGIS_FUZZ_BIN:-} ]]; then
  compiler=$(command -v clang++ || command -v clang++-14 || true)
  if [[ -z $compiler ]]; then
    echo "fuzzing was skipped: there is no clang++"
    exit 3
  fi
  CXX=$compiler cmake -S runtime -B build/fuzz -DAEGIS_FUZZ=ON -DAEGIS_ADDON=OFF -DAEGIS_MPI=OFF >build/fuzz.log
  cmake --build build/fuzz -j2 --target aegis_fuzz >>build/fuzz.log
fi
bin=${AEGIS_FUZZ_BIN:-build/fuzz/bin}
mkdir -p "$folder"
build/bin/aegis_fuzz_seeds "$folder/seeds"
targets=("$@")
if [[ $# == 0 ]]; then
  for path in "$bin"/aegis_fuzz_*; do targets+=("${path##*/aegis_fuzz_}"); done
fi
total=0
findings=0
for target in "${targets[@]}"; do
  mkdir -p "$folder/$target"
  log="$folder/$target.log"
  status=ok
  "$bin/aegis_fuzz_$target" -runs="$runs" -print_final_stats=1 -max_len=32768 -timeout=10 -rss_limit_mb=4096 \
    -artifact_prefix="$folder/$target-" "$folder/$target" "$folder/seeds/$target" >"$log" 2>&1 || status=FINDING
  done=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  echo "$target: ${done:-0} executions, ${rate:-0} a second, $status"
  [[ $status == ok ]] || findings=$((findings + 1))
  total=$((total + ${done:-0}))
done
echo "total: $total executions, $findings findings"
[[ $findings == 0 ]]
