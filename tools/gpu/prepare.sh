#!/usr/bin/env bash
# Fills .gpu/ in the repository's root with what a GPU machine without a network needs beside its own torch and Triton:
# wheels for Python 3.12 on x86-64, mamba-ssm's Triton sources, a balanced part of a material pack, a voice bank.
#   bash tools/gpu/prepare.sh MATERIAL_PACK [VOICE_BANK]        MATERIAL_MB=24 VOICES_MB=14
# SONGS=FOLDER SONGS_MB=8: rendered songs with train/ and valid/ travel too, as Vorbis.
set -eu
top=$(git rev-parse --show-toplevel); out=$top/.gpu; material=${1:?a folder of recordings with index.json}; voices=${2:-}
exclude=$(git rev-parse --git-path info/exclude)
grep -qx '/.gpu/' "$exclude" 2>/dev/null || { mkdir -p "$(dirname "$exclude")"; echo '/.gpu/' >>"$exclude"; }
mkdir -p "$out/whl" "$out/mamba"
platforms=""; for m in 2_28 2_27 2_17; do platforms="$platforms --platform manylinux_${m}_x86_64"; done
# The pinned versions that Python 3.12 gets; pip judges a constraint's markers by the Python that it runs on itself.
sed -E "/python_full_version (<|==) '3\.1[0-2]/d; s/ *;.*//" "$top/.ci/constraints.txt" >"$out/constraints.txt"
rm -f "$out"/whl/*.whl
# shellcheck disable=SC2086
python3 -m pip download -q -c "$out/constraints.txt" --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platforms \
  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any -d "$out/whl" \
  soundfile cffi pycparser soxr pedalboard platformdirs pydantic pydantic_core annotated_types typing_inspection \
  typing_extensions lightning_fabric mutagen pyebur128 watchdog librosa lazy_loader msgpack pooch decorator mir_eval ||
  { echo "the wheels could not be fetched" >&2; exit 1; }
if [ ! -d "$out/mamba/mamba_ssm" ]; then  # its Triton sources alone; pip asks its setup.py, which needs torch, for the name
  sdist=$(mktemp -d); python=${PYTHON:-$top/.venv/bin/python}
  "$python" -m pip install -q setuptools wheel packaging ninja &&
    MAMBA_SKIP_CUDA_BUILD=TRUE "$python" -m pip download -q --no-deps --no-binary=:all: --no-build-isolation \
      -d "$sdist" mamba-ssm==2.3.2.post1 &&
    tar -xzf "$sdist"/mamba_ssm-*.tar.gz -C "$sdist" && mkdir -p "$out/mamba/mamba_ssm" &&
    cp -r "$sdist"/mamba_ssm-*/mamba_ssm/ops "$sdist"/mamba_ssm-*/mamba_ssm/utils "$out/mamba/mamba_ssm/" ||
    echo "mamba-ssm's sources are missing; its figures will be left out"
fi
python3 "$top/tools/gpu/choose_material.py" "$material" "$out/material" "${MATERIAL_MB:-24}"
rm -rf "$out/voices"
[ -z "$voices" ] || python3 "$top/tools/gpu/choose_material.py" --whole "$voices" "$out/voices" "${VOICES_MB:-14}"
rm -rf "$out/songs"
[ -z "${SONGS:-}" ] || "${PYTHON:-$top/.venv/bin/python}" "$top/tools/gpu/carry_songs.py" "$SONGS" "$out/songs" "${SONGS_MB:-8}"
du -sm "$out"/*
carried=$(( $(cd "$top" && { git ls-files -z; git ls-files -z --others --exclude-standard; } | xargs -0 du -cb | tail -1 | cut -f1) + $(du -sb "$out" | cut -f1) ))
echo "in all $((carried / 1048576)) MiB of 64"
[ "$carried" -lt 66000000 ] || { echo "too much; lower MATERIAL_MB or VOICES_MB" >&2; exit 1; }
