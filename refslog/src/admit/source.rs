//! Where admission looks refs up: all of them in memory, or in the blocks of a snapshot.

use core::cell::Cell;
use core::convert::Infallible;

use crate::change::Value;
use crate::config::Config;
use crate::id::Point;
use crate::name::RefName;
use crate::refs::Refs;
use crate::store::Place;

/// The neighbourhood of a name in the order of names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// A ref of this name exists.
    pub(crate) exists: bool,
    /// The next name may be one below this one.
    pub(crate) leads: bool,
}

/// The refs that a transaction is admitted against.
pub(crate) trait Source {
    /// Why they cannot be read.
    type Error;

    fn config(&self) -> &Config;

    fn point(&self) -> Point;

    /// The value of a ref. Symbolic refs are not followed.
    fn look_up(&self, name: &[u8]) -> Result<Option<Value>, Self::Error>;

    fn contains(&self, name: &[u8]) -> Result<bool, Self::Error>;

    fn around(&self, name: &[u8]) -> Result<Around, Self::Error>;

    /// The first ref whose name starts with `lead` and of which `counts` says that it counts.
    fn first_below(&self, lead: &[u8], counts: &mut dyn FnMut(&[u8]) -> bool) -> Result<Option<RefName>, Self::Error>;

    /// The ref at the end of a chain of symbolic refs; `None` where it loops or is longer than Git reads.
    fn resolve(&self, name: &RefName) -> Result<Option<RefName>, Self::Error> {
        let mut at = name.clone();
        for _ in 0..=Refs::READ_DEPTH {
            match self.look_up(at.as_bytes())? {
                Some(Value::Symbolic(target)) => at = target,
                Some(Value::Direct(_)) | None => return Ok(Some(at)),
            }
        }
        Ok(None)
    }
}

/// Refs in memory. Names mostly come in order, so the leaf that was looked in last is tried first.
pub(super) struct Resident<'a> {
    refs: &'a Refs,
    leaf: Cell<usize>,
}

impl<'a> Resident<'a> {
    pub(super) const fn new(refs: &'a Refs) -> Self {
        Self { refs, leaf: Cell::new(0) }
    }

    fn find(&self, name: &[u8]) -> Result<Place, Place> {
        let found = self.refs.map.find_near(self.leaf.get(), name);
        self.leaf.set(found.unwrap_or_else(|place| place).leaf);
        found
    }
}

impl Source for Resident<'_> {
    type Error = Infallible;

    fn config(&self) -> &Config {
        &self.refs.config
    }

    fn point(&self) -> Point {
        self.refs.point
    }

    fn look_up(&self, name: &[u8]) -> Result<Option<Value>, Infallible> {
        Ok(self.find(name).ok().and_then(|place| self.refs.map.value_at(place, name)))
    }

    fn contains(&self, name: &[u8]) -> Result<bool, Infallible> {
        Ok(self.refs.map.contains(name))
    }

    fn around(&self, name: &[u8]) -> Result<Around, Infallible> {
        let (map, found) = (&self.refs.map, self.find(name));
        let next = match found {
            Ok(place) => map.after(place),
            Err(place) => map.normal(place),
        };
        Ok(Around { exists: found.is_ok(), leads: map.starts_with(next, name) })
    }

    fn first_below(&self, lead: &[u8], counts: &mut dyn FnMut(&[u8]) -> bool) -> Result<Option<RefName>, Infallible> {
        let map = &self.refs.map;
        let mut place = map.seek(lead);
        let mut name = alloc::vec::Vec::new();
        while map.starts_with(place, lead) && map.read_name(place, &mut name) {
            if counts(&name) {
                return Ok(Some(RefName::store(&name)));
            }
            place = map.after(place);
        }
        Ok(None)
    }
}
