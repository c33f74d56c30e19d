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
# The boot loader has left something on the line.
echo
export SIDECAR_BIN=/tests/sidecar
cd /tests
for program in $($b cat order); do
  tests=$(./$program --list --format terse 2> /tmp/output | $b sed -n 's/: test$//p')
  if [ -z "$tests" ]; then
    # It does not even start.
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
done
echo "@@ done"
$b poweroff -f
