//! The RDMA device of a worker, as the configuration names it.

use crate::config::VerbsConfig;
use baton_node::exit::{Exit, Failure};
use baton_transfer::verbs::{Device, DeviceChoice, DeviceError};

/// Which device, port and address the configuration means.
pub(crate) fn choice(config: &VerbsConfig) -> DeviceChoice {
    DeviceChoice {
        device: (!config.device.is_empty()).then(|| config.device.clone()),
        port: (config.port > 0).then_some(config.port),
        gid_index: u8::try_from(config.gid_index).ok(),
    }
}

/// Opens the device and closes it again: whether there is one that can be used. It says nothing of
/// the memory that will have to be registered.
pub fn find(config: &VerbsConfig) -> Result<(), DeviceError> {
    Device::open(&choice(config)).map(drop)
}

/// Why a daemon that is told not to do without RDMA does not start.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn required(error: DeviceError) -> Failure {
    let message = format!("`transfer.verbs.mode` = \"required\": {error}");
    Failure::new(Exit::Unavailable, message)
        .with_hint("`transfer.verbs.mode` = \"auto\" starts without RDMA, \"off\" ignores it")
}
