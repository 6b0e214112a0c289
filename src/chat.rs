//! `baton chat`: a conversation with a running cluster, answer by answer as it streams.

use crate::cli::ChatArgs;
use baton_bench::client::{Client, ClientError};
use baton_node::exit::{Exit, Failure};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};

/// Reads lines until there are none, and prints the answers.
pub(crate) fn main(args: &ChatArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))?;
    runtime.block_on(chat(args))
}

async fn chat(args: &ChatArgs) -> Result<(), Failure> {
    let client = Client::new(&args.url).map_err(|error| failure(&error))?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_model(&client).await?,
    };
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        eprintln!("{model} at {}; an empty line or Ctrl-D ends the conversation", client.base());
    }
    let mut messages = Vec::new();
    messages.extend(args.system.as_ref().map(|text| json!({"role": "system", "content": text})));
    while let Some(line) = ask(interactive)? {
        messages.push(json!({"role": "user", "content": line}));
        let answer = answer(&client, args, &model, &messages).await?;
        messages.push(json!({"role": "assistant", "content": answer}));
    }
    Ok(())
}

async fn first_model(client: &Client) -> Result<String, Failure> {
    let models = client.get("/v1/models").await.map_err(|error| failure(&error))?;
    let name = models["data"][0]["id"].as_str().map(str::to_owned);
    name.ok_or_else(|| Failure::new(Exit::Unavailable, "the server lists no model"))
}

/// The next line of the user; `None` at the end.
fn ask(interactive: bool) -> Result<Option<String>, Failure> {
    if interactive {
        eprint!("> ");
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let read = read.map_err(|error| Failure::new(Exit::Runtime, format!("stdin: {error}")))?;
    let text = line.trim();
    Ok((read > 0 && !text.is_empty()).then(|| text.to_owned()))
}

/// One answer, printed as it comes.
async fn answer(
    client: &Client,
    args: &ChatArgs,
    model: &str,
    messages: &[Value],
) -> Result<String, Failure> {
    let request = json!({
        "model": model,
        "messages": messages,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "stream": true,
    });
    let events = client.stream("/v1/chat/completions", &request).await;
    let mut events = events.map_err(|error| failure(&error))?;
    let mut answer = String::new();
    let mut out = std::io::stdout();
    while let Some(event) = events.next().await.map_err(|error| failure(&error))? {
        let event: Value = serde_json::from_str(&event).map_err(|error| {
            Failure::new(Exit::Runtime, format!("the stream is broken: {error}"))
        })?;
        if let Some(message) = event["error"]["message"].as_str() {
            return Err(Failure::new(Exit::Runtime, message));
        }
        if let Some(piece) = event["choices"][0]["delta"]["content"].as_str() {
            answer.push_str(piece);
            // A closed pipe ends the printing, not the conversation.
            let _ = write!(out, "{piece}").and_then(|()| out.flush());
        }
    }
    let _ = writeln!(out);
    Ok(answer)
}

/// What a call to a cluster has failed with, as the command ends with it.
pub(crate) fn failure(error: &ClientError) -> Failure {
    let failure = Failure::new(Exit::Unavailable, error.to_string());
    match error {
        ClientError::Transport { .. } => {
            failure.with_hint("start a cluster with `baton up`, or name one with --url")
        }
        _ => failure,
    }
}
