#!/bin/sh
# make_arm64.sh FOLDER: unpacks the Python of this Debian for 64-bit ARM, with its headers, into FOLDER, and what the
# engine imports into FOLDER/packages. Installs nothing. Needs mmdebstrap and qemu-user.
set -eu
. /etc/os-release
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  mmdebstrap --quiet --arch=arm64 --variant=extract --include=python3,libpython3-dev,libgomp1,libstdc++6 \
    "$VERSION_CODENAME" "$1" -
version=$(qemu-aarch64 -L "$1" "$1/usr/bin/python3" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python -m pip install --quiet --target "$1/packages" --only-binary :all: --python-version "$version" \
  --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  "numpy>=2.0" platformdirs
