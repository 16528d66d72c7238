//! What a client that wants to push is told: the refs, and what it may ask for.

use tenon_refslog::{Refs, Value};

use super::pkt;

/// What a push may ask for. No push certificates, no other object format than SHA-1: a client is told so by their absence.
const CAPABILITIES: &str = concat!(
    "report-status report-status-v2 delete-refs side-band-64k quiet atomic push-options ofs-delta object-format=sha1 agent=forge/",
    env!("CARGO_PKG_VERSION")
);

/// The advertisement of `git-receive-pack`, whole. Without refs it is that of a repository that the first push makes.
pub(crate) fn for_push(refs: Option<&Refs>) -> Vec<u8> {
    let mut out = Vec::new();
    pkt::put(&mut out, b"# service=git-receive-pack\n");
    pkt::flush(&mut out);
    let mut first = true;
    let mut line = |id: &str, name: &[u8]| {
        let mut line = [id.as_bytes(), b" ", name].concat();
        if std::mem::take(&mut first) {
            line.push(0);
            line.extend_from_slice(CAPABILITIES.as_bytes());
        }
        line.push(b'\n');
        pkt::put(&mut out, &line);
    };
    let mut any = false;
    for (name, value) in refs.into_iter().flat_map(Refs::iter) {
        // `HEAD` is no ref that a push could name.
        if let Some(id) = Value::id(&value).filter(|_| !name.is_head()) {
            line(&id.to_hex(), name.as_bytes());
            any = true;
        }
    }
    if !any {
        line(&"0".repeat(40), b"capabilities^{}");
    }
    pkt::flush(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_refs_the_capabilities_stand_alone() {
        let told = String::from_utf8(for_push(None)).unwrap();
        let rest = told.strip_prefix("001f# service=git-receive-pack\n0000").unwrap();
        let line = &rest[4..rest.len() - 4];
        assert_eq!(usize::from_str_radix(&rest[..4], 16).unwrap(), line.len() + 4);
        assert!(line.starts_with(&format!("{} capabilities^{{}}\0report-status ", "0".repeat(40))), "{line}");
        assert!(!told.contains("push-cert") && told.ends_with("0000"));
    }
}
