//! Against a naive reference: refs in a plain map, conflicts by looking at every pair, the log as a list of states.
//!
//! Replay: `REFSLOG_SEED=n REFSLOG_STEPS=m cargo test -p tenon-refslog --test model`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test reads its seed from a variable")]

mod common;

use std::collections::BTreeMap;

use common::{Chance, LINEAGE, oid, seed_and_steps};
use tenon_refslog::{
    Action, Command, Config, Deref, DfPolicy, Mode, ObjectFormat, Old, RefName, Refs, Replayed, RootRefs, Transaction,
    Value, compact, diff,
};

type Model = BTreeMap<RefName, Value>;

/// The refs that a command reaches, its own first; `None` for a loop or a chain too long to go through.
fn reached(model: &Model, command: &Command) -> Option<Vec<RefName>> {
    let mut names = vec![command.name().clone()];
    while command.deref() == Deref::Follow
        && let Some(Value::Symbolic(next)) = model.get(names.last().unwrap())
    {
        names.push(next.clone());
        if names.len() > 5 {
            return None;
        }
    }
    Some(names)
}

/// The end of a chain of symbolic refs, if it has one that Git would reach.
fn resolve<'a>(model: &'a Model, name: &'a RefName) -> Option<&'a RefName> {
    let mut at = name;
    for _ in 0..5 {
        match model.get(at) {
            Some(Value::Symbolic(next)) => at = next,
            _ => return Some(at),
        }
    }
    None
}

fn in_the_way(a: &RefName, b: &RefName) -> bool {
    let below = |a: &RefName, b: &RefName| b.as_bytes().starts_with(&[a.as_bytes(), b"/"].concat());
    below(a, b) || below(b, a)
}

fn old_is_met(model: &Model, command: &Command, end: &RefName) -> bool {
    let current = model.get(end);
    let expected = match (command.action(), command.old()) {
        (Action::Verify, Old::Any) => Old::Absent,
        (_, old) => old.clone(),
    };
    let seen = match (current, &expected) {
        (_, Old::Any) => return true,
        (Some(Value::Symbolic(target)), _) => match (resolve(model, target), &expected) {
            (None, _) => return false,
            (Some(_), Old::Is(Value::Symbolic(_))) => current,
            (Some(name), _) => model.get(name),
        },
        _ => current,
    };
    match expected {
        Old::Any => true,
        Old::Absent => seen.is_none(),
        Old::Is(value) => seen == Some(&value),
    }
}

/// The state after the transaction, or `None` if it is refused.
fn step(model: &Model, transaction: &Transaction, policy: DfPolicy) -> Option<Model> {
    let commands = transaction.commands();
    let mut touched: Vec<(RefName, usize)> = Vec::new();
    let mut after = model.clone();
    let mut made = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        let names = reached(model, command)?;
        let end = names.last().unwrap().clone();
        let head_goes = *command.action() == Action::Delete && end.is_head();
        if head_goes || !old_is_met(model, command, &end) {
            return None;
        }
        touched.extend(names.into_iter().map(|name| (name, at)));
        match command.action() {
            Action::Set(value) => {
                made.push(end.clone());
                after.insert(end, value.clone());
            }
            Action::Delete => drop(after.remove(&end)),
            Action::Verify => {}
        }
    }
    let head = RefName::new("HEAD").unwrap();
    if let Some(Value::Symbolic(below)) = model.get(&head) {
        let of_head: Vec<usize> = touched.iter().filter(|(name, _)| *name == head).map(|(_, at)| *at).collect();
        if touched.iter().any(|(name, at)| name == below && of_head.iter().any(|other| other != at)) {
            return None;
        }
    }
    let mut names: Vec<_> = touched.iter().collect();
    names.sort();
    if names.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return None;
    }
    let conflict = match policy {
        DfPolicy::GitCompat => touched.iter().filter(|(name, _)| !model.contains_key(name)).any(|(name, _)| {
            model.keys().chain(touched.iter().map(|(other, _)| other)).any(|other| in_the_way(name, other))
        }),
        DfPolicy::FinalState => made.iter().any(|name| after.keys().any(|other| in_the_way(name, other))),
    };
    (!conflict).then_some(after)
}

fn config(policy: DfPolicy) -> Config {
    Config::builder(ObjectFormat::Sha1, common::key()).df(policy).root_refs(RootRefs::Any).build().unwrap()
}

fn run(seed: u64, steps: usize, policy: DfPolicy) {
    let ids: Vec<_> = (0..4).map(oid).collect();
    let mut chance = Chance::new(seed);
    let mut refs = Refs::new(config(policy), LINEAGE);
    let mut states: Vec<(Refs, Model)> = vec![(refs.clone(), Model::new())];
    let mut records = Vec::new();
    for at in 0..steps {
        let transaction = common::transaction(&mut chance, &refs, &ids);
        let model = states.last().unwrap().1.clone();
        let story = || format!("seed {seed}, step {at}, {policy:?}: {transaction:#?}\non {model:#?}");
        let admitted = refs.admit(&transaction);
        match (step(&model, &transaction, policy), admitted) {
            (None, Err(_)) => {}
            (Some(after), Ok(admitted)) => {
                assert_eq!(after == model, admitted.record().is_none(), "no-op: {}", story());
                if let Some(record) = admitted.into_record() {
                    assert_eq!(refs.apply(&record), Ok(Replayed::Applied), "{}", story());
                    assert!(refs.iter().eq(after.clone()), "{}", story());
                    states.push((refs.clone(), after));
                    records.push(record);
                }
            }
            (expected, got) => panic!("{expected:?} was expected, {got:?} found: {}", story()),
        }
    }
    // Any stretch, folded, brings any replica within it to its end; an exact one only a replica at its base.
    for _ in 0..60 {
        let (a, b) = (chance.below(states.len()), chance.below(states.len()));
        let (base, end) = (a.min(b), a.max(b));
        let cover = compact(states[base].0.point(), Mode::Cover, &records[base..end]).unwrap();
        let exact = cover.clone().exact().unwrap();
        for at in base..=end {
            for (segment, may) in [(&cover, true), (&cover.forward_only(), true), (&exact, at == base || at == end)] {
                let mut replica = states[at].0.clone();
                let replayed = replica.replay(segment);
                assert_eq!(replayed.is_ok(), may, "seed {seed}: {base}..{end} at {at}");
                let lands = if may { &states[end] } else { &states[at] };
                assert!(replica.iter().eq(lands.1.clone()) && replica.point() == lands.0.point(), "seed {seed}");
            }
        }
        for segment in [&cover, &exact] {
            let mut fork = states[end].0.clone();
            assert_eq!(fork.rollback(segment), Ok(()), "seed {seed}");
            assert!(fork.iter().eq(states[base].1.clone()) && fork.point() == states[base].0.point(), "seed {seed}");
            assert!(base == end || fork.rollback(segment).is_err(), "seed {seed}");
        }
        assert_eq!(diff(&states[base].0, &states[end].0), exact.changes(), "exact is the difference; seed {seed}");
    }
}

#[test]
fn the_crate_does_what_the_reference_does() {
    let (seed, steps) = seed_and_steps(500, 300);
    for run_seed in seed..seed + 6 {
        run(run_seed, steps, DfPolicy::GitCompat);
        run(run_seed, steps, DfPolicy::FinalState);
    }
}
