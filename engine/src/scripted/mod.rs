//! The scripted engine: it plays given tokens, for tests of what happens to an answer's text.
//!
//! Its blocks are written like [the witness's](crate::witness), so that they can be moved and
//! verified like any others, and it has the same latency model. Its tokens follow the [`Script`]
//! alone: the rule is found by the prompt, and the token by its place in the answer, so that a
//! replayed or migrated answer goes on where it was. A token that is forced comes in the place of the
//! script's. After the script comes the model's first end
//! token, until somebody stops asking.

mod load;
mod script;
#[cfg(test)]
mod tests;

pub use load::ScriptedLoadError;
pub use script::{Rule, Script, ScriptError, When};

use crate::api::{Batch, Drawn, Engine, Item, ModelSpec, StepOutput};
use crate::witness::{Body, WitnessSpec, report};
use baton_arena::Arena;
use baton_proto::ids::{SeqKey, TokenId};
use std::collections::HashMap;
use std::fmt;

/// Turns a prompt's ids into the text in which rules look for theirs.
pub type Decode = Box<dyn Fn(&[TokenId]) -> String + Send>;

/// Sequences whose rule is remembered; beyond this number all are looked up again.
const SEQUENCES_MAX: usize = 1 << 16;

/// The engine that plays given tokens.
pub struct Scripted {
    body: Body,
    player: Player,
}

impl Scripted {
    /// An engine that plays `script`, of the shape of a witness.
    pub fn new(spec: WitnessSpec, script: Script, decode: Decode) -> Result<Self, ScriptError> {
        let body = Body::new(spec, "scripted")?;
        let vocab = body.spec.vocab;
        if let Some(token) = script.beyond(vocab) {
            return Err(ScriptError::Token { token, vocab });
        }
        Ok(Self { body, player: Player { script, decode, rules: HashMap::new() } })
    }
}

impl Engine for Scripted {
    fn spec(&self) -> &ModelSpec {
        &self.body.model
    }

    fn step(&mut self, arena: &Arena, batch: Batch<'_>) -> StepOutput {
        let player = &mut self.player;
        self.body.step(arena, batch, |body, item, _| player.draw(&body.spec, item))
    }

    fn forget(&mut self, seq: SeqKey) {
        self.body.forget(seq);
        self.player.rules.remove(&seq);
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("spec", &self.body.spec).finish_non_exhaustive()
    }
}

/// Knows which sequence is where in the script.
struct Player {
    script: Script,
    decode: Decode,
    rules: HashMap<SeqKey, Option<usize>>,
}

impl Player {
    fn draw(&mut self, spec: &WitnessSpec, item: &Item<'_>) -> Option<Drawn> {
        let sample = item.sample.as_ref()?;
        if self.rules.len() >= SEQUENCES_MAX && !self.rules.contains_key(&item.seq) {
            self.rules.clear();
        }
        let prompt = &item.tokens[..sample.prompt_len as usize];
        let (script, decode) = (&self.script, &self.decode);
        let rule = *self.rules.entry(item.seq).or_insert_with(|| script.find(prompt, decode));
        let place = (item.start + item.count - sample.prompt_len) as usize;
        let scripted = || token(spec, script.say(rule), place, &sample.suppressed);
        let token = sample.forced.unwrap_or_else(scripted);
        Some(report(token, spec.vocab, sample))
    }
}

/// The script's token at this place of the answer, then the end token. What is suppressed gives way
/// to the script from the beginning, and where that has nothing either, to the lowest id.
fn token(spec: &WitnessSpec, say: &[TokenId], place: usize, suppressed: &[TokenId]) -> TokenId {
    let scripted = say.get(place).or(spec.eos.first()).copied();
    let again = say.iter().cycle().skip(place % say.len().max(1)).take(say.len()).copied();
    let lowest = (0..spec.vocab).filter(|token| !spec.eos.contains(token));
    let mut wishes = scripted.into_iter().chain(again).chain(lowest);
    wishes.find(|token| !suppressed.contains(token)).unwrap_or(0)
}
