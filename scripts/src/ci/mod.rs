//! `cargo xtask ci` and `cargo xtask gate`: the stages of scripts/ci.toml, each within its budget.

mod counts;
mod stage;

pub(crate) use stage::SKIPPED;

use crate::failure::Failure;
use counts::Counts;
use serde::Deserialize;
use stage::{Ended, Job};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What all stages of `ci` may take together.
const MINUTES_MAX: u32 = 45;

/// Which of the two budgets and sizes a run uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Before every merge.
    Ci,
    /// Before a release: the tests' long forms.
    Gate,
}

/// Runs the stages in order up to the first that fails; prints what each took.
pub(crate) fn run(root: &Path, length: Length) -> Result<(), Failure> {
    let plan = Plan::read(root)?;
    let xtask = std::env::current_exe()?;
    let mut rows = Vec::new();
    let mut counts = Counts::default();
    for stage in &plan.stages {
        println!("\n== {}: {}", stage.name, stage.run);
        let job = Job { command: &stage.run, xtask: &xtask, budget: stage.budget(length), length };
        let done = job.run(root)?;
        counts += done.counts;
        let failed = !matches!(done.ended, Ended::Passed | Ended::Skipped);
        rows.push(Row {
            name: &stage.name,
            ended: done.ended,
            took: done.took,
            budget: job.budget,
        });
        if failed {
            break;
        }
    }
    println!("\n{}", table(&rows));
    println!("{counts}");
    match rows.last() {
        Some(Row { name, ended: Ended::Failed | Ended::Killed, .. }) => {
            Err(Failure::new(format!("stage `{name}` failed; run it alone with its command above")))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    #[serde(rename = "stage")]
    stages: Vec<Stage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    name: String,
    /// Words between spaces; `cargo xtask` is this program.
    run: String,
    minutes: u32,
    gate_minutes: u32,
}

impl Plan {
    fn read(root: &Path) -> Result<Self, Failure> {
        let path = "scripts/ci.toml";
        let text = std::fs::read_to_string(root.join(path))
            .map_err(|error| Failure::new(format!("{path}: {error}")))?;
        Self::parse(&text).map_err(|failure| Failure::new(format!("{path}: {failure}")))
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let plan: Self = toml::from_str(text).map_err(|error| Failure::new(error.to_string()))?;
        let sum: u32 = plan.stages.iter().map(|stage| stage.minutes).sum();
        if sum > MINUTES_MAX {
            let advice = "make something faster or move it to `gate`";
            return Err(Failure::new(format!("{sum} minutes, at most {MINUTES_MAX}: {advice}")));
        }
        Ok(plan)
    }
}

impl Stage {
    fn budget(&self, length: Length) -> Duration {
        let minutes = match length {
            Length::Ci => self.minutes,
            Length::Gate => self.gate_minutes,
        };
        Duration::from_secs(60 * u64::from(minutes))
    }
}

struct Row<'a> {
    name: &'a str,
    ended: Ended,
    took: Duration,
    budget: Duration,
}

fn table(rows: &[Row<'_>]) -> String {
    let mut out = format!("{:<10}{:>14}{:>10}{:>10}\n", "stage", "result", "time", "budget");
    for row in rows {
        let result = match row.ended {
            Ended::Passed if row.took > row.budget => "ok, but late",
            Ended::Passed => "ok",
            Ended::Skipped => "SKIPPED",
            Ended::Failed => "FAILED",
            Ended::Killed => "KILLED",
        };
        let (took, budget) = (clock(row.took), clock(row.budget));
        let _ = writeln!(out, "{:<10}{result:>14}{took:>10}{budget:>10}", row.name);
    }
    let sum: Duration = rows.iter().map(|row| row.took).sum();
    let _ = write!(out, "{:<10}{:>14}{:>10}", "total", "", clock(sum));
    out
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[[stage]]\nname = \"a\"\nrun = \"true\"\nminutes = 45\ngate_minutes = 90\n";

    #[test]
    fn budgets_that_add_up_to_more_than_45_minutes_are_refused() {
        assert!(Plan::parse(ONE).is_ok());
        let two = ONE.repeat(2);
        let refused = Plan::parse(&two).err().map(|failure| failure.to_string());
        assert!(refused.is_some_and(|message| message.contains("90 minutes, at most 45")));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let refused = Plan::parse(&ONE.replace("minutes = 45", "minute = 45"));
        assert!(refused.is_err_and(|failure| failure.to_string().contains("minute")));
    }

    #[test]
    fn this_projects_plan_is_readable() -> Result<(), Failure> {
        let plan = Plan::read(&crate::root())?;
        assert!(plan.stages.iter().any(|stage| stage.run == "cargo xtask test"));
        Ok(())
    }

    #[test]
    fn the_table_shows_what_was_skipped_late_and_killed() {
        let row = |name, ended, seconds| Row {
            name,
            ended,
            took: Duration::from_secs(seconds),
            budget: Duration::from_mins(1),
        };
        let rows = [
            row("a", Ended::Passed, 59),
            row("b", Ended::Passed, 61),
            row("c", Ended::Skipped, 0),
            row("d", Ended::Killed, 120),
        ];
        let expected = "\
stage             result      time    budget
a                     ok      0:59      1:00
b           ok, but late      1:01      1:00
c                SKIPPED      0:00      1:00
d                 KILLED      2:00      1:00
total                         4:00";
        assert_eq!(table(&rows), expected);
    }
}
