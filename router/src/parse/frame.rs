//! Text, reasoning and the places of calls, for the formats that mark these with words of their own.
//!
//! Newlines next to a marker belong to it, as templates write them there: all of those around
//! reasoning, one before a call that follows text, all between calls.

use super::event::{Events, Warning};
use super::json::Sink;
use super::markers::{Here, Markers};
use super::style::Style;
use super::{Automaton, Piece};

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// It goes on.
    More,
    /// It is over.
    Done,
    /// It is over, and so is the closing marker.
    Closed,
    /// It is over before its time, and a warning has said so. What [`Call::rest`] has is text.
    Cut,
    /// It is none. What [`Call::rest`] has is all of it, and text.
    Reject(Option<Warning>),
}

/// A format's calls, from the opening marker on.
pub(super) trait Call: Send {
    /// This marker was found.
    fn open(&mut self, opener: &'static str);
    /// Takes text in, up to the call's end; how many bytes were used.
    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow);
    /// Takes text in if it is nothing but a part of a string in the arguments: the short way.
    fn plain(&mut self, _text: &str, _out: &mut Events) -> bool {
        false
    }
    /// Takes a special token in, as `text` does; if none of it was used, it stands after the call.
    fn special(&mut self, token: &str, out: &mut Events) -> (usize, Flow);
    /// The output ends here; never `More`. What is held back of a call that has been announced is a
    /// piece of that call and nobody's words: it is not among what is left as text.
    fn finish(&mut self, out: &mut Events) -> Flow;
    /// What was read and is text after all.
    fn rest(&mut self) -> &mut String;
    /// What was held back after that, as the beginning of a marker within calls. It may be the
    /// beginning of another.
    fn again(&mut self) -> &'static str {
        ""
    }
}

/// Fragments of the open call's arguments.
pub(super) struct Arguments<'a>(pub(super) &'a mut Events);

impl Sink for Arguments<'_> {
    #[inline]
    fn put(&mut self, text: &str) {
        self.0.arguments(text);
    }
}

/// The words of a format.
pub(super) struct Words {
    /// Before a call, wherever it stands.
    pub(super) openers: &'static [&'static str],
    /// Before a call, if nothing but calls came before.
    pub(super) bare_opener: Option<&'static str>,
    /// May follow a call.
    pub(super) closer: Option<&'static str>,
}

impl Words {
    /// There are no calls.
    pub(super) const NONE: Self = Self { openers: &[], bare_opener: None, closer: None };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Text,
    Reasoning,
    Call,
}

/// Where in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    AfterReasoning,
    AfterCall,
    Amid,
}

/// Whether a call's closing marker is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    No,
    Yes,
    /// Yes, and it has been said that it is late.
    Warned,
}

/// The automaton of such a format.
pub(super) struct Frame {
    call: Option<Box<dyn Call>>,
    markers: Markers,
    sets: Sets,
    mode: Mode,
    /// The mode in which the open call was found.
    from: Mode,
    place: Place,
    due: Due,
    /// A call has ended the reasoning; its closing marker may still come.
    late_close: bool,
    /// Reasoning has just begun: newlines are the marker's.
    opening: bool,
    /// Newlines that are held back until it is known what follows.
    newlines: usize,
}

/// Which markers are what, as bits.
struct Sets {
    openers: u32,
    bare: u32,
    closer: u32,
    think_open: u32,
    think_close: u32,
    /// Those that come as text; the others come as special tokens alone.
    in_text: u32,
    /// Those that are looked for now, in either form.
    now: u32,
}

impl Frame {
    /// Without `call`, none is looked for. `style` has the words around reasoning, and says which
    /// words are tokens of their own.
    pub(super) fn new(
        style: &Style,
        words: &Words,
        call: Option<Box<dyn Call>>,
        in_reasoning: bool,
    ) -> Self {
        let think = style.reasoning().tags();
        let mut all = Vec::new();
        let mut add = |words: &[&'static str]| {
            let first = all.len();
            all.extend_from_slice(words);
            (first..all.len()).fold(0, |set, i| set | 1 << i)
        };
        let some = |word: Option<&'static str>| word.into_iter().collect::<Vec<_>>();
        let mut sets = Sets {
            openers: add(if call.is_some() { words.openers } else { &[] }),
            bare: add(&some(words.bare_opener.filter(|_| call.is_some()))),
            closer: add(&some(words.closer.filter(|_| call.is_some()))),
            think_open: add(&some(think.map(|(open, _)| open))),
            think_close: add(&some(think.map(|(_, close)| close))),
            in_text: 0,
            now: 0,
        };
        let text = all.iter().enumerate().filter(|(_, word)| !style.is_token(word));
        sets.in_text = text.fold(0, |set, (i, _)| set | 1 << i);
        let mode = if in_reasoning && think.is_some() { Mode::Reasoning } else { Mode::Text };
        let mut frame = Self {
            call,
            markers: Markers::new(all),
            sets,
            mode,
            from: mode,
            place: Place::Start,
            due: Due::No,
            late_close: false,
            opening: mode == Mode::Reasoning,
            newlines: 0,
        };
        frame.look();
        frame
    }

    /// Looks for what may come now.
    fn look(&mut self) {
        let sets = &mut self.sets;
        let mut now = sets.openers;
        if self.mode == Mode::Reasoning {
            now |= sets.think_close;
        } else {
            if self.place != Place::Amid {
                now |= sets.think_open | sets.bare;
            }
            if self.due != Due::No {
                now |= sets.closer;
            }
            if self.late_close {
                now |= sets.think_close;
            }
        }
        sets.now = now;
        self.markers.want(now & sets.in_text);
    }

    /// Text outside calls, up to the beginning of one; what is left of it.
    fn prose<'t>(&mut self, mut text: &'t str, out: &mut Events) -> &'t str {
        while !text.is_empty() && self.mode != Mode::Call {
            if self.markers.is_idle() {
                let plain = if self.mode == Mode::Text && self.place != Place::Amid {
                    // What may stand at the beginning alone is looked for there alone.
                    let newlines = text.bytes().take_while(|byte| *byte == b'\n').count();
                    if newlines == 0 && !self.markers.may_begin(text.as_bytes()[0]) {
                        self.amid();
                        continue;
                    }
                    newlines
                } else {
                    self.markers.next(text)
                };
                if plain > 0 {
                    self.say(&text[..plain], out);
                    text = &text[plain..];
                    continue;
                }
            }
            match self.markers.here(text) {
                Here::Perhaps => return "",
                Here::Marker(index, used) => {
                    text = &text[used..];
                    self.marker(index, out);
                }
                Here::No("") => {
                    self.say(&text[..1], out);
                    text = &text[1..];
                }
                Here::No(released) => self.say(released, out),
            }
        }
        text
    }

    /// The text has begun.
    fn amid(&mut self) {
        let place = std::mem::replace(&mut self.place, Place::Amid);
        if place == Place::AfterReasoning {
            self.newlines = 0;
        }
        self.look();
    }

    /// Text or reasoning that is no marker.
    #[inline]
    fn say(&mut self, text: &str, out: &mut Events) {
        let is_plain = self.newlines == 0 && !text.ends_with('\n') && !self.opening;
        if is_plain && self.mode == Mode::Text && self.place == Place::Amid && self.due != Due::Yes
        {
            return out.text(text);
        }
        if is_plain && self.mode == Mode::Reasoning {
            return out.reasoning(text);
        }
        self.say_carefully(text, out);
    }

    fn say_carefully(&mut self, mut text: &str, out: &mut Events) {
        if self.opening && self.mode == Mode::Reasoning {
            text = text.trim_start_matches('\n');
        }
        let body = text.trim_end_matches('\n');
        if body.is_empty() {
            self.newlines += text.len();
            return;
        }
        self.opening = false;
        if self.mode != Mode::Reasoning {
            if self.place != Place::Amid {
                self.amid();
            }
            if self.due == Due::Yes {
                self.due = Due::Warned;
                out.warning(Warning::Malformed);
            }
        }
        self.say_newlines(self.newlines, out);
        self.tell(body, out);
        self.newlines = text.len() - body.len();
    }

    fn say_newlines(&mut self, mut count: usize, out: &mut Events) {
        const MANY: &str = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
        while count > 0 {
            let some = count.min(MANY.len());
            self.tell(&MANY[..some], out);
            count -= some;
        }
        self.newlines = 0;
    }

    fn tell(&self, text: &str, out: &mut Events) {
        if self.mode == Mode::Reasoning {
            out.reasoning(text);
        } else {
            out.text(text);
        }
    }

    /// A marker that was looked for.
    fn marker(&mut self, index: usize, out: &mut Events) {
        let bit = 1 << index;
        let sets = &self.sets;
        if bit & (sets.openers | sets.bare) != 0 {
            if self.mode == Mode::Text && self.place == Place::Amid && self.newlines > 1 {
                self.say_newlines(self.newlines - 1, out);
                self.newlines = 1;
            }
            self.from = std::mem::replace(&mut self.mode, Mode::Call);
            if let Some(call) = &mut self.call {
                call.open(self.markers.text(index));
            }
            return;
        }
        self.newlines = 0;
        if bit & sets.closer != 0 {
            self.due = Due::No;
            self.place = Place::AfterCall;
        } else if bit & sets.think_open != 0 {
            self.mode = Mode::Reasoning;
            self.opening = true;
        } else if self.late_close {
            self.late_close = false;
        } else {
            self.mode = Mode::Text;
            self.place = Place::AfterReasoning;
        }
        self.look();
    }

    /// What a call makes of its text.
    fn call_went(&mut self, flow: Flow, out: &mut Events) {
        let Some(call) = &mut self.call else { return };
        if flow == Flow::More {
            return;
        }
        let rest = std::mem::take(call.rest());
        if let Flow::Reject(warning) = flow {
            self.mode = self.from;
            if let Some(warning) = warning {
                out.warning(warning);
            }
        } else {
            self.newlines = 0;
            self.late_close = self.from == Mode::Reasoning;
            self.mode = Mode::Text;
            self.place = Place::AfterCall;
            self.due = match (self.sets.closer, flow) {
                (0, _) | (_, Flow::Closed) => Due::No,
                (_, Flow::Cut) => Due::Warned,
                _ => Due::Yes,
            };
        }
        self.look();
        self.say_all(&rest, out);
        if let Some(call) = &mut self.call {
            *call.rest() = rest;
            call.rest().clear();
            let again = call.again();
            self.prose(again, out);
        }
    }

    /// Text in which no marker is looked for.
    fn say_all(&mut self, text: &str, out: &mut Events) {
        if !text.is_empty() {
            self.say(text, out);
        }
    }

    /// Takes text in if it is nothing but more of what came last: the short way.
    #[inline]
    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        if self.mode == Mode::Call {
            return self.call.as_mut().is_some_and(|call| call.plain(text, out));
        }
        let flows = self.newlines == 0 && !self.opening && self.markers.is_idle();
        if !flows || text.ends_with('\n') || self.markers.next(text) < text.len() {
            return false;
        }
        if self.mode == Mode::Reasoning {
            out.reasoning(text);
            return true;
        }
        let flows = self.place == Place::Amid && self.due != Due::Yes;
        if flows {
            out.text(text);
        }
        flows
    }

    fn text(&mut self, mut text: &str, out: &mut Events) {
        if self.plain(text, out) {
            return;
        }
        while !text.is_empty() {
            if self.mode == Mode::Call {
                let Some(call) = &mut self.call else { return };
                let (used, flow) = call.text(text, out);
                text = &text[used..];
                self.call_went(flow, out);
            } else {
                text = self.prose(text, out);
            }
        }
    }

    fn special(&mut self, token: &str, out: &mut Events) {
        if self.mode == Mode::Call
            && let Some(call) = &mut self.call
        {
            let (used, flow) = call.special(token, out);
            self.call_went(flow, out);
            if used > 0 {
                return self.say_all(&token[used..], out);
            }
        }
        let released = self.markers.release();
        self.say_all(released, out);
        match self.markers.position(token) {
            Some(index) if self.sets.now >> index & 1 == 1 => self.marker(index, out),
            _ => self.say_all(token, out),
        }
    }
}

impl Automaton for Frame {
    fn push(&mut self, piece: Piece<'_>, out: &mut Events) {
        match piece {
            Piece::Text(text) => self.text(text, out),
            Piece::Special(token) => self.special(token, out),
        }
    }

    fn finish(&mut self, out: &mut Events) {
        if self.mode == Mode::Call
            && let Some(call) = &mut self.call
        {
            let flow = call.finish(out);
            self.call_went(flow, out);
        }
        let released = self.markers.release();
        self.say_all(released, out);
        let are_text = matches!(self.place, Place::Start | Place::Amid);
        if self.mode == Mode::Text && are_text {
            self.say_newlines(self.newlines, out);
        }
    }
}
