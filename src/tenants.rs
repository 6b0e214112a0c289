//! `baton tenants`: keys for clients, and what a tenants file grants.

use crate::cli::{TenantsArgs, TenantsCommand};
use baton_node::config::Threshold;
use baton_node::exit::Failure;
use baton_node::tenants::{KeyDigest, Tenant, Tenants, keys};
use std::fmt::Write;

/// Makes a key, or checks a file.
pub(crate) fn main(args: &TenantsArgs) -> Result<(), Failure> {
    match &args.command {
        TenantsCommand::Key => {
            let key = keys::generate()?;
            print!("{}", key_and_line(&key));
        }
        TenantsCommand::Check { file } => print!("{}", table(&Tenants::load(file)?)),
    }
    Ok(())
}

/// The key for whoever will use it, and the line for the file.
fn key_and_line(key: &str) -> String {
    format!("{key}\nkeys = [\"{}\"]\n", KeyDigest::of(key.as_bytes()))
}

/// One line for each tenant.
fn table(tenants: &Tenants) -> String {
    const COLUMNS: [&str; 10] = [
        "keys",
        "prio",
        "strict",
        "specul.",
        "reuse",
        "weight",
        "requests",
        "tokens/min",
        "answer",
        "turns/wkr",
    ];
    let width = tenants.all().map(|tenant| tenant.name.0.len()).max().unwrap_or(0).max(6);
    let mut out = format!("{:<width$}", "tenant");
    for column in COLUMNS {
        let _ = write!(out, "{column:>11}");
    }
    out.push('\n');
    for tenant in tenants.all() {
        let _ = write!(out, "{:<width$}", tenant.name.0);
        for cell in cells(tenant) {
            let _ = write!(out, "{cell:>11}");
        }
        out.push('\n');
    }
    if tenants.anonymous().is_none() {
        out.push_str("requests without a key are refused\n");
    }
    out
}

fn cells(tenant: &Tenant) -> Vec<String> {
    let rules = &tenant.rules;
    let mut cells = vec![
        rules.keys.len().to_string(),
        rules.priority.to_string(),
        rules.strict_priority.to_string(),
        rules.speculate.as_str().to_owned(),
        rules.reuse.as_str().to_owned(),
        rules.weight.to_string(),
    ];
    let quota = |(_, quota): (_, Threshold<u32>)| match quota {
        Threshold::At(most) => most.to_string(),
        Threshold::Never => "inf".to_owned(),
    };
    let all = rules.quota.all();
    // In the order of the columns.
    cells.extend(all.map(quota));
    cells
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_printed_for_a_key_is_a_line_that_lets_it_in() {
        let printed = key_and_line("baton-canary");
        let (key, line) = printed.split_once('\n').unwrap();
        let text = format!("[tenants.acme]\n{line}quota.answer_tokens = 77\nreuse = \"public\"\n");
        let tenants = Tenants::parse(Path::new("t.toml"), &text).unwrap();
        assert_eq!(&*tenants.holder(key.as_bytes()).unwrap().name.0, "acme");
        let shown = table(&tenants);
        let line: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = ["acme", "1", "0", "0", "asked", "public", "100", "inf", "inf", "77", "inf"];
        assert_eq!(line, expected, "{shown}");
        assert!(shown.ends_with("without a key are refused\n") && !shown.contains("blake3"));
    }
}
