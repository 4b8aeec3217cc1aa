#!/bin/sh
# Install Debian's Chromium, which the browser tests drive, and nginx, which one test runs, where they can be had.
command -v chromium >/dev/null && command -v nginx >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core nginx-light; } >/dev/null 2>&1 && exit 0
fi
echo "no chromium or no nginx here: the tests with them will be skipped"
