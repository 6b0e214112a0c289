//! The kernel and the first files of a guest, built once from Debian's packages and kept.

use super::initrd::Archive;
use super::{cache, own_folder};
use crate::failure::{Failure, Stop};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What must be installed. perftest and ibverbs-utils are what RDMA is compared with and looked at.
const PACKAGES: [&str; 10] = [
    "qemu-system-x86",
    "busybox-static",
    "kmod",
    "xz-utils",
    "iproute2",
    "libibverbs1",
    "ibverbs-providers",
    "rdma-core",
    "ibverbs-utils",
    "perftest",
];
/// The package whose dependency is Debian's present kernel.
const KERNEL: &str = "linux-image-amd64";
/// With what they need, in this order. No dependency names crc32, which rdma_rxe asks for by name.
const MODULES: [&str; 14] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "crc32_generic",
    "crc32c_generic",
    "crc32_pclmul",
    "rdma_rxe",
    "ib_uverbs",
    "rdma_ucm",
    "virtio_net",
    "veth",
    "sch_netem",
];
const INIT: &str = include_str!("../../vm/init.sh");
const BUSYBOX: &str = "/bin/busybox";
/// To be raised when this file builds something else from the same parts.
const RECIPE: u32 = 1;
/// Images of older kernels and recipes that are kept.
const OLD_MAX: usize = 3;

/// A bootable system.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

impl Image {
    /// The image in the cache, or a new one. Installs what is missing if it may.
    pub(super) fn get() -> Result<Self, Stop> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(Stop::Skipped("the virtual machine is for Linux on x86-64".to_owned()));
        }
        install()?;
        let folder = cache();
        fs::create_dir_all(&folder)?;
        let new = own_folder(&folder, "new.");
        let recipe = recipe();
        if let Some(found) = images(&folder)?.into_iter().find(|path| ends_with(path, &recipe)) {
            return Ok(Self::of(&found));
        }
        let kernel = kernel_package()?;
        eprintln!("vm: building an image with {kernel}");
        let built = fs::create_dir(&new).map_err(Stop::from).and_then(|()| build(&kernel, &new));
        let kept = folder.join(format!("{kernel}-{recipe}"));
        let done = built.and_then(|()| match fs::rename(&new, &kept) {
            // Somebody else was faster with the same.
            Err(_) if kept.is_dir() => Ok(()),
            renamed => renamed.map_err(Stop::from),
        });
        if new.is_dir() {
            fs::remove_dir_all(&new)?;
        }
        done?;
        for old in images(&folder)?.iter().filter(|path| **path != kept).skip(OLD_MAX) {
            fs::remove_dir_all(old)?;
        }
        Ok(Self::of(&kept))
    }

    fn of(folder: &Path) -> Self {
        Self { kernel: folder.join("vmlinux"), initrd: folder.join("initrd") }
    }
}

fn ends_with(path: &Path, recipe: &str) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(recipe))
}

/// Names everything an image is made of but the kernel.
fn recipe() -> String {
    let mut hasher = DefaultHasher::new();
    (RECIPE, INIT, MODULES).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// All images in the cache, the youngest first.
fn images(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("linux-image-") {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// A command with the places where Debian keeps the tools of administrators.
fn tool(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<Output, Failure> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("{shown} failed: {said}")))
}

/// Installs those of the packages that are missing.
fn install() -> Result<(), Stop> {
    let format = ["-W", "-f", "${db:Status-Status} ${Package}\n"];
    let known = tool("dpkg-query", &format).args(PACKAGES).output();
    let Ok(known) = known else {
        return Err(Stop::Skipped("this is not Debian: there is no dpkg-query".to_owned()));
    };
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let missing = missing(&known);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    eprintln!("vm: installing {list}");
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    // Lists that are older than the archive name files that are gone.
    let done = apt_get(&install).or_else(|_| {
        apt_get(&["update", "-qq"])?;
        apt_get(&install)
    });
    done.map_err(|failure| {
        Stop::Skipped(format!("missing: {list}\nand they cannot be installed: {failure}"))
    })
}

/// Those of the packages that dpkg does not call installed.
fn missing(known: &str) -> Vec<&'static str> {
    let installed = |package: &&str| {
        known.lines().any(|line| line.split_once(' ') == Some(("installed", package)))
    };
    PACKAGES.into_iter().filter(|package| !installed(package)).collect()
}

fn apt_get(arguments: &[&str]) -> Result<(), Failure> {
    let mut command = if rustix::process::geteuid().is_root() {
        tool("apt-get", arguments)
    } else {
        let mut command = tool("sudo", &["-n", "apt-get"]);
        command.args(arguments);
        command
    };
    run(&mut command).map(drop)
}

/// The package of Debian's present kernel.
fn kernel_package() -> Result<String, Stop> {
    let ask = || -> Option<String> {
        let answer = run(&mut tool("apt-cache", &["depends", KERNEL])).ok()?;
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        answer.lines().find_map(kernel_of).map(str::to_owned)
    };
    if let Some(kernel) = ask() {
        return Ok(kernel);
    }
    let updated = apt_get(&["update", "-qq"]);
    ask().ok_or_else(|| {
        let reason = updated.err().map_or_else(String::new, |failure| format!(": {failure}"));
        Stop::Skipped(format!("apt knows no package {KERNEL}{reason}"))
    })
}

fn kernel_of(line: &str) -> Option<&str> {
    let package = line.trim().strip_prefix("Depends: ")?;
    let version = package.strip_prefix("linux-image-")?;
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(package)
}

/// Downloads the kernel and makes both files in `folder`.
fn build(package: &str, folder: &Path) -> Result<(), Stop> {
    run(tool("apt-get", &["download", "-qq", package]).current_dir(folder))
        .map_err(|failure| Stop::Skipped(format!("cannot download {package}: {failure}")))?;
    let file = only(folder, |name| name.starts_with("linux-image-"))?;
    let root = folder.join("root");
    run(tool("dpkg-deb", &["--extract"]).arg(&file).arg(&root))?;
    fs::remove_file(file)?;
    if root.join("usr/lib/modules").is_dir() && !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let compressed = fs::read(only(&root.join("boot"), |name| name.starts_with("vmlinuz-"))?)?;
    fs::write(folder.join("vmlinux"), unpacked_kernel(compressed)?)?;
    initrd(&root, &folder.join("initrd"))?;
    fs::remove_dir_all(root)?;
    Ok(())
}

fn only(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf, Failure> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            return Ok(entry.path());
        }
    }
    Err(Failure::new(format!("{} has not what a kernel package has", folder.display())))
}

/// The kernel itself, so that it need not unpack itself under emulation, or, if its packing is
/// unknown, the file as it is.
fn unpacked_kernel(image: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match payload(&image) {
        Some(payload) if payload.starts_with(b"\xfd7zXZ\0") => xz(payload),
        _ => Ok(image),
    }
}

/// The packed kernel in a bzImage (Documentation/arch/x86/boot.rst of the kernel).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup = (usize::from(*image.get(0x1f1)?) + 1) * 512;
    let start = setup.checked_add(word(0x248)?)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

/// Unpacks one stream and ignores what follows it.
fn xz(packed: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut command = tool("xz", &["--decompress", "--stdout", "--single-stream"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut to = child.stdin.take().ok_or_else(|| Failure::new("xz has no input"))?;
    let unpacked = std::thread::scope(|scope| {
        scope.spawn(move || {
            // xz stops reading at the end of the stream, or says itself what is wrong.
            let _ = io::Write::write_all(&mut to, packed);
        });
        child.wait_with_output()
    })?;
    if unpacked.status.success() {
        return Ok(unpacked.stdout);
    }
    Err(Failure::new(format!("xz: {}", unpacked.status)))
}

/// The modules in the order in which they are to be loaded, busybox, and init.
fn initrd(root: &Path, to: &Path) -> Result<(), Failure> {
    let version = only(&root.join("lib/modules"), |_| true)?;
    let version = version.file_name().unwrap_or_default();
    run(tool("depmod", &["-b"]).arg(root).arg(version))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut ask = tool("modprobe", &["--show-depends", "-d"]);
        let answer = run(ask.arg(root).arg("-S").arg(version).arg(module))?;
        for line in String::from_utf8_lossy(&answer.stdout).lines() {
            let Some(path) = line.strip_prefix("insmod ") else { continue };
            let path = PathBuf::from(path.trim());
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    let mut archive = Archive::new(io::BufWriter::new(fs::File::create(to)?));
    for folder in ["bin", "modules"] {
        archive.directory(folder)?;
    }
    archive.file("bin/busybox", &fs::read(BUSYBOX)?)?;
    archive.file("init", INIT.as_bytes())?;
    let mut list = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut module = fs::read(&file)?;
        let plain = name.trim_end_matches(".xz");
        if plain != name {
            module = xz(&module)?;
        }
        archive.file(&format!("modules/{plain}"), &module)?;
        list.push_str(plain);
        list.push('\n');
    }
    archive.file("modules.list", list.as_bytes())?;
    Ok(archive.end()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_there_only_when_dpkg_calls_it_installed() {
        let known = PACKAGES.map(|name| format!("installed {name}")).join("\n");
        assert!(missing(&known).is_empty());
        let known = known.replace("installed perftest", "config-files perftest");
        assert_eq!(missing(&known), ["perftest"]);
        assert_eq!(missing(""), PACKAGES);
    }

    #[test]
    fn the_kernel_is_the_dependency_with_a_version() {
        assert_eq!(
            kernel_of("  Depends: linux-image-6.1.0-56-amd64"),
            Some("linux-image-6.1.0-56-amd64")
        );
        assert_eq!(kernel_of("linux-image-amd64"), None);
        assert_eq!(kernel_of("  Depends: linux-image-generic"), None);
    }

    #[test]
    fn a_kernel_is_found_in_its_image_and_a_broken_image_is_left_alone() {
        let mut image = vec![0_u8; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&6_u32.to_le_bytes());
        image[1040..1046].copy_from_slice(b"packed");
        assert_eq!(payload(&image), Some(b"packed".as_slice()));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..0x210]), None);
    }
}
