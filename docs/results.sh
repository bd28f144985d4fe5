#!/bin/sh
# The figures of docs/results.md, from nothing: record, train every seed of every method, evaluate
# on the untouched validation tasks, write the page. `make results` sets BIN, RUNS, SEEDS and JOBS
# (how many runs train side by side, one torch thread each). Runs that are there are continued.
set -eu

exploring="--sweep --pre-update-weight 5 --discount 0.8 --baseline radial"

plan() {  # family label options... -> a line of arguments for `meta-train` per seed
    family=$1 label=$2
    shift 2
    for seed in $SEEDS; do
        folder=$RUNS/results/$family/$label-$seed
        how=$(test -e "$folder/config.json" && echo --resume || echo --overwrite)
        echo meta-train --demos "$RUNS/results/$family.hdf5" --output-dir "$folder" "$how" \
            --seed "$seed" --threads 1 "$@"
    done
}

compare() {  # family labels...
    family=$1 runs=""
    shift
    for label in "$@"; do
        for seed in $SEEDS; do runs="$runs $RUNS/results/$family/$label-$seed"; done
    done
    # shellcheck disable=SC2086
    "$BIN/demokit" evaluate $runs --output-dir "$RUNS/results/$family/comparison"
    cp "$RUNS/results/$family/comparison/evaluation.png" "docs/results-$family.png"
}

for family in push door; do
    test -e "$RUNS/results/$family.hdf5" || "$BIN/demokit" record --env $family --noise 0.2 \
        --license MIT --out "$RUNS/results/$family.hdf5"
done
{
    plan push gmps
    plan push imitation --method imitation
    # shellcheck disable=SC2086
    plan door gmps-sweep $exploring
    plan door gmps
    plan door imitation-radial --method imitation --discount 0.8 --baseline radial
    plan door imitation --method imitation
} | xargs -P "$JOBS" -L 1 "$BIN/demokit"
compare push gmps imitation
compare door gmps-sweep gmps imitation-radial imitation

{
    cat docs/results-head.md
    for family in push door; do
        echo
        cat "$RUNS/results/$family/comparison/report.md"
        echo "![$family](results-$family.png)"
    done
} > docs/results.md
