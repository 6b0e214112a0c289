//! Chat templates, rendered as Hugging Face's `apply_chat_template` renders them.
//!
//! The template engine is Jinja's dialect; what differs from it and matters in chat templates is
//! set right here: JSON is written like Python's `json.dumps`, numbers print like Python's, and
//! `raise_exception`, `strftime_now` and `{% generation %}` exist. A rendering is a pure function
//! of the conversation and of the time it is given.
//!
//! Work and output are bounded. Memory that a template takes for itself is not (it may double a
//! string forty times): a template is as trusted as the weights it comes with. Known gaps: the
//! operator `%` does not format strings (the filter `format` does), and floats inside a printed
//! list have no exponent (in JSON they have).

mod call_id;
mod json;
mod later_system;
mod number;
mod python;
mod strftime;
mod tojson;
mod vars;

use crate::files::{TemplateSource, TokenizerConfig};
use crate::model::Limits;
use crate::{LoadError, RenderError};
use baton_proto::ir;
use later_system::LaterSystem;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, escape_formatter};
use std::io;
use std::time::Duration;

/// The template that is used where the request does not ask for another.
const DEFAULT: &str = "default";
/// The template that is used for requests with tools, where there is one.
const TOOL_USE: &str = "tool_use";
/// What templates call the variable that says whether the model thinks.
const THINKING_VARIABLES: [&str; 2] = ["enable_thinking", "thinking"];
/// How deep macros and blocks may nest.
const RECURSION_MAX: usize = 400;

/// A model's chat templates, compiled.
pub(crate) struct Templates {
    env: Environment<'static>,
    names: Vec<Named>,
    /// `bos_token` and the like.
    special: Vec<(String, String)>,
    limits: Limits,
}

struct Named {
    name: String,
    /// Whether it knows of developers; otherwise they speak as the system.
    knows_developer: bool,
    /// The variable that says whether the model thinks, where it reads one.
    thinking_variable: Option<&'static str>,
    /// It refuses names of calls that are not of its form.
    short_call_ids: bool,
    /// Where it takes messages of the system.
    later_system: LaterSystem,
}

impl Templates {
    pub(crate) fn new(config: TokenizerConfig, limits: Limits) -> Result<Self, LoadError> {
        let mut env = environment(limits);
        let mut names = Vec::new();
        for TemplateSource { name, source, path } in config.templates {
            let knows_developer = source.contains("developer");
            let short_call_ids = call_id::must_be_short(&source);
            env.add_template_owned(name.clone(), without_generation_tags(&source)).map_err(
                |e| {
                    let reason = words(&e);
                    LoadError::Template {
                        path,
                        name: name.clone(),
                        line: e.line().unwrap_or(0),
                        reason,
                    }
                },
            )?;
            names.push(Named {
                name,
                knows_developer,
                short_call_ids,
                thinking_variable: None,
                later_system: LaterSystem::Verbatim,
            });
        }
        let mut templates = Self { env, names, special: config.special, limits };
        for i in 0..templates.names.len() {
            templates.names[i].thinking_variable = templates.thinking_variable(i);
            templates.names[i].later_system = templates.probe(i);
        }
        Ok(templates)
    }

    fn thinking_variable(&self, i: usize) -> Option<&'static str> {
        let template = self.env.get_template(&self.names[i].name).ok()?;
        let read = template.undeclared_variables(false);
        THINKING_VARIABLES.into_iter().find(|name| read.contains(*name))
    }

    /// How a template takes messages of the system that are not the first, by trying.
    fn probe(&self, i: usize) -> LaterSystem {
        let accepts = |mode| {
            let named =
                Named { later_system: mode, name: self.names[i].name.clone(), ..self.names[i] };
            let rendered = self.render_named(&later_system::probe(), &named, Duration::ZERO);
            rendered.is_ok_and(|rendered| later_system::is_in_order(&rendered))
        };
        let modes = [LaterSystem::Verbatim, LaterSystem::AsUser];
        modes.into_iter().find(|mode| accepts(*mode)).unwrap_or(LaterSystem::Joined)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The rendering at a time since the Unix epoch.
    pub(crate) fn render(&self, chat: &ir::Chat, now: Duration) -> Result<String, RenderError> {
        let limit = self.limits.text_bytes;
        if vars::size(chat) > limit {
            return Err(RenderError::TooLong { limit });
        }
        let named = self.choose(!chat.tools.is_empty())?;
        self.render_named(chat, named, now)
    }

    fn render_named(
        &self,
        chat: &ir::Chat,
        named: &Named,
        now: Duration,
    ) -> Result<String, RenderError> {
        let limit = self.limits.text_bytes;
        let mut vars = vars::of(chat, named, &self.special)?;
        vars.push(("strftime_now".to_owned(), strftime::function(now)));
        let template = self.env.get_template(&named.name).map_err(|e| self.error(&e))?;
        let mut out = Bounded { bytes: Vec::new(), limit, full: false };
        let result = template.render_captured_to(Value::from_pairs(vars), &mut out).map(drop);
        if out.full {
            return Err(RenderError::TooLong { limit });
        }
        result.map_err(|e| self.error(&e))?;
        String::from_utf8(out.bytes)
            .map_err(|e| RenderError::Failed { message: e.to_string(), line: 0 })
    }

    /// What the template for requests with tools looks like; empty where there is none.
    pub(crate) fn source(&self) -> String {
        let named = self.choose(true).ok();
        let template = named.and_then(|named| self.env.get_template(&named.name).ok());
        template.map_or_else(String::new, |template| template.source().to_owned())
    }

    fn choose(&self, with_tools: bool) -> Result<&Named, RenderError> {
        let find = |name: &str| self.names.iter().find(|named| named.name == name);
        let tool_use = if with_tools { find(TOOL_USE) } else { None };
        tool_use.or_else(|| find(DEFAULT)).ok_or_else(|| {
            let names: Vec<&str> = self.names.iter().map(|named| named.name.as_str()).collect();
            let hint = match names.as_slice() {
                [] => String::new(),
                names => format!(" named {DEFAULT:?} (only {})", names.join(", ")),
            };
            RenderError::NoTemplate { hint }
        })
    }

    fn error(&self, error: &Error) -> RenderError {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(e) = source {
            if let Some(Refused(message)) = e.downcast_ref() {
                return RenderError::Refused { message: message.clone() };
            }
            if let Some(e) = e.downcast_ref::<Error>()
                && e.kind() == ErrorKind::OutOfFuel
            {
                return RenderError::OutOfFuel { fuel: self.limits.template_fuel };
            }
            source = e.source();
        }
        RenderError::Failed { message: words(error), line: error.line().unwrap_or(0) }
    }
}

/// The engine as chat templates expect it.
fn environment(limits: Limits) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("Jinja's own delimiters are valid"));
    env.set_fuel(Some(limits.template_fuel));
    env.set_recursion_limit(RECURSION_MAX);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, state, value| match number::float(value) {
        Some(float) => Ok(out.write_str(&number::repr(float))?),
        None => escape_formatter(out, state, value),
    });
    python::install(&mut env);
    env.add_filter("tojson", tojson::filter);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refused(message)))
    });
    env
}

/// A template refused the conversation, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// What an error says, without the place.
fn words(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// `{% generation %}` marks what a model wrote, for training; its content is rendered as usual,
/// in a scope of its own, which is what `with` does.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let body = tag.trim_start_matches(['-', '+']);
        let word = body.trim_start();
        out.push_str(&tag[..tag.len() - word.len()]);
        let name = word.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        let after = word[name.len()..].trim_start().trim_start_matches(['-', '+']);
        out.push_str(match name {
            "generation" if after.starts_with("%}") => "with",
            "endgeneration" if after.starts_with("%}") => "endwith",
            name => name,
        });
        rest = &word[name.len()..];
    }
    out + rest
}

/// Takes output up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= self.bytes.len() + bytes.len() > self.limit;
        if self.full {
            return Err(io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
