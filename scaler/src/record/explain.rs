//! Records in words.

use alloc::string::String;
use core::fmt::Write as _;

use super::{Adopted, Decision, LayerLine, LimitLine, Lines, Record, TimedLine};
use crate::allot::Allotment;

impl Record {
    /// The whole explanation in words, one line per part.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut out = self.decision.explain();
        // Writing into a string does not fail.
        let _ = self.tell(&mut out);
        out
    }

    fn tell(&self, out: &mut String) -> core::fmt::Result {
        let Allotment { version, lent, returned, cancelled, missing, causes, refusal, waiting } = &self.allotment;
        for (pool, count) in lent {
            writeln!(out, "  pool {pool}: +{count}, version {}", version.map_or(0, |version| version.0))?;
        }
        for (pool, count) in returned {
            writeln!(out, "  pool {pool}: -{count}")?;
        }
        for (pool, count) in cancelled {
            writeln!(out, "  pool {pool}: -{count} that are starting")?;
        }
        if *missing > 0 {
            write!(out, "  short of {missing}:")?;
            for (pool, cause) in causes {
                write!(out, " pool {pool} {cause:?};")?;
            }
            match refusal {
                Some(refusal) => writeln!(out, " {refusal:?}")?,
                None => writeln!(out)?,
            }
        }
        if *waiting > 0 {
            writeln!(out, "  {waiting} wait to go: too many requests are open")?;
        }
        Ok(())
    }
}

impl Decision {
    /// The whole explanation in words, one line per part.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut out = String::new();
        // Writing into a string does not fail.
        let _ = self.tell(&mut out);
        out
    }

    fn tell(&self, out: &mut String) -> core::fmt::Result {
        let Self { ready, starting, previous, target, reason, .. } = self;
        writeln!(out, "target {target} (was {previous}; {ready} ready, {starting} starting): {reason}")?;
        for Adopted { pool, idc, version, count } in &self.lines.adopted {
            write!(out, "  took over {count} that ran in pool {pool}, data centre {idc}")?;
            match version {
                Some(version) => writeln!(out, ", version {version}")?,
                None => writeln!(out, ", found by a census")?,
            }
        }
        for line in &self.lines.timed {
            match line {
                TimedLine::Delta { rule, asked, given } => {
                    writeln!(out, "  rule {rule}: delta {asked:+}, given {given:+}")?;
                }
                TimedLine::Step { rule, asked, given, .. } => {
                    writeln!(out, "  rule {rule}: step {asked:+}, given {given:+}")?;
                }
            }
        }
        for line in &self.lines.rules {
            write!(out, "  rule {} {}: {}", line.rule, line.verdict, line.evidence)?;
            match line.age_ms {
                Some(age) => writeln!(out, "; {age} ms old")?,
                None => writeln!(out)?,
            }
        }
        let Lines { limits, layers, pace, caps, leap, top, .. } = &self.lines;
        limits.iter().try_for_each(|line| limited(line, out))?;
        layers.iter().try_for_each(|line| layered(line, out))?;
        pace.iter().try_for_each(|line| limited(line, out))?;
        caps.iter().try_for_each(|line| layered(line, out))?;
        leap.iter().try_for_each(|line| limited(line, out))?;
        top.iter().try_for_each(|line| layered(line, out))?;
        Ok(())
    }
}

fn limited(line: &LimitLine, out: &mut String) -> core::fmt::Result {
    if line.before == line.after {
        return Ok(());
    }
    writeln!(out, "  {}: {} -> {}", line.limit, line.before, line.after)
}

fn layered(line: &LayerLine, out: &mut String) -> core::fmt::Result {
    if line.before == line.after {
        return Ok(());
    }
    writeln!(out, "  {}: {} -> {}", line.layer, line.before, line.after)
}
