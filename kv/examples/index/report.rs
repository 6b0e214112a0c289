//! The figures, for people and for programs.

use std::fmt::Write;

/// Figures in the order in which they are shown.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    /// In JSON; with the unit.
    key: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    /// The most that it may be.
    goal: Option<f64>,
}

impl Report {
    pub(super) fn add(&mut self, key: &'static str, name: &str, value: f64, unit: &'static str) {
        self.0.push(Figure { key, name: name.to_owned(), value, unit, goal: None });
    }

    /// The figure added last should be at most that.
    pub(super) fn at_most(&mut self, goal: f64) {
        self.0.last_mut().expect("a figure comes before its goal").goal = Some(goal);
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for Figure { name, value, unit, goal, .. } in &self.0 {
            let digits = if *value >= 1000.0 { 0 } else { 2 };
            let goal = goal.map_or(String::new(), |goal| {
                let missed = if *value > goal { ", MISSED" } else { "" };
                format!("  goal <= {goal}{missed}")
            });
            let _ = writeln!(text, "{name:<64}{value:>11.digits$} {unit:<7}{goal}");
        }
        text
    }

    /// One object on one line.
    pub(super) fn to_json(&self) -> String {
        let figure = |f: &Figure| format!("\"{}\":{:.3}", f.key, f.value);
        let figures: Vec<_> = self.0.iter().map(figure).collect();
        format!("{{{}}}", figures.join(","))
    }
}
