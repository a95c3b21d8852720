#!/usr/bin/env bash
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# debian_base.sh FILE: writes a minimal Debian 12 into a tar file, from where apt-get of this machine
# takes its packages; it takes its own from there, too.
set -euo pipefail

file=$1
# shellcheck disable=SC2016 # apt-get fills it in.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
[[ -n $mirror ]] || {
  echo "$0: apt-get knows no mirror of Debian 12 (run apt-get update)" >&2
  exit 1
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase bookworm "$root" "$mirror" >&2
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --format "deb [signed-by=$keyring] \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
  'Created-By: Packages' 'Origin: Debian' | sort -u >"$root/etc/apt/sources.list"
cp /etc/apt/apt.conf.d/* "$root/etc/apt/apt.conf.d/"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "${root:?}"/dev/*
chmod 755 "$root"
mkdir -p "$(dirname "$file")"
tar -C "$root" --numeric-owner -cf "$file.new" .
mv "$file.new" "$file"
