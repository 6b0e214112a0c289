//! What a KV block is: hash chain, pool, leases, events, index.
