#!/bin/busybox sh
# The first process of a guest of `cargo xtask vm`: loads the modules, mounts the host's files read-only
# under a writable overlay, runs guest.sh in there with its output on two virtio ports, and says on a third,
# `status`, how it ended. The console is for the kernel and for what goes wrong in here.
/bin/busybox mkdir -p /bin /proc /sys /dev /host /over /new /run
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

fail() {
  echo "init: $*" >&2
  poweroff -f
}

for module in $(cat /modules.list); do
  insmod "/modules/$module" || fail "insmod $module"
done
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
for word in $(cat /proc/cmdline); do
  case $word in
    baton.run=*) run=${word#*=} ;;
    baton.out=*) out=${word#*=} ;;
  esac
done

# The ports appear when the host has answered the driver.
for name in stdout stderr status; do
  tries=0
  until port=$(grep -lx "$name" /sys/class/virtio-ports/*/name 2>/dev/null); do
    tries=$((tries + 1))
    [ $tries -lt 1000 ] || fail "no port $name"
    usleep 10000
  done
  port=${port%/name}
  ln -s "/dev/${port##*/}" "/run/$name"
done
exec 3<>/run/status || fail "cannot open the status port"

# The largest message that virtio-9p takes; the host's files do not change under a running guest.
share=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,cache=loose,$share" root /host || fail "cannot mount the host's files"
mount -t tmpfs over /over && mkdir /over/up /over/work || fail "no tmpfs"
mount -t overlay -o lowerdir=/host,upperdir=/over/up,workdir=/over/work root /new || fail "no overlay"
for tree in proc sys dev; do mount --bind "/$tree" "/new/$tree"; done
mkdir -p /new/dev/shm /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t devpts -o ptmxmode=666 pts /new/dev/pts
mount -t tmpfs run /new/run
if [ -n "$out" ]; then
  mkdir -p "/new/$out"
  mount -t 9p -o "rw,cache=mmap,$share" out "/new/$out" || fail "cannot mount $out"
fi

# A port can be opened once; a pipe as often as a command likes (`echo >/dev/stderr`).
mkfifo /run/1 /run/2
cat /run/1 >/run/stdout & copy1=$!
cat /run/2 >/run/stderr & copy2=$!
chroot /new /bin/bash "$run/guest.sh" >/run/1 2>/run/2 </dev/null
status=$?
# What the command has left running must not hold the pipes open.
for process in /proc/[0-9]*; do
  process=${process#/proc/}
  case $process in
    1 | "$copy1" | "$copy2") ;;
    *) kill -9 "$process" 2>/dev/null ;;
  esac
done
wait "$copy1" "$copy2"
sync
echo "exit $status" >&3
exec 3>&-
poweroff -f
