//! Between which tokens an answer's reasoning stands, for whoever bounds it.

use super::formats::Layout;
use super::style::Style;

/// Marks of reasoning in a format that has its own. Each word is one token.
pub(super) struct Marks {
    /// One after the other, these open a section.
    pub(super) open: &'static [&'static str],
    /// Each of these ends one.
    pub(super) close: &'static [&'static str],
    /// With these, one after the other, a section is ended for the model.
    pub(super) end: &'static [&'static str],
}

/// Between which words the sections of reasoning stand.
pub(crate) struct Sections {
    /// One after the other, these open a section.
    pub(crate) open: Vec<&'static str>,
    /// Each of these ends one.
    pub(crate) close: Vec<&'static str>,
    /// Where there are tools, so does each of these: calls begin with them.
    pub(crate) calls: &'static [&'static str],
    /// With these, one after the other, a section is ended for the model.
    pub(crate) end: Vec<&'static str>,
    /// A newline comes before the first of `end`, as the chat template writes it.
    pub(crate) newline: bool,
    /// A section opens wherever its mark stands; otherwise not amid the text.
    pub(crate) opens_anywhere: bool,
}

impl Style {
    /// Between which words its reasoning stands; `None` if it has none.
    pub(crate) fn sections(&self) -> Option<Sections> {
        match self.layout() {
            Layout::Messages(marks) => Some(Sections {
                open: marks.open.to_vec(),
                close: marks.close.to_vec(),
                calls: &[],
                end: marks.end.to_vec(),
                newline: false,
                opens_anywhere: true,
            }),
            Layout::Tagged(words) => {
                let (open, close) = self.reasoning().tags()?;
                Some(Sections {
                    open: vec![open],
                    close: vec![close],
                    calls: words.openers,
                    end: vec![close],
                    newline: self.closes_on_a_line_of_its_own(),
                    opens_anywhere: false,
                })
            }
        }
    }
}
