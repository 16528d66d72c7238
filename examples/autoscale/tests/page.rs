//! The page: one file without requests and scripts, with every change, and without what is nobody's business.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Output};

const SECRET: &str = "hunter2secret";

fn manifest() -> String {
    format!(
        r#"apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: "</title><script>alert(1)</script>"
spec:
  scaleTargetRef: {{name: worker}}
  maxReplicaCount: 10
  triggers:
  - type: rabbitmq
    name: "<b>&jobs"
    metadata:
      host: amqp://user:{SECRET}@queue:5672/vhost
      queueName: {SECRET}-queue
      mode: QueueLength
      value: "20"
"#
    )
}

fn rehearse(folder: &std::path::Path, manifest: &str, more: &[&str]) -> Output {
    std::fs::write(folder.join("so.yaml"), manifest).unwrap();
    let rows: Vec<String> =
        (0..30).map(|minute| format!("2026-06-01T08:{minute:02}:00Z,{}", (minute % 7) * 3)).collect();
    std::fs::write(folder.join("day.csv"), format!("time,\"arrivals</script>\"\n{}\n", rows.join("\n"))).unwrap();
    Command::new(env!("CARGO_BIN_EXE_autoscale"))
        .current_dir(folder)
        .args(["rehearse", "--policy", "so.yaml", "--trace", "day.csv", "--backlog", "--service-rate", "1"])
        .args(["--warm-up", "0s", "--report", "page.html"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn the_page_asks_for_nothing_runs_nothing_and_escapes_labels() {
    let folder = tempfile::tempdir().unwrap();
    let done = rehearse(folder.path(), &manifest(), &["--output", "json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    for forbidden in ["<script", "http://", "https://", "src=", "<b>", "@import", "url("] {
        assert!(!page.contains(forbidden), "{forbidden} stands in the page");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "the name is there, as text");
    assert!(page.contains("&lt;b&gt;&amp;jobs"), "so is the trigger's");
    assert!(page.contains("default-src 'none'"));
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let changes = json["autoscalers"][0]["changes"].as_array().unwrap();
    assert!(changes.len() >= 5, "{} changes", changes.len());
    for change in changes {
        let at = change["at"].as_str().unwrap();
        // Once to point at, and once in the table.
        assert!(page.matches(at).count() >= 2, "the change at {at} is not told of twice");
    }
    assert!(page.contains("role=\"img\" aria-label="), "a picture says what it shows");
}

#[test]
fn nothing_repeats_a_secret_of_the_metadata() {
    let folder = tempfile::tempdir().unwrap();
    for more in [&["--output", "json"][..], &["--output", "table"]] {
        let done = rehearse(folder.path(), &manifest(), more);
        let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
        for text in [&done.stdout[..], &done.stderr[..], page.as_bytes()] {
            assert!(!String::from_utf8_lossy(text).contains(SECRET));
        }
    }
    // A fault in the file that holds it is told without it.
    for (from, to) in [("value: \"20\"", "value: many"), ("mode: QueueLength", "mode: [")] {
        let done = rehearse(folder.path(), &manifest().replace(from, to), &[]);
        assert_eq!(done.status.code(), Some(2));
        assert!(!String::from_utf8_lossy(&done.stderr).contains(SECRET));
    }
}
