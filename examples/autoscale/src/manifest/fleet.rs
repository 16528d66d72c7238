//! Reads Tenon's own YAML: `apiVersion: tenon/v1`, `kind: Fleet`.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use yaml::{Error, View};

use super::behavior;
use super::field::{Reader, count, metadata, quantity, shown, source};
use crate::fleet::{Days, Fleet, Group, Link, Pool, Task, Timed, TimedKind};
use crate::policy::{Autoscaler, Gap, Input, Metric, Source, Subject, Target};
use crate::quantity::duration_ms;

/// The most pools, groups, rules of a group, and tasks.
const MAX_ITEMS: usize = 1_000;

pub(super) fn read(root: &View<'_>, version: &str, reader: &mut Reader<'_>) -> Result<Fleet, Error> {
    if version != "tenon/v1" {
        return Err(root.require("apiVersion")?.error(format!("must be tenon/v1, found `{version}`")));
    }
    reader.fields(root, &["apiVersion", "kind", "metadata", "spec"], &[])?;
    let spec = root.require("spec")?;
    reader.fields(&spec, &["pools", "groups", "chain"], &[])?;
    let pools = items(&spec.require("pools")?, |view| pool(view, reader))?;
    let groups = items(&spec.require("groups")?, |view| group(view, reader))?;
    for (at, group) in groups.iter().enumerate() {
        if groups[..at].iter().any(|held| held.scaler.name == group.scaler.name) {
            return Err(spec.require("groups")?.error(format!("the group `{}` is there twice", group.scaler.name)));
        }
    }
    let (mut links, mut tasks) = (Vec::new(), Vec::new());
    if let Some(chain) = spec.get("chain")? {
        reader.fields(&chain, &["links", "tasks"], &[])?;
        links = items(&chain.require("links")?, |view| link(view, &groups, reader))?;
        if let Some(view) = chain.get("tasks")? {
            tasks = items(&view, |view| task(view, &groups, reader))?;
        }
    }
    Ok(Fleet { name: metadata(root)?.name, file: reader.file(), pools, groups, links, tasks })
}

fn items<T>(list: &View<'_>, mut read: impl FnMut(&View<'_>) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let found: Vec<T> = list.items()?.take(MAX_ITEMS + 1).map(|view| read(&view)).collect::<Result<_, _>>()?;
    match found.len() {
        0 => Err(list.error("must have at least one entry")),
        1..=MAX_ITEMS => Ok(found),
        _ => Err(list.error(format!("has more than {MAX_ITEMS} entries"))),
    }
}

fn pool(view: &View<'_>, reader: &mut Reader<'_>) -> Result<Pool, Error> {
    reader.fields(view, &["name", "datacentre", "stock", "price", "lease", "highMark", "lowMark"], &[])?;
    let lease = match view.get("lease")? {
        Some(lease) => {
            reader.fields(&lease, &["from", "until"], &[])?;
            Some((instant(&lease.require("from")?)?, instant(&lease.require("until")?)?))
        }
        None => None,
    };
    let mark = |name: &str| -> Result<Option<u16>, Error> {
        let Some(held) = view.get(name)? else { return Ok(None) };
        let percent = shown(&held).trim_end_matches('%').parse::<u16>().ok().filter(|percent| *percent <= 100);
        percent.map(|percent| Some(percent * 10)).ok_or_else(|| held.error("must be per cent from 0 to 100"))
    };
    let high = mark("highMark")?.unwrap_or(1_000);
    let low = mark("lowMark")?.unwrap_or(high);
    let price = view.get("price")?.map_or(Ok(0), |held| quantity(&held))?;
    let datacentre = view.get("datacentre")?.map_or_else(|| Ok("one".into()), |held| source(&held))?;
    Ok(Pool {
        name: source(&view.require("name")?)?,
        lease,
        datacentre,
        price: price.unsigned_abs(),
        stock: count(&view.require("stock")?, 1)?,
        marks: (high, low),
    })
}

fn group(view: &View<'_>, reader: &mut Reader<'_>) -> Result<Group, Error> {
    reader.fields(view, &["name", "min", "max", "metric", "perInstance", "behavior", "timed"], &[])?;
    let name = source(&view.require("name")?)?;
    let (min, max) = (view.get("min")?.map_or(Ok(0), |held| count(&held, 0))?, count(&view.require("max")?, 1)?);
    if min > max {
        return Err(view.require("min")?.error(format!("min {min} must be less than or equal to max {max}")));
    }
    let mut inputs = Vec::new();
    if let Some(metric) = view.get("metric")? {
        let target = Target::AverageValue(quantity(&view.require("perInstance")?)?);
        let metric_name = source(&metric)?;
        inputs.push(Input {
            names: vec![format!("{name}/{metric_name}"), metric_name],
            subject: Subject::Total,
            path: metric.path().to_owned(),
            at: metric.at(),
            target,
            gap: Gap::Fails,
            query: None,
            is_queue: false,
        });
    }
    let metrics = inputs.iter().map(|input: &Input| Metric {
        label: input.names[0].clone(),
        source: Source::Input(0),
        target: input.target,
    });
    let metrics = metrics.collect();
    let behavior = view.get("behavior")?.map(|held| behavior::read(&held, reader)).transpose()?;
    let timed = match view.get("timed")? {
        Some(list) => items(&list, |view| timed(view, reader))?,
        None => Vec::new(),
    };
    if inputs.is_empty() && timed.is_empty() {
        return Err(view.error("has neither a metric nor a timed rule: nothing would size it"));
    }
    let target = ("group".to_owned(), name.clone());
    let scaler = Autoscaler {
        name,
        namespace: None,
        target,
        file: reader.file(),
        min,
        max,
        inputs,
        metrics,
        behavior,
        keda: None,
    };
    Ok(Group { scaler, timed })
}

fn timed(view: &View<'_>, reader: &mut Reader<'_>) -> Result<Timed, Error> {
    reader.fields(view, &["floor", "cap", "delta", "from", "until", "days", "zone", "lead"], &[])?;
    let kinds = [view.get("floor")?, view.get("cap")?, view.get("delta")?];
    let kind = match kinds {
        [Some(floor), None, None] => TimedKind::Floor(count(&floor, 1)?),
        [None, Some(cap), None] => TimedKind::Cap(count(&cap, 0)?),
        [None, None, Some(delta)] => {
            let by = i32::try_from(delta.integer()?).map_err(|_| delta.error("is too large"))?;
            TimedKind::Delta(by)
        }
        _ => return Err(view.error("must have one of floor, cap and delta")),
    };
    let time = |name: &str| -> Result<Time, Error> {
        let held = view.require(name)?;
        let text = shown(&held);
        text.parse()
            .map_err(|_| held.error(format!("must be a time of day in quotes, such as \"08:00\", found `{text}`")))
    };
    let zone = match view.get("zone")? {
        Some(held) => {
            let name = shown(&held);
            TimeZone::get(&name)
                .map_err(|_| held.error(format!("`{name}` is no name of a time zone, such as Europe/Berlin")))?
        }
        None => TimeZone::UTC,
    };
    let lead_ms = match view.get("lead")? {
        Some(held) => duration_ms(&shown(&held)).ok_or_else(|| held.error("must be a span of time, such as 5m"))?,
        None => 0,
    };
    let days = view.get("days")?.map_or(Ok(Days::Every), |held| days(&held))?;
    Ok(Timed { kind, zone, days, from: time("from")?, until: time("until")?, lead_ms })
}

const WEEK: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `every`, `month-end`, `mon-fri`, `mon,wed`.
fn days(view: &View<'_>) -> Result<Days, Error> {
    let text = shown(view).to_lowercase();
    match text.as_str() {
        "every" => return Ok(Days::Every),
        "month-end" => return Ok(Days::MonthEnd),
        _ => {}
    }
    let wrong = || view.error("must be every, month-end, or days such as mon-fri or mon,wed");
    let day = |name: &str| WEEK.iter().position(|known| *known == name.trim()).ok_or_else(wrong);
    let mut bits = 0_u8;
    for part in text.split(',') {
        let (from, until) = part.split_once('-').unwrap_or((part, part));
        let (mut at, until) = (day(from)?, day(until)?);
        bits |= 1 << at;
        while at != until {
            at = (at + 1) % 7;
            bits |= 1 << at;
        }
    }
    Ok(Days::Week(bits))
}

fn place(view: &View<'_>, groups: &[Group]) -> Result<usize, Error> {
    let name = source(view)?;
    let found = groups.iter().position(|held| held.scaler.name == name);
    found.ok_or_else(|| view.error(format!("there is no group `{}`", shown(view))))
}

fn link(view: &View<'_>, groups: &[Group], reader: &mut Reader<'_>) -> Result<Link, Error> {
    reader.fields(view, &["group", "perInstance", "calls"], &[])?;
    let mut calls = Vec::new();
    if let Some(list) = view.get("calls")? {
        for held in list.items()? {
            reader.fields(&held, &["group", "perRequest"], &[])?;
            let per_request = held.get("perRequest")?.map_or(Ok(1_000), |view| quantity(&view))?;
            calls.push((place(&held.require("group")?, groups)?, u32::try_from(per_request).unwrap_or(u32::MAX)));
        }
    }
    Ok(Link {
        group: place(&view.require("group")?, groups)?,
        per_instance: quantity(&view.require("perInstance")?)?,
        calls,
    })
}

fn task(view: &View<'_>, groups: &[Group], reader: &mut Reader<'_>) -> Result<Task, Error> {
    reader.fields(view, &["from", "until", "wanted", "grant"], &[])?;
    let mut wanted = Vec::new();
    let list = view.require("wanted")?;
    for (key, entry) in list.entries()? {
        let found = groups.iter().position(|held| held.scaler.name == key.name);
        let found = found.ok_or_else(|| list.key_error(key, "is no group of this fleet"))?;
        wanted.push((found, count(&entry, 1)?));
    }
    let partial = match view.get("grant")? {
        None => true,
        Some(held) => match held.text()? {
            "partial" => true,
            "atomic" => false,
            _ => return Err(held.error("must be partial or atomic")),
        },
    };
    Ok(Task { from: instant(&view.require("from")?)?, until: instant(&view.require("until")?)?, wanted, partial })
}

fn instant(view: &View<'_>) -> Result<Timestamp, Error> {
    let text = shown(view);
    text.parse().map_err(|_| view.error(format!("must be an instant such as 2026-06-01T08:00:00Z, found `{text}`")))
}
