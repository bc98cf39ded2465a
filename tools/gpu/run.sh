#!/usr/bin/env bash
# On the GPU machine, in the repository's root, after prepare.sh filled .gpu/ here or elsewhere:
#   OUT=results BUDGET=510 bash tools/gpu/run.sh            proof, figures, training; results under OUT after each
#   ONLY=proof,figures BUDGET=150 bash tools/gpu/run.sh     a part
#   DEVICE=cpu QUICK=1 NO_INSTALL=1 ...                     a rehearsal anywhere, with Triton's interpreter where it is
# TRAIN: the training command; {songs}, {run}, {minutes}, {export} and {device} are filled in.
set -u
cd "$(dirname "$0")/../.."
carried=$PWD/.gpu
export OUT=${OUT:-$PWD/out/gpu} PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=/tmp/tsbs-triton TORCHINDUCTOR_CACHE_DIR=/tmp/tsbs-inductor
export MAMBA_SRC=$carried/mamba TSBS_DAW_HOME=${TSBS_DAW_HOME:-/tmp/tsbs-home} STARTED
STARTED=$(date +%s)
mkdir -p "$OUT"
if [ -z "${NO_INSTALL:-}" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/tsbs-site "$carried"/whl/*.whl ||
    echo "the wheels were not installed"
  export PYTHONPATH=/tmp/tsbs-site:$PWD
else
  export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
fi
if [ "${DEVICE:-cuda}" = cuda ]; then  # six compilers at once, while the first tests need no kernel
  for size in full tiny bundled; do for format in bfloat16 float32; do
    python3 tools/gpu/warm.py "$size" "$format" >>"$OUT/.warm.txt" 2>&1 &
  done; done
else
  export TRITON_INTERPRET=1
fi
songs=${SONGS:-}
renderers=()
if [ -z "$songs" ]; then
  songs=/dev/shm/tsbs-songs
  [ "$(df --output=avail -BG /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)" -gt 20 ] 2>/dev/null || songs=/tmp/tsbs-songs
  rm -rf "$songs"; mkdir -p "$songs"
  [ -d "$carried/songs" ] && cp -r "$carried/songs/." "$songs/"
  sources=()
  [ -d "$carried/material" ] && sources+=(--material "$carried/material")
  [ -d "$carried/voices" ] && sources+=(--voices "$carried/voices")
  render() {  # first seed, songs, seconds
    OMP_NUM_THREADS=1 nice -n 19 python3 -m tsbs_daw.lab render "$songs" --songs "$2" --start-seed "$1" \
      --seconds "$3" "${sources[@]}" >>"$OUT/.render.txt" 2>&1 &
    renderers+=($!)
  }
  render 9000 "${VALID_SONGS:-24}" 20
  for i in $(seq 1 "${RENDERERS:-11}"); do render $((1000 + 600 * (i - 1))) "${SONGS_EACH:-60}" "${SECONDS_EACH:-30}"; done
fi
python3 tools/gpu/phases.py --songs "$songs" --budget "${BUDGET:-510}" --only "${ONLY:-proof,figures,train}" \
  --device "${DEVICE:-cuda}" ${QUICK:+--quick}
[ ${#renderers[@]} -eq 0 ] || kill "${renderers[@]}" 2>/dev/null
for split in train valid; do echo "$split: $(ls "$songs/$split" 2>/dev/null | wc -l) songs"; done
for part in render warm; do  # few files come back from there
  [ -f "$OUT/.$part.txt" ] && { printf '\n$ %s\n' "$part"; tail -c 8000 "$OUT/.$part.txt"; } >>"$OUT/log.txt"
  rm -f "$OUT/.$part.txt"
done
[ -f "$OUT/bundled.safetensors" ] && rm -f "$OUT/best.safetensors"
find "$OUT" -mindepth 1 -type d -empty -delete
exit 0
