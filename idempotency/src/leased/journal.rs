//! The steps of an attempt and what they returned: its recovery points.
//!
//! Append-only bytes, so that a store adds an entry without reading the others: a kind, a 16-bit length and the step's
//! name, a 32-bit length and its result.

use std::collections::BTreeMap;

/// Most bytes of a step's name.
pub const STEP_BYTES_MAX: usize = 255;
/// Most bytes of one step's result, as JSON.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;

const STARTED: u8 = b's';
const FINISHED: u8 = b'f';

/// What is known of each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Journal(BTreeMap<String, Progress>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A remote step has been begun; whether it took effect is known to the remote only.
    Started,
    /// With its result, as JSON.
    Finished(Vec<u8>),
}

impl Progress {
    /// The result, as JSON.
    pub(crate) fn finished(&self) -> Option<Vec<u8>> {
        match self {
            Self::Started => None,
            Self::Finished(result) => Some(result.clone()),
        }
    }
}

impl Journal {
    /// Reads what [`started`] and [`finished`] wrote; `None` for other bytes.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut journal = Self::default();
        while let [kind, rest @ ..] = bytes {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (result, rest) =
                rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            bytes = rest;
            let name = String::from_utf8(name.to_vec()).ok()?;
            match *kind {
                STARTED => _ = journal.0.entry(name).or_insert(Progress::Started),
                FINISHED => journal.note(name, Progress::Finished(result.to_vec())),
                _ => return None,
            }
        }
        Some(journal)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, step: &str) -> Option<&Progress> {
        self.0.get(step)
    }

    pub(crate) fn note(&mut self, step: String, progress: Progress) {
        self.0.insert(step, progress);
    }
}

pub(crate) fn started(step: &str) -> Option<Vec<u8>> {
    entry(STARTED, step, b"")
}

/// `None` when the name or the result is too large.
pub(crate) fn finished(step: &str, result: &[u8]) -> Option<Vec<u8>> {
    entry(FINISHED, step, result)
}

fn entry(kind: u8, step: &str, result: &[u8]) -> Option<Vec<u8>> {
    if !(1..=STEP_BYTES_MAX).contains(&step.len()) || result.len() > RESULT_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u16::try_from(step.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(step.as_bytes());
    bytes.extend_from_slice(&u32::try_from(result.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(result);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_last_is_what_is_known() {
        let bytes = [
            started("pay").unwrap(),
            finished("reserve", b"17").unwrap(),
            finished("pay", b"\"ch_1\"").unwrap(),
            started("pay").unwrap(),
            started("mail").unwrap(),
        ]
        .concat();
        let journal = Journal::decode(&bytes).unwrap();
        assert_eq!(
            journal.get("pay"),
            Some(&Progress::Finished(b"\"ch_1\"".to_vec()))
        );
        assert_eq!(
            journal.get("reserve"),
            Some(&Progress::Finished(b"17".to_vec()))
        );
        assert_eq!(journal.get("mail"), Some(&Progress::Started));
        assert_eq!(journal.get("other"), None);
        assert_eq!(Journal::decode(b""), Some(Journal::default()));
    }

    #[test]
    fn the_bytes_in_the_table_do_not_change() {
        assert_eq!(finished("pay", b"17").unwrap(), b"f\0\x03pay\0\0\0\x0217");
        assert_eq!(started("pay").unwrap(), b"s\0\x03pay\0\0\0\0");
    }

    #[test]
    fn damaged_bytes_are_no_journal() {
        let good = finished("pay", b"17").unwrap();
        for cut in 1..good.len() {
            assert_eq!(Journal::decode(&good[..cut]), None, "{cut}");
        }
        assert_eq!(Journal::decode(b"x\0\x03pay\0\0\0\0"), None);
        assert_eq!(Journal::decode(b"s\0\x01\xff\0\0\0\0"), None);
    }

    #[test]
    fn entries_have_caps() {
        assert_eq!(started(""), None);
        assert_eq!(started(&"s".repeat(256)), None);
        assert!(finished("s", &[b'1'; RESULT_BYTES_MAX]).is_some());
        assert_eq!(finished("s", &[b'1'; RESULT_BYTES_MAX + 1]), None);
    }
}
