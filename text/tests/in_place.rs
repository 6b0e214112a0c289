//! Messages of the system in mid-conversation: whatever a template thinks of them, they stand where
//! they were said, and a conversation that goes on begins as it did before.

mod common;

use baton_proto::ir::{Chat, Content, Image, JsonText, Message, Part, Role, ToolCall};
use baton_text::{RenderError, TextModel};
use common::directory;

/// Renders every role as it is.
const OPEN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
/// Refuses a system message that is not the first, as Qwen3.5's template does.
const FIRST_ONLY: &str = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
    {{ raise_exception('System message must be at the beginning.') }}{% endif %}\
    <{{ m.role }}>{{ m.content }}{% endfor %}";
/// Leaves them out without a word.
const FORGETFUL: &str = "{% for m in messages %}{% if m.role != 'system' or loop.first %}\
    <{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}";
/// Demands that users and the model take turns, as Mistral's and Gemma's templates do.
const TURNS: &str = "{% set ns = namespace(user=true) %}{% for m in messages %}\
    {% if m.role == 'system' and loop.first %}{% elif m.role == 'tool' %}\
    {% elif (m.role == 'user') != ns.user %}{{ raise_exception('roles must alternate') }}\
    {% else %}{% set ns.user = not ns.user %}{% endif %}\
    <{{ m.role }}>{{ m.content }}{% endfor %}";

fn model(template: &str) -> TextModel {
    let files = directory(&[("chat_template.jinja", template)]);
    TextModel::load(files.path()).expect("the model loads")
}

fn said(role: Role, text: &str) -> Message {
    let text = text.to_owned();
    let part = match role {
        Role::Tool => Content::ToolResult { call_id: None, text, is_error: false }.into(),
        _ => Part::text(text),
    };
    Message { role, parts: vec![part], name: None }
}

/// `s` system, `u` user, `a` assistant, `t` tool; what is said is the place.
fn chat(roles: &str) -> Chat {
    let message = |(i, role): (usize, char)| {
        let role = match role {
            's' => Role::System,
            'u' => Role::User,
            'a' => Role::Assistant,
            _ => Role::Tool,
        };
        said(role, &i.to_string())
    };
    Chat { messages: roles.chars().enumerate().map(message).collect(), ..Chat::default() }
}

#[test]
fn a_template_gets_them_in_the_way_it_takes_them() {
    let tagged = "<system>0<user>1<user><system>\n2\n</system><assistant>3<user>4";
    for (template, roles, expected) in [
        (OPEN, "susau", "<system>0<user>1<system>2<assistant>3<user>4"),
        (FIRST_ONLY, "susau", tagged),
        (FORGETFUL, "susau", tagged),
        (TURNS, "susau", "<system>0<user>1\n\n<system>\n2\n</system><assistant>3<user>4"),
        (TURNS, "uasu", "<user>0<assistant>1<user><system>\n2\n</system>\n\n3"),
        (TURNS, "uats", "<user>0<assistant>1<tool>2\n\n<system>\n3\n</system>"),
        // Those at the beginning are one where there may be but one.
        (OPEN, "ssu", "<system>0<system>1<user>2"),
        (FIRST_ONLY, "ssu", "<system>0\n\n1<user>2"),
        (TURNS, "ssu", "<system>0\n\n1<user>2"),
    ] {
        assert_eq!(model(template).render(&chat(roles)).as_deref(), Ok(expected), "{roles}");
    }
}

#[test]
fn what_follows_changes_nothing_before() {
    for template in [OPEN, FIRST_ONLY, FORGETFUL, TURNS] {
        let model = model(template);
        for roles in ["susausasu", "usaus", "ssusas", "susatsua"] {
            let mut before = String::new();
            for end in 1..=roles.len() {
                let Ok(now) = model.render(&chat(&roles[..end])) else { continue };
                assert!(now.starts_with(&before), "{roles:.end$}: {before:?} {now:?}");
                before = now;
            }
            assert!(before.contains(&(roles.len() - 1).to_string()), "{roles}: {before}");
        }
    }
}

#[test]
fn thinking_is_said_in_the_templates_own_word() {
    for (template, thinking, expected) in [
        ("{{ enable_thinking is defined and enable_thinking }}", Some(true), "True"),
        ("{{ enable_thinking is defined and not enable_thinking }}", Some(false), "True"),
        ("{{ enable_thinking is defined }}", None, "False"),
        ("{{ thinking }}", Some(true), "True"),
        ("{% set thinking = 'mine' %}{{ thinking }}", Some(true), "mine"),
    ] {
        let chat = Chat { thinking, ..chat("u") };
        assert_eq!(model(template).render(&chat).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn a_silent_failure_of_a_tool_is_not_an_empty_result() {
    let mut chat = chat("t");
    let silent = |is_error| Content::ToolResult { call_id: None, text: String::new(), is_error };
    for (is_error, expected) in [(true, "<tool>error"), (false, "<tool>")] {
        chat.messages[0].parts = vec![silent(is_error).into()];
        assert_eq!(model(OPEN).render(&chat).as_deref(), Ok(expected));
    }
}

#[test]
fn an_image_is_refused_by_its_place() {
    let mut chat = chat("u");
    let (path, source) = ("messages[0].content[1]".to_owned(), "data:image/png;base64,".to_owned());
    chat.messages[0].parts.push(Content::Image(Image { path: path.clone(), source }).into());
    assert_eq!(model(OPEN).render(&chat), Err(RenderError::Image { field: path }));
}

#[test]
fn any_name_of_a_call_is_taken_by_templates_that_want_short_ones() {
    const SHORT: &str = "{% for m in messages %}{% for c in m.tool_calls or [] %}\
        {% if c.id|length != 9 %}{{ raise_exception('length') }}{% endif %}<{{ c.id }}>{% endfor %}\
        {% if m.tool_call_id %}<{{ m.tool_call_id }}>{% endif %}{% endfor %}";
    let rendered = |template: &str, id: &str| {
        let mut chat = chat("at");
        let arguments = JsonText("{}".to_owned());
        let call = ToolCall { id: id.to_owned(), name: "ls".to_owned(), arguments };
        chat.messages[0].parts = vec![Content::ToolCall(call).into()];
        let (call_id, text) = (Some(id.to_owned()), String::new());
        chat.messages[1].parts =
            vec![Content::ToolResult { call_id, text, is_error: false }.into()];
        model(template).render(&chat).expect("a rendering")
    };
    assert_eq!(rendered(SHORT, "abcDEF123"), "<abcDEF123><abcDEF123>");
    let (one, other) = (rendered(SHORT, "toolu_0001"), rendered(SHORT, "toolu_0002"));
    assert_ne!(one, other);
    let (call, result) = one.split_at(one.len() / 2);
    assert_eq!((call, call.len()), (result, 11));
    let open = "{{ messages[0].tool_calls[0].id }} {{ messages[1].tool_call_id }}";
    assert_eq!(rendered(open, "toolu_0001"), "toolu_0001 toolu_0001");
}
