//! Reading all of a [table](super::table), and checking that it is the one byte string for what it holds.

use alloc::vec::Vec;

use super::block::Fill;
use super::error::{DecodeError, DecodeErrorKind as Kind};
use super::index::{self, Child};
use super::parts::RawEntry;
use super::run::common_prefix;
use super::table::{HEAD, Span, Table};

impl Table {
    /// Hands every entry to `each` in the order of names, and checks that the file is what [`TableBuilder`] makes of them:
    /// the order, the cut into blocks, the restarts, the index.
    pub(crate) fn scan(
        &self,
        each: impl FnMut(&[u8], RawEntry<'_>, usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut scan =
            Scan { table: self, each, count: 0, last: Vec::new(), blocks: Vec::new(), full: Fill::default() };
        for span in self.spans()? {
            scan.block(span)?;
        }
        scan.finish()
    }

    /// The data blocks, as the index has them.
    fn spans(&self) -> Result<Vec<Span>, DecodeError> {
        let mut level = Vec::new();
        if self.count > 0 {
            level.push(self.root);
        }
        for _ in 0..self.levels {
            let mut below = Vec::new();
            for span in level {
                index::Node::new(self.block(span)?, span.start)?.children(&mut below)?;
            }
            level = below;
        }
        Ok(level)
    }
}

/// A walk over all entries.
struct Scan<'a, F> {
    table: &'a Table,
    each: F,
    count: u64,
    /// A name that the next restart's must be after.
    last: Vec<u8>,
    /// The blocks so far, as the index has to have them.
    blocks: Vec<Child>,
    /// How full the last block is.
    full: Fill,
}

impl<F: FnMut(&[u8], RawEntry<'_>, usize) -> Result<(), DecodeError>> Scan<'_, F> {
    fn block(&mut self, span: Span) -> Result<(), DecodeError> {
        let wrong = DecodeError::new(span.start, Kind::NotCanonical);
        let follows = self.blocks.last().map_or(HEAD, |before| before.end);
        if span.start != follows || !(self.blocks.is_empty() || self.full.is_full()) {
            return Err(wrong);
        }
        let block = self.table.data(span)?;
        let mut run = block.run()?;
        let mut first = Vec::new();
        let mut fill = Fill::default();
        while let Some(restart) = run.restart_ahead() {
            let offset = run.offset();
            let told = block.restart(restart).and_then(|at| at.checked_add(span.start));
            if restart > 0 && told != Some(offset) {
                return Err(DecodeError::new(offset, Kind::NotCanonical));
            }
            let Some(mut entry) = run.next_entry()? else { break };
            let is_first = restart == 0 && self.blocks.is_empty();
            if !is_first && self.last.as_slice() >= run.name() {
                return Err(DecodeError::new(offset, Kind::NotCanonical));
            }
            if restart == 0 {
                first.extend_from_slice(run.name());
            }
            let mut at = offset;
            loop {
                fill.add_read(run.name(), &entry);
                (self.each)(run.name(), entry, at)?;
                let (mut plain, mut names) = (0, 0);
                run.each_plain(|name, id, at| {
                    plain += 1;
                    names += name.len();
                    (self.each)(name, RawEntry::plain(id), at)
                })?;
                fill.add_plain(plain, names, run.name());
                if run.is_at_stop() {
                    break;
                }
                at = run.offset();
                let Some(next) = run.next_entry()? else { break };
                entry = next;
            }
            self.last.clear();
            self.last.extend_from_slice(run.name());
        }
        // Nothing stands between the run and the offsets.
        run.finish()?.finish()?;
        if fill.is_overfull() {
            return Err(wrong);
        }
        self.count += block.count() as u64;
        self.full = fill;
        self.blocks.push(Child { first, start: span.start, end: span.end });
        Ok(())
    }

    fn finish(self) -> Result<(), DecodeError> {
        let table = self.table;
        if self.count != table.count {
            return Err(DecodeError::new(table.root.end, Kind::Field));
        }
        let base = self.blocks.last().map_or(HEAD, |last| last.end);
        let mut index = Vec::new();
        let (root, levels) = index::put_levels(&mut index, base, self.blocks);
        let found = table.bytes.get(base..table.root.end).unwrap_or_default();
        if index == found && root == table.root && levels == table.levels {
            return Ok(());
        }
        Err(DecodeError::new(base.saturating_add(common_prefix(&index, found)), Kind::NotCanonical))
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;
    use crate::change::{Old, Value};
    use crate::codec::block::block_len;
    use crate::codec::run::Entry;
    use crate::codec::table::TableBuilder;
    use crate::oid::ObjectId;

    const TAG: u8 = 0x20;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("refs/changes/{n:05}/meta")).collect()
    }

    /// A table of these names, cut into blocks as told.
    fn built(names: &[String], cut: impl Fn(&[Entry<'_>]) -> usize) -> Vec<u8> {
        let value = Value::from(ObjectId::from_bytes(&[7; 20]).unwrap());
        let entries: Vec<Entry<'_>> =
            names.iter().map(|name| Entry { name: name.as_bytes(), old: &Old::Any, new: Some(&value) }).collect();
        let mut table = TableBuilder::new(TAG, 0);
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let (block, after) = rest.split_at(cut(rest));
            table.push_block(block);
            rest = after;
        }
        table.finish(&[]).to_vec()
    }

    fn opened(bytes: Vec<u8>) -> Table {
        Table::open::<0>(bytes.into(), |tag| tag == TAG).unwrap().table
    }

    fn scanned(table: &Table) -> Result<Vec<Vec<u8>>, DecodeError> {
        let mut names = Vec::new();
        table.scan(|name, _, _| {
            names.push(name.to_vec());
            Ok(())
        })?;
        Ok(names)
    }

    /// The bytes of a table of 20,000 names, with one block or node altered under a checksum that fits.
    fn altered(span: impl Fn(&Table) -> Span, alter: impl Fn(&mut [u8])) -> Table {
        let mut bytes = built(&names(20_000), block_len);
        let Span { start, end } = span(&opened(bytes.clone()));
        let (payload, crc) = bytes[start..end].split_at_mut(end - start - 4);
        alter(payload);
        crc.copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        opened(bytes)
    }

    fn refused(table: &Table) -> Kind {
        scanned(table).unwrap_err().kind().clone()
    }

    #[test]
    fn all_names_are_scanned_and_found() {
        for count in [0, 1, 31, 32, 33, 128, 129, 5_000, 20_000] {
            let names = names(count);
            let table = opened(built(&names, block_len));
            assert!(scanned(&table).unwrap().iter().eq(names.iter().map(String::as_bytes)));
            for name in names.iter().step_by(1 + count / 500) {
                let found = |name: &str| table.find(name.as_bytes(), |_, _| Ok(())).unwrap().is_some();
                assert!(found(name) && !found(&format!("{name}a")) && !found(&name[..name.len() - 1]), "{name}");
            }
        }
    }

    /// Names of every shape side by side: numbers and words, short and long, one the beginning of another.
    #[test]
    fn names_of_all_shapes_are_found() {
        let mut state = 7_u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let parts =
            ["1", "22", "a", "v1.0-2", "main", "é", "0123456789/0123456789", "a-rather-long-part/of-a-name", "/"];
        let mut all: Vec<String> = (0..6_000)
            .map(|_| {
                let tail: String = (0..=next(5)).map(|_| parts[usize::try_from(next(9)).unwrap()]).collect();
                format!("refs/{tail}{}", next(40))
            })
            .collect();
        all.sort();
        all.dedup();
        assert!(all.len() > 3_000);
        // Every other one is there.
        let there: Vec<String> = all.iter().step_by(2).cloned().collect();
        let table = opened(built(&there, block_len));
        assert!(scanned(&table).unwrap().iter().eq(there.iter().map(String::as_bytes)));
        for (at, name) in all.iter().enumerate() {
            let found = table.find(name.as_bytes(), |_, _| Ok(())).unwrap().is_some();
            assert_eq!(found, at % 2 == 0, "{name}");
        }
    }

    /// The same entries in other blocks would be another byte string for the same value.
    #[test]
    fn another_cut_into_blocks_is_refused() {
        let names = names(300);
        for cut in [1, 64, 127] {
            let table = opened(built(&names, |rest| rest.len().min(cut)));
            assert_eq!(refused(&table), Kind::NotCanonical, "blocks of {cut}");
        }
        let late = opened(built(&names, |rest| rest.len().min(129)));
        assert_eq!(refused(&late), Kind::NotCanonical, "blocks that are too long");
        // Long names fill a block before its entries do.
        let long: Vec<String> = (0..200).map(|n| format!("refs/{}/{n:03}", "long/".repeat(60))).collect();
        assert!(scanned(&opened(built(&long, block_len))).is_ok());
        assert_eq!(refused(&opened(built(&long, |rest| rest.len().min(128)))), Kind::NotCanonical);
    }

    /// A look-up trusts the offsets of the restarts, so whoever checks the file must have checked them.
    #[test]
    fn a_restart_that_is_not_where_it_is_said_to_be_is_refused() {
        let table = altered(
            |table| table.spans().unwrap()[3],
            |payload| {
                let at = payload.len() - 4;
                payload[at] ^= 1;
            },
        );
        assert_eq!(refused(&table), Kind::NotCanonical);
    }

    #[test]
    fn an_index_that_names_another_first_is_refused() {
        let last_byte = |payload: &mut [u8]| *payload.last_mut().unwrap() += 1;
        let table = altered(|table| table.root, last_byte);
        assert_eq!(refused(&table), Kind::NotCanonical);
        let first_node = |table: &Table| {
            let mut nodes = Vec::new();
            let root = index::Node::new(table.block(table.root).unwrap(), table.root.start).unwrap();
            root.children(&mut nodes).unwrap();
            nodes[0]
        };
        assert_eq!(refused(&altered(first_node, last_byte)), Kind::NotCanonical);
    }

    #[test]
    fn a_byte_behind_a_run_is_refused() {
        let mut bytes = built(&names(1), block_len);
        let end = opened(bytes.clone()).root.end;
        bytes.insert(end - 4, 0);
        let crc = crc32c::crc32c(&bytes[HEAD..=end - 4]);
        bytes[end - 3..=end].copy_from_slice(&crc.to_le_bytes());
        // The footer: the count, where the root starts, how long it is.
        let footer = end + 1;
        bytes[footer + 16] += 1;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[TAG]), &bytes[footer..footer + 21]);
        bytes[footer + 21..footer + 25].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(refused(&opened(bytes)), Kind::TrailingBytes);
    }

    /// Nodes that name the same blocks again and again would make a small file a large tree.
    #[test]
    fn no_block_has_two_parents() {
        let second_node = |table: &Table| {
            let mut nodes = Vec::new();
            let root = index::Node::new(table.block(table.root).unwrap(), table.root.start).unwrap();
            root.children(&mut nodes).unwrap();
            nodes[1]
        };
        let table = altered(second_node, |payload| payload[8..16].copy_from_slice(&(HEAD as u64).to_le_bytes()));
        assert_eq!(table.spans().unwrap_err().kind(), &Kind::NotCanonical);
    }

    /// Within a block, between restarts and between blocks; names that differ in a few bytes, and in many.
    #[test]
    fn names_out_of_order_are_refused() {
        let long: Vec<String> = (0..300).map(|n| format!("refs/{n:03}/a-rather-long-name")).collect();
        for names in [names(300), long] {
            assert!(scanned(&opened(built(&names, block_len))).is_ok());
            for (one, other) in [(40, 41), (20, 50), (63, 64), (127, 128), (100, 200)] {
                let mut swapped = names.clone();
                swapped.swap(one, other);
                let table = opened(built(&swapped, block_len));
                assert_eq!(refused(&table), Kind::NotCanonical, "{} and {}", names[one], names[other]);
            }
        }
    }
}
