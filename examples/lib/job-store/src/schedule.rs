//! Schedules as rows: cron line, zone, last and next firing; what to do with what was missed.
//!
//! A host that starts pipelines by the clock asks [`Store::due`](crate::Store::due) now and then, makes of each row a
//! [`Firing`], submits the pipeline, and writes the firing together with the pipeline's rows
//! ([`Write::firing`](crate::Write::firing)). If another server has fired meanwhile, the write conflicts and nothing of
//! it is made.

use jiff::tz::TimeZone;
use tenon_jobqueue::Timestamp;
use tenon_jobqueue::schedule::{Decision, Missed, Schedule};
use tenon_jobqueue::trigger::{Civil, Cron};

use crate::Error;

/// A schedule to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSchedule {
    /// Minute, hour, day, month, weekday, as `cron` has them.
    pub cron: String,
    /// An IANA time zone, such as `Europe/Berlin`.
    pub zone: String,
    /// What becomes of firings that nobody was there for.
    pub missed: Missed,
    /// What the host keeps with it, such as what to start.
    pub payload: Vec<u8>,
}

/// A schedule's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRow {
    /// The row's primary key.
    pub id: u64,
    /// How often the row was written.
    pub version: u32,
    /// Minute, hour, day, month, weekday, as `cron` has them.
    pub cron: String,
    /// An IANA time zone.
    pub zone: String,
    /// What was decided last, and what comes next.
    pub schedule: Schedule,
    /// What the host keeps with it.
    pub payload: Vec<u8>,
}

/// A firing of a schedule, to be written together with what it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The schedule.
    pub schedule: u64,
    /// The version that its row must have.
    pub version: u32,
    /// What was decided: a pipeline for this minute, or that nothing is started.
    pub decision: Decision,
}

impl NewSchedule {
    /// The schedule as of now; its first firing comes after `now`.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] if the line or the zone is none.
    pub fn begin(&self, now: Timestamp) -> Result<Schedule, Error> {
        let (cron, clocks) = (parse(&self.cron)?, clocks(&self.zone)?);
        Ok(Schedule::new(&cron, self.missed, now, clocks))
    }
}

impl ScheduleRow {
    /// What is to be done now; nothing if the next firing is yet to come.
    ///
    /// # Errors
    ///
    /// [`Error::Schedule`] if the row's line or zone is none.
    pub fn firing(&self, now: Timestamp) -> Result<Option<Firing>, Error> {
        let (cron, clocks) = (parse(&self.cron)?, clocks(&self.zone)?);
        let decision = self.schedule.decide(&cron, now, clocks);
        Ok(decision.map(|decision| Firing { schedule: self.id, version: self.version, decision }))
    }
}

fn parse(cron: &str) -> Result<Cron, Error> {
    Cron::new(cron).map_err(|why| Error::Schedule(why.to_string()))
}

/// What the clocks of a zone show at a moment. The zones' data are in the program, not taken from the machine.
fn clocks(zone: &str) -> Result<impl Fn(Timestamp) -> Civil + use<>, Error> {
    let zone = TimeZone::get(zone).map_err(|why| Error::Schedule(why.to_string()))?;
    Ok(move |at: Timestamp| {
        let at = i64::try_from(at.as_millis()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let shown = zone.to_datetime(at.unwrap_or(jiff::Timestamp::MAX));
        let small = |number: i8| number.unsigned_abs();
        Civil {
            minute: small(shown.minute()),
            hour: small(shown.hour()),
            day: small(shown.day()),
            month: small(shown.month()),
            weekday: small(shown.weekday().to_sunday_zero_offset()),
        }
    })
}

/// The schedule with these columns.
pub(crate) fn row_of(
    (id, version): (i64, i32),
    (cron, zone, missed): (String, String, i16),
    (last, next): (i64, Option<i64>),
    payload: Vec<u8>,
) -> Result<ScheduleRow, Error> {
    let missed = u8::try_from(missed).ok().and_then(Missed::from_code);
    let missed = missed.ok_or_else(|| Error::Schedule(format!("schedule {id} has an unknown policy")))?;
    let time = |ms: i64| Timestamp::from_millis(ms.cast_unsigned());
    let schedule = Schedule { missed, last: time(last), next: next.map(time) };
    Ok(ScheduleRow { id: id.cast_unsigned(), version: version.cast_unsigned(), cron, zone, schedule, payload })
}

/// The columns of a schedule that move: when it fired last, and when it fires next.
pub(crate) fn times(schedule: &Schedule) -> (i64, Option<i64>) {
    let ms = |at: Timestamp| at.as_millis().cast_signed();
    (ms(schedule.last), schedule.next.map(ms))
}
