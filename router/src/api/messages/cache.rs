//! What a client wants to be kept: `cache_control`, wherever it may stand.

use crate::api::cache::{last_part, wanted};
use crate::api::fields::Object;
use crate::error::Invalid;
use baton_proto::ir::{CacheTtl, Message};

/// The interface's own bound.
const MARKS_MAX: usize = 4;

/// Counts the directives of a request in the order in which a prompt has them: tools, system,
/// messages.
#[derive(Default)]
pub(super) struct Marks {
    count: usize,
    last: Option<CacheTtl>,
    /// Where the first one stands that is more than may be.
    beyond: Option<String>,
}

impl Marks {
    /// The directive of a block, if it has one.
    pub(super) fn read(&mut self, block: Object<'_>) -> Result<Option<CacheTtl>, Invalid> {
        let Some(value) = block.get("cache_control") else { return Ok(None) };
        let path = block.path_of("cache_control");
        let directive = Object::new(value, &path)?;
        let kind = directive.required_string("type")?;
        if kind != "ephemeral" {
            let path = directive.path_of("type");
            let message = format!("Invalid '{path}': expected `ephemeral`.");
            return Err(Invalid::value(path, message));
        }
        let place = directive.path_of("ttl");
        let ttl = match directive.string("ttl")? {
            None | Some("5m") => CacheTtl::Minutes5,
            Some("1h") => CacheTtl::Hour1,
            Some(_) => {
                let message = format!("Invalid '{place}': expected `5m` or `1h`.");
                return Err(Invalid::value(place, message));
            }
        };
        if self.last.is_some_and(|last| last < ttl) {
            let message = format!(
                "Invalid '{place}': a block with ttl `1h` must not come after one with ttl `5m`; \
                 the order is tools, system, messages."
            );
            return Err(Invalid::value(place, message));
        }
        self.last = Some(ttl);
        self.count += 1;
        if self.count == MARKS_MAX + 1 {
            self.beyond = Some(path);
        }
        Ok(Some(ttl))
    }

    /// The directive of a text block, which must say something.
    pub(super) fn read_text(
        &mut self,
        block: Object<'_>,
        text: &str,
    ) -> Result<Option<CacheTtl>, Invalid> {
        let ttl = self.read(block)?;
        if ttl.is_some() && text.is_empty() {
            let path = block.path_of("cache_control");
            let message = format!("'{path}': cache_control cannot be set for empty text blocks.");
            return Err(Invalid::value(path, message));
        }
        Ok(ttl)
    }

    /// All blocks have been read: the directive of the request itself marks the last of them.
    pub(super) fn finish(
        mut self,
        body: Object<'_>,
        messages: &mut [Message],
    ) -> Result<(), Invalid> {
        let wished = wanted(body)?;
        if let Some(ttl) = self.read(body)? {
            if let Some(part) = last_part(messages) {
                match part.cache {
                    // The block says the same itself.
                    Some(own) if own == ttl => self.count -= 1,
                    Some(_) => {
                        let message = "Invalid 'cache_control.ttl': the last block has a directive \
                                       with another ttl.";
                        return Err(Invalid::value("cache_control.ttl", message));
                    }
                    None => part.cache = Some(ttl),
                }
            }
        }
        // In a vendor's words it is a wish, which is no reason to refuse a request.
        else if let Some(ttl) = wished
            && let Some(part) = last_part(messages)
            && part.cache.is_none()
            && self.count < MARKS_MAX
            && self.last.is_none_or(|last| last >= ttl)
        {
            part.cache = Some(ttl);
        }
        if let Some(path) = self.beyond.filter(|_| self.count > MARKS_MAX) {
            let message = format!(
                "A maximum of {MARKS_MAX} blocks with cache_control may be provided. Found {}; '{path}' \
                 is one too many.",
                self.count
            );
            return Err(Invalid::value(path, message));
        }
        Ok(())
    }
}
