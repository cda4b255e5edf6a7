#!/usr/bin/env bash
# Leaves .tools/promtool, out of Debian's package `prometheus`, without root and without installing anything.
# Where it cannot be had it says so, leaves the reason in .tools/no-promtool for the tests, and is content.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=.tools

if [ -x "$tools/promtool" ] || command -v promtool > /dev/null; then
    rm -f "$tools/no-promtool"
    exit 0
fi
mkdir -p "$tools"

not_to_be_had() {
    echo "$1" > "$tools/no-promtool"
    echo "no promtool: $1; the tests that need it are skipped. With promtool on PATH they run." >&2
    exit 0
}

for program in apt-get dpkg-deb timeout; do
    command -v "$program" > /dev/null || not_to_be_had "this machine has no $program"
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The lists of this machine where they are there and not outdated; else lists of our own, which no root is needed for.
own=(-o "Dir::State=$folder/state" -o "Dir::State::status=$folder/status" -o "Dir::Cache=$folder/cache")
quick=(-qq -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15)
download() {
    (cd "$folder" && timeout 120 apt-get "${quick[@]}" "$@" download prometheus) > "$folder/said" 2>&1
}
update() {
    mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
    touch "$folder/status"
    timeout 120 apt-get "${quick[@]}" "${own[@]}" update > "$folder/said" 2>&1
}
download || { update && download "${own[@]}"; } \
    || not_to_be_had "apt-get cannot download the package prometheus (is the network there? \`apt-get download prometheus\` says more)"

{ dpkg-deb -x "$folder"/prometheus_*.deb "$folder/package" && "$folder/package/usr/bin/promtool" --version; } \
    > "$folder/said" 2>&1 \
    || not_to_be_had "the promtool of the package prometheus does not run on this machine"
mv "$folder/package/usr/bin/promtool" "$tools/promtool"
rm -f "$tools/no-promtool"
echo "promtool: in $tools, out of the package prometheus"
