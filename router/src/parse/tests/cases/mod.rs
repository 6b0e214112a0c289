//! The tables.

mod glm;
mod harmony;
mod hermes;
mod llama3;
mod mistral;
mod plain;
mod qwen_coder;
mod sections;

use super::super::Event::{self, CallArguments as Args, Reasoning as Think, Text};
use super::super::Warning::{Malformed, Mended, Unfinished};
use super::super::{Reasoning, Warning};
use super::Begin::{NoTools, Thinking, Tools};
use super::{Begin, Case, Table};

pub(super) const TABLES: &[Table] = &[
    plain::PLAIN,
    plain::THINK,
    plain::BRACKETS,
    hermes::HERMES,
    qwen_coder::QWEN_CODER,
    llama3::LLAMA3,
    mistral::MISTRAL,
    harmony::HARMONY,
    glm::GLM,
    sections::DEEPSEEK_V3_1,
    sections::KIMI_K2,
];

/// The call is whole.
const END: Event<'static> = Event::CallEnd { missing: "" };

const fn call(name: &'static str) -> Event<'static> {
    Event::CallBegin { name }
}

/// The call was cut off.
const fn cut(missing: &'static str) -> Event<'static> {
    Event::CallEnd { missing }
}

const fn warn(warning: Warning) -> Event<'static> {
    Event::Warning(warning)
}

const fn case(
    name: &'static str,
    start: Begin,
    output: &'static str,
    says: &'static [Event<'static>],
) -> Case {
    Case { name, start, output, says }
}
