//! Names of calls, for templates that take names of a certain form alone.

use std::borrow::Cow;

/// The length that Mistral's templates demand, of letters and digits.
const LEN: usize = 9;

/// Whether a template refuses other names.
pub(super) fn must_be_short(template: &str) -> bool {
    template.contains("length != 9")
}

/// The name itself where it has that form, else one of that form that is the same for equal names.
pub(super) fn short(id: &str) -> Cow<'_, str> {
    if id.len() == LEN && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Cow::Borrowed(id);
    }
    // FNV-1a. Nothing but calls of one conversation has to be told apart.
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let digits = (0..LEN).map(|_| {
        let digit = char::from_digit((hash % 36) as u32, 36).unwrap_or('0');
        hash /= 36;
        digit
    });
    Cow::Owned(digits.collect())
}
