//! The test that keeps `codes.json` a contract.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::codes::{CODES_BYTES_MAX, read};
use super::{CodesUnreadable, Registry};

/// The variable that lets [`Registry::assert_codes`] write.
const UPDATE_CODES: &str = "UPDATE_CODES";

/// What may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Update {
    Nothing,
    Compatible,
    Breaking,
}

impl Update {
    fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "" | "0" => Ok(Self::Nothing),
            "1" => Ok(Self::Compatible),
            "breaking" => Ok(Self::Breaking),
            other => Err(format!(
                "{UPDATE_CODES} is `1` or `breaking`, not {other:?}"
            )),
        }
    }
}

impl Registry {
    /// Fails a test unless the `codes.json` at `path` says what this registry says.
    ///
    /// ```no_run
    /// # use mainstay_errors::Registry;
    /// # fn registry() -> Registry { Registry::new() }
    /// #[test]
    /// fn codes_are_a_contract() {
    ///     registry().assert_codes(concat!(env!("CARGO_MANIFEST_DIR"), "/codes.json"));
    /// }
    /// ```
    ///
    /// - The first time, and after a change that [does not break](crate::CodeChange::is_breaking) clients, run the
    ///   test with `UPDATE_CODES=1`: it writes the file, and whoever reviews it sees the change.
    /// - A change that breaks is refused even then. To take a code away, keep its entry and add `"retired": true`:
    ///   the name is then taken for ever. To break on purpose, as with a new major version, run with
    ///   `UPDATE_CODES=breaking`: what changed is overwritten and what is gone is retired.
    ///
    /// A file that is only laid out otherwise, or has other line ends, passes.
    ///
    /// # Panics
    /// When they disagree, the file cannot be read or written, or `UPDATE_CODES` has another value.
    #[track_caller]
    #[expect(clippy::panic, reason = "an assertion, for tests")]
    pub fn assert_codes(&self, path: impl AsRef<Path>) {
        let word = std::env::var_os(UPDATE_CODES).unwrap_or_default();
        let settled = Update::from_word(&word.to_string_lossy())
            .and_then(|update| self.settle(path.as_ref(), update));
        if let Err(message) = settled {
            panic!("{message}");
        }
    }

    fn settle(&self, path: &Path, update: Update) -> Result<(), String> {
        let place = path.display();
        let Some(committed) = load(path).map_err(|why| format!("{place}: {why}"))? else {
            return match update {
                Update::Nothing => Err(format!(
                    "{place} does not exist yet: run this test once with {UPDATE_CODES}=1, look at the file, and \
                     commit it"
                )),
                Update::Compatible | Update::Breaking => store(path, &self.codes_json()),
            };
        };
        let committed = read(&committed).map_err(|why| format!("{place}: {why}"))?;
        let changes = self.changes_since(&committed);
        if changes.is_empty() {
            return Ok(());
        }
        match (update, changes.is_breaking()) {
            (Update::Breaking, _) | (Update::Compatible, false) => {
                store(path, &self.codes_json_after(&committed))
            }
            (Update::Nothing, false) => Err(format!(
                "{place} is not up to date:\n{changes}No client breaks. Run this test with {UPDATE_CODES}=1 and \
                 commit the file."
            )),
            (Update::Nothing | Update::Compatible, true) => Err(format!(
                "the codes are a contract, and against {place} clients break (!):\n{changes}If that is meant, as with \
                 a new major version, run this test with {UPDATE_CODES}=breaking and commit the file."
            )),
        }
    }
}

/// The text of the file; `None` when there is none.
fn load(path: &Path) -> Result<Option<String>, String> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => usize::try_from(metadata.len()).unwrap_or(usize::MAX),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if size > CODES_BYTES_MAX {
        return Err(CodesUnreadable::TooLarge(size).to_string());
    }
    std::fs::read_to_string(path)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Writes the file whole or not at all: into a file beside it, which then takes its name. Another test may be reading.
fn store(path: &Path, text: &str) -> Result<(), String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Where a link leads, so that it stays one.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let beside = path.with_extension(format!("{process}-{count}.tmp"));
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path));
    written.map_err(|error| {
        // Not there when it could not be written; what went wrong first is what counts.
        let _ = std::fs::remove_file(&beside);
        format!("{}: {error}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Category, Descriptor, Fault};

    #[derive(Debug, thiserror::Error)]
    #[error("sold out")]
    struct SoldOut<const STATUS: u16>;

    impl<const STATUS: u16> Fault for SoldOut<STATUS> {
        const CATALOG: &'static [Descriptor] =
            &[Descriptor::new("sold_out", Category::FailedPrecondition).with_status(STATUS)];

        fn descriptor(&self) -> &'static Descriptor {
            &Self::CATALOG[0]
        }
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn path(&self) -> std::path::PathBuf {
            self.0.path().join("codes.json")
        }
        fn text(&self) -> String {
            std::fs::read_to_string(self.path()).unwrap()
        }
        fn settle(&self, registry: &Registry, update: Update) -> Result<(), String> {
            registry.settle(&self.path(), update)
        }
    }

    #[test]
    fn a_missing_file_is_made_only_when_asked_for() {
        let (place, registry) = (Place::new(), Registry::new());
        let why = place.settle(&registry, Update::Nothing).unwrap_err();
        assert!(why.contains("UPDATE_CODES=1"), "{why}");
        assert!(!place.path().exists());
        place.settle(&registry, Update::Compatible).unwrap();
        place.settle(&registry, Update::Nothing).unwrap();
        assert_eq!(place.text(), registry.codes_json());
    }

    #[test]
    fn a_file_that_lacks_a_code_says_how_to_add_it() {
        let place = Place::new();
        place.settle(&Registry::new(), Update::Compatible).unwrap();
        let grown = Registry::new().with::<SoldOut<409>>();
        let why = place.settle(&grown, Update::Nothing).unwrap_err();
        assert!(
            why.contains("- \"sold_out\" is new") && why.contains("UPDATE_CODES=1"),
            "{why}"
        );
        place.settle(&grown, Update::Compatible).unwrap();
        place.settle(&grown, Update::Nothing).unwrap();
    }

    #[test]
    fn a_breaking_change_is_not_written_by_an_ordinary_update() {
        let place = Place::new();
        let (before, after) = (
            Registry::new().with::<SoldOut<409>>(),
            Registry::new().with::<SoldOut<410>>(),
        );
        place.settle(&before, Update::Compatible).unwrap();
        for update in [Update::Nothing, Update::Compatible] {
            let why = place.settle(&after, update).unwrap_err();
            assert!(why.contains("! \"sold_out\": status was \"409\""), "{why}");
            assert_eq!(place.text(), before.codes_json());
        }
        place.settle(&after, Update::Breaking).unwrap();
        place.settle(&after, Update::Nothing).unwrap();
    }

    #[test]
    fn a_removed_code_is_retired_and_stays_so() {
        let place = Place::new();
        let (before, after) = (Registry::new().with::<SoldOut<409>>(), Registry::new());
        place.settle(&before, Update::Compatible).unwrap();
        place.settle(&after, Update::Compatible).unwrap_err();
        // By hand, as the message says.
        let by_hand = place.text().replace(
            "\"code\": \"sold_out\",",
            "\"code\": \"sold_out\", \"retired\": true,",
        );
        std::fs::write(place.path(), by_hand.replace('\n', "\r\n")).unwrap();
        place.settle(&after, Update::Nothing).unwrap();
        // A later update keeps the line.
        let domain = after.clone().domain("shop.example");
        place.settle(&domain, Update::Compatible).unwrap();
        assert!(place.text().contains("\"retired\": true"));
        let why = place.settle(&before, Update::Compatible).unwrap_err();
        assert!(why.contains("\"sold_out\" is retired"), "{why}");
        // And the strong update does by itself what the hand did.
        let other = Place::new();
        other.settle(&before, Update::Compatible).unwrap();
        other.settle(&after, Update::Breaking).unwrap();
        assert!(other.text().contains("\"retired\": true"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_overwritten() {
        let place = Place::new();
        for garbage in ["<<<<<<< HEAD", ""] {
            std::fs::write(place.path(), garbage).unwrap();
            for update in [Update::Nothing, Update::Compatible, Update::Breaking] {
                place.settle(&Registry::new(), update).unwrap_err();
            }
            assert_eq!(place.text(), garbage);
        }
        std::fs::write(place.path(), [0xff, 0xfe]).unwrap();
        place.settle(&Registry::new(), Update::Nothing).unwrap_err();
        let file = std::fs::File::create(place.path()).unwrap();
        file.set_len(CODES_BYTES_MAX as u64 + 1).unwrap();
        let why = place.settle(&Registry::new(), Update::Nothing).unwrap_err();
        assert!(why.contains("at most"), "{why}");
        // A folder in its place.
        let folder = Registry::new().settle(place.0.path(), Update::Nothing);
        folder.unwrap_err();
    }

    /// Tests of one file run at once, and whoever reads while another writes sees all of the one text or the other.
    #[test]
    fn a_file_is_never_seen_half_written() {
        let place = Place::new();
        let long = "x".repeat(1 << 20);
        store(&place.path(), &long).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (0..50).for_each(|_| store(&place.path(), &long).unwrap()));
            while !writer.is_finished() {
                assert_eq!(place.text().len(), long.len());
            }
        });
        let left: Vec<_> = std::fs::read_dir(place.0.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let place = Place::new();
        let link = place.0.path().join("link.json");
        std::fs::write(place.path(), "[]").unwrap();
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        store(&link, "[1]").unwrap();
        assert!(link.is_symlink());
        assert_eq!(place.text(), "[1]");
    }

    #[test]
    fn only_two_words_let_it_write() {
        assert_eq!(Update::from_word(""), Ok(Update::Nothing));
        assert_eq!(Update::from_word("0"), Ok(Update::Nothing));
        assert_eq!(Update::from_word("1"), Ok(Update::Compatible));
        assert_eq!(Update::from_word("breaking"), Ok(Update::Breaking));
        Update::from_word("yes").unwrap_err();
    }
}
