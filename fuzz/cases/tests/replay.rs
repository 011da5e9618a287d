//! Replays the committed corpora of the fuzz targets, with a stable compiler and without libFuzzer.

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use fuzz_cases::TARGETS;

/// Bytes that all corpora may have together: they are read by each clone and each test run.
const ALL_CORPORA: u64 = 300 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("fuzz/").to_owned()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap_or_else(|error| panic!("fuzz/{folder}: {error}"));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string().expect("text");
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let inputs = names(&format!("corpus/{name}"));
    assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
    for input in inputs {
        let bytes = fs::read(fuzz().join("corpus").join(name).join(&input)).expect("an input");
        assert!(catch_unwind(|| target(&bytes)).is_ok(), "broken by fuzz/corpus/{name}/{input}");
    }
    target(b"");
}

#[test]
fn each_target_has_a_binary_and_a_corpus() {
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    let mut size = 0;
    for name in &targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        for input in names(&format!("corpus/{name}")) {
            size += fs::metadata(fuzz().join("corpus").join(name).join(input)).expect("an input").len();
        }
    }
    assert!(size < ALL_CORPORA, "{size} bytes of corpora");
}

#[test]
fn t33_t35_corpus_of_capability() {
    replay("capability");
}

#[test]
fn t45_corpus_of_control() {
    replay("control");
}

#[test]
fn t57_t58_corpus_of_cors() {
    replay("cors");
}

#[test]
fn t19_t32_t63_corpus_of_credential() {
    replay("credential");
}

#[test]
fn corpus_of_figures() {
    replay("figures");
}

#[test]
fn corpus_of_framing() {
    replay("framing");
}

#[test]
fn t23_t28_t31_t61_corpus_of_headers() {
    replay("headers");
}

#[test]
fn t27_corpus_of_heads() {
    replay("heads");
}

#[test]
fn t54_corpus_of_location() {
    replay("location");
}

#[test]
fn t53_t64_corpus_of_policy() {
    replay("policy");
}

#[test]
fn f05_corpus_of_records() {
    replay("records");
}

#[test]
fn t22_t24_t25_t26_t29_corpus_of_target() {
    replay("target");
}

#[test]
fn t01_t02_t05_t06_t07_t11_corpus_of_token() {
    replay("token");
}

#[test]
fn t45_corpus_of_websocket() {
    replay("websocket");
}

#[test]
fn t46_t66_corpus_of_yamux() {
    replay("yamux");
}

#[test]
fn t17_corpus_of_keys() {
    replay("keys");
}
