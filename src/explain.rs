//! `baton explain`: where a running cluster would place a request, and why. Nothing is started.

use crate::chat::failure;
use crate::cli::ExplainArgs;
use baton_bench::client::Client;
use baton_node::exit::{Exit, Failure};
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::Read;

/// A body larger than that is no request.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The terms of the cost, as the router names them.
const TERMS: [&str; 9] =
    ["queue", "memory", "fetch", "join", "compute", "handover", "decode", "harm", "eviction"];

/// Asks for the decision and prints it.
pub(crate) fn main(args: &ExplainArgs) -> Result<(), Failure> {
    let request = read(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))?;
    let decision = runtime.block_on(ask(args, &request))?;
    if args.json {
        println!("{decision}");
    } else {
        print!("{}", table(&decision));
    }
    Ok(())
}

fn read(args: &ExplainArgs) -> Result<Value, Failure> {
    let path = &args.file;
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Config, format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(unreadable)?)
    };
    source.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let request: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::new(Exit::Config, format!("{} is not JSON: {error}", path.display()))
    })?;
    if request.is_object() {
        return Ok(request);
    }
    let message = format!("{} is no request: expected a JSON object", path.display());
    Err(Failure::new(Exit::Config, message)
        .with_hint("write what you would post to /v1/chat/completions"))
}

async fn ask(args: &ExplainArgs, request: &Value) -> Result<Value, Failure> {
    let client = Client::new(&args.url).map_err(|error| failure(&error))?;
    let chat = request.get("messages").is_some();
    let path = if chat { "/v1/chat/completions" } else { "/v1/completions" };
    let mut headers = vec![("x-baton-explain", "dry-run")];
    headers.extend(args.policy.as_deref().map(|policy| ("x-baton-policy", policy)));
    headers.extend(args.tenant.as_deref().map(|tenant| ("x-baton-tenant", tenant)));
    let mut answer =
        client.post_with(path, request, &headers).await.map_err(|error| failure(&error))?;
    if answer["object"] != json!("baton.decision") {
        return Err(Failure::new(Exit::Runtime, "the server does not explain its decisions")
            .with_hint("it is no Baton router, or an older one, and it has answered the request"));
    }
    Ok(answer["decision"].take())
}

/// The decision for people: who, and each candidate's terms in milliseconds.
fn table(decision: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = String::new();
    let prefill: Vec<_> = decision["prefill"].as_array().into_iter().flatten().map(text).collect();
    let asked = if prefill.is_empty() { "nobody".to_owned() } else { prefill.join(", then ") };
    let _ = writeln!(
        out,
        "{} decodes; {asked} is asked to prefill   ({}, {} prompt tokens, {} to compute, {} expected)",
        text(&decision["decode"]),
        text(&decision["policy"]),
        decision["prompt_tokens"],
        decision["compute_tokens"],
        decision["answer_tokens"],
    );
    if let Some(outcome) = decision["external"]["outcome"].as_str() {
        let reason = decision["external"]["reason"].as_str().unwrap_or_default();
        let _ = writeln!(out, "the external policy: {outcome}   {reason}");
    }
    for (side, key) in [("decode", "decode_candidates"), ("prefill", "prefill_candidates")] {
        let candidates = decision[key].as_array().map_or(&[][..], Vec::as_slice);
        if candidates.is_empty() {
            continue;
        }
        let _ = write!(out, "\n{side:<16}{:>8}{:>7}", "held", "room");
        let columns = TERMS.iter().chain(&["total"]);
        for term in columns.clone() {
            let _ = write!(out, "{term:>10}");
        }
        let _ = writeln!(out, "  ms");
        for candidate in candidates {
            let room = if candidate["fits"] == json!(true) { "yes" } else { "no" };
            let (name, held) = (text(&candidate["worker"]), &candidate["held_tokens"]);
            let _ = write!(out, "{name:<16}{:>8}{room:>7}", held.to_string());
            for term in columns.clone() {
                let cost = candidate["cost_ms"][*term].as_f64().unwrap_or(f64::NAN);
                let _ = write!(out, "{cost:>10.1}");
            }
            let with = candidate["with_prefill"].as_str();
            let _ =
                writeln!(out, "{}", with.map_or(String::new(), |with| format!("  with {with}")));
        }
        let (shown, all) = (candidates.len() as u64, decision[format!("{key}_total")].as_u64());
        if let Some(more) = all.and_then(|all| all.checked_sub(shown)).filter(|more| *more > 0) {
            let _ = writeln!(out, "... and {more} more");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_has_a_line_with_every_term() {
        let cost: serde_json::Map<_, _> =
            TERMS.iter().zip(1..).map(|(term, n)| ((*term).to_owned(), json!(n))).collect();
        let mut cost = Value::Object(cost);
        cost["total"] = json!(36.25);
        let decision = json!({
            "policy": "kv-aware", "decode": "d1", "prefill": ["p1", "p2"], "prompt_tokens": 100,
            "compute_tokens": 64, "answer_tokens": 512,
            "decode_candidates": [{"worker": "d1", "held_tokens": 0, "fits": true,
                                   "cost_ms": cost, "with_prefill": "p1"}],
            "decode_candidates_total": 3,
            "prefill_candidates": [],
            "external": {"outcome": "no_room", "reason": "my favourite"},
        });
        let shown = table(&decision);
        assert!(shown.starts_with("d1 decodes; p1, then p2 is asked"), "{shown}");
        let line = shown.lines().rfind(|line| line.starts_with("d1 ")).unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let terms = (1..=TERMS.len()).map(|n| format!("{n}.0"));
        let expected: Vec<_> =
            ["d1", "0", "yes"].map(str::to_owned).into_iter().chain(terms).collect();
        let (row, rest) = words.split_at(expected.len());
        assert_eq!(row, expected, "{shown}");
        assert_eq!(rest, ["36.2", "with", "p1"]);
        assert!(shown.contains("external policy: no_room   my favourite\n"), "{shown}");
        assert!(shown.contains("... and 2 more"), "{shown}");
    }
}
