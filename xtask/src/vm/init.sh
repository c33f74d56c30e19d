#!/bin/busybox sh
# The first process of an emulated machine: makes it one, runs each test alone, and turns it off. Whoever
# reads the serial line finds what it says between lines that begin with @@.
b=/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b ln -s /proc/self/fd /dev/fd
$b ln -s fd/1 /dev/stdout
$b ln -s fd/2 /dev/stderr
$b mkdir -p /dev/shm /sys/fs/cgroup /var/lib /var/log/nginx /var/lib/nginx
for place in /run /var/tmp /dev/shm; do $b mount -t tmpfs -o mode=1777 tmpfs $place; done
# Nothing is mounted over it: the workspace, whose scripts are here, may be below.
$b chmod 1777 /tmp
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t bpf bpf /sys/fs/bpf
for module in $($b cat /modules/order); do
  $b insmod /modules/$module || echo "cannot load $module"
done
$b ip link set lo up
$b hostname guest
# What takes the place of capabilities on old kernels. Tests of what is without it take it away.
ulimit -l unlimited
case $($b uname -r) in
  5.1[0-8].*) echo 0 > /proc/sys/kernel/unprivileged_bpf_disabled ;;
esac
# The boot loader has left something on the line.
echo
export SIDECAR_BIN=/tests/sidecar
cd /tests
while read -r program which <&3; do
  # Without quotes: there may be nothing to say which.
  if ./$program --list --format terse $which > /tmp/list 2> /tmp/output; then
    tests=$($b sed -n 's/: test$//p' /tmp/list)
  else
    # It does not even start.
    tests=
    $b cat /tmp/output
    echo "@@ begin $program --list"
    echo "@@ end $program --list 1 0 0"
  fi
  for test in $tests; do
    echo "@@ begin $program $test"
    start=$($b cut -d' ' -f1 /proc/uptime)
    # Also those that would change a machine that is not theirs.
    ./$program --exact "$test" --include-ignored --test-threads=1 > /tmp/output 2>&1
    code=$?
    [ $code = 0 ] || $b cat /tmp/output
    echo "@@ end $program $test $code $start $($b cut -d' ' -f1 /proc/uptime)"
  done
done 3< order
echo "@@ done"
$b poweroff -f
