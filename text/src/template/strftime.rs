//! `strftime_now`: the date and time, in UTC, as C's `strftime` writes them.

use minijinja::{Error, ErrorKind, Value};
use std::time::Duration;

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The longest format that is accepted.
const FORMAT_MAX: usize = 1024;

/// The function for templates, at a time since the Unix epoch.
pub(super) fn function(now: Duration) -> Value {
    let now = Moment::of(now.as_secs());
    Value::from_function(move |format: &str| -> Result<String, Error> {
        if format.len() > FORMAT_MAX {
            return Err(Error::new(ErrorKind::InvalidOperation, "the date format is too long"));
        }
        now.format(format).ok_or_else(|| {
            let detail = format!("the date format {format:?} is not supported");
            Error::new(ErrorKind::InvalidOperation, detail)
        })
    })
}

/// A time in the proleptic Gregorian calendar.
#[derive(Clone, Copy)]
struct Moment {
    year: u64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From Sunday, 0.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Moment {
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400;
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        // Whole cycles of 400 years first, so that the loop is short whatever the clock says.
        let mut year = 1970 + days / 146_097 * 400;
        let mut day = days % 146_097;
        while day >= 365 + u64::from(leap(year)) {
            day -= 365 + u64::from(leap(year));
            year += 1;
        }
        let day_of_year = day + 1;
        let february = 28 + u64::from(leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        let rest = seconds % 86_400;
        Self {
            year,
            month,
            day: day + 1,
            day_of_year,
            weekday: (days + 4) % 7,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// `None` if the format has a directive that is not known.
    fn format(self, format: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next()? {
                // A GNU extension: numbers without their leading zeros.
                '-' => {
                    let field = self.directive(chars.next()?)?;
                    let short = field.trim_start_matches(['0', ' ']);
                    out.push_str(if short.is_empty() { "0" } else { short });
                }
                directive => out.push_str(&self.directive(directive)?),
            }
        }
        Some(out)
    }

    fn directive(self, directive: char) -> Option<String> {
        let day = DAYS[self.weekday as usize];
        let month = MONTHS[self.month as usize - 1];
        let hour12 = (self.hour + 11) % 12 + 1;
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'A' => day.to_owned(),
            'a' => day[..3].to_owned(),
            'w' => self.weekday.to_string(),
            'u' => ((self.weekday + 6) % 7 + 1).to_string(),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'z' => "+0000".to_owned(),
            'Z' => "UTC".to_owned(),
            'F' => self.format("%Y-%m-%d")?,
            'T' | 'X' => self.format("%H:%M:%S")?,
            'D' | 'x' => self.format("%m/%d/%y")?,
            'c' => self.format("%a %b %e %H:%M:%S %Y")?,
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unreadable_literal)] // Seconds as other tools print and take them.
mod tests {
    use super::*;

    /// Expected values are Python's.
    #[test]
    fn days_are_counted_as_the_calendar_has_them() {
        let cases = [
            (0, "1970-01-01 00:00:00 001 Thu"),
            (68169600, "1972-02-29 00:00:00 060 Tue"),
            (951782399, "2000-02-28 23:59:59 059 Mon"),
            (951782400, "2000-02-29 00:00:00 060 Tue"),
            (951868800, "2000-03-01 00:00:00 061 Wed"),
            (978307199, "2000-12-31 23:59:59 366 Sun"),
            (978307200, "2001-01-01 00:00:00 001 Mon"),
            (1721996645, "2024-07-26 12:24:05 208 Fri"),
            (4107456000, "2100-02-28 00:00:00 059 Sun"),
            (4107542400, "2100-03-01 00:00:00 060 Mon"),
            (13569465600, "2400-01-01 00:00:00 001 Sat"),
            (32503679999, "2999-12-31 23:59:59 365 Tue"),
            (12627878400, "2370-03-01 00:00:00 060 Sun"),
        ];
        for (seconds, expected) in cases {
            let text = Moment::of(seconds).format("%Y-%m-%d %H:%M:%S %j %a");
            assert_eq!(text.as_deref(), Some(expected), "{seconds}");
        }
    }

    #[test]
    fn unknown_directives_are_refused_and_no_clock_is_too_far() {
        assert_eq!(Moment::of(0).format("%Q"), None);
        assert_eq!(Moment::of(0).format("%"), None);
        assert_eq!(Moment::of(0).format("%-"), None);
        assert!(Moment::of(u64::MAX).format("%c").is_some());
    }
}
