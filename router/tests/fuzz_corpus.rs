//! Replays what fuzzing has found, and what it starts from.

#[path = "../fuzz/parsers.rs"]
mod parsers;

#[test]
fn the_corpus_of_the_parsers() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/parsers");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).expect("a corpus") {
        let data = std::fs::read(entry.expect("an entry").path()).expect("a file");
        parsers::check(&data);
        replayed += 1;
    }
    assert!(replayed > 30, "only {replayed} files");
}
