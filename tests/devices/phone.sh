# A "phone": Debian's adbd in a root folder of its own, in namespaces of its own (see phone.py). It is an open shell on
# port 5555, so it must never run where anything else can reach that port.
#     unshare -rnm --pid --fork --kill-child sh phone.sh ROOT PACKAGES SIZE COMMANDS
set -e
root=$1 packages=$2 size=$3 commands=$4
mount -t tmpfs -o "size=$size" tmpfs "$root"
for folder in usr bin lib lib64 sbin etc; do
    if [ -L "/$folder" ]; then ln -s "$(readlink "/$folder")" "$root/$folder"
    elif [ -d "/$folder" ]; then mkdir "$root/$folder" && mount --rbind "/$folder" "$root/$folder"; fi
done
for folder in proc dev sys tmp data/local/tmp sdcard packages commands; do mkdir -p "$root/$folder"; done
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
mount --rbind "$packages" "$root/packages"
mount --rbind "$commands" "$root/commands"
# the loopback interface of a new network namespace is down; SIOCSIFFLAGS with IFF_UP
python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 1))'
libraries=usr/lib/x86_64-linux-gnu tools=usr/lib/android-sdk/platform-tools
"$packages/$libraries/ld-linux-x86-64.so.2" --library-path "$packages/$libraries:$packages/$libraries/android" \
    "$packages/$tools/adb" nodaemon server &
cd "$root"
export PATH="/commands:$PATH"
chroot "$root" "/packages/$libraries/ld-linux-x86-64.so.2" \
    --library-path "/packages/$libraries:/packages/$libraries/android" "/packages/$tools/adbd" &
echo started
wait
