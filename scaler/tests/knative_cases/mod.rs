//! Sequences of decisions, and the windows they average over.

use serde_json::Value;
use tenon_scaler::Timestamp;
use tenon_scaler::kpa::{Buckets, MaxWindow, Reach, Spec, State, smoothing_coefficient};

use crate::{count, int};

pub(crate) fn run(case: &Value) {
    match case["fn"].as_str().unwrap() {
        "scale_sequence" => scale_sequence(case),
        "initial_state" => {
            let state = State::new(&spec(&Value::Null), count(&case["ready"]), Timestamp::from_millis(1));
            assert_eq!(Some(state.panic_since.is_some()), case["expect"]["panicking"].as_bool());
            assert_eq!(state.max_panic_pods, count(&case["expect"]["max_panic_pods"]));
        }
        "max_window" => {
            let mut window = MaxWindow::new(millis(&case["window_s"]), millis(&case["granularity_s"]));
            for record in case["records"].as_array().unwrap() {
                window.record(Timestamp::from_millis(millis(&record[0])), int(&record[1]));
            }
            assert_eq!(window.current(), int(&case["expect"]["current"]));
        }
        "smoothing_coefficient" => {
            let (precision, minimum) = (number(&case["weight_precision"]), number(&case["minimum"]));
            let got = smoothing_coefficient(count(&case["buckets"]), precision, minimum);
            near(got, &case["expect"]["coefficient"], number(&case["expect"]["abs_tolerance"]));
        }
        "window_average_sequence" => averages(case, Buckets::average),
        "weighted_average_sequence" => {
            let coefficient = number(&case["coefficient"]);
            averages(case, |buckets, now| buckets.weighted_average(now, coefficient));
        }
        other => panic!("unknown function {other}"),
    }
}

fn averages(case: &Value, average: impl Fn(&Buckets, Timestamp) -> f64) {
    let mut buckets = Buckets::new(millis(&case["window_s"]), millis(&case["granularity_s"]));
    for op in case["ops"].as_array().unwrap() {
        let at = Timestamp::from_millis(millis(&op["at_s"]));
        match op["op"].as_str().unwrap() {
            "record" => buckets.record(at, number(&op["value"])),
            "avg" => near(average(&buckets, at), &op["expect"], 1e-6),
            other => panic!("unknown operation {other}"),
        }
    }
}

/// An instant long after the epoch, as the original's clock is.
const START_S: u64 = 1_000_000_000;

fn scale_sequence(case: &Value) {
    let mut now_spec = case["spec"].clone();
    let mut set = spec(&now_spec);
    let start = Timestamp::from_millis(START_S * 1000);
    let mut state = State::new(&set, count(&now_spec["initial_ready"]), start);
    preset(&mut state, &now_spec["preset"], start);
    for step in case["steps"].as_array().unwrap() {
        if let Some(change) = step["spec_change"].as_object() {
            for (key, value) in change {
                now_spec[key] = value.clone();
            }
            set = spec(&now_spec);
        }
        if step["expect"]["valid"].as_bool() == Some(false) || step["valid"].as_bool() == Some(false) {
            // The source has no data: there is no decision, and nothing to expect of one.
            assert!(step["expect"]["pods"].as_u64().is_none_or(|pods| pods == 0), "pods without a decision");
            continue;
        }
        let now = start.after_millis(millis(&step["at_s"]));
        let got = state.scale(&set, count(&step["ready"]), number(&step["stable"]), number(&step["panic"]), now);
        let expect = &step["expect"];
        assert_eq!(got.pods, count(&expect["pods"]), "pods at {}", step["at_s"]);
        if !expect["excess_burst_capacity"].is_null() {
            let burst = i64::from(got.excess_burst_capacity) - int(&expect["excess_burst_capacity"]);
            assert!(burst.abs() <= 1, "burst {} at {}", got.excess_burst_capacity, step["at_s"]);
        }
        if !expect["panic_since_s"].is_null() {
            assert_eq!(state.panic_since, Some(start.after_millis(millis(&expect["panic_since_s"]))));
        }
    }
}

/// What a case sets before its first step, in the words that the table has elsewhere for the same things. No case of the
/// copy has one, so that any other word, or another form, is a failure and not a guess.
fn preset(state: &mut State, preset: &Value, start: Timestamp) {
    if preset.is_null() {
        return;
    }
    for (key, value) in preset.as_object().unwrap_or_else(|| panic!("a preset in a form that is not known: {preset}")) {
        match key.as_str() {
            "panic_since_s" if value.is_null() => state.panic_since = None,
            "panic_since_s" => state.panic_since = Some(start.after_millis(millis(value))),
            "panicking" => state.panic_since = value.as_bool().unwrap().then_some(start),
            "max_panic_pods" => state.max_panic_pods = count(value),
            other => panic!("unknown preset {other}"),
        }
    }
}

fn spec(value: &Value) -> Spec {
    let or = |key: &str, default: f64| value[key].as_f64().unwrap_or(default);
    Spec {
        target: or("target", 1.0),
        total: or("total", 0.0),
        target_burst_capacity: or("target_burst_capacity", 0.0),
        panic_threshold: or("panic_threshold", 2.0),
        max_scale_up_rate: or("max_scale_up_rate", 10.0),
        max_scale_down_rate: or("max_scale_down_rate", 10.0),
        stable_window_ms: millis(&value["stable_window_s"]),
        scale_down_delay_ms: millis(&value["scale_down_delay_s"]),
        reach: if value["reachable"].as_bool() == Some(false) { Reach::Unreachable } else { Reach::Reachable },
        activation_scale: count(&value["activation_scale"]),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Seconds, perhaps with a fraction, in ms.
fn millis(value: &Value) -> u64 {
    let seconds = value.as_f64().unwrap_or(0.0);
    format!("{:.0}", seconds * 1000.0).parse().unwrap()
}

fn near(got: f64, expect: &Value, within: f64) {
    assert!((got - number(expect)).abs() <= within, "{got} is not {expect}");
}
