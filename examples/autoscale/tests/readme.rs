//! The README's transcript is what the program prints.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_transcript_is_what_the_program_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("examples/autoscale/README.md")).unwrap();
    let transcript = readme.split("```console\n").find(|part| part.contains("rides.yaml")).unwrap();
    let (command, printed) = transcript.split_once("day.html\n").unwrap();
    let words = command.replace('\\', " ");
    let words = words.split_whitespace().skip_while(|word| *word != "rehearse").filter(|word| *word != "--report");
    let done = Command::new(env!("CARGO_BIN_EXE_autoscale")).current_dir(&root).args(words).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let own = String::from_utf8(done.stdout).unwrap();
    let lines = |text: &str| -> Vec<String> {
        text.lines().take_while(|line| *line != "…").take(4).map(|line| line.trim_end().to_owned()).collect()
    };
    assert_eq!(lines(&own), lines(printed));
}
