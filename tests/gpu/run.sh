#!/bin/sh
# Everything that needs a GPU, in parts that can be taken up again: tests/gpu/README.md. Options: run.sh --help
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
carried=$root/results/gpu/carried
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
if [ -d "$carried/wheels" ] && ! "$python" -c 'import datasets, evaluate, pydantic, pytest_socket' 2>/dev/null; then
  mkdir -p "$root/results/gpu/site"
  for wheel in "$carried"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$root/results/gpu/site"; done
  export PYTHONPATH="$PYTHONPATH:$root/results/gpu/site"
fi
exec "$python" "$root/tests/gpu/parts.py" "$@"
