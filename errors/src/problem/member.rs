//! The names that members of a document may have.

/// Members with a meaning of their own, which no extension may take.
pub const RESERVED_MEMBERS: [&str; 11] = [
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "retry",
    "retry_after",
    "outcome",
    "request_id",
    "errors",
];

/// A name that cannot be an extension member of a problem document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberRefused {
    /// The member has a meaning of its own.
    #[error("`{0}` is a member every problem has: give the extension another name")]
    Reserved(String),
    /// RFC 9457 §3.2 does not allow the name.
    #[error(
        "`{0}` cannot name an extension: at least three of A-Z a-z 0-9 _, starting with a letter"
    )]
    Malformed(String),
    /// The value cannot be JSON.
    #[error("the value of `{0}` does not serialise to JSON")]
    Value(String),
}

/// Checks an extension name on the write side.
pub(crate) fn check_member(name: &str) -> Result<(), MemberRefused> {
    if RESERVED_MEMBERS.contains(&name) {
        return Err(MemberRefused::Reserved(name.to_owned()));
    }
    let well_formed = name.len() >= 3
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if well_formed {
        Ok(())
    } else {
        Err(MemberRefused::Malformed(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Category, Problem};

    #[test]
    fn extension_names_keep_to_the_rules() {
        let refused = |name| {
            Problem::new(Category::Internal, "x")
                .with_extension(name, 1)
                .unwrap_err()
        };
        for name in RESERVED_MEMBERS {
            assert_eq!(refused(name), MemberRefused::Reserved(name.to_owned()));
        }
        for name in ["", "ab", "1ab", "_ab", "a-b", "a b", "äbc", "a\0b"] {
            assert_eq!(refused(name), MemberRefused::Malformed(name.to_owned()));
        }
        let problem = Problem::new(Category::Internal, "x")
            .with_extension("order_id", 7)
            .unwrap();
        assert_eq!(problem.extensions()["order_id"], 7);
    }
}
