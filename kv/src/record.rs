//! The slot record: what stands beside a slot in memory that others may read.
//!
//! A reader copies the payload first and the record after it, since one read gives no order inside
//! itself, and believes neither unless record, payload and descriptor agree. 64 bytes, one cache
//! line, little-endian:
//!
//! ```text
//!    0               4       6       7       8                               16
//!    ┌───────────────┬───────┬───────┬───────┬────────────────────────────────┐
//!    │ magic "BTSR"  │version│ state │ zero  │ generation                     │
//!    ├───────────────┴───────┴───────┴───────┴────────────────────────────────┤ 16
//!    │ sequence hash                                                          │
//!    ├───────┬───────┬───────────────┬───────────────┬────────────────────────┤ 32
//!    │ group │ zero  │ len           │ crc           │ zero                   │
//!    ├───────┴───────┴───────────────┴───────────────┼────────────────────────┤ 48
//!    │ zero                                          │ check, bytes 56 to 63  │
//!    └───────────────────────────────────────────────┴────────────────────────┘ 64
//!    version: 1        state: 0 empty, 1 draft, 2 sealed
//!    len: payload bytes        crc: CRC32C of the payload
//!    check: the first 8 bytes of BLAKE3 over bytes 0 to 55; it catches a torn record
//! ```

use baton_proto::ids::{Generation, GroupId, SequenceHash};
use thiserror::Error;

/// Length of a record.
pub const RECORD_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"BTSR";
const VERSION: u16 = 1;
const CHECKED_BYTES: usize = 56;

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordState {
    /// Nothing.
    Empty,
    /// Bytes that somebody may be writing.
    Draft,
    /// A block that never changes while the generation stands.
    Sealed,
}

/// What stands beside a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRecord {
    /// What the slot holds.
    pub state: RecordState,
    /// The block's group.
    pub group: GroupId,
    /// How often the slot has been handed out for writing.
    pub generation: Generation,
    /// The block's identity; zero unless sealed.
    pub hash: SequenceHash,
    /// Payload length in bytes; zero unless sealed.
    pub len: u32,
    /// CRC32C of the payload; zero unless sealed.
    pub crc: u32,
}

/// Why 64 bytes are no slot record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The magic is missing.
    #[error(
        "no slot record here: magic is {found:02x?}, expected {MAGIC:02x?}; was this slot ever written?"
    )]
    Magic {
        /// What stands there.
        found: [u8; 4],
    },
    /// Written by another release.
    #[error("slot record has version {found}, expected {VERSION}; run one release on all daemons")]
    Version {
        /// What stands there.
        found: u16,
    },
    /// The check does not fit: torn, or overwritten.
    #[error("slot record does not match its check: read while it changed, or damaged; read again")]
    Check,
    /// A state that this version does not know.
    #[error("slot record has unknown state {found}")]
    State {
        /// What stands there.
        found: u8,
    },
    /// Bytes that have to be zero are not.
    #[error("slot record has bytes set that version {VERSION} does not use")]
    Reserved,
}

impl SlotRecord {
    /// The record of a slot that holds nothing.
    pub fn empty(generation: Generation) -> Self {
        Self {
            state: RecordState::Empty,
            group: GroupId(0),
            generation,
            hash: SequenceHash::default(),
            len: 0,
            crc: 0,
        }
    }

    /// The record of a slot that is being written.
    pub fn draft(generation: Generation) -> Self {
        Self { state: RecordState::Draft, ..Self::empty(generation) }
    }

    /// The record as it stands in memory.
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = match self.state {
            RecordState::Empty => 0,
            RecordState::Draft => 1,
            RecordState::Sealed => 2,
        };
        bytes[8..16].copy_from_slice(&self.generation.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.hash.0);
        bytes[32..34].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.len.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.crc.to_le_bytes());
        let check = check_of(&bytes);
        bytes[CHECKED_BYTES..].copy_from_slice(&check);
        bytes
    }

    /// Reads a record; whatever the bytes are, it does not panic.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        let found = field(bytes, 0);
        if found != MAGIC {
            return Err(RecordError::Magic { found });
        }
        let version = u16::from_le_bytes(field(bytes, 4));
        if version != VERSION {
            return Err(RecordError::Version { found: version });
        }
        if field(bytes, CHECKED_BYTES) != check_of(bytes) {
            return Err(RecordError::Check);
        }
        Self::from_known_bytes(bytes)
    }

    /// Reads a record that has been found to match its check before, which takes longer than all
    /// the rest: remember [`check_bytes`](Self::check_bytes) and compare.
    pub fn from_known_bytes(bytes: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        let state = match bytes[6] {
            0 => RecordState::Empty,
            1 => RecordState::Draft,
            2 => RecordState::Sealed,
            found => return Err(RecordError::State { found }),
        };
        let reserved = [&bytes[7..8], &bytes[34..36], &bytes[44..CHECKED_BYTES]];
        if reserved.into_iter().flatten().any(|byte| *byte != 0) {
            return Err(RecordError::Reserved);
        }
        Ok(Self {
            state,
            group: GroupId(u16::from_le_bytes(field(bytes, 32))),
            generation: Generation(u64::from_le_bytes(field(bytes, 8))),
            hash: SequenceHash(field(bytes, 16)),
            len: u32::from_le_bytes(field(bytes, 36)),
            crc: u32::from_le_bytes(field(bytes, 40)),
        })
    }

    /// The check of a record as it stands in memory: equal ones stand for equal records.
    pub fn check_bytes(bytes: &[u8; RECORD_BYTES]) -> [u8; 8] {
        field(bytes, CHECKED_BYTES)
    }
}

/// The `N` bytes at `at`; both are constants of the layout above.
fn field<const N: usize>(bytes: &[u8; RECORD_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn check_of(bytes: &[u8; RECORD_BYTES]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(&bytes[..CHECKED_BYTES]).as_bytes()[..8]);
    check
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
