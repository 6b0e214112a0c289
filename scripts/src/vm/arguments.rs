//! The command line of `cargo xtask vm`.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
cargo xtask vm [OPTION...] -- COMMAND [ARG...]
cargo xtask vm --pair [OPTION...] -- COMMAND [ARG...] [--- COMMAND [ARG...]]

Boots a Debian kernel under QEMU's software emulation, with soft-RoCE and this machine's files as a root
whose changes are forgotten, and runs COMMAND as root in the present directory. Its output is COMMAND's
output, its exit status COMMAND's status. No rights are needed but to install what is missing.

In the guest: RDMA device rxe0 on the network device net0, address 10.9.0.1 (in a pair also 10.9.0.2);
BATON_VM_NODE is 0 (or 1), in a pair BATON_VM_PEER is the other's address; `tc qdisc add dev net0 root
netem loss 1% delay 2ms` spoils the network; `echo b >/proc/sysrq-trigger` kills the guest at once.

  --pair            two guests on one network; both run COMMAND, or each its own; lines begin with `0|`
                    or `1|`; neither starts before both have their device
  --may-die NODE    that guest may vanish without an exit status
  --env NAME=VALUE  sets a variable for COMMAND (again for more); PATH and HOME are this machine's
  --out DIR         a directory that COMMAND can write to, by the same path
  --timeout S       for everything (300)
  --boot-timeout S  until the RDMA device is there (90)
  --cpus N          of each guest (2)
  --memory MIB      of each guest (2048); files that COMMAND writes take half of it at most

Exit status: 77 this machine lacks what it needs, 124 too late, 125 a guest did not boot or died; of two
guests the higher one. Images are kept in $BATON_VM_CACHE, else in ~/.cache/baton-vm.";

/// What to run, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// One command for each guest.
    pub(super) commands: Vec<Vec<String>>,
    pub(super) env: Vec<(String, String)>,
    /// Absolute.
    pub(super) out: Option<PathBuf>,
    pub(super) may_die: Option<usize>,
    pub(super) timeout: Duration,
    pub(super) boot_timeout: Duration,
    pub(super) cpus: u64,
    pub(super) memory_mib: u64,
}

impl Arguments {
    /// One guest, with this command and the usual limits.
    pub(crate) fn new(command: &[&str]) -> Self {
        Self {
            commands: vec![command.iter().map(|&word| word.to_owned()).collect()],
            env: Vec::new(),
            out: None,
            may_die: None,
            timeout: Duration::from_mins(5),
            boot_timeout: Duration::from_secs(90),
            cpus: 2,
            memory_mib: 2048,
        }
    }

    /// Two guests that both run the command.
    pub(crate) fn pair(mut self) -> Self {
        self.commands.extend_from_within(..);
        self
    }

    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Reads the words after `vm`; says what is wrong with them.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (options, command) = words
            .iter()
            .position(|word| *word == "--")
            .map(|at| (&words[..at], &words[at + 1..]))
            .ok_or("no `--` before the command")?;
        let mut parsed = Self::new(&[]);
        let mut pair = false;
        let mut options = options.iter();
        while let Some(&option) = options.next() {
            if option == "--pair" {
                pair = true;
                continue;
            }
            let value =
                *options.next().ok_or_else(|| format!("{option}: no such option, or no value"))?;
            parsed.set(option, value)?;
        }
        parsed.commands = commands(command, pair)?;
        if parsed.may_die.is_some_and(|node| node >= parsed.commands.len()) {
            return Err("--may-die: there is no such guest".to_owned());
        }
        Ok(parsed)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "--env" => {
                let (name, value) = value.split_once('=').ok_or("--env: not NAME=VALUE")?;
                if !is_name(name) {
                    return Err(format!("--env: `{name}` is no name of a variable"));
                }
                self.env.push((name.to_owned(), value.to_owned()));
            }
            "--out" => self.out = Some(directory(value)?),
            "--may-die" => self.may_die = Some(number(option, value, 0, 1)? as usize),
            "--timeout" => self.timeout = seconds(option, value)?,
            "--boot-timeout" => self.boot_timeout = seconds(option, value)?,
            "--cpus" => self.cpus = number(option, value, 1, 64)?,
            "--memory" => self.memory_mib = number(option, value, 256, 65_536)?,
            _ => return Err(format!("{option}: no such option")),
        }
        Ok(())
    }

    pub(super) fn is_pair(&self) -> bool {
        self.commands.len() == 2
    }
}

/// One command for each guest.
fn commands(words: &[&str], pair: bool) -> Result<Vec<Vec<String>>, String> {
    let parts: Vec<&[&str]> = words.split(|word| *word == "---").collect();
    let parts = match (pair, parts.as_slice()) {
        (true, [both]) => vec![*both, *both],
        (true, [_, _]) | (false, [_]) => parts,
        (false, _) => return Err("`---` parts the commands of a --pair".to_owned()),
        (true, _) => return Err("a --pair has two commands at most".to_owned()),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err("no command".to_owned());
    }
    Ok(parts.iter().map(|part| part.iter().map(|&word| word.to_owned()).collect()).collect())
}

fn number(option: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("{option}: `{value}` is not a number from {min} to {max}"))
}

fn seconds(option: &str, value: &str) -> Result<Duration, String> {
    number(option, value, 1, 86_400).map(Duration::from_secs)
}

/// QEMU takes a comma in a path for the end of it, and the guest's command line a space.
fn directory(value: &str) -> Result<PathBuf, String> {
    let path = std::fs::canonicalize(value).map_err(|error| format!("--out: {value}: {error}"))?;
    if !path.is_dir() {
        return Err(format!("--out: {value} is not a directory"));
    }
    match path.to_str() {
        Some(text) if !text.contains([',', ' ', '"', '\'']) => Ok(path),
        _ => Err(format!("--out: {value}: a path without commas, spaces and quotes is needed")),
    }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_the_command_begins() -> Result<(), String> {
        let words = ["--env", "A=b=c", "--timeout", "7", "--", "ls", "--pair", "--"];
        let mut expected = Arguments::new(&["ls", "--pair", "--"]);
        expected.env = vec![("A".to_owned(), "b=c".to_owned())];
        expected.timeout = Duration::from_secs(7);
        assert_eq!(Arguments::parse(&words)?, expected);
        Ok(())
    }

    #[test]
    fn a_pair_has_one_command_or_two() -> Result<(), String> {
        let same = Arguments::parse(&["--pair", "--", "a", "b"])?.commands;
        assert_eq!(same, [["a", "b"], ["a", "b"]]);
        let words = ["--pair", "--may-die", "1", "--", "a", "---", "b", "--"];
        let each = Arguments::parse(&words)?.commands;
        assert_eq!(each, [vec!["a"], vec!["b", "--"]]);
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let cases: [(&[&str], &str); 12] = [
            (&["ls"], "no `--`"),
            (&["--"], "no command"),
            (&["--pair", "--", "a", "---"], "no command"),
            (&["--pair", "--", "a", "---", "b", "---", "c"], "two commands"),
            (&["--", "a", "---", "b"], "--pair"),
            (&["--colour", "red", "--", "a"], "--colour: no such option"),
            (&["--timeout", "--", "a"], "--timeout"),
            (&["--timeout", "0", "--", "a"], "--timeout: `0`"),
            (&["--env", "A", "--", "a"], "NAME=VALUE"),
            (&["--env", "A b=c", "--", "a"], "`A b`"),
            (&["--out", "/no/such/place", "--", "a"], "/no/such/place"),
            (&["--may-die", "1", "--", "a"], "no such guest"),
        ];
        for (words, expected) in cases {
            let said = Arguments::parse(words).err();
            assert!(
                said.as_ref().is_some_and(|said| said.contains(expected)),
                "{words:?}: {said:?}"
            );
        }
    }
}
