#!/usr/bin/env bash
# Installs what building and testing need, from Debian 12's packages. Does nothing when all is there.
set -euo pipefail

build=(g++-12 clang-19 cmake ninja-build make pkg-config git ca-certificates
       liburing-dev libisal-dev libfmt-dev libspdlog-dev libprotobuf-dev protobuf-compiler libsqlite3-dev
       libcpp-httplib-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev prometheus-cpp-dev
       libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev)
check=(clang-format-19 clang-tidy-19 libclang-rt-19-dev llvm-19 python3 python3-yaml ccache)
tools=(fio nbdkit libnbd-bin fuse3 qemu-utils e2fsprogs xfsprogs util-linux curl jq procps iproute2
       dpkg-dev systemd bsdutils)

missing=()
for package in "${build[@]}" "${check[@]}" "${tools[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "missing packages: ${missing[*]}" >&2
    echo "run as root, or: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "${missing[@]}"
