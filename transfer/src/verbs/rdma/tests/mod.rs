//! Tests of the handles: against the installed header, the null provider, and a real device.
#![allow(clippy::unwrap_used)]

mod device;
mod layout;
mod null;
