//! Schedules: wall-clock windows and points, in named zones, through gaps, folds and midnights.

use alloc::vec::Vec;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp as Instant, ToSpan as _};

use crate::Timestamp;
use crate::error::ZoneError;
use crate::id::ZoneId;

/// The time zones that schedules name, as data: nothing is read from the machine.
///
/// In a schedule a [`Timestamp`] is milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones(Vec<TimeZone>);

impl Default for Zones {
    fn default() -> Self {
        Self(alloc::vec![TimeZone::UTC])
    }
}

impl Zones {
    /// A set of zones with UTC alone, as `ZoneId(0)`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a zone that the host provides.
    ///
    /// # Errors
    /// [`ZoneError::Full`] after 65,535 zones; nothing is added.
    pub fn add(&mut self, zone: TimeZone) -> Result<ZoneId, ZoneError> {
        if let Some(at) = self.0.iter().position(|held| *held == zone) {
            return u16::try_from(at).map(ZoneId).map_err(|_| ZoneError::Full);
        }
        let id = u16::try_from(self.0.len()).map_err(|_| ZoneError::Full)?;
        self.0.push(zone);
        Ok(ZoneId(id))
    }

    /// Adds a zone from the bytes of a `TZif` file.
    ///
    /// # Errors
    /// [`ZoneError::Malformed`] where the bytes are no `TZif`, [`ZoneError::Full`]; nothing is added.
    pub fn tzif(&mut self, name: &str, bytes: &[u8]) -> Result<ZoneId, ZoneError> {
        let zone = TimeZone::tzif(name, bytes).map_err(|_| ZoneError::Malformed)?;
        self.add(zone)
    }

    /// Adds a zone from the data that this crate carries, such as `Europe/Berlin`.
    ///
    /// ```
    /// use tenon_scaler::{ZoneError, Zones};
    ///
    /// let mut zones = Zones::new();
    /// let berlin = zones.bundled("Europe/Berlin")?;
    /// assert!(zones.get(berlin).is_some());
    /// assert_eq!(zones.bundled("Europe/Nowhere"), Err(ZoneError::Unknown));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ZoneError::Unknown`] for a name that is not in the data, [`ZoneError::Full`]; nothing is added.
    #[cfg(feature = "tzdb")]
    pub fn bundled(&mut self, name: &str) -> Result<ZoneId, ZoneError> {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(name).map_err(|_| ZoneError::Unknown)?;
        self.add(zone)
    }

    /// The zone with that id.
    #[must_use]
    pub fn get(&self, id: ZoneId) -> Option<&TimeZone> {
        self.0.get(usize::from(id.0))
    }
}

/// The days on which a schedule holds, by the date on which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Days {
    /// Every day.
    Every,
    /// Days of the week: bit 0 is Monday, bit 6 Sunday.
    Week(u8),
    /// Days of the month: bit 0 is the 1st. A month without the day has no such window.
    Month(u32),
    /// The last day of each month.
    MonthEnd,
    /// The dates from the first to the second, both included.
    Between(Date, Date),
}

impl Days {
    /// Monday to Friday.
    pub const WORKING: Self = Self::Week(0b001_1111);
    /// Saturday and Sunday.
    pub const WEEKEND: Self = Self::Week(0b110_0000);

    /// Whether there is any such day.
    pub(crate) fn is_possible(self) -> bool {
        match self {
            Self::Every | Self::MonthEnd => true,
            Self::Week(bits) => bits & 0b111_1111 != 0,
            Self::Month(bits) => bits & 0x7fff_ffff != 0,
            Self::Between(first, last) => first <= last,
        }
    }

    /// The day from which to look for one, at `today`: dates that are far off are not walked to.
    fn look_from(self, today: Date) -> Date {
        match self {
            Self::Between(first, _) => today.max(first),
            Self::Every | Self::Week(_) | Self::Month(_) | Self::MonthEnd => today,
        }
    }

    fn holds(self, date: Date) -> bool {
        match self {
            Self::Every => true,
            Self::Week(bits) => bits >> date.weekday().to_monday_zero_offset() & 1 == 1,
            Self::Month(bits) => bits >> (date.day() - 1) & 1 == 1,
            Self::MonthEnd => date.day() == date.days_in_month(),
            Self::Between(first, last) => first <= date && date <= last,
        }
    }
}

/// A window: a recurring span of wall-clock time, `[from, until)` in a zone, on some days.
///
/// Where `until` is not after `from`, the window ends on the next day. Where the clocks go forward, an end that the
/// clocks never show is the instant of the change; where they go back, the window runs from the first pass of `from` to
/// the last pass of `until`, so that no hole opens inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Window {
    /// The zone whose wall clock counts.
    pub zone: ZoneId,
    /// The days on which the window starts.
    pub days: Days,
    /// The time when it starts.
    pub from: Time,
    /// The time when it ends; the instant itself is outside.
    pub until: Time,
    /// The lead time in ms: the window starts this much earlier, so that instances are ready in time.
    pub lead_ms: u64,
}

/// A point: a recurring instant of wall-clock time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Point {
    /// The zone whose wall clock counts.
    pub zone: ZoneId,
    /// The days on which the point falls.
    pub days: Days,
    /// The time of the point. In a gap, the instant of the change; in a fold, the first pass alone.
    pub at: Time,
    /// The lead time in ms: the point acts this much earlier.
    pub lead_ms: u64,
}

/// The position of an instant relative to a window, and until when it stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the instant is inside the window.
    pub inside: bool,
    /// The first later instant at which to look again. Nothing changes before it.
    pub until: Timestamp,
}

/// How far ahead a search looks, in days: past it, the answer is "look again then".
///
/// A day of the month may be missing from one month, so two of them are at most 62 days apart.
const HORIZON_DAYS: i32 = 63;
const DAY_MS: u64 = 86_400_000;

impl Window {
    /// The position of `now` relative to the window.
    ///
    /// ```
    /// use tenon_scaler::jiff::civil::time;
    /// use tenon_scaler::{Days, Timestamp, Window, ZoneId, Zones};
    ///
    /// let (zones, utc) = (Zones::new(), ZoneId(0));
    /// let zone = zones.get(utc).ok_or("UTC is always there")?;
    /// let window = Window { zone: utc, days: Days::Every, from: time(8, 0, 0, 0), until: time(20, 0, 0, 0), lead_ms: 0 };
    /// let nine = Timestamp::from_millis(9 * 3_600_000); // 1970-01-01 09:00
    /// assert!(window.standing(zone, nine).inside);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn standing(&self, zone: &TimeZone, now: Timestamp) -> Standing {
        let look_again = now.after_millis(DAY_MS.saturating_mul(u64::from(HORIZON_DAYS.unsigned_abs())));
        let Some(today) = date_of(zone, now.after_millis(self.lead_ms)).map(|today| self.days.look_from(today)) else {
            return Standing { inside: false, until: Timestamp::MAX };
        };
        // A window that began the day before may still run; with a lead, one of tomorrow may have begun.
        let mut inside_until = None;
        for ahead in -2..=HORIZON_DAYS {
            let Some((from, until)) = self.on(zone, today, ahead) else {
                continue;
            };
            if until <= now || from >= until {
                continue;
            }
            if from <= now {
                inside_until = inside_until.max(Some(until));
            } else if inside_until.is_none_or(|end| from > end) {
                let until = inside_until.unwrap_or(from);
                return Standing { inside: inside_until.is_some(), until };
            } else {
                inside_until = inside_until.max(Some(until));
            }
        }
        Standing { inside: inside_until.is_some(), until: inside_until.unwrap_or(look_again).min(look_again) }
    }

    fn on(&self, zone: &TimeZone, today: Date, ahead: i32) -> Option<(Timestamp, Timestamp)> {
        let date = today.checked_add(ahead.days()).ok().filter(|date| self.days.holds(*date))?;
        let end = if self.until > self.from { date } else { date.tomorrow().ok()? };
        let from = resolve(zone, date.to_datetime(self.from), Pass::First)?;
        let until = resolve(zone, end.to_datetime(self.until), Pass::Last)?;
        // An empty window (all of it in a gap) stays empty, whatever its lead.
        (from < until).then(|| (Timestamp::from_millis(from.as_millis().saturating_sub(self.lead_ms)), until))
    }
}

impl Point {
    /// The first instant strictly after `after` at which the point falls.
    ///
    /// `None` if the search found none within two months, which happens only if there is none.
    #[must_use]
    pub fn next_after(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let today = self.days.look_from(date_of(zone, after.after_millis(self.lead_ms))?);
        (-1..=HORIZON_DAYS)
            .filter_map(|ahead| today.checked_add(ahead.days()).ok())
            .filter(|date| self.days.holds(*date))
            .filter_map(|date| resolve(zone, date.to_datetime(self.at), Pass::First))
            .map(|at| Timestamp::from_millis(at.as_millis().saturating_sub(self.lead_ms)))
            .find(|at| *at > after)
    }
}

/// Which of the two passes that a fold gives to a wall-clock reading.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Last,
}

fn date_of(zone: &TimeZone, at: Timestamp) -> Option<Date> {
    let at = Instant::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()?;
    Some(zone.to_datetime(at).date())
}

fn resolve(zone: &TimeZone, at: DateTime, pass: Pass) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    let instant = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok()?,
        AmbiguousOffset::Fold { .. } if pass == Pass::First => ambiguous.earlier().ok()?,
        AmbiguousOffset::Fold { .. } => ambiguous.later().ok()?,
        AmbiguousOffset::Gap { .. } => zone.following(ambiguous.earlier().ok()?).next()?.timestamp(),
    };
    u64::try_from(instant.as_millisecond()).ok().map(Timestamp::from_millis)
}
