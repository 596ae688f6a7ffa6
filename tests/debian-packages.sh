#!/bin/sh
# Sees to the system libraries that a real napari window under Xvfb needs.
#
# Instant where nothing is missing. As root on Debian (or a child of it) the missing packages are
# installed; otherwise the one command to run is printed. On any other system one line says what is
# needed. Where it is missing, the tests that open windows are skipped.
set -eu

packages="xvfb xauth libgl1 libegl1 libopengl0 libgl1-mesa-dri libglx-mesa0 libdbus-1-3
libfontconfig1 libglib2.0-0 libxkbcommon0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4
libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-render0 libxcb-shape0
libxcb-shm0 libxcb-sync1 libxcb-util1 libxcb-xfixes0 libxcb-xkb1 libxtst6"

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "Not a Debian system: the window tests need Xvfb, Mesa's software OpenGL and the XCB libraries of Qt 6." >&2
    exit 0
fi

# A package that was renamed (libglib2.0-0 became libglib2.0-0t64) counts through what it provides.
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' | sed -n 's/^installed //p' | tr -s ', ' '[\n*]')
missing=""
for package in $packages; do
    printf '%s\n' "$installed" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    echo "Installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
else
    echo "Missing Debian packages:$missing" >&2
    echo "Install them with: sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
fi
