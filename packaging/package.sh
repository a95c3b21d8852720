#!/usr/bin/env bash
# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
#
# package.sh BUILD: a tarball and Debian packages, of what is built in the folder BUILD. `./dev
# package` calls it.
#
#   millrace-server        server, worker, libtorch and a systemd unit
#   millrace               the command line, documentation
#   libmillrace-client-dev the C++ client library
#   millrace-VERSION-linux-ARCHITECTURE.tar.gz   all of it, to be unpacked anywhere
#
# They are left in build/packages, and then installed in a clean Debian (try_package.sh). The same
# inputs make the same packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=$1
readonly out=build/packages
version=$(head -n 1 VERSION)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y VERSION)}
export SOURCE_DATE_EPOCH

rm -rf "$out"
mkdir -p "$out/trees" "$out/debian"
touch "$out/debian/control" # dpkg-shlibdeps wants one; the packages' own are written below.

# Installs the components that follow into the tree of package $1.
install_components() {
  local component
  for component in "${@:2}"; do
    DESTDIR=$PWD/$out/trees/$1 cmake --install "$build" --prefix /usr --strip --component "$component" >/dev/null
  done
}

# Which packages have the libraries that the programs of tree $1 need, as a field of its control file.
depends_on_libraries_of() {
  local programs=()
  mapfile -d '' programs < <(find "trees/$1" -type f \( -path '*/bin/*' -o -name '*.so*' \) -print0 | sort -z)
  dpkg-shlibdeps -O -xlibgomp1 "-ltrees/$1/usr/lib/millrace" --ignore-missing-info "${programs[@]/#/-e}" 2>/dev/null |
    sed 's/^shlibs:Depends=//'
}

# Makes the package $1 of its tree, with the control fields $2.
make_package() {
  local tree=$out/trees/$1 documents=$out/trees/$1/usr/share/doc/$1
  if [[ $1 != millrace ]]; then
    mkdir -p "$documents"
    [[ ! -d $tree/usr/share/doc/millrace ]] || mv "$tree"/usr/share/doc/millrace/* "$documents"
    rm -rf "$tree/usr/share/doc/millrace"
  fi
  rm -f "$documents/LICENSE" # The copyright file says where Debian keeps it.
  mkdir -p "$tree/DEBIAN"
  cp NOTICE packaging/deb/copyright "$documents"
  [[ ! -d $documents/libtorch ]] || cat packaging/deb/copyright.libtorch >>"$documents/copyright"
  printf '%s\n' "Package: $1" "Version: $version" "Architecture: $architecture" \
    'Maintainer: The Millrace Authors <authors@millrace.invalid>' \
    "Installed-Size: $(du -sk "$tree" | cut -f 1)" 'Priority: optional' "$2" >"$tree/DEBIAN/control"
  chmod -R u=rwX,go=rX "$tree"
  find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zzstd -z10 --build "$tree" "$out" >/dev/null
}

install_components millrace-server server
tree=$out/trees/millrace-server
install -D -m 644 packaging/millrace.service "$tree/usr/lib/systemd/system/millrace.service"
install -D -m 644 packaging/millrace.yaml "$tree/etc/millrace/millrace.yaml"
install -d "$tree/var/lib/millrace/models" "$tree/DEBIAN"
echo /etc/millrace/millrace.yaml >"$tree/DEBIAN/conffiles"
install -m 755 packaging/deb/{postinst,prerm,postrm} "$tree/DEBIAN"
install_components millrace cli doc
install_components libmillrace-client-dev client

needed_by_server=$(cd "$out" && depends_on_libraries_of millrace-server)
needed_by_cli=$(cd "$out" && depends_on_libraries_of millrace)
make_package millrace-server "Section: net
Depends: $needed_by_server
Recommends: millrace (= $version)
Description: inference server for PyTorch models
 Serves TorchScript and AOTInductor models over gRPC (KServe v2, Triton's clients). Requests of many
 streams are batched, run on a pool of sandboxed processes, and answered in the order they came in.
 .
 Brings its own libtorch. The service millrace is installed, but not enabled."
make_package millrace "Section: net
Depends: $needed_by_cli
Suggests: millrace-server (= $version), python3
Description: command line of the inference server Millrace
 Asks a server: single requests, videos and cameras, folders of files; its health and its models;
 administration. With millrace-server installed it starts one for a run, inspects models and measures
 how they run best; with a Python that has torch it compiles them. It links FFmpeg."
make_package libmillrace-client-dev "Section: libdevel
Depends: libgrpc++-dev, libprotobuf-dev, libabsl-dev, protobuf-compiler, protobuf-compiler-grpc
Description: C++ client library of the inference server Millrace
 Headers, a static library and a package of CMake (find_package(millrace_client))."

# The tarball: the same files, as they lie below /usr, in one folder.
name=millrace-$version-linux-$architecture
for component in server cli doc client; do
  cmake --install "$build" --prefix "$PWD/$out/trees/$name" --strip --component "$component" >/dev/null
done
install -D -m 644 packaging/millrace.service packaging/millrace.yaml -t "$out/trees/$name/share/millrace/examples"
tar -C "$out/trees" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
  --mode=u+rwX,go+rX,go-w -cf - "$name" | gzip -n -6 >"$out/$name.tar.gz"

rm -rf "${out:?}/trees" "$out/debian"
(cd "$out" && sha256sum ./*.deb ./*.tar.gz >SHA256SUMS && du -h ./*.deb ./*.tar.gz)
