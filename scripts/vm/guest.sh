# Runs in a guest of `cargo xtask vm`, within the host's files: makes the RDMA device rxe0 on net0, waits for the
# other guest of a pair, and becomes the command that is written below it. Before it stand `node` (0 or 1)
# and `pair` (0 or 1). Channel 3 is the host.
set -euo pipefail

fail() {
  echo "vm: $*" >&2
  exit 125
}

ip link set lo up
if [[ $pair == 0 ]]; then
  # Soft-RoCE loops back what it sends to its own address, but wants a link that is up.
  ip link add net0 type veth peer name net1
  ip link set net1 up mtu 9000
else
  ip link set eth0 name net0
fi
# No other host here could have the same address, so there is nothing to wait for.
echo 0 >/proc/sys/net/ipv6/conf/net0/accept_dad
ip link set net0 up mtu 9000
ip address add "10.9.0.$((node + 1))/24" dev net0

tries=0
until said=$(rdma link add rxe0 type rxe netdev net0 2>&1); do
  tries=$((tries + 1))
  [[ $tries -lt 100 ]] || fail "cannot make rxe0: $said"
  sleep 0.1
done
until [[ $(cat /sys/class/infiniband/rxe0/ports/1/state) == *ACTIVE ]]; do
  tries=$((tries + 1))
  [[ $tries -lt 200 ]] || fail "rxe0 does not come up"
  sleep 0.1
done

echo ready >&3
read -r _ <&3 || fail "the host went away"
exec 3>&-
