//! Tests of the handles: against the installed header, the null provider, and a real device.
#![allow(clippy::unwrap_used)]

mod device;
mod layout;
mod null;

use super::{Device, DeviceChoice, DeviceError};
use std::path::Path;

#[test]
fn a_machine_without_rdma_says_what_is_missing() {
    if Path::new("/sys/class/infiniband").is_dir() {
        eprintln!("SKIPPED: this machine has RDMA");
        return;
    }
    for device in [None, Some("mlx5_0".to_owned())] {
        let error = Device::open(&DeviceChoice { device, ..DeviceChoice::default() }).unwrap_err();
        let said = error.to_string();
        match error {
            DeviceError::Library { .. } => assert!(said.contains("libibverbs1"), "{said}"),
            DeviceError::NoDevice => assert!(said.contains("rdma link"), "{said}"),
            other => panic!("{other}"),
        }
    }
}
