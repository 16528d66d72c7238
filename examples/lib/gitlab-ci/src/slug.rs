//! Names made fit for URLs and host names.

use sha2::{Digest as _, Sha256};

/// `CI_COMMIT_REF_SLUG`, `CI_JOB_NAME_SLUG`: lower case, everything but letters and digits a dash, at most 63 characters,
/// no dash at the ends.
#[must_use]
pub fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let dashed: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    dashed.trim_matches('-').to_owned()
}

/// `CI_ENVIRONMENT_SLUG`: begins with a letter, has no two dashes in a row and at most 24 characters; a name that is
/// changed by that ends with six characters of its hash.
#[must_use]
pub fn environment_slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.to_lowercase().chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if c != '-' || !slug.ends_with('-') {
            slug.push(c);
        }
    }
    if !slug.starts_with(|c: char| c.is_ascii_lowercase()) {
        slug = format!("env-{}", slug.trim_start_matches('-'));
    }
    if slug.len() <= 24 && slug == name {
        return slug;
    }
    slug.truncate(17);
    if !slug.ends_with('-') {
        slug.push('-');
    }
    slug + &hash_suffix(name)
}

/// The last six digits, to the base 36, of the name's SHA-256.
fn hash_suffix(name: &str) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let modulus = 36_u64.pow(6);
    let mut rest =
        Sha256::digest(name.as_bytes()).iter().fold(0_u64, |rest, byte| (rest * 256 + u64::from(*byte)) % modulus);
    let mut suffix = Vec::new();
    for _ in 0..6 {
        suffix.push(char::from(DIGITS[usize::try_from(rest % 36).unwrap_or(0)]));
        rest /= 36;
    }
    suffix.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_slugs() {
        assert_eq!(slug("feature/Some_Thing!"), "feature-some-thing");
        assert_eq!(slug("--x--"), "x");
        assert_eq!(slug(&"a".repeat(80)).len(), 63);
        // Computed with Ruby's way of it, to the digit.
        assert_eq!(environment_slug("review/1-foo"), "review-1-foo-9tdj0u");
        assert_eq!(environment_slug("PRODUCTION"), "production-vl4voz");
        assert_eq!(environment_slug("production"), "production");
        assert!(environment_slug("9-staging-123456789012345").starts_with("env-9-staging-123-"));
        assert!(environment_slug("a name that is very long indeed").len() <= 24);
    }
}
