#!/usr/bin/env bash
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# try_package.sh: installs the packages of build/packages in a clean Debian 12, with what they depend
# on, and runs them there: as the service would, but by hand, since no systemd runs. As root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly packages=build/packages
[[ -f .cache/debian-bookworm.tar ]] || packaging/debian_base.sh .cache/debian-bookworm.tar
mkdir -p build/chroots
root=$(mktemp -d build/chroots/XXXXXX)
root=$PWD/$root
trap 'rm -rf --one-file-system "$root"' EXIT

say() { printf '%s\n' "-- $*"; }

tar -xf .cache/debian-bookworm.tar -C "$root"
chmod 755 "$root"
mkdir -p "$root/packages"
cp "$packages"/*.deb "$packages"/*.tar.gz "$root/packages"
cp -r tests/integration/client_package "$root/packages/program"
cp .cache/vtest.avi "$root/packages/video.avi"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp -r /usr/local/share/ca-certificates "$root/usr/local/share/" 2>/dev/null || true

# Runs the shell script of stdin in the clean Debian, with unshare's options $@. Its mounts are seen
# by nobody else and end with it.
in_chroot() {
  # shellcheck disable=SC2016 # Expanded by the shell within.
  unshare --mount --pid --fork "$@" sh -eu -c '
    mount -t proc proc "$1/proc"
    mount -t sysfs -o ro sysfs "$1/sys" 2>/dev/null || mount --rbind /sys "$1/sys"
    mount -t tmpfs -o mode=755 tmpfs "$1/dev"
    mkdir "$1/dev/shm"
    for device in null zero full random urandom tty; do
      touch "$1/dev/$device"
      mount --bind "/dev/$device" "$1/dev/$device"
    done
    ln -s /proc/self/fd "$1/dev/fd"
    ip link set lo up
    exec chroot "$1" /bin/sh -eu' _ "$root"
}

say "installs the packages, and what they depend on"
in_chroot <<'END'
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >/packages/log 2>&1 || { cat /packages/log; exit 1; }
# What any Debian has that runs services; systemd-analyze wants its units.
apt-get -q install -y --no-install-recommends systemd >/packages/log 2>&1 || { cat /packages/log; exit 1; }
before=$(dpkg-query -W | wc -l)
apt-get -q install -y --no-install-recommends /packages/millrace-server_*.deb >/packages/log 2>&1 || { cat /packages/log; exit 1; }
middle=$(dpkg-query -W | wc -l)
apt-get -q install -y --no-install-recommends /packages/millrace_*.deb >/packages/log 2>&1 || { cat /packages/log; exit 1; }
after=$(dpkg-query -W | wc -l)
echo "millrace-server and $((middle - before - 1)) packages that it needs; millrace and $((after - middle - 1)) more"
for program in /usr/bin/millrace /usr/bin/millrace-server /usr/bin/millrace-worker; do
  ! ldd "$program" | grep 'not found' || exit 1
done
ldd /usr/bin/millrace-worker | grep -q '/usr/bin/../lib/millrace/libtorch_cpu.so'
millrace-worker --version
test -s /usr/share/doc/millrace-server/libtorch/LICENSE
test -s /usr/share/doc/millrace-server/copyright
END

say "the unit"
systemd-analyze --root="$root" --man=no verify millrace.service
systemd-analyze --root="$root" --offline=true security millrace.service | tail -n 1

say "serves the demo's model as an unprivileged user, and asks it"
cp -rL build/demo-models/. "$root/var/lib/millrace/models"
chmod -R a+rX "$root/var/lib/millrace"
in_chroot --net <<'END'
# The network is its own, with nothing but the loopback.
mkdir -p /run/millrace
chown 65532:65532 /run/millrace
begin=$(date +%s%N)
setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
  millrace-server --config /etc/millrace/millrace.yaml >/packages/log 2>&1 &
server=$!
until millrace health >/dev/null 2>&1; do
  kill -0 $server || { cat /packages/log; exit 1; }
  sleep 0.1
done
echo "ready after $((($(date +%s%N) - begin) / 1000000)) ms"
if grep 'the sandbox lacks' /packages/log; then exit 1; fi
millrace models
millrace stream /packages/video.avi --model pedestrians --frames 2 --output count
millrace admin --url unix:/run/millrace/admin.sock list
kill $server
wait $server
echo "ended in order"
END

say "the tarball, unpacked elsewhere"
in_chroot --net <<'END'
apt-get -q purge -y millrace millrace-server >/packages/log 2>&1 || { cat /packages/log; exit 1; }
test ! -e /usr/lib/millrace
test ! -e /etc/millrace
test -d /var/lib/millrace/models # It isn't empty.
tar -xzf /packages/millrace-*.tar.gz -C /opt
/opt/millrace-*/bin/millrace-worker --version
/opt/millrace-*/bin/millrace-server --version
/opt/millrace-*/bin/millrace --version
END

say "a program with the C++ client library"
in_chroot <<'END'
export DEBIAN_FRONTEND=noninteractive
apt-get -q install -y --no-install-recommends /packages/libmillrace-client-dev_*.deb cmake g++ ninja-build >/packages/log 2>&1 || { cat /packages/log; exit 1; }
cmake -G Ninja -S /packages/program -B /packages/program/build >/packages/log 2>&1 || { cat /packages/log; exit 1; }
ninja -C /packages/program/build >/packages/log 2>&1 || { cat /packages/log; exit 1; }
/packages/program/build/consumer
END
