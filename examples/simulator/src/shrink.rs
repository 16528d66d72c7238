//! Fewer faults that still break the law: halves of the schedule are left out, then quarters, and so on.

use anyhow::Result;

use crate::day::{Plan, run};

/// How many days are run at most.
const TRIES: usize = 40;

/// A plan with as few faults as were found, and how many days were run for it.
pub(crate) fn shrink(plan: &Plan) -> Result<(Plan, usize)> {
    let mut kept: Vec<usize> = plan.only.clone().unwrap_or_else(|| (0..plan.faults().len()).collect());
    let (mut tries, mut parts) = (0, 2);
    let breaks = |only: &[usize], tries: &mut usize| -> Result<bool> {
        *tries += 1;
        let plan = Plan { only: Some(only.to_vec()), ..plan.clone() };
        Ok(run(&plan, &mut |_, _| {})?.is_err())
    };
    while kept.len() > 1 && tries < TRIES {
        let size = kept.len().div_ceil(parts);
        let mut smaller = None;
        for from in (0..kept.len()).step_by(size) {
            let rest: Vec<usize> = kept
                .iter()
                .enumerate()
                .filter(|(at, _)| !(from..from + size).contains(at))
                .map(|(_, one)| *one)
                .collect();
            if tries < TRIES && !rest.is_empty() && breaks(&rest, &mut tries)? {
                smaller = Some(rest);
                break;
            }
        }
        match smaller {
            Some(rest) => {
                kept = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    Ok((Plan { only: Some(kept), ..plan.clone() }, tries))
}
