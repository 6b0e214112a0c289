# Runs in both guests of a pair: perftest over the device itself, then across a network that delays and loses
# packets. Fails unless data moved and packets were lost on the way.
set -euo pipefail

# Two queue pairs as perftest makes them, on the GID that belongs to the IPv4 address.
bench=(ib_read_bw --ib-dev rxe0 --gid-index 1 --size 65536)

# client ADDRESS ITERATIONS: until the server is there; prints what moved.
client() {
  local said tries=0
  until said=$("${bench[@]}" --iters "$2" "$1" 2>&1); do
    tries=$((tries + 1))
    [[ $tries -lt 30 ]] || { echo "$said"; return 1; }
    sleep 0.2
  done
  awk -v to="$1" '$1 == 65536 { print "ib_read_bw from", to ":", $4, "MB/s"; moved = 1 } END { exit !moved }' <<<"$said"
}

"${bench[@]}" --iters 200 >/dev/null 2>&1 &
client "10.9.0.$((BATON_VM_NODE + 1))" 200
wait $!

tc qdisc add dev net0 root netem loss 2% delay 1ms
if [[ $BATON_VM_NODE == 0 ]]; then
  "${bench[@]}" --iters 40 >/dev/null
  sent=$(tc -s qdisc show dev net0)
  grep -o 'dropped [0-9]*' <<<"$sent"
  ! grep -q 'dropped 0,' <<<"$sent"
else
  client "$BATON_VM_PEER" 40
fi
