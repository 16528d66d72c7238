//! `--prometheus` asks the server that it names, in questions that Prometheus answers, and no other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};

/// A server that answers each question with a value of its own at each step; the questions come through the channel.
fn server(answer: fn(&str, &[u64]) -> String) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/prom/", listener.local_addr().unwrap());
    let (sender, questions) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap() > 2 {
                header.clear();
            }
            let url = line.split(' ').nth(1).unwrap().to_owned();
            let of = |name: &str| {
                let found = url.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{name}=")));
                found.unwrap().to_owned()
            };
            let number = |name: &str| of(name).parse::<f64>().unwrap();
            let (start, end, step) = (number("start"), number("end"), number("step"));
            let mut times = Vec::new();
            let mut at = start;
            while at <= end {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
                times.push(at as u64);
                at += step;
            }
            let body = if times.len() > 11_000 {
                r#"{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution of 11,000 points"}"#
                    .into()
            } else {
                answer(&of("query"), &times)
            };
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
                .unwrap();
            let _ = sender.send(url);
        }
    });
    (address, questions)
}

fn matrix(values: &[u64], of: impl Fn(u64) -> u64) -> String {
    let pairs: Vec<String> = values.iter().map(|at| format!("[{at},\"{}\"]", of(*at))).collect();
    format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":[{}]}}]}}}}"#,
        pairs.join(",")
    )
}

fn rehearse(manifest: &str, address: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), manifest).unwrap();
    Command::new(env!("CARGO_BIN_EXE_autoscale"))
        .current_dir(folder.path())
        .args(["rehearse", "--policy", "a.yaml", "--output", "json", "--prometheus", address])
        .args(more)
        .output()
        .unwrap()
}

const HPA: &str = "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: shop}\nspec:\n  scaleTargetRef: {kind: Deployment, name: web}\n  maxReplicas: 50\n";

#[test]
fn load_and_replicas_are_fetched_in_parts() {
    let (address, questions) =
        server(
            |query, times| {
                if query.contains("replicas") { matrix(times, |_| 3) } else { matrix(times, |at| at / 3_600 % 5) }
            },
        );
    let done = rehearse(HPA, &address, &["--since", "14d", "--request", "cpu=500m"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let held = &found["autoscalers"][0];
    assert_eq!(held["initial"], 3, "as many as there were");
    assert!(held["changes"].as_array().unwrap().len() > 100);
    let asked: Vec<String> = questions.try_iter().collect();
    // Fourteen days of minutes are 20,160 points: three questions for each of two series.
    assert_eq!(asked.len(), 6, "{asked:#?}");
    assert!(asked.iter().all(|url| url.starts_with("/prom/api/v1/query_range?query=")));
    assert!(asked[0].contains("container_cpu_usage_seconds_total") && asked[0].contains("shop"), "{}", asked[0]);
    assert!(asked[5].contains("kube_deployment_status_replicas_ready"));
}

#[test]
fn the_query_of_a_trigger_is_asked_of_the_server_that_was_named() {
    // Whoever asked the address in the manifest would be heard here.
    let (elsewhere, overheard) = server(|_, times| matrix(times, |_| 1));
    let manifest = format!(
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: jobs}}\nspec:\n  scaleTargetRef: {{kind: Custom, name: jobs}}\n  triggers:\n  - type: prometheus\n    metadata: {{serverAddress: '{elsewhere}', query: 'sum(waiting_jobs)', threshold: '2'}}\n"
    );
    let (address, questions) = server(|_, times| matrix(times, |at| at / 600 % 9));
    let done = rehearse(&manifest, &address, &["--since", "6h"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let asked: Vec<String> = questions.try_iter().collect();
    assert!(asked.len() == 1 && asked[0].contains("waiting_jobs"), "{asked:?}");
    assert_eq!(overheard.try_iter().count(), 0);
}

#[test]
fn what_cannot_be_fetched_is_said() {
    let (address, _questions) = server(|query, times| match query {
        query if query.contains("two") => {
            matrix(times, |_| 1).replace("}]}}", "},{\"metric\":{\"a\":\"b\"},\"values\":[]}]}}")
        }
        query if query.contains("wrong") => r#"{"status":"error","error":"parse error"}"#.into(),
        _ => r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
    });
    let external = HPA.replace("/v1", "/v2")
        + "  metrics: [{type: External, external: {metric: {name: jobs}, target: {type: AverageValue, averageValue: 2}}}]\n";
    for (manifest, address, more, words) in [
        (HPA, address.as_str(), &["--request", "cpu=1"][..], "Prometheus has no values of `sum(rate("),
        (
            external.as_str(),
            address.as_str(),
            &[],
            "jobs: no query tells it to Prometheus; say it with --query 'jobs=PROMQL'",
        ),
        (
            external.as_str(),
            address.as_str(),
            &["--query", "jobs=wrong"],
            "Prometheus answered with an error instead of values: parse error",
        ),
        (HPA, "https://prometheus.example", &[], "only http is spoken"),
        (HPA, "http://127.0.0.1:1", &["--request", "cpu=1"], "Connection refused"),
        (HPA, "nonsense", &[], "--prometheus nonsense"),
    ] {
        let done = rehearse(manifest, address, more);
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{error}");
        assert!(error.contains(words), "`{words}` is not in: {error}");
    }
}
