#!/bin/sh
# Makes the sample that `imprint demo` uses where the tools for making file systems are missing:
# a disk of 256 MiB with a GPT, a FAT and an ext4 file system, and this project's own files.
#
#   scripts/make_demo_sample.sh [OUTPUT]
#
# Needs sfdisk, mkfs.vfat 4.2, mcopy, mke2fs 1.47, debugfs and qemu-img; no root, no loop devices.
# Identifiers and times are fixed: the same files and tools give the same content. Where it has
# changed, SAMPLE_SHA256 in src/imprint/cli/demo_disk.py has to become what this prints.
set -eu

home=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
output=${1:-$home/src/imprint/cli/data/demo-sample.qcow2}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C TZ=UTC MTOOLS_SKIP_CHECK=1
export SOURCE_DATE_EPOCH=1767225600 E2FSPROGS_FAKE_TIME=1767225600

mkdir -p "$work/documents" "$work/sources/core" "$(dirname -- "$output")"
cp "$home/LICENSE" "$work/documents/license.txt"
cp "$home/SECURITY.md" "$work/documents/security.md"
cp "$home/src/imprint/__init__.py" "$work/sources/"
for name in extent errors contracts layout; do
    cp "$home/src/imprint/core/$name.py" "$work/sources/core/"
done
ln -s core/extent.py "$work/sources/start-here.py"
chmod -R u=rwX,go=rX "$work/documents" "$work/sources"
find "$work/documents" "$work/sources" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

disk=$work/disk.raw
truncate -s 256M "$disk"
sfdisk --quiet --no-reread --no-tell-kernel "$disk" <<'TABLE'
label: gpt
label-id: 2A5F3C54-61B4-4D5B-9C3E-6D0C5B9B1A01
start=2048, size=65536, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, uuid=2A5F3C54-61B4-4D5B-9C3E-6D0C5B9B1A02, name="documents"
start=67584, size=360448, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=2A5F3C54-61B4-4D5B-9C3E-6D0C5B9B1A03, name="sources"
TABLE
mkfs.vfat --invariant -i 1A5E1D00 -h 2048 -n DOCUMENTS --offset 2048 "$disk" 32768 >/dev/null 2>&1
mcopy -s -m -i "$disk@@1048576" "$work/documents/"* ::/
# No discard: it would take what is before the offset for free room as well.
mke2fs -q -F -t ext4 -b 4096 -N 1024 -L SOURCES -U 2a5f3c54-61b4-4d5b-9c3e-6d0c5b9b1a04 \
    -E "offset=34603008,nodiscard,lazy_itable_init=1,root_owner=0:0,hash_seed=2a5f3c54-61b4-4d5b-9c3e-6d0c5b9b1a05" \
    -d "$work/sources" "$disk" 180224k
# The time of a file's last change of state cannot be set on the files themselves.
find "$work/sources" -mindepth 1 -printf 'sif /%P ctime @1767225600\nsif /%P ctime_extra 0\n' |
    debugfs -w -f - "$disk?offset=34603008" >/dev/null 2>&1

# Small clusters: tables of 64 KiB would be most of the file.
rm -f "$output"
qemu-img convert -q -c -f raw -O qcow2 -o compression_type=zlib,cluster_size=4k "$disk" "$output"
echo "$output: $(wc -c <"$output") bytes; content: $(sha256sum <"$disk" | cut -d' ' -f1)"
