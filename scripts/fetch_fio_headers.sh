#!/bin/sh
# Fetches the source package of the installed fio and leaves its headers where the fio engine is
# built from. fio loads an engine only if it was built against headers of the same version, and
# Debian has no package of them.
#
# Everything apt needs lives under DIR: the system's sources are read, never changed.
# Usage: fetch_fio_headers.sh DIR    (result: DIR/include/fio.h, DIR/version)
set -eu
dir=${1:?usage: fetch_fio_headers.sh DIR}
say() { echo "fetch_fio_headers: $*" >&2; }

fio=$(command -v fio) || { say "fio is not installed; nothing to build an engine for"; exit 3; }
package=$(dpkg-query -W -f '${source:Package}=${source:Version}' fio 2>/dev/null) || {
    say "fio was not installed as a Debian package: build the engine against its source tree"
    exit 3
}
version=$("$fio" --version)
if [ -f "$dir/include/fio.h" ] && [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
for tool in apt-get dpkg-source make gcc; do
    command -v "$tool" >/dev/null || { say "$tool is missing"; exit 3; }
done

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
apt=$dir/apt
rm -rf "$apt" "$dir/source" "$dir/include"
mkdir -p "$apt/parts" "$apt/state/lists/partial" "$apt/cache/archives/partial"

# The same archives as the system's binary packages come from, as source archives.
: >"$apt/sources.list"
apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)' \
    'Identifier: Packages' | sort -u | while IFS='|' read -r uri release component entry; do
    case $uri in "" | file:* | cdrom:*) continue ;; esac
    # The key that the system checks this archive with, if its entry names a file.
    key=$(sed -n 's/^Signed-By:[[:space:]]*\(\/[^[:space:]]*\).*/\1/p; s/.*signed-by=\([^] ]*\).*/\1/p' \
        "${entry%:*}" 2>/dev/null | head -n 1)
    echo "deb-src ${key:+[signed-by=$key] }$uri $release $component" >>"$apt/sources.list"
done
[ -s "$apt/sources.list" ] || { say "apt has no archive configured"; exit 3; }

private() {
    timeout 300 "$@" -qq \
        -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/parts" \
        -o Dir::State="$apt/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root \
        -o Acquire::Retries=3 -o Acquire::Languages=none
}
private apt-get update >&2 || { say "cannot read the source archives"; exit 1; }
mkdir -p "$apt/package"
(cd "$apt/package" && private apt-get source --download-only "$package" >&2) || {
    say "the archives no longer have the source of $package"
    exit 1
}
dpkg-source --no-check -x "$apt"/package/*.dsc "$dir/source" >/dev/null
(cd "$dir/source" && ./configure --disable-native >"$dir/configure.log" 2>&1) || {
    say "fio's configure failed: $dir/configure.log"
    exit 1
}
# Only headers: nothing of fio is compiled or linked into the engine.
(cd "$dir/source" && find . -name '*.h' -print0 | tar -cf - --null -T -) |
    (mkdir -p "$dir/include" && cd "$dir/include" && tar -xf -)
rm -rf "$apt" "$dir/source" "$dir"/fio_*.tar.*
echo "$version" >"$dir/version"
