//! Whether a file is what the hub announced. An entity tag of the hub is the SHA-256 of a large
//! file, or git's id of a small one: SHA-1 over a header and the content.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Compares a file with its tag; `None` if the tag is of another kind.
pub(super) fn fits(path: &Path, tag: &str) -> std::io::Result<Option<bool>> {
    let mut file = File::open(path)?;
    let mut context = match tag.len() {
        64 => Context::new(&SHA256),
        40 => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
            context
        }
        _ => return Ok(None),
    };
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    Ok(Some(unhex(tag).as_deref() == Some(context.finish().as_ref())))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_kinds_of_tags_are_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        // sha256sum and git hash-object of that.
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for tag in [sha256, git] {
            assert_eq!(fits(file.path(), tag).unwrap(), Some(true));
            let other = format!("0{}", &tag[1..]);
            assert_eq!(fits(file.path(), &other).unwrap(), Some(false));
        }
        assert_eq!(fits(file.path(), &"x".repeat(40)).unwrap(), Some(false));
        assert_eq!(fits(file.path(), "W/123").unwrap(), None);
    }
}
