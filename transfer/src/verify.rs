//! Whether what arrived is the block that was asked for.

use crate::Mismatch;
use crate::guards::{Guard, Guards};
use baton_kv::record::{RECORD_BYTES, RecordState, SlotRecord};
use baton_proto::block::BlockDescriptor;

/// Checks a payload and the slot record that was read *after* it against the descriptor.
///
/// The order is what makes it sound: if the slot was reused while the payload was read, the record
/// that is read afterwards says so.
pub fn verify(
    block: &BlockDescriptor,
    payload: &[u8],
    record: &[u8; RECORD_BYTES],
) -> Result<(), Mismatch> {
    if payload.len() != block.len as usize {
        return Err(Mismatch::Content);
    }
    check(block, crc32c::crc32c(payload), record, Guards::default())
}

/// The same for a payload of the right length whose checksum was computed as it came in.
pub(crate) fn check(
    block: &BlockDescriptor,
    payload_crc: u32,
    record: &[u8; RECORD_BYTES],
    guards: Guards,
) -> Result<(), Mismatch> {
    check_sums(block, (block.crc, payload_crc), record, guards)
}

/// The same for a part: the checksum that it should have, and that of what came.
pub(crate) fn check_sums(
    block: &BlockDescriptor,
    (expected, found): (u32, u32),
    record: &[u8; RECORD_BYTES],
    guards: Guards,
) -> Result<(), Mismatch> {
    check_record(block, &SlotRecord::from_bytes(record)?, guards)?;
    if guards.on(Guard::Crc) && found != expected {
        return Err(Mismatch::Checksum { expected, found });
    }
    Ok(())
}

/// Whether a record is that of the block.
pub(crate) fn check_record(
    block: &BlockDescriptor,
    record: &SlotRecord,
    guards: Guards,
) -> Result<(), Mismatch> {
    if record.state != RecordState::Sealed {
        return Err(Mismatch::NotSealed);
    }
    if guards.on(Guard::Generation) && record.generation != block.generation {
        return Err(Mismatch::Generation { expected: block.generation, found: record.generation });
    }
    let identical = record.hash == block.hash && record.group == block.group;
    if guards.on(Guard::Identity) && !identical {
        return Err(Mismatch::Identity);
    }
    if record.len != block.len || record.crc != block.crc {
        return Err(Mismatch::Content);
    }
    Ok(())
}
