#!/usr/bin/env bash
# Stand-ins for the images of a Paxx project, for an engine that reaches no registry:
# a Debian tree under their names, and uv. For tests/test_compose.py, not for use.
#
#     tests/docker-images.sh      needs debootstrap, uv and a running Docker engine
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

mirror=http://deb.debian.org/debian
packages=python3,python3-venv,ca-certificates,curl,redis-server
debootstrap --variant=minbase --include="$packages" trixie "$scratch/root" "$mirror"
cp /etc/ssl/certs/ca-certificates.crt "$scratch/root/etc/ssl/certs/"
tar -C "$scratch/root" -c . | docker import --change 'ENV UV_SYSTEM_CERTS=1' - python:3.12-slim
# Redis' own image has its protected mode off, too
printf '#!/bin/sh\nexec /usr/bin/redis-server "$@" --protected-mode no\n' \
    >"$scratch/root/usr/local/bin/redis-server"
chmod +x "$scratch/root/usr/local/bin/redis-server"
tar -C "$scratch/root" -c . | docker import --change 'CMD ["redis-server"]' - redis:7-alpine
docker tag python:3.12-slim postgres:16-alpine

mkdir "$scratch/uv"
cp "$(uv run --quiet --no-project --with uv python -c 'import uv; print(uv.find_uv_bin())')" \
    "$scratch/uv/uv"
tar -C "$scratch/uv" -c uv | docker import - ghcr.io/astral-sh/uv:latest
