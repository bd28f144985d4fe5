#!/bin/sh
# The pictures of docs/environments.md: one per family, 640x480, and what a policy sees; then that of
# README from docs/inference, that of docs/inference.md, where its commands have trained its run, and those of docs/evaluation.md, where
# `make demo` has trained its runs.
set -eu
BIN=${BIN:-.venv/bin}
OUT=docs/pictures
mkdir -p "$OUT"
for name in point point-corner point-rotated point-coded sliders arm-torque \
    push push-rotated door pick-place ant ant-dir cheetah-vel cheetah-dir cheetah-crippled; do
    "$BIN/demokit" envs --render "$name" --out "$OUT/$name.png" --overwrite
done
"$BIN/demokit" envs --render push --camera policy --out "$OUT/push-policy.png" --overwrite

"$BIN/python" docs/overview.py
"$BIN/python" docs/training_tasks.py

RUNS=${RUNS:-runs}
INFERRED=$RUNS/point/task-inference-0
if test -e "$INFERRED/checkpoint.safetensors"; then
    "$BIN/python" docs/posterior.py "$INFERRED" "$OUT/posterior.png"
fi
FOUND=$RUNS/demo/comparison-ood
test -e "$RUNS/demo/push/gmps-0/checkpoint.safetensors" || exit 0
"$BIN/demokit" evaluate "$RUNS/demo/push/gmps-0" "$RUNS/demo/push/imitation-0" --output-dir "$FOUND" \
    --split validation --split ood --adapt-steps 3 --videos 2
cp "$FOUND/map-validation.png" "$OUT/evaluation-map.png"
chromium --headless=new --no-sandbox --hide-scrollbars --window-size=1200,1500 \
    --screenshot="$OUT/evaluation-page.png" "file://$(realpath "$FOUND")/report.html"
