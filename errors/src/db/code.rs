//! What each database says, and the condition it means by it.
//!
//! This file is pure: no driver is needed to ask it, so the whole table is a unit test. It never looks
//! at a message, because messages follow the server's locale and echo values.

use std::fmt;

use super::Condition;

/// The code of an error, as its database gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code<'a> {
    /// SQLSTATE, five characters: `23505`.
    Postgres(&'a str),
    /// SQLite's extended result code: 2067.
    Sqlite(i32),
    /// MySQL and MariaDB. The number decides, because most SQLSTATEs are `23000` or `HY000`.
    MySql {
        /// The error number: 1062.
        number: u16,
        /// The SQLSTATE beside it: `23000`. Its class speaks for a number that the table does not know.
        sqlstate: &'a str,
    },
}

/// What a database's code means. Total: what the table does not know is [`Condition::Other`].
///
/// ```
/// use mainstay_errors::db::{Code, Condition, classify};
///
/// assert_eq!(classify(Code::Postgres("40001")), Condition::SerializationFailure);
/// assert_eq!(classify(Code::Sqlite(517)), Condition::SerializationFailure);
/// let code = Code::MySql { number: 1205, sqlstate: "HY000" };
/// assert_eq!(classify(code), Condition::LockTimeout);
/// ```
#[must_use]
pub fn classify(code: Code<'_>) -> Condition {
    match code {
        Code::Postgres(sqlstate) => postgres(sqlstate),
        Code::Sqlite(extended) => sqlite(extended),
        Code::MySql { number, sqlstate } => mysql(number, sqlstate),
    }
}

fn postgres(sqlstate: &str) -> Condition {
    match sqlstate {
        "23505" => Condition::UniqueViolation,
        "23P01" => Condition::ExclusionViolation,
        "23503" | "23001" => Condition::ForeignKeyViolation,
        "23502" => Condition::NotNullViolation,
        "23514" => Condition::CheckViolation,
        "40001" => Condition::SerializationFailure,
        "40P01" => Condition::Deadlock,
        // lock_timeout and NOWAIT alike.
        "55P03" => Condition::LockTimeout,
        // statement_timeout and pg_cancel_backend alike.
        "57014" => Condition::StatementTimeout,
        "25006" => Condition::ReadOnly,
        "25P02" => Condition::TransactionAborted,
        // Full, starting up or shutting down, refused by the server, never reached.
        "53300" | "57P03" | "08001" | "08004" => Condition::CannotConnect,
        // The backend was told to end: by an administrator, by a crash, with its database, for being idle
        // (alone or in a transaction), for too long a transaction.
        "57P01" | "57P02" | "57P04" | "57P05" | "25P03" | "25P04" => Condition::ConnectionLost,
        // 40003 is how servers that speak this protocol call an ambiguous commit.
        "08007" | "40003" => Condition::CommitUnknown,
        "53100" | "53200" => Condition::OutOfResources,
        "XX001" | "XX002" => Condition::Corruption,
        "P0001" => Condition::Raised,
        // Arithmetic is the program's mistake, the rest of the class the value's.
        "22012" => Condition::Other,
        _ if sqlstate.starts_with("22") => Condition::DataException,
        _ if sqlstate.starts_with("08") => Condition::ConnectionLost,
        _ => Condition::Other,
    }
}

fn sqlite(extended: i32) -> Condition {
    match extended {
        // UNIQUE, PRIMARY KEY and ROWID.
        2067 | 1555 | 2579 => Condition::UniqueViolation,
        787 => Condition::ForeignKeyViolation,
        1299 => Condition::NotNullViolation,
        275 => Condition::CheckViolation,
        1811 => Condition::Raised,
        // BUSY_SNAPSHOT: the snapshot is stale, and no amount of waiting renews it.
        517 => Condition::SerializationFailure,
        // No code of SQLite is negative, and the low byte of such a number would be one by chance.
        ..0 => Condition::Other,
        // The low byte is the primary code, the rest says more.
        _ => match extended & 0xff {
            5 | 6 => Condition::LockTimeout,
            7 | 13 => Condition::OutOfResources,
            8 => Condition::ReadOnly,
            9 => Condition::StatementTimeout,
            11 | 26 => Condition::Corruption,
            14 => Condition::CannotConnect,
            18 => Condition::DataException,
            _ => Condition::Other,
        },
    }
}

fn mysql(number: u16, sqlstate: &str) -> Condition {
    match number {
        // A row, an index that is being built, a cascade that would make the row twice.
        1022 | 1062 | 1169 | 1586 | 1761 | 1762 | 1859 => Condition::UniqueViolation,
        // Points nowhere, without and with the name; still referenced, without and with the name.
        1216 | 1452 | 1217 | 1451 => Condition::ForeignKeyViolation,
        // A NULL that was given, and a column that was left out.
        1048 | 1364 => Condition::NotNullViolation,
        // MySQL's number, and MariaDB's; MySQL uses the latter for a tablespace option, with another SQLSTATE.
        3819 => Condition::CheckViolation,
        4025 if sqlstate == "23000" => Condition::CheckViolation,
        // A row changed under MariaDB's innodb_snapshot_isolation (the default from 11.6 on); a
        // transaction that lost the certification of MySQL's group replication.
        1020 | 3101 => Condition::SerializationFailure,
        // InnoDB, and an XA branch. Galera reports a lost certification as 1213 too.
        1213 | 1614 => Condition::Deadlock,
        // innodb_lock_wait_timeout, and on MariaDB NOWAIT; a wait that DDL ended; MySQL's NOWAIT.
        1205 | 1689 | 3572 => Condition::LockTimeout,
        // KILL QUERY; MariaDB's max_statement_time; MySQL's max_execution_time.
        1317 | 1969 | 3024 => Condition::StatementTimeout,
        // The table, the server's options, the transaction, the server, InnoDB.
        1036 | 1290 | 1792 | 1836 | 1874 => Condition::ReadOnly,
        // Full, for the server or for the user; this host blocked; a Galera node that is not in its cluster.
        1040 | 1203 | 1226 | 1129 | 1047 => Condition::CannotConnect,
        // Shutdown, KILL (MariaDB, MySQL), idle for too long, what a client library calls gone and lost.
        1053 | 1927 | 3169 | 4031 | 2006 | 2013 => Condition::ConnectionLost,
        1180 => Condition::CommitUnknown,
        // Disk, memory, sort memory, a full table, threads, locks, prepared statements.
        1021 | 1037 | 1038 | 1041 | 1114 | 1135 | 1206 | 1461 => Condition::OutOfResources,
        // Too long or out of range: for its column, for its type, for max_allowed_packet.
        1264 | 1265 | 1406 | 1690 | 1153
        // Malformed: text, numbers and dates, for a column or for a function.
        | 1292 | 1300 | 1366 | 1367 | 1411 | 1525 => Condition::DataException,
        1644 => Condition::Raised,
        1034 | 1035 | 1194 | 1195 | 1712 | 1877 => Condition::Corruption,
        // Arithmetic is the program's mistake.
        1365 => Condition::Other,
        _ => mysql_class(sqlstate),
    }
}

fn mysql_class(sqlstate: &str) -> Condition {
    match sqlstate {
        "08004" => Condition::CannotConnect,
        // Before the rest of their classes, which would promise that nothing was applied, or that it may be tried again.
        "08007" | "40003" => Condition::CommitUnknown,
        "22012" | "40002" => Condition::Other,
        "25006" => Condition::ReadOnly,
        "70100" => Condition::StatementTimeout,
        "HY001" => Condition::OutOfResources,
        _ if sqlstate.starts_with("08") => Condition::ConnectionLost,
        _ if sqlstate.starts_with("22") => Condition::DataException,
        _ if sqlstate.starts_with("40") => Condition::SerializationFailure,
        // What SIGNAL is told to use for the application's own errors.
        _ if sqlstate.starts_with("45") => Condition::Raised,
        // Of 23, integrity, the class does not say which.
        _ => Condition::Other,
    }
}

/// The classes of Postgres whose texts name tables, columns, users, limits. (Of 22, the one code that is not
/// about a value is 22012.)
const HARMLESS_CLASSES: [&str; 15] = [
    "08", "0A", "22", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "XX",
];

/// What is [`Condition::Other`] of MySQL and names databases, tables, columns and users. A syntax error (1064) is
/// not among them, because it quotes the statement.
const HARMLESS_NUMBERS: [u16; 21] = [
    1044, 1045, 1046, 1049, 1052, 1054, 1136, 1142, 1143, 1146, 1227, 1235, 1241, 1242, 1305, 1318,
    1365, 1370, 1698, 1701, 1932,
];

impl Code<'_> {
    /// True when the error's text may hold a value of the request or of a row.
    ///
    /// Decided by what is known to be harmless wherever there are many codes, because a text that nobody
    /// has looked at may hold anything.
    pub(super) fn may_echo_values(self) -> bool {
        let condition = classify(self);
        // The first are about values; the second are written by people, who like to name them.
        if matches!(condition, Condition::DataException | Condition::Raised) {
            return true;
        }
        match self {
            Self::Postgres(sqlstate) => {
                // A syntax error quotes what it found, and `to_tsquery($1)` reports its argument as one.
                // The DETAIL of class 23, which `Debug` shows, holds the row. Codes outside of these
                // classes are the application's own, from `RAISE .. USING ERRCODE`.
                let class = sqlstate.get(..2).unwrap_or_default();
                matches!(sqlstate, "42601" | "42602") || !HARMLESS_CLASSES.contains(&class)
            }
            // SQLite names columns, never values. The one code 1, for everything, quotes the query of a
            // full-text search and the path of a JSON function; without it a missing table has no name.
            Self::Sqlite(_) => false,
            Self::MySql { number, .. } => match condition {
                // "Duplicate entry 'a@example.com' for key 'users_email_key'".
                Condition::UniqueViolation => true,
                Condition::Other => !HARMLESS_NUMBERS.contains(&number),
                _ => false,
            },
        }
    }
}

/// The number or SQLSTATE that decided: what one looks up in the database's manual.
impl fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(sqlstate) => f.write_str(sqlstate),
            Self::Sqlite(extended) => extended.fmt(f),
            Self::MySql { number, .. } => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row as `code condition → wire code, status, retry, outcome`, and what becomes of its text.
    fn table<'a>(codes: impl IntoIterator<Item = Code<'a>>) -> String {
        let line = |code| {
            let condition = classify(code);
            let d = condition.descriptor();
            let sqlstate = match code {
                Code::MySql { sqlstate, .. } => format!(" {sqlstate}"),
                _ => String::new(),
            };
            format!(
                "{code}{sqlstate} {condition:?} {} {} {} {} text {}\n",
                d.code(),
                d.status(),
                d.retry(),
                d.outcome(),
                if code.may_echo_values() {
                    "withheld"
                } else {
                    "kept"
                }
            )
        };
        codes.into_iter().map(line).collect()
    }

    #[test]
    fn postgres_reads_as_specified() {
        let codes = [
            "23505", "23P01", "23503", "23001", "23502", "23514", "40001", "40P01", "55P03",
            "57014", "25006", "53300", "57P03", "57P01", "57P02", "57P04", "57P05", "25P03",
            "25P04", "08000", "08001", "08003", "08004", "08006", "08007", "40003", "53100",
            "53200", "22001", "22003", "22P02", "22021", "22012", "25P02", "P0001", "42P01",
            "42703", "42601", "42501", "28P01", "XX001", "XX002", "XX000", "45000", "", "é",
            "nonsense",
        ];
        insta::assert_snapshot!("postgres", table(codes.map(Code::Postgres)));
    }

    #[test]
    fn sqlite_reads_as_specified() {
        let codes = [
            2067,
            1555,
            2579,
            787,
            1299,
            275,
            3091,
            1811,
            517,
            5,
            261,
            773,
            6,
            262,
            9,
            8,
            264,
            776,
            1032,
            14,
            13,
            7,
            18,
            11,
            779,
            26,
            1,
            10,
            0,
            -5,
            i32::MIN,
            i32::MAX,
        ];
        insta::assert_snapshot!("sqlite", table(codes.map(Code::Sqlite)));
    }

    /// Number and SQLSTATE.
    #[rustfmt::skip]
    const MYSQL: [(u16, &str); 91] = [
        (1062, "23000"),
        (1022, "23000"),
        (1169, "23000"),
        (1586, "23000"),
        (1761, "23000"),
        (1762, "23000"),
        (1859, "23000"),
        (1216, "23000"),
        (1452, "23000"),
        (1217, "23000"),
        (1451, "23000"),
        (1048, "23000"),
        (1364, "HY000"),
        (3819, "HY000"),
        (4025, "23000"),
        // MySQL's other use of the number.
        (4025, "HY000"),
        (1020, "HY000"),
        (3101, "40000"),
        (1213, "40001"),
        (1614, "XA102"),
        (1205, "HY000"),
        (1689, "HY000"),
        (3572, "HY000"),
        (1317, "70100"),
        (1969, "70100"),
        (3024, "HY000"),
        (1036, "HY000"),
        (1290, "HY000"),
        (1792, "25006"),
        (1836, "HY000"),
        (1874, "HY000"),
        (1040, "08004"),
        (1203, "42000"),
        (1226, "42000"),
        (1129, "HY000"),
        (1047, "08S01"),
        (1053, "08S01"),
        (1927, "70100"),
        (3169, "HY000"),
        (4031, "HY000"),
        (2006, "HY000"),
        (2013, "HY000"),
        (1180, "HY000"),
        (1021, "HY000"),
        (1037, "HY001"),
        (1038, "HY001"),
        (1041, "HY000"),
        (1114, "HY000"),
        (1135, "HY000"),
        (1206, "HY000"),
        (1461, "42000"),
        (1264, "22003"),
        (1265, "01000"),
        (1406, "22001"),
        (1690, "22003"),
        (1153, "08S01"),
        (1292, "22007"),
        (1300, "HY000"),
        (1366, "22007"),
        (1366, "HY000"),
        (1367, "22007"),
        (1411, "HY000"),
        (1525, "HY000"),
        (1644, "45000"),
        (1034, "HY000"),
        (1035, "HY000"),
        (1194, "HY000"),
        (1195, "HY000"),
        (1712, "HY000"),
        (1877, "HY000"),
        (1365, "22012"),
        (1045, "28000"),
        (1146, "42S02"),
        (1054, "42S22"),
        (1064, "42000"),
        // Numbers that the table does not know: the class speaks.
        (30001, "45000"),
        (60000, "08004"),
        (60000, "08S01"),
        (60000, "22012"),
        (60000, "22032"),
        (60000, "23000"),
        (60000, "25006"),
        (60000, "40001"),
        (60000, "40002"),
        (60000, "40003"),
        (60000, "08007"),
        (60000, "70100"),
        (60000, "HY001"),
        (60000, "HY000"),
        (0, ""),
        (u16::MAX, "é"),
    ];

    #[test]
    fn mysql_and_mariadb_read_as_specified() {
        let codes = MYSQL.map(|(number, sqlstate)| Code::MySql { number, sqlstate });
        insta::assert_snapshot!("mysql", table(codes));
    }

    /// One meaning, whichever server says it.
    #[test]
    fn a_state_that_says_what_became_of_the_commit_says_it_for_every_database() {
        for sqlstate in [
            "08007", "40003", "40002", "40001", "08004", "08006", "25006",
        ] {
            let code = Code::MySql {
                number: 60_000,
                sqlstate,
            };
            assert_eq!(
                classify(code),
                classify(Code::Postgres(sqlstate)),
                "{sqlstate}"
            );
        }
    }

    #[test]
    fn each_number_of_mysql_that_the_table_knows_is_in_the_snapshot() {
        for number in 0..=u16::MAX {
            // A SQLSTATE that says nothing leaves the number alone to decide; 4025 wants its own.
            let known = ["HY000", "23000"]
                .into_iter()
                .any(|sqlstate| classify(Code::MySql { number, sqlstate }) != Condition::Other);
            let shown = MYSQL.iter().any(|(shown, _)| *shown == number);
            assert!(shown || !known, "{number}");
        }
    }
}
