#!/bin/sh
# Brings the Debian packages named, where they are missing and it can: as root, or where sudo asks for no password.
# `npm:FOLDER` brings what FOLDER/package-lock.json names (by digest) into build/, where Node is there.
# Never fails: what cannot be brought is left out by the tests that need it, which say so.
set -u
missing=""
for package in "$@"; do
    case "$package" in
    npm:*)
        folder="${package#npm:}" here="build/$(basename "${package#npm:}")"
        cmp -s "$folder/package-lock.json" "$here/node_modules/.of" && continue
        echo "bringing what $folder/package-lock.json names" >&2
        { mkdir -p "$here" && cp "$folder/package.json" "$folder/package-lock.json" "$here/" &&
            (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund) >/dev/null 2>&1 &&
            cp "$folder/package-lock.json" "$here/node_modules/.of"; } ||
            echo "not brought: $folder (needs Node 20 with npm)" >&2
        continue
        ;;
    esac
    command -v "$package" >/dev/null 2>&1 ||
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || # one without a command of its name
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "not brought:$missing (no apt-get here)" >&2
elif [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "not brought:$missing (needs root, or sudo without a password)" >&2
fi
[ -n "${as_root+set}" ] || exit 0
echo "bringing$missing" >&2
# shellcheck disable=SC2086  # words are meant to be split
$as_root env DEBIAN_FRONTEND=noninteractive sh -c \
    "apt-get -q update && apt-get -q install -y --no-install-recommends $missing fonts-dejavu-core" >/dev/null 2>&1 ||
    echo "not brought:$missing (apt-get failed)" >&2
