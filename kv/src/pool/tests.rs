#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn smoke() {
    let mut pool = Pool::new(PoolConfig { slots: 2, events_kept: 8, leases_max: 2 });
    let (d, _) = pool.draft().unwrap();
    let d = d.lend().settle();
    let id = BlockId { hash: SequenceHash([1; 16]), parent: None, group: GroupId(0) };
    let s = pool.seal(d, id, 3, 4);
    let pin = pool.publish(s);
    assert_eq!(pool.counts().pinned, 1);
    drop(pin);
    assert_eq!(pool.counts().cached, 1);
    let a = pool.draft().unwrap();
    let b = pool.draft().unwrap();
    assert!(b.1.is_some());
    assert!(pool.draft().is_err());
    drop((a, b));
    assert_eq!(pool.available(), 2);
}
