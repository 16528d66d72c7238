//! `threshold` and `target_value`.

use serde_json::Value;
use tenon_scaler::Direction;
use tenon_scaler::nomad::{NomadError, TargetValue, Threshold};

use crate::int;

pub(crate) fn run(case: &Value) {
    let samples: Vec<f64> = case["samples"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let config: Vec<(&str, &str)> =
        case["config"].as_object().unwrap().iter().map(|(key, text)| (key.as_str(), text.as_str().unwrap())).collect();
    let count = int(&case["count"]);
    let expect = &case["expect"];
    // Without a sample the original returns before it reads its configuration.
    let outcome = if samples.is_empty() {
        Ok(None)
    } else {
        match case["fn"].as_str().unwrap() {
            "threshold" => Threshold::parse(&config).map(|strategy| strategy.run(count, &samples)),
            "target_value" => TargetValue::parse(&config).map(|strategy| strategy.run(count, &samples)),
            other => panic!("unknown function {other}"),
        }
    };
    if let Some(text) = expect["error_contains"].as_str() {
        let error: NomadError = outcome.expect_err("an error");
        assert!(error.to_string().contains(text), "{error}");
        return;
    }
    let action = outcome.unwrap();
    let direction = action.map_or("none", |action| if action.direction == Direction::Out { "up" } else { "down" });
    if expect["no_result"].as_bool() == Some(true) {
        assert_eq!(direction, "none");
        return;
    }
    assert_eq!(direction, expect["direction"].as_str().unwrap_or("none"));
    if direction != "none" {
        assert_eq!(action.map(|action| action.count), Some(int(&expect["count"])));
    }
}
