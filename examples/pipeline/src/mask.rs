//! Masked values: they are replaced wherever a job writes them, also if it writes them in pieces.

/// What stands in a masked value's place.
const MASK: &[u8] = b"[MASKED]";

/// Values that must appear nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masks(Vec<Vec<u8>>);

impl Masks {
    /// These values, and each line of one that has several.
    pub(crate) fn new(values: &[String]) -> Self {
        let lines = values.iter().flat_map(|value| value.lines().map(str::trim).filter(|line| line.len() >= 4));
        let whole = values.iter().map(|value| value.trim());
        let mut all: Vec<Vec<u8>> =
            whole.chain(lines).filter(|value| !value.is_empty()).map(|value| value.as_bytes().to_vec()).collect();
        // The longest first: it may hold another.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self(all)
    }

    /// A whole text without them.
    pub(crate) fn text(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        let mut stream = Stream { masks: self, held: Vec::new() };
        let mut out = stream.push(text.as_bytes());
        out.extend(stream.end());
        String::from_utf8_lossy(&out).into_owned()
    }

    /// A stream that comes in pieces.
    pub(crate) const fn stream(&self) -> Stream<'_> {
        Stream { masks: self, held: Vec::new() }
    }
}

/// A stream from which masked values are taken.
#[derive(Debug)]
pub(crate) struct Stream<'m> {
    masks: &'m Masks,
    held: Vec<u8>,
}

impl Stream<'_> {
    /// The next piece; what may be the beginning of a masked value is kept for the piece after it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.take(false)
    }

    /// What was kept.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        self.take(true)
    }

    fn take(&mut self, is_end: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let may_go_on = |mask: &&Vec<u8>| mask.len() > rest.len() && mask.starts_with(rest);
            if !is_end && self.masks.0.iter().any(|mask| may_go_on(&mask)) {
                break;
            } else if let Some(found) = self.masks.0.iter().find(|mask| rest.starts_with(mask)) {
                out.extend_from_slice(MASK);
                at += found.len();
            } else {
                out.push(rest[0]);
                at += 1;
            }
        }
        self.held.drain(..at);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_value_appears_nowhere_however_it_is_written() {
        let masks = Masks::new(&["secret".to_owned(), "secret-longer".to_owned(), "line-one\nline-two".to_owned()]);
        assert_eq!(masks.text("a secret, a secret-longer b"), "a [MASKED], a [MASKED] b");
        assert_eq!(masks.text("line-two alone"), "[MASKED] alone");
        let text = b"xsecret-longersecreysecret secsecret-longe";
        for size in 1..8 {
            let mut stream = masks.stream();
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend(stream.push(piece));
            }
            out.extend(stream.end());
            assert_eq!(String::from_utf8_lossy(&out), "x[MASKED]secrey[MASKED] sec[MASKED]-longe", "{size}");
        }
    }
}
