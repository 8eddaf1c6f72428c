#!/bin/sh
# Train every model of the experiment: an hour and a quarter on two quiet cores. What is done is skipped.
#   sh experiments/emoji_shift/train.sh CORPUS OUT        from the root of the repository
set -e
corpus=$1 out=$2 python=${PYTHON:-.venv/bin/python}
[ -d "$out/split" ] || "$python" experiments/emoji_shift/split.py "$corpus" "$out/split"

supervised() {
    [ -f "$out/supervised/$1/result.json" ] ||
        "$python" experiments/emoji_shift/supervised.py "$1" "$out/split" "$corpus" "$out/supervised"
}

clip() { # name, shard, image tower, pairs, seed
    [ -d "$out/clip/$1/model" ] ||
        "$python" -m diptych.cli train recipes/corpus.toml --out "$out/clip/$1" $( [ -d "$out/clip/$1" ] && echo --resume ) \
            --set "data.train=$out/split/$2" --set "model.architecture.image=$3" --set "training.samples=$4" \
            --set "training.seed=$5" --set schedule.warmup_steps=100
}

small="{ resolution = 64, layers = [1, 1, 1, 1], width = 8, heads = 4 }"
middle="{ resolution = 64, layers = [2, 2, 2, 2], width = 16, heads = 8 }"
large="{ resolution = 64, layers = [2, 2, 2, 2], width = 32 }"
for name in resnet-8 resnet-12 resnet-16 resnet-16-half; do supervised $name; done
clip resnet-16 train.tar "$middle" 300_000 0
supervised resnet-16-deep
clip resnet-16-quarter quarter.tar "$middle" 300_000 0
supervised vit-96
clip vit-128 train.tar "{ resolution = 64, patch = 8, width = 128, layers = 6, heads = 4 }" 200_000 0
clip resnet-8 train.tar "$small" 200_000 0
supervised resnet-24
for seed in 1 2; do clip resnet-8-seed-$seed train.tar "$small" 200_000 $seed; done
supervised resnet-32
clip resnet-32 train.tar "$large" 200_000 0
supervised vit-128
