//! The history of a message's failures: the last ten, as JSON that operators read. Pure.

use crate::store::Note;

/// How many failures are kept.
const KEPT: usize = 10;

/// The history with one failure more. What cannot be read of the old one, because somebody edited it, is dropped.
pub(crate) fn note(stored: Option<&str>, attempt: u32, reason: &str) -> Note {
    let mut old: Vec<(u32, i64, String)> = stored
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let surplus = (old.len() + 1).saturating_sub(KEPT);
    old.drain(..surplus);
    let mut before = serde_json::to_string(&old).unwrap_or_else(|_| "[]".to_owned());
    before.pop();
    if !old.is_empty() {
        before.push(',');
    }
    before.push_str(&format!("[{attempt},"));
    let reason = serde_json::to_string(reason).unwrap_or_else(|_| "\"\"".to_owned());
    Note {
        before,
        after: format!(",{reason}]]"),
    }
}

/// What the stores write of an attempt whose relay is gone.
pub(crate) const LOST: &str = "the relay lost its lane while publishing";

/// How many attempts ended like that in a row, up to now. Of more than are kept it is those.
pub(crate) fn lost_last(stored: &str) -> usize {
    let noted: Vec<(u32, i64, String)> = serde_json::from_str(stored).unwrap_or_default();
    let last = noted.iter().rev();
    last.take_while(|(.., reason)| reason == LOST).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(note: &Note, micros: i64) -> String {
        format!("{}{micros}{}", note.before, note.after)
    }

    #[test]
    fn the_last_ten_failures_are_kept_in_order() {
        let mut stored = None;
        for attempt in 1..=13 {
            let next = note(stored.as_deref(), attempt, "say \"no\"");
            stored = Some(whole(&next, i64::from(attempt) * 100));
        }
        let kept: Vec<(u32, i64, String)> =
            serde_json::from_str(stored.as_deref().unwrap()).unwrap();
        assert_eq!(kept.len(), 10);
        assert_eq!(kept[0], (4, 400, "say \"no\"".to_owned()));
        assert_eq!(kept[9].0, 13);
        let lost = |attempt, stored: &str| whole(&note(Some(stored), attempt, LOST), 9);
        let once = lost(14, stored.as_deref().unwrap());
        let twice = lost(15, &once);
        let then = whole(&note(Some(&twice), 16, "no"), 9);
        let of = [&*once, &twice, &then, "[]", "junk"];
        assert_eq!(of.map(lost_last), [1, 2, 0, 0, 0]);
    }

    #[test]
    fn the_bytes_of_a_history_do_not_change() {
        let one = whole(&note(None, 1, "down"), 7);
        assert_eq!(one, r#"[[1,7,"down"]]"#);
        assert_eq!(
            whole(&note(Some(&one), 2, "ü"), 8),
            r#"[[1,7,"down"],[2,8,"ü"]]"#
        );
        assert_eq!(whole(&note(Some("junk"), 3, ""), 9), r#"[[3,9,""]]"#);
    }
}
