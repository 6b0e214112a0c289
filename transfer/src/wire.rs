//! The frames, byte by byte; docs/wire.md draws them. Little-endian, fixed sizes, each with a
//! CRC32C of its own, so that a reader never has to guess how much to read or what to allocate.

use crate::{Identity, Refused, Span, Token};
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{Generation, GroupId, Incarnation, LeaseId, SequenceHash, SlotId, WorkerId};

/// Raised whenever a frame or the slot record changes.
pub(crate) const VERSION: u32 = 3;
const MAGIC: [u8; 8] = *b"BATNXFER";
const KIND_FETCH: u8 = 1;
const KIND_BLOCK: u16 = 2;
/// Flag of a request: the last of its batch.
const LAST: u8 = 1;
/// Flag of a request: the checksum of a part is not wanted.
const UNSUMMED: u8 = 2;

/// Requests in one batch, at most.
pub(crate) const BATCH_REQUESTS: usize = 64;

/// What a caller says first: whom it expects, and that it belongs to the cluster.
#[derive(Clone)]
pub(crate) struct Hello {
    /// Whom the caller expects.
    pub(crate) peer: Identity,
    /// Bytes of the caller's own slots.
    pub(crate) slot_bytes: u64,
    /// The caller's token.
    pub(crate) token: Token,
}

/// How a hello is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Welcome {
    /// Come in.
    Accepted { identity: Identity, slots: u32, slot_bytes: u64 },
    /// Stay out.
    Declined(Refused),
}

/// The request for one block or a part of it: the descriptor, as it was announced. Requests come in
/// batches, which are answered as a whole: all heads, then all payloads, then all slot records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fetch {
    /// Repeated in the answer.
    pub(crate) number: u32,
    /// What is wanted. `owner` is not sent, nor is `lease_remaining_ms`: the hello named the one,
    /// the owner knows the other.
    pub(crate) block: BlockDescriptor,
    /// Which bytes of it.
    pub(crate) span: Span,
    /// Whether the batch ends with it.
    pub(crate) last: bool,
    /// Whether the owner is to say the checksum of a part. The caller has another way to check
    /// where it asks for all parts of a block.
    pub(crate) summed: bool,
}

/// The head of an answer. `len` payload bytes, and later a slot record, belong to an accepted one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHead {
    /// The number of the request.
    pub(crate) number: u32,
    /// What follows, or why nothing does.
    pub(crate) result: Result<Extent, Refused>,
}

/// Payload bytes that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// How many.
    pub(crate) len: u32,
    /// Their CRC32C, as the owner computed it: for a whole block when it was sealed, for a part
    /// now.
    pub(crate) crc: u32,
}

/// Bytes that are no frame of the expected kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Garbled(pub(crate) &'static str);

impl Hello {
    pub(crate) const BYTES: usize = 72;

    pub(crate) fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, VERSION.to_le_bytes());
        put(&mut out, 12, self.peer.worker.0.to_le_bytes());
        put(&mut out, 16, self.peer.incarnation.0.to_le_bytes());
        put(&mut out, 24, self.slot_bytes.to_le_bytes());
        put(&mut out, 32, *self.token.bytes());
        seal(&mut out);
        out
    }

    /// Another version is told from garbage by the first 12 bytes, which never change.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, Refused> {
        if take::<8>(bytes, 0) != MAGIC {
            return Err(Refused::Malformed);
        }
        if u32::from_le_bytes(take(bytes, 8)) != VERSION {
            return Err(Refused::Version);
        }
        if !sealed(bytes) {
            return Err(Refused::Malformed);
        }
        Ok(Self {
            peer: Identity {
                worker: WorkerId(u32::from_le_bytes(take(bytes, 12))),
                incarnation: Incarnation(u64::from_le_bytes(take(bytes, 16))),
            },
            slot_bytes: u64::from_le_bytes(take(bytes, 24)),
            token: Token::new(take(bytes, 32)),
        })
    }
}

impl Welcome {
    pub(crate) const BYTES: usize = 48;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, VERSION.to_le_bytes());
        match self {
            Self::Accepted { identity, slots, slot_bytes } => {
                put(&mut out, 16, identity.worker.0.to_le_bytes());
                put(&mut out, 20, slots.to_le_bytes());
                put(&mut out, 24, identity.incarnation.0.to_le_bytes());
                put(&mut out, 32, slot_bytes.to_le_bytes());
            }
            Self::Declined(refused) => put(&mut out, 12, refused.code().to_le_bytes()),
        }
        seal(&mut out);
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, Garbled> {
        if take::<8>(bytes, 0) != MAGIC {
            return Err(Garbled("the answer to the hello is none"));
        }
        if u32::from_le_bytes(take(bytes, 8)) != VERSION {
            return Ok(Self::Declined(Refused::Version));
        }
        if !sealed(bytes) {
            return Err(Garbled("the answer to the hello is damaged"));
        }
        match u16::from_le_bytes(take(bytes, 12)) {
            0 => Ok(Self::Accepted {
                identity: Identity {
                    worker: WorkerId(u32::from_le_bytes(take(bytes, 16))),
                    incarnation: Incarnation(u64::from_le_bytes(take(bytes, 24))),
                },
                slots: u32::from_le_bytes(take(bytes, 20)),
                slot_bytes: u64::from_le_bytes(take(bytes, 32)),
            }),
            code => Ok(Self::Declined(status(code)?)),
        }
    }
}

impl Fetch {
    /// A request that is a batch by itself.
    pub(crate) fn alone(number: u32, block: BlockDescriptor, span: Span) -> Self {
        Self { number, block, span, last: true, summed: true }
    }

    pub(crate) const BYTES: usize = 72;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let Self { number, block, span, last, summed } = self;
        let flags = if last { LAST } else { 0 } | if summed { 0 } else { UNSUMMED };
        let mut out = [0; Self::BYTES];
        put(&mut out, 0, [KIND_FETCH, flags]);
        put(&mut out, 2, block.group.0.to_le_bytes());
        put(&mut out, 4, number.to_le_bytes());
        put(&mut out, 8, block.incarnation.0.to_le_bytes());
        put(&mut out, 16, block.lease.0.to_le_bytes());
        put(&mut out, 24, block.generation.0.to_le_bytes());
        put(&mut out, 32, block.hash.0);
        put(&mut out, 48, block.slot.0.to_le_bytes());
        put(&mut out, 52, block.len.to_le_bytes());
        put(&mut out, 56, block.crc.to_le_bytes());
        put(&mut out, 60, span.offset.to_le_bytes());
        put(&mut out, 64, span.len.to_le_bytes());
        seal(&mut out);
        out
    }

    /// `owner` is the worker that is asked.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES], owner: WorkerId) -> Result<Self, Garbled> {
        let [kind, flags] = take(bytes, 0);
        if !sealed(bytes) || kind != KIND_FETCH || flags & !(LAST | UNSUMMED) != 0 {
            return Err(Garbled("a request is damaged or of an unknown kind"));
        }
        let block = BlockDescriptor {
            owner,
            incarnation: Incarnation(u64::from_le_bytes(take(bytes, 8))),
            lease: LeaseId(u64::from_le_bytes(take(bytes, 16))),
            lease_remaining_ms: 0,
            slot: SlotId(u32::from_le_bytes(take(bytes, 48))),
            generation: Generation(u64::from_le_bytes(take(bytes, 24))),
            hash: SequenceHash(take(bytes, 32)),
            group: GroupId(u16::from_le_bytes(take(bytes, 2))),
            len: u32::from_le_bytes(take(bytes, 52)),
            crc: u32::from_le_bytes(take(bytes, 56)),
        };
        let span = Span {
            offset: u32::from_le_bytes(take(bytes, 60)),
            len: u32::from_le_bytes(take(bytes, 64)),
        };
        let number = u32::from_le_bytes(take(bytes, 4));
        Ok(Self { number, block, span, last: flags & LAST != 0, summed: flags & UNSUMMED == 0 })
    }
}

impl BlockHead {
    pub(crate) const BYTES: usize = 20;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put(&mut out, 0, KIND_BLOCK.to_le_bytes());
        put(&mut out, 4, self.number.to_le_bytes());
        match self.result {
            Ok(Extent { len, crc }) => {
                put(&mut out, 8, len.to_le_bytes());
                put(&mut out, 12, crc.to_le_bytes());
            }
            Err(refused) => put(&mut out, 2, refused.code().to_le_bytes()),
        }
        seal(&mut out);
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, Garbled> {
        if !sealed(bytes) || u16::from_le_bytes(take(bytes, 0)) != KIND_BLOCK {
            return Err(Garbled("an answer is damaged or of an unknown kind"));
        }
        let result = match u16::from_le_bytes(take(bytes, 2)) {
            0 => Ok(Extent {
                len: u32::from_le_bytes(take(bytes, 8)),
                crc: u32::from_le_bytes(take(bytes, 12)),
            }),
            code => Err(status(code)?),
        };
        Ok(Self { number: u32::from_le_bytes(take(bytes, 4)), result })
    }
}

fn status(code: u16) -> Result<Refused, Garbled> {
    Refused::from_code(code).ok_or(Garbled("an unknown status"))
}

/// The last four bytes of every frame are the CRC32C of those before.
fn seal<const N: usize>(frame: &mut [u8; N]) {
    let crc = crc32c::crc32c(&frame[..N - 4]);
    put(frame, N - 4, crc.to_le_bytes());
}

fn sealed<const N: usize>(frame: &[u8; N]) -> bool {
    take(frame, N - 4) == crc32c::crc32c(&frame[..N - 4]).to_le_bytes()
}

/// Offsets are constants of this file, inside the frame.
fn put<const N: usize>(frame: &mut [u8], at: usize, bytes: [u8; N]) {
    frame[at..at + N].copy_from_slice(&bytes);
}

fn take<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[at..at + N]);
    bytes
}
