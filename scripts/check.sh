#!/usr/bin/env bash
# The gate before a commit, under 5 minutes incremental: format, layering, tidy of what changed, build,
# unit tests, short simulation.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/check_format.sh
scripts/check_layering.py
cmake --preset dev >/dev/null
cmake --build build/dev
scripts/tidy.sh
ctest --test-dir build/dev --output-on-failure -j2 -L 'unit|short'
