//! Markers in text that arrives in pieces.

/// Markers, some of which are looked for at the moment.
///
/// They begin with an ASCII character that none of them has again, and none begins another: what is
/// held back is then one marker's beginning, and if it goes on otherwise no marker begins within it.
pub(super) struct Markers {
    all: Vec<&'static str>,
    /// Bit `i`: marker `i` is looked for.
    wanted: u32,
    /// The first bytes of these, the last of them repeated.
    firsts: [u8; 3],
    first_count: usize,
    /// What is held back: so many bytes of that marker.
    held: usize,
    of: usize,
}

/// Whether a marker stands at the beginning of what was held back and of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Here {
    /// This one, up to so many bytes of the text.
    Marker(usize, usize),
    /// Perhaps, if it goes on. All of the text is held back.
    Perhaps,
    /// No. This was held back and is no marker; nothing of the text is used.
    No(&'static str),
}

impl Markers {
    pub(super) fn new(all: Vec<&'static str>) -> Self {
        debug_assert!(all.len() <= 32 && are_distinct(&all), "{all:?}");
        Self { all, wanted: 0, firsts: [0; 3], first_count: 0, held: 0, of: 0 }
    }

    /// From now on these are looked for.
    pub(super) fn want(&mut self, wanted: u32) {
        if wanted == self.wanted {
            return;
        }
        self.wanted = wanted;
        self.first_count = 0;
        self.firsts = [0; 3];
        for (i, marker) in self.all.iter().enumerate() {
            let first = marker.as_bytes()[0];
            let known = self.firsts[..self.first_count].contains(&first);
            if wanted >> i & 1 == 1 && !known && self.first_count < self.firsts.len() {
                self.firsts[self.first_count..].fill(first);
                self.first_count += 1;
            }
        }
    }

    /// Which marker a special token is.
    pub(super) fn position(&self, text: &str) -> Option<usize> {
        self.all.iter().position(|marker| *marker == text)
    }

    /// The marker's text.
    pub(super) fn text(&self, index: usize) -> &'static str {
        self.all[index]
    }

    /// Nothing is held back.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.held == 0
    }

    /// What was held back, which is no marker after all.
    pub(super) fn release(&mut self) -> &'static str {
        let held = &self.all.get(self.of).map_or("", |marker| &marker[..self.held]);
        self.held = 0;
        held
    }

    /// A wanted marker may begin with this byte.
    pub(super) fn may_begin(&self, byte: u8) -> bool {
        self.firsts[..self.first_count].contains(&byte)
    }

    /// Where in this text a wanted marker may begin; its length if nowhere.
    #[inline]
    pub(super) fn next(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let [a, b, c] = self.firsts;
        if self.first_count == 0 {
            return bytes.len();
        }
        if bytes.len() < 16 {
            let may_begin = |byte: &u8| *byte == a || *byte == b || *byte == c;
            return bytes.iter().position(may_begin).unwrap_or(bytes.len());
        }
        let at = match self.first_count {
            1 => memchr::memchr(a, bytes),
            2 => memchr::memchr2(a, b, bytes),
            _ => memchr::memchr3(a, b, c, bytes),
        };
        at.unwrap_or(bytes.len())
    }

    /// Whether what is held back goes on as a wanted marker; if nothing is, whether one begins here.
    pub(super) fn here(&mut self, text: &str) -> Here {
        let prefix = self.all.get(self.of).map_or("", |marker| &marker[..self.held]);
        for (i, marker) in self.all.iter().enumerate() {
            if self.wanted >> i & 1 == 0 {
                continue;
            }
            let Some(tail) = marker.strip_prefix(prefix) else { continue };
            if text.starts_with(tail) {
                self.held = 0;
                return Here::Marker(i, tail.len());
            }
            if tail.starts_with(text) {
                self.held += text.len();
                self.of = i;
                return Here::Perhaps;
            }
        }
        self.held = 0;
        Here::No(prefix)
    }
}

/// What [`Markers`] asks of its markers.
fn are_distinct(all: &[&str]) -> bool {
    let begins_once = |marker: &str| {
        let first = marker.as_bytes().first();
        first.is_some_and(u8::is_ascii)
            && all.iter().all(|other| other.bytes().skip(1).all(|byte| Some(&byte) != first))
    };
    let begins_no_other =
        |(i, m): (usize, &&str)| all.iter().enumerate().all(|(j, n)| i == j || !n.starts_with(*m));
    all.iter().all(|marker| begins_once(marker)) && all.iter().enumerate().all(begins_no_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markers() -> Markers {
        let mut markers = Markers::new(vec!["<tool>", "<think>", "{"]);
        markers.want(0b011);
        markers
    }

    #[test]
    fn a_marker_is_found_across_pieces() {
        let mut markers = markers();
        assert_eq!(markers.next("ab<t"), 2);
        assert_eq!(markers.here("<t"), Here::Perhaps);
        assert_eq!(markers.here("hi"), Here::Perhaps);
        assert_eq!(markers.here("nk> x"), Here::Marker(1, 3));
        assert!(markers.is_idle());
    }

    #[test]
    fn what_goes_on_otherwise_is_given_back() {
        let mut markers = markers();
        assert_eq!(markers.here("<to"), Here::Perhaps);
        assert_eq!(markers.here("<think>"), Here::No("<to"));
        assert_eq!(markers.here("<think>"), Here::Marker(1, 7));
        assert_eq!(markers.here("<thinx"), Here::No(""));
        assert_eq!(markers.here("<th"), Here::Perhaps);
        assert_eq!(markers.release(), "<th");
    }

    #[test]
    fn what_is_not_wanted_is_not_found() {
        let mut markers = markers();
        assert_eq!(markers.next("a{b and a longer text {"), 23);
        assert_eq!(markers.here("{"), Here::No(""));
        markers.want(0b100);
        assert_eq!(markers.next("a{b and a longer text {"), 1);
        assert_eq!(markers.here("<tool>"), Here::No(""));
    }

    #[test]
    fn ambiguous_markers_are_recognised() {
        assert!(are_distinct(&["<a>", "<b>", "[A]"]));
        assert!(!are_distinct(&["<a>", "<a>b"]));
        assert!(!are_distinct(&["<a<"]));
        assert!(!are_distinct(&["<a>", "[<]"]));
        assert!(!are_distinct(&[""]));
        assert!(!are_distinct(&["◁think▷"]));
    }
}
