//! One guest's hardware: the command line of QEMU, and the script that the guest runs.

use super::arguments::Arguments;
use super::image::Image;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The guest's own part of its start, which stands before every command.
const GUEST: &str = include_str!("../../vm/guest.sh");

/// What leads from the guest to this process, each a socket in the guest's folder.
pub(super) const PORTS: [&str; 3] = ["stdout", "stderr", "status"];
/// The kernel's own words.
pub(super) const CONSOLE: &str = "console";

/// Nobody attacks this guest, its clock is good enough, and what it is made of is known beforehand:
/// together this halves the time to boot. `panic` ends the guest at once.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr init_on_alloc=0 \
                      cryptomgr.notests random.trust_cpu=on tsc=reliable no_timer_check audit=0 lsm=";

/// What a guest is made of.
pub(super) struct Machine {
    pub(super) node: usize,
    pub(super) pair: bool,
    /// The guest's own folder, which it sees too.
    pub(super) folder: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
    out: Option<PathBuf>,
    cpus: u64,
    memory_mib: u64,
}

impl Machine {
    pub(super) fn new(arguments: &Arguments, image: &Image, scratch: &Path, node: usize) -> Self {
        Self {
            node,
            pair: arguments.is_pair(),
            folder: scratch.join(node.to_string()),
            kernel: image.kernel.clone(),
            initrd: image.initrd.clone(),
            out: arguments.out.clone(),
            cpus: arguments.cpus,
            memory_mib: arguments.memory_mib,
        }
    }

    /// The command that runs the guest. `setpriv` lets it die with this process, however that ends.
    pub(super) fn command(&self) -> Vec<String> {
        let mut words = Words::default();
        words.add("setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg,thread=multi -cpu max");
        words.add("-nodefaults -no-user-config -display none -no-reboot");
        words.add(&format!("-smp {} -m {}", self.cpus, self.memory_mib));
        words.pair("-kernel", self.kernel.display().to_string());
        words.pair("-initrd", self.initrd.display().to_string());
        words.pair("-append", self.kernel_line());
        words.pair("-chardev", self.socket(CONSOLE));
        words.add("-serial chardev:console -device virtio-serial-pci");
        for port in PORTS {
            words.pair("-chardev", self.socket(port));
            words.pair("-device", format!("virtserialport,chardev={port},name={port}"));
        }
        words.share("root", Path::new("/"), ",readonly=on");
        if let Some(out) = &self.out {
            words.share("out", out, "");
        }
        if self.pair {
            let ends = [self.node, 1 - self.node].map(|node| self.network(node));
            let [local, remote] = ends.map(|path| path.display().to_string());
            let local = format!("local.type=unix,local.path={local}");
            let remote = format!("remote.type=unix,remote.path={remote}");
            words.pair("-netdev", format!("dgram,id=net,{local},{remote}"));
            let address = format!("mac=52:54:00:0a:09:0{}", self.node + 1);
            words.pair("-device", format!("virtio-net-pci,netdev=net,{address},romfile="));
        }
        words.0
    }

    fn kernel_line(&self) -> String {
        let mut line = format!("{KERNEL} baton.run={}", self.folder.display());
        if let Some(out) = &self.out {
            let _ = write!(line, " baton.out={}", out.display());
        }
        line
    }

    fn socket(&self, name: &str) -> String {
        format!("socket,id={name},path={}", self.folder.join(name).display())
    }

    /// Where a guest of the pair gets its frames.
    fn network(&self, node: usize) -> PathBuf {
        self.folder.with_file_name(format!("net{node}"))
    }

    /// What the guest runs once it has its files: its part of the start, then the command.
    pub(super) fn script(&self, arguments: &Arguments, directory: &Path) -> String {
        let mut script = format!("node={}\npair={}\n{GUEST}\n", self.node, u8::from(self.pair));
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(script, "export {name}={}", quoted(value));
        };
        // The same programs as here, and those that Debian keeps from ordinary users' paths.
        let path = std::env::var("PATH").unwrap_or_default();
        set("PATH", &format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"));
        set("HOME", &std::env::var("HOME").unwrap_or_else(|_| "/".to_owned()));
        set("BATON_VM_NODE", &self.node.to_string());
        if self.pair {
            set("BATON_VM_PEER", &format!("10.9.0.{}", 2 - self.node));
        }
        for (name, value) in &arguments.env {
            set(name, value);
        }
        let _ = writeln!(script, "cd {}", quoted(&directory.display().to_string()));
        let command: Vec<String> =
            arguments.commands[self.node].iter().map(|word| quoted(word)).collect();
        let _ = writeln!(script, "set +eu +o pipefail\nexec {}", command.join(" "));
        script
    }
}

/// A command line in the making.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    /// Words between spaces.
    fn add(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    /// A directory of this machine for the guest; other file systems mounted below it come along.
    fn share(&mut self, name: &str, path: &Path, more: &str) {
        let rules = "security_model=none,multidevs=remap";
        self.pair("-fsdev", format!("local,id={name},path={},{rules}{more}", path.display()));
        self.pair("-device", format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(arguments: &Arguments, node: usize) -> Machine {
        let image = Image { kernel: "/c/vmlinux".into(), initrd: "/c/initrd".into() };
        Machine::new(arguments, &image, Path::new("/t"), node)
    }

    #[test]
    fn a_pair_shares_a_wire_whose_ends_are_crossed() -> Result<(), String> {
        let arguments = Arguments::parse(&["--pair", "--cpus", "3", "--", "ls"])?;
        let lines: Vec<String> =
            (0..2).map(|node| machine(&arguments, node).command().join(" ")).collect();
        assert!(lines[0].contains("local.path=/t/net0,remote.type=unix,remote.path=/t/net1"));
        assert!(lines[1].contains("local.path=/t/net1,remote.type=unix,remote.path=/t/net0"));
        for (line, folder) in lines.iter().zip(["/t/0", "/t/1"]) {
            assert!(line.starts_with("setpriv --pdeathsig KILL qemu-system-x86_64 "), "{line}");
            assert!(line.contains("-smp 3 -m 2048"), "{line}");
            assert!(line.contains(&format!("id=status,path={folder}/status")), "{line}");
            assert!(line.contains(&format!("baton.run={folder}")), "{line}");
        }
        Ok(())
    }

    #[test]
    fn only_what_is_asked_for_can_be_written() {
        let mut arguments = Arguments::new(&["ls"]);
        let words = machine(&arguments, 0).command();
        let shares = |words: &[String]| -> Vec<String> {
            words.iter().filter(|word| word.starts_with("local,")).cloned().collect()
        };
        assert!(shares(&words).iter().all(|share| share.ends_with(",readonly=on")));
        assert!(!words.iter().any(|word| word == "-netdev"));
        arguments.out = Some("/o".into());
        let words = machine(&arguments, 0).command();
        let writable: Vec<String> =
            shares(&words).into_iter().filter(|share| !share.contains("readonly")).collect();
        assert_eq!(writable.len(), 1);
        assert!(writable[0].contains("id=out,path=/o,"), "{writable:?}");
    }

    #[test]
    fn the_command_reaches_the_guest_word_for_word() -> Result<(), Box<dyn std::error::Error>> {
        let mut arguments = Arguments::new(&["printf", "%s|", "it's", "$HOME", "a b", ""]);
        arguments.env = vec![("GREETING".to_owned(), "don't \"$X\"".to_owned())];
        let script = machine(&arguments, 0).script(&arguments, Path::new("/"));
        let (before, after) = script.split_once(GUEST).ok_or("the guest's part is missing")?;
        assert_eq!(before, "node=0\npair=0\n");
        let run = |script: &str| {
            std::process::Command::new("bash").args(["-c", script]).output().map(|out| out.stdout)
        };
        assert_eq!(run(after)?, b"it's|$HOME|a b||");
        let shown = after.replace("exec ", "printf %s \"$GREETING\"; exit; ");
        assert_eq!(run(&shown)?, b"don't \"$X\"");
        Ok(())
    }
}
