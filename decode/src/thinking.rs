//! A bound on reasoning. Its tokens are counted as they are drawn, over all its sections; where the
//! budget is spent within one, the tokens that end it come next, and then the model goes on. After
//! that no further section opens: the token that would complete its marker is not drawn.
//!
//! Markers do not count, and neither do the tokens of the end that is written for the model: of what
//! it has drawn itself, never more than the budget is reasoning. The forced tokens are tokens of the
//! answer like any other: they count for its limit, for penalties and for the names of blocks.

use baton_engine::api::ModelSpec;
use baton_proto::ids::TokenId;
use baton_proto::internal::ThinkingBudget;
use baton_worker::wire::BadMessage;

/// Ids in a list of a rule, at most.
const IDS_MAX: usize = 64;

/// What a turn wants of the reasoning of its choices. See docs/api.md.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThinkingRule {
    /// Tokens of reasoning, over all sections of an answer.
    pub tokens_max: u32,
    /// The prompt ends within reasoning.
    pub is_open: bool,
    /// One after the other, these open a section; all different, so that a run of them is found
    /// without a look back.
    pub open: Vec<TokenId>,
    /// Each of these ends one.
    pub close: Vec<TokenId>,
    /// These end one for which there is no budget left, one after the other; at least one.
    pub end: Vec<TokenId>,
    /// A section opens wherever its marker stands; otherwise where the answer begins and where one
    /// has ended, with nothing but `blanks` between.
    pub opens_anywhere: bool,
    /// Tokens that may come before a section.
    pub blanks: Vec<TokenId>,
}

impl ThinkingRule {
    /// From what a router sends.
    pub fn from_wire(budget: ThinkingBudget, spec: &ModelSpec) -> Result<Self, BadMessage> {
        let bad = BadMessage::new;
        let check = |ids: &[TokenId], field| {
            if ids.len() > IDS_MAX {
                return Err(bad(field, "has more than 64 ids"));
            }
            if ids.iter().any(|id| *id >= spec.vocab_size) {
                return Err(bad(field, "has an id outside the vocabulary"));
            }
            Ok(())
        };
        check(&budget.open_ids, "submit.thinking.open_ids")?;
        check(&budget.close_ids, "submit.thinking.close_ids")?;
        check(&budget.end_ids, "submit.thinking.end_ids")?;
        check(&budget.blank_ids, "submit.thinking.blank_ids")?;
        let open = &budget.open_ids;
        if open.is_empty() || (1..open.len()).any(|i| open[..i].contains(&open[i])) {
            return Err(bad("submit.thinking.open_ids", "is empty or has an id twice"));
        }
        if budget.end_ids.is_empty() {
            return Err(bad("submit.thinking.end_ids", "is empty"));
        }
        Ok(Self {
            tokens_max: budget.tokens_max,
            is_open: budget.is_open,
            open: budget.open_ids,
            close: budget.close_ids,
            end: budget.end_ids,
            opens_anywhere: budget.opens_anywhere,
            blanks: budget.blank_ids,
        })
    }
}

/// What the rule says about the next token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextToken {
    /// Nothing.
    Free,
    /// It must not be this one.
    Not(TokenId),
    /// It is this one.
    Forced(TokenId),
}

/// How far the reasoning of one choice is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thinking {
    place: Place,
    /// Tokens of reasoning drawn.
    spent: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// A section may open, and so many tokens of its marker have come.
    Before(usize),
    /// In a section.
    Within,
    /// So many tokens of its forced end have come.
    Ending(usize),
    /// No section opens any more.
    Beyond,
}

impl Thinking {
    /// At the beginning of an answer.
    pub fn new(rule: &ThinkingRule) -> Self {
        Self { place: if rule.is_open { Place::Within } else { Place::Before(0) }, spent: 0 }
    }

    /// What the rule says about the next token.
    pub fn next(&self, rule: &ThinkingRule) -> NextToken {
        let is_spent = self.spent >= rule.tokens_max;
        match self.place {
            Place::Within if is_spent => NextToken::Forced(rule.end[0]),
            Place::Ending(at) => NextToken::Forced(rule.end[at]),
            Place::Before(seen) if is_spent && seen + 1 == rule.open.len() => {
                NextToken::Not(rule.open[seen])
            }
            Place::Within | Place::Before(_) | Place::Beyond => NextToken::Free,
        }
    }

    /// The next token is this one.
    pub fn push(&mut self, rule: &ThinkingRule, token: TokenId) {
        let forced = matches!(self.next(rule), NextToken::Forced(_));
        self.place = match self.place {
            Place::Ending(at) if at + 1 < rule.end.len() => Place::Ending(at + 1),
            Place::Within if forced && rule.end.len() > 1 => Place::Ending(1),
            Place::Ending(_) => begun(rule, token),
            Place::Within if forced || rule.close.contains(&token) => begun(rule, token),
            Place::Within => {
                self.spent += 1;
                Place::Within
            }
            Place::Before(seen) if token == rule.open[seen] => match seen + 1 {
                all if all == rule.open.len() => Place::Within,
                more => Place::Before(more),
            },
            Place::Before(seen) => match begun(rule, token) {
                Place::Before(0)
                    if !rule.opens_anywhere && (seen > 0 || !rule.blanks.contains(&token)) =>
                {
                    Place::Beyond
                }
                place => place,
            },
            Place::Beyond => Place::Beyond,
        };
    }
}

/// A section may open, and this token may be the first of its marker: that of `<|channel|>`, say,
/// ends a message as well.
fn begun(rule: &ThinkingRule, token: TokenId) -> Place {
    Place::Before(usize::from(rule.open.len() > 1 && token == rule.open[0]))
}

#[cfg(test)]
#[path = "thinking_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
