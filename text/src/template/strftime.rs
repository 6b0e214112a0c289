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
