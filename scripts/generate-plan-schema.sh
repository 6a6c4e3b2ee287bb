#!/usr/bin/env bash
# Regenerates the TypeScript reader and writer of the plan schema: scripts/generate-plan-schema.sh [OUTPUT_DIR]
# flatc 2.0.8 (Debian) writes imports without suffix, which NodeNext refuses, and code that strict checks refuse.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
out="${1:-$root/src/backend/generated}"
rm -rf "$out"
mkdir -p "$out"
flatc --ts -o "$out" "$root/runtime/plan/plan.fbs"
find "$out" -name '*.ts' -print0 | xargs -0 sed -i -E \
  -e "s#from '(\.[^']*)'#from '\1.js'#" \
  -e '1s#^#// @ts-nocheck\n#'
