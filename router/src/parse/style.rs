//! How a checkpoint writes: its format of calls, its reasoning, and which markers are tokens.

use super::formats::{ALL, Layout, Spec};
use super::tools::Tools;
use super::{Automaton, Parser};
use baton_proto::ids::TokenId;
use std::fmt;
use std::sync::Arc;

/// A format of tool calls.
#[derive(Clone, Copy)]
pub struct Format(&'static Spec);

impl Format {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(|spec| Self(spec))
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name() == name)
    }

    /// As configurations write it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The format that a chat template writes calls in.
    pub fn of_template(template: &str) -> Self {
        let found = ALL.iter().find(|spec| (spec.is_of)(template));
        Self(found.unwrap_or(&ALL[ALL.len() - 1]))
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Format({})", self.name())
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Format {}

/// How a checkpoint marks reasoning. Harmony's channels belong to that format and are none of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reasoning {
    /// Not at all.
    None,
    /// `<think>` and `</think>`: DeepSeek R1, Qwen 3, GLM and many others.
    Think,
    /// `[THINK]` and `[/THINK]`: Magistral.
    Brackets,
}

impl Reasoning {
    const ALL: [Self; 3] = [Self::None, Self::Think, Self::Brackets];

    /// The reasoning of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reasoning| reasoning.name() == name)
    }

    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Think => "think",
            Self::Brackets => "brackets",
        }
    }

    pub(super) fn tags(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::None => None,
            Self::Think => Some(("<think>", "</think>")),
            Self::Brackets => Some(("[THINK]", "[/THINK]")),
        }
    }
}

/// How one answer begins.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The prompt has opened the reasoning ([`Style::opens_reasoning`]).
    pub in_reasoning: bool,
    /// The request's tools. Without any, calls in tags are text.
    pub tools: Option<Arc<Tools>>,
}

/// How a checkpoint writes. Made once for a model.
#[derive(Clone, Debug)]
pub struct Style {
    format: Format,
    reasoning: Reasoning,
    /// The template ends reasoning on a line of its own.
    closing_line: bool,
    /// The markers that are tokens of their own.
    tokens: Vec<(TokenId, &'static str)>,
}

impl Style {
    /// From the checkpoint's chat template and its vocabulary: `id_of` finds the token that is
    /// exactly this text and that ordinary text is never tokenised to. `format` and `reasoning`
    /// override what is found.
    pub fn detect(
        template: &str,
        id_of: impl Fn(&str) -> Option<TokenId>,
        format: Option<Format>,
        reasoning: Option<Reasoning>,
    ) -> Self {
        let format = format.unwrap_or_else(|| Format::of_template(template));
        let writes = |(_, close): (&str, &str)| template.contains(close) || id_of(close).is_some();
        let reasoning = reasoning.unwrap_or_else(|| {
            let found = Reasoning::ALL.into_iter().find(|r| r.tags().is_some_and(writes));
            found.unwrap_or(Reasoning::None)
        });
        let closing_line = reasoning.tags().is_some_and(|(_, close)| {
            // In a literal of the template's, or in its own text.
            template.contains(&format!("\\n{close}")) || template.contains(&format!("\n{close}"))
        });
        let tags = reasoning.tags().into_iter().flat_map(|(open, close)| [open, close]);
        let markers = format.0.tokens.iter().copied().chain(tags);
        let tokens = markers.filter_map(|marker| Some((id_of(marker)?, marker))).collect();
        Self { format, reasoning, closing_line, tokens }
    }

    /// The format of calls.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How reasoning is marked.
    pub fn reasoning(&self) -> Reasoning {
        self.reasoning
    }

    /// Whether the template ends reasoning on a line of its own.
    pub(super) fn closes_on_a_line_of_its_own(&self) -> bool {
        self.closing_line
    }

    /// What calls and reasoning stand between.
    pub(super) fn layout(&self) -> &'static Layout {
        &self.format.0.layout
    }

    /// The marker that this token is: to be given to the parser as
    /// [`Piece::Special`](super::Piece::Special), and not to the detokeniser.
    #[inline]
    pub fn marker(&self, id: TokenId) -> Option<&'static str> {
        self.tokens.iter().find(|(token, _)| *token == id).map(|(_, marker)| *marker)
    }

    /// The markers that are tokens of their own.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &'static str)> {
        self.tokens.iter().copied()
    }

    /// Whether this marker is a token of its own: text that spells it is text.
    pub(super) fn is_token(&self, marker: &str) -> bool {
        self.tokens.iter().any(|(_, token)| *token == marker)
    }

    /// Whether an answer to this prompt begins within reasoning: the template has opened it.
    pub fn opens_reasoning(&self, prompt: &str) -> bool {
        self.reasoning.tags().is_some_and(|(open, _)| prompt.trim_end().ends_with(open))
    }

    /// A parser for one answer.
    pub fn parser(&self, start: &Start) -> Parser {
        Parser(self.automaton(start))
    }

    fn automaton(&self, start: &Start) -> Box<dyn Automaton> {
        (self.format.0.make)(self, start)
    }
}
