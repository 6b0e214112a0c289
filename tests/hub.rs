//! `--model ORG/NAME`: a hub on loopback, the real binary, and a cache of its own.
#![allow(clippy::unwrap_used)]

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

/// What goes wrong with the weights.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The connection breaks in the middle, again and again.
    Breaks,
    /// A byte is another one.
    Flips,
}

/// Serves the tiny checkpoint as `org/tiny`.
struct Hub {
    uri: String,
    trouble: Arc<Mutex<Trouble>>,
    /// First bytes that were asked for of the weights, but for questions about its size.
    starts: Arc<Mutex<Vec<usize>>>,
}

impl Hub {
    fn start(trouble: Trouble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let trouble = Arc::new(Mutex::new(trouble));
        let starts = Arc::new(Mutex::new(Vec::new()));
        let (of_thread, heard) = (Arc::clone(&trouble), Arc::clone(&starts));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that hangs up is what some tests are about.
                let _ = answer(&stream, *of_thread.lock().unwrap(), &heard);
            }
        });
        Self { uri, trouble, starts }
    }

    fn set(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }

    fn run(&self, home: &Path) -> Output {
        run(&self.uri, home, "org/tiny")
    }
}

fn run(endpoint: &str, home: &Path, model: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["run", "--model", model, "--chat", "hello", "--max-tokens", "2", "--json"])
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", home)
        .output()
        .unwrap()
}

fn checkpoint() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tiny-qwen3")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The hub's tags: git's id of small files, SHA-256 of large ones.
fn tag(file: &str, content: &[u8]) -> String {
    if file == WEIGHTS {
        return hex(digest(&SHA256, content).as_ref());
    }
    let mut blob = format!("blob {}\0", content.len()).into_bytes();
    blob.extend(content);
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn answer(
    mut stream: &TcpStream,
    trouble: Trouble,
    starts: &Mutex<Vec<usize>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap()?;
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let mut range = String::new();
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            bytes.clone_into(&mut range);
        }
    }
    if path.starts_with("/api/models/org/tiny/revision/main") || path == "/api/models/org/tiny" {
        let files = std::fs::read_dir(checkpoint())?.flatten();
        let files = files.map(|file| {
            serde_json::json!({ "rfilename": file.file_name().to_string_lossy().into_owned() })
        });
        let files: Vec<_> = files.collect();
        let info = serde_json::json!({ "sha": COMMIT, "siblings": files }).to_string();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{info}",
            info.len()
        );
    }
    let Some(file) = path.strip_prefix("/org/tiny/resolve/main/") else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
    };
    let mut content = std::fs::read(checkpoint().join(file))?;
    let tag = tag(file, &content);
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(content.len(), |end: usize| end + 1);
    if file == WEIGHTS && end > 1 {
        starts.lock().unwrap().push(start);
    }
    if file == WEIGHTS && trouble == Trouble::Flips {
        let middle = content.len() / 2;
        content[middle] ^= 1;
    }
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\netag: \"{tag}\"\r\nx-repo-commit: {COMMIT}\r\n\
         connection: close\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{}\r\n\r\n",
        end - start,
        end - 1,
        content.len()
    )?;
    let mut part = &content[start..end];
    if file == WEIGHTS && trouble == Trouble::Breaks && part.len() > 1 {
        part = &part[..part.len().div_ceil(3)];
    }
    stream.write_all(part)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_model_is_downloaded_once_and_answers_like_its_directory() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(Trouble::None);
    let first = hub.run(home.path());
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stderr(&first).contains("downloading model.safetensors: 100 %"), "{}", stderr(&first));
    // Nobody is there: the cache has it.
    let second = run("http://127.0.0.1:1", home.path(), "org/tiny");
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(stderr(&second), "");
    let direct = run("http://127.0.0.1:1", home.path(), checkpoint().to_str().unwrap());
    let ids = |output: &Output| {
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["ids"].clone()
    };
    assert_eq!((ids(&first), ids(&second)), (ids(&direct), ids(&direct)));
    assert_eq!(*hub.starts.lock().unwrap(), [0]);
}

#[test]
fn a_download_that_broke_goes_on_where_it_ended() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(Trouble::Breaks);
    let broken = hub.run(home.path());
    assert!(!broken.status.success());
    assert!(stderr(&broken).contains("model.safetensors"), "{}", stderr(&broken));
    hub.set(Trouble::None);
    let whole = hub.run(home.path());
    assert!(whole.status.success(), "{}", stderr(&whole));
    let starts = hub.starts.lock().unwrap();
    assert!(starts.is_sorted() && starts.len() > 2, "each attempt goes on: {starts:?}");
    assert!(*starts.last().unwrap() > 0);
}

#[test]
fn bytes_that_are_not_the_announced_ones_are_refused_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(Trouble::Flips);
    let wrong = hub.run(home.path());
    assert_eq!(wrong.status.code(), Some(69));
    assert!(stderr(&wrong).contains("model.safetensors: the bytes"), "{}", stderr(&wrong));
    hub.set(Trouble::None);
    let right = hub.run(home.path());
    assert!(right.status.success(), "{}", stderr(&right));
}

#[test]
fn without_a_network_one_line_says_so() {
    let home = tempfile::tempdir().unwrap();
    let offline = run("http://127.0.0.1:1", home.path(), "org/tiny");
    assert_eq!(offline.status.code(), Some(69));
    let said = stderr(&offline);
    assert!(said.contains("--model org/tiny: not in the cache, and the hub cannot be reached"));
    assert!(said.lines().count() <= 2, "{said}");
}

#[test]
fn a_model_that_the_hub_does_not_have_is_a_mistake_of_the_caller() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(Trouble::None);
    let unknown = run(&hub.uri, home.path(), "org/other");
    assert_eq!(unknown.status.code(), Some(64), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("--model org/other: the hub has no such model"));
}
