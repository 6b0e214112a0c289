//! Where things lie in an arena, and the header that says so. See docs/wire.md.

/// Bytes of one slot record.
pub const RECORD_BYTES: usize = 64;
/// Bytes of the header; what follows up to the first page boundary is zero.
pub const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"BATARENA";
const VERSION: u32 = 1;
/// Largest page that the payload may be mapped with here; also a multiple of every sector size.
const PAGE: u64 = 4096;
/// Slots start at cache lines, so that two of them never share one and every scalar is aligned.
const SLOT_ALIGN: u64 = 64;

/// How many slots of how many bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Number of slots.
    pub slots: u32,
    /// Usable bytes of each slot.
    pub slot_bytes: usize,
}

/// Offsets of an arena's parts. A function of the shape alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// What is laid out.
    pub shape: Shape,
    /// Distance between two slots: `slot_bytes` rounded up to a cache line.
    pub stride: u64,
    /// Where the slot records start: the second page.
    pub records: u64,
    /// Where slot 0 starts: at a page boundary.
    pub payload: u64,
    /// Bytes of the whole mapping, whole pages.
    pub total: u64,
}

impl Layout {
    /// The layout of a shape; `None` if it has no bytes or too many.
    pub fn of(shape: Shape) -> Option<Self> {
        if shape.slots == 0 || shape.slot_bytes == 0 {
            return None;
        }
        let stride = u64::try_from(shape.slot_bytes).ok()?.checked_next_multiple_of(SLOT_ALIGN)?;
        let records = PAGE;
        let record_bytes = u64::from(shape.slots) * RECORD_BYTES as u64;
        let payload = (records + record_bytes).checked_next_multiple_of(PAGE)?;
        let slots = stride.checked_mul(u64::from(shape.slots))?;
        let total = payload.checked_add(slots)?.checked_next_multiple_of(PAGE)?;
        // References and pointer offsets are limited to isize::MAX bytes.
        isize::try_from(total).ok()?;
        Some(Self { shape, stride, records, payload, total })
    }

    /// Where a slot's bytes start. The slot has to exist.
    pub(crate) fn slot_offset(&self, slot: u32) -> usize {
        assert!(slot < self.shape.slots, "slot {slot} of an arena of {} slots", self.shape.slots);
        (self.payload + self.stride * u64::from(slot)) as usize
    }

    /// Where a slot's record starts. The slot has to exist.
    pub(crate) fn record_offset(&self, slot: u32) -> usize {
        assert!(slot < self.shape.slots, "slot {slot} of an arena of {} slots", self.shape.slots);
        self.records as usize + slot as usize * RECORD_BYTES
    }

    /// The header of an arena with this layout.
    ///
    /// It is compared as a whole: every field follows from the shape, so any difference means that
    /// the other side is not what it was said to be.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shape.slots.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.shape.slot_bytes as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.stride.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.records.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.payload.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.total.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The bytes that docs/wire.md draws. They may change only together with the version.
    #[test]
    fn the_header_is_pinned() {
        let layout = Layout::of(Shape { slots: 3, slot_bytes: 100 }).unwrap();
        let header = layout.header();
        let hex = header.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let golden = concat!(
            "4241544152454e41", // "BATARENA"
            "01000000",         // version
            "03000000",         // slots
            "6400000000000000", // slot_bytes
            "8000000000000000", // stride
            "0010000000000000", // records
            "0020000000000000", // payload
            "0030000000000000", // total
            "00000000",         // reserved
        );
        assert_eq!(&hex[..120], golden);
        let crc = crc32c::crc32c(&header[..60]);
        assert_eq!(header[60..], crc.to_le_bytes());
    }

    #[test]
    fn shapes_without_or_with_too_many_bytes_have_no_layout() {
        for (slots, slot_bytes) in [(0, 64), (1, 0), (2, usize::MAX / 2), (u32::MAX, 1 << 40)] {
            assert_eq!(Layout::of(Shape { slots, slot_bytes }), None, "{slots} x {slot_bytes}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_aligned_and_disjoint(slots in 1u32..5000, slot_bytes in 1usize..100_000) {
            let layout = Layout::of(Shape { slots, slot_bytes }).unwrap();
            let last = slots - 1;
            prop_assert!(HEADER_BYTES <= layout.record_offset(0));
            prop_assert!(layout.record_offset(last) + RECORD_BYTES <= layout.slot_offset(0));
            prop_assert_eq!(layout.slot_offset(0) % PAGE as usize, 0);
            prop_assert_eq!(layout.slot_offset(last) % SLOT_ALIGN as usize, 0);
            if slots > 1 {
                prop_assert!(layout.slot_offset(0) + slot_bytes <= layout.slot_offset(1));
            }
            prop_assert!(layout.slot_offset(last) + slot_bytes <= layout.total as usize);
        }
    }
}
