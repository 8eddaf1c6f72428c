#!/bin/sh
# Train and measure diptych-mini. Each step is skipped where its result is there; a run goes on where it stopped.
#
#     sh experiments/mini/train.sh CORPUS PHOTOS WORDNET ENCODER WORK
#
# CORPUS and PHOTOS: the folders of drawings and of photographs. WORDNET: the folder of data.noun. ENCODER: a folder of
# all-MiniLM-L6-v2 (Apache-2.0). WORK: where everything is written.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
corpus=$(realpath "$1") photos=$(realpath "$2") wordnet=$(realpath "$3") encoder=$(realpath "$4")
mkdir -p "$5" && cd "$5"
ln -sfn "$corpus" corpus && ln -sfn "$photos" photos

[ -f mini/validation-measure.parquet ] ||
    python "$here/experiments/mini/pairs.py" --corpus corpus --photos photos --wordnet "$wordnet" --out mini
[ -d mini/start ] || python "$here/experiments/mini/word_vectors.py" "$here/recipes/mini.toml" "$encoder" --out mini/start

# run NAME SETTINGS...: a run of the recipe.
run() {
    name=$1 && shift
    [ -d "runs/$name/model" ] && return
    resume=$([ -d "runs/$name" ] && echo --resume || true)
    diptych train "$here/recipes/mini.toml" --out "runs/$name" $resume "$@"
}

# The controls, a twentieth as long: three seeds, captions of other images, and the words where the seed puts them.
short="--set training.samples=150_000 --set schedule.warmup_steps=100"
for seed in 0 1 2; do
    run "short-$seed" $short --set training.seed=$seed
done
run shuffled $short --set data.permute_captions=true
run scratch $short --set model.init=scratch
run long

[ -d runs/packed ] || python "$here/scripts/half_precision_copy.py" runs/long/model runs/packed
for model in mini/start runs/short-0/model runs/short-1/model runs/short-2/model runs/shuffled/model \
    runs/scratch/model runs/packed; do
    diptych evaluate all --suite "$here/experiments/mini/suite.toml" --model "$model" \
        --out "evaluation/$(echo "$model" | tr / -)"
done
