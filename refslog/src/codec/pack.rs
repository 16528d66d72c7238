//! Suffixes of names in four bits a character.
//!
//! Names of a platform are mostly numbers (`refs/changes/34/1234/5`, `refs/pull/17/head`), so a suffix of digits and a
//! few other characters is packed: two characters a byte, the first in the high half, and after an odd last one a filler.

use alloc::vec::Vec;

const ALPHABET: &[u8; 15] = b"0123456789/-.v_";
const FILLER: u8 = 15;

const fn codes() -> [u8; 256] {
    let mut table = [FILLER; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        table[ALPHABET[at] as usize] = b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"[at];
        at += 1;
    }
    table
}
const CODES: [u8; 256] = codes();

/// The two characters of each byte; 0 for the filler.
const fn pairs() -> [[u8; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        let (high, low) = (at >> 4, at & 15);
        if high < ALPHABET.len() {
            table[at][0] = ALPHABET[high];
        }
        if low < ALPHABET.len() {
            table[at][1] = ALPHABET[low];
        }
        at += 1;
    }
    table
}
const PAIRS: [[u8; 2]; 256] = pairs();

fn code_of(byte: u8) -> Option<u8> {
    let code = CODES[usize::from(byte)];
    (code != FILLER).then_some(code)
}

/// A suffix is packed if and only if that is shorter and possible.
#[inline]
pub(super) fn is_packable(suffix: &[u8]) -> bool {
    suffix.len() >= 2 && suffix.iter().all(|byte| code_of(*byte).is_some())
}

/// Appends a packable suffix.
pub(super) fn put_packed(out: &mut Vec<u8>, suffix: &[u8]) {
    for pair in suffix.chunks(2) {
        let code = |at: usize| pair.get(at).and_then(|byte| code_of(*byte)).unwrap_or(FILLER);
        out.push(code(0) << 4 | code(1));
    }
}

/// How many bytes `len` characters take.
pub(super) const fn packed_len(len: usize) -> usize {
    len / 2 + len % 2
}

/// The characters of packed bytes; 0 where there is the filler.
#[inline]
pub(super) fn unpacked(packed: &[u8]) -> impl Iterator<Item = u8> + Clone + '_ {
    packed.iter().flat_map(|byte| PAIRS[usize::from(*byte)])
}

/// The first character of a packed byte; 0 for the filler.
#[inline]
pub(super) const fn first_of(byte: u8) -> u8 {
    PAIRS[byte as usize][0]
}

/// Unpacks as many bytes as there are places for two characters each.
#[inline]
pub(super) fn unpack(packed: &[u8], into: &mut [u8]) {
    for (pair, byte) in into.chunks_exact_mut(2).zip(packed) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

/// For each length up to fifteen: the half bytes that it takes, and those among them that are filler. None is packed that
/// is shorter than two.
const SHAPES: [(u64, u64); 16] = {
    let mut shapes = [(0, 1); 16];
    let mut len = 2;
    while len < 16 {
        let bits = 8 * packed_len(len);
        let taken = if bits < 64 { (1 << bits) - 1 } else { u64::MAX };
        shapes[len] = (taken, if len % 2 == 1 { 1 << (bits - 8) } else { 0 });
        len += 1;
    }
    shapes
};

/// Whether eight bytes, little-endian, start with `len` characters packed in the one way there is: two or more, at most
/// fifteen, no filler among them and one behind an odd last one.
#[inline]
pub(super) const fn is_packed_well(word: u64, len: usize) -> bool {
    // A bit for each half byte of which all four are set.
    let fillers = word & word >> 1 & word >> 2 & word >> 3 & 0x1111_1111_1111_1111;
    let (taken, filler) = SHAPES[len & 15];
    fillers & taken == filler && len < 16
}

/// [`is_packed_well`] for any length.
pub(super) fn is_packed_well_long(packed: &[u8], len: usize) -> bool {
    let filler = |at: usize| packed.get(at / 2).is_none_or(|byte| [byte >> 4, byte & 15][at % 2] == FILLER);
    let ends_well = len.is_multiple_of(2) || filler(len);
    len >= 2 && packed.len() == packed_len(len) && ends_well && !(0..len).any(filler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        for text in [&b"12"[..], b"123", b"34/1234/5", b"v1.0", b"-._/", b"0000000000000_"] {
            let mut packed = Vec::new();
            put_packed(&mut packed, text);
            assert!(is_packable(text) && packed.len() == packed_len(text.len()));
            let again: Vec<u8> = unpacked(&packed).take(text.len()).collect();
            assert_eq!(again, text);
            let mut places = [0; 16];
            unpack(&packed, &mut places);
            assert_eq!(&places[..text.len()], text);
            assert_eq!(first_of(packed[0]), text[0]);
        }
        assert!(!is_packable(b"1") && !is_packable(b"12a"));
    }

    /// The eight bytes at once and the bytes one by one agree, on every byte at every place.
    #[test]
    fn both_checks_agree() {
        for len in 0..18 {
            for at in 0..8 {
                for byte in 0..=255 {
                    let mut bytes = [0x12; 8];
                    if len % 2 == 1 {
                        bytes[len / 2 % 8] = 0x1f;
                    }
                    bytes[at] = byte;
                    let whole = is_packed_well(u64::from_le_bytes(bytes), len);
                    assert_eq!(
                        whole,
                        len < 16 && is_packed_well_long(&bytes[..packed_len(len).min(8)], len),
                        "{len} {at} {byte:#x}"
                    );
                }
            }
        }
    }
}
