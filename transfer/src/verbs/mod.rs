//! RDMA: the device of the side that wants a block fetches it, without a thread of the other side.

mod posting;
// What the transport does not use yet stands in here for it.
#[allow(dead_code, unused_imports)]
mod rdma;

pub use posting::{Posting, Round};
pub use rdma::{Device, DeviceChoice, DeviceError, Gid, GidProblem, Limits, LinkLayer, Port};
