#!/bin/sh
# Install Debian's Chromium where it is missing and can be had: the browser tests drive it.
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 && exit 0
fi
echo "no chromium here: the browser tests will be skipped"
