//! Token ids as daemons of one cluster send them to each other: four bytes each, little-endian.
//!
//! Protobuf libraries take repeated numbers one by one; a prompt has a hundred thousand of them.

use crate::ids::TokenId;

const ID_BYTES: usize = size_of::<TokenId>();

/// Ids in bytes.
pub fn pack(ids: &[TokenId]) -> Vec<u8> {
    let mut bytes = vec![0; ids.len() * ID_BYTES];
    for (bytes, id) in bytes.as_chunks_mut::<ID_BYTES>().0.iter_mut().zip(ids) {
        *bytes = id.to_le_bytes();
    }
    bytes
}

/// Ids out of bytes; `None` unless all are whole.
pub fn unpack(bytes: &[u8]) -> Option<Vec<TokenId>> {
    let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
    rest.is_empty().then(|| ids.iter().map(|bytes| TokenId::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_and_parts_of_ids_do_not() {
        let ids = [0, 1, 255, 256, 0x0102_0304, u32::MAX];
        let bytes = pack(&ids);
        assert_eq!(bytes[16..20], [4, 3, 2, 1]);
        assert_eq!(unpack(&bytes).as_deref(), Some(&ids[..]));
        assert_eq!(unpack(&[]), Some(Vec::new()));
        for cut in [1, 2, 3] {
            assert_eq!(unpack(&bytes[cut..]), None);
        }
    }
}
