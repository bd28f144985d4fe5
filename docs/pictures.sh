#!/bin/sh
# The pictures of docs/environments.md: one per family, 640x480, and what a policy sees.
set -eu
BIN=${BIN:-.venv/bin}
OUT=docs/pictures
mkdir -p "$OUT"
for name in point point-corner push door pick-place ant ant-dir cheetah-vel cheetah-dir; do
    "$BIN/demokit" envs --render "$name" --out "$OUT/$name.png"
done
"$BIN/demokit" envs --render push --camera policy --out "$OUT/push-policy.png"
