//! The lines of a reflog.

use alloc::vec::Vec;

use super::{Fields, ParseError, ParseErrorKind, lines, put_id_or_null, split_once};
use crate::oid::{ObjectFormat, ObjectId};

/// One line of a reflog: `old new committer seconds zone<TAB>message`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReflogLine {
    /// The old id; `None` for the null id.
    pub old: Option<ObjectId>,
    /// The new id; `None` for the null id.
    pub new: Option<ObjectId>,
    /// The committer as `Name <mail>`, bytes as they are.
    pub committer: Vec<u8>,
    /// The time in seconds since 1970, UTC.
    pub seconds: u64,
    /// The committer's time zone in minutes east of UTC, as its digits say (`+0530` is 330).
    pub zone_minutes: i16,
    /// The message, without line feeds.
    pub message: Vec<u8>,
}

/// Parses a reflog, oldest line first.
///
/// # Errors
/// The first line that Git would not have written.
pub fn parse_reflog(text: &[u8], format: ObjectFormat) -> Result<Vec<ReflogLine>, ParseError> {
    lines(text).map(|(number, line)| parse(line?, Fields { line: number, format })).collect()
}

/// Parses one line, without its line feed.
///
/// ```
/// use tenon_refslog::{ObjectFormat, git};
///
/// let text = format!("{} {} Ann <ann@example.org> 1700000000 +0530\tpush", "0".repeat(40), "a".repeat(40));
/// let line = git::parse_reflog_line(text.as_bytes(), ObjectFormat::Sha1)?;
/// assert_eq!((line.seconds, line.zone_minutes), (1_700_000_000, 330));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Git would not have written it.
pub fn parse_reflog_line(line: &[u8], format: ObjectFormat) -> Result<ReflogLine, ParseError> {
    parse(line, Fields { line: 1, format })
}

fn parse(line: &[u8], fields: Fields) -> Result<ReflogLine, ParseError> {
    let wrong = || fields.error(ParseErrorKind::Fields);
    let (head, message) = split_once(line, b'\t').unwrap_or((line, b""));
    let (old, rest) = split_once(head, b' ').ok_or_else(wrong)?;
    let (new, rest) = split_once(rest, b' ').ok_or_else(wrong)?;
    let mut from_end = rest.rsplitn(3, |byte| *byte == b' ');
    let (zone, seconds, committer) = (from_end.next(), from_end.next(), from_end.next());
    Ok(ReflogLine {
        old: fields.id_or_null(old)?,
        new: fields.id_or_null(new)?,
        committer: committer.ok_or_else(wrong)?.to_vec(),
        seconds: number(seconds.ok_or_else(wrong)?).ok_or_else(|| fields.error(ParseErrorKind::Number))?,
        zone_minutes: zone.and_then(parse_zone).ok_or_else(|| fields.error(ParseErrorKind::Number))?,
        message: message.to_vec(),
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_zone(zone: &[u8]) -> Option<i16> {
    let (sign, digits) = zone.split_first()?;
    let value = i16::try_from(number(digits).filter(|_| digits.len() == 4)?).ok()?;
    let minutes = value / 100 * 60 + value % 100;
    match sign {
        b'+' if value % 100 < 60 => Some(minutes),
        b'-' if value % 100 < 60 => Some(-minutes),
        _ => None,
    }
}

/// Writes one line, with its line feed.
///
/// A line feed or tab within committer or message becomes a space, as in Git.
pub fn write_reflog_line(out: &mut Vec<u8>, line: &ReflogLine, format: ObjectFormat) {
    let clean = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\t') { b' ' } else { *byte }).collect()
    };
    put_id_or_null(out, line.old, format);
    out.push(b' ');
    put_id_or_null(out, line.new, format);
    out.push(b' ');
    out.extend(clean(&line.committer));
    let (sign, zone) = (if line.zone_minutes < 0 { '-' } else { '+' }, line.zone_minutes.unsigned_abs());
    out.extend(alloc::format!(" {} {sign}{:02}{:02}", line.seconds, zone / 60, zone % 60).into_bytes());
    if !line.message.is_empty() {
        out.push(b'\t');
        out.extend(clean(&line.message));
    }
    out.push(b'\n');
}
