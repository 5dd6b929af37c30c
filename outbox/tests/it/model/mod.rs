//! The claim engine as a model, searched exhaustively: three messages, two relays, every interleaving of their statements
//! with commits out of order, kills, pauses past the lease, refusals, lanes given back and dead letters put back.
//!
//! A model that finds nothing proves little, so the engine is also searched with one of its rules taken away. Then the
//! search must find the broken promise, and by the shortest way there is.

mod claim;
mod search;

use claim::{Budget, Model};
use search::{Way, explore};

fn broken(model: Model) -> Way {
    explore(&model).expect_err("the search finds what the missing rule was for")
}

/// What goes wrong together, in a few seconds; every combination of these, and then some, when asked for.
fn budgets() -> Vec<Budget> {
    let full = std::env::var_os("MAINSTAY_TEST_MODEL_FULL").is_some();
    if full {
        let mut all = Vec::new();
        for bits in 0..16u8 {
            all.push(Budget {
                kills: 2 * (bits & 1),
                pauses: bits >> 1 & 1,
                refusals: 2 + (bits >> 2 & 1),
                redrives: bits >> 3 & 1,
                ..Budget::default()
            });
        }
        return all;
    }
    let none = Budget::default();
    vec![
        Budget {
            kills: 1,
            pauses: 1,
            rollbacks: 1,
            ..none
        },
        Budget {
            kills: 2,
            rollbacks: 1,
            releases: 1,
            ..none
        },
        Budget {
            refusals: 1,
            pauses: 1,
            ..none
        },
        Budget {
            kills: 1,
            refusals: 2,
            releases: 1,
            ..none
        },
        Budget {
            refusals: 3,
            redrives: 1,
            ..none
        },
        Budget {
            lost: 2,
            releases: 1,
            kills: 1,
            ..none
        },
        Budget {
            lost: 1,
            refusals: 2,
            redrives: 1,
            ..none
        },
    ]
}

#[test]
fn nothing_is_lost_stranded_out_of_order_or_delivered_too_often() {
    for parks in [false, true] {
        for budget in budgets() {
            let model = Model {
                budget,
                parks,
                ..Model::default()
            };
            let explored = explore(&model).unwrap_or_else(|way| panic!("{model:?}: {way:#?}"));
            println!("{budget:?}, parks {parks}: {explored}");
            assert!(explored > 10_000, "{explored} states are not everything");
        }
    }
}

#[test]
fn attempts_that_are_not_charged_at_takeover_never_end() {
    let way = broken(Model {
        charges: false,
        budget: Budget {
            kills: 3,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "tried more often than is allowed");
}

#[test]
fn a_late_settlement_that_is_not_fenced_hides_what_is_in_flight() {
    let way = broken(Model {
        fenced: false,
        budget: Budget {
            kills: 2,
            pauses: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "tried more often than is allowed");
}

#[test]
fn a_claim_that_filters_out_used_up_attempts_leaves_them_behind() {
    let way = broken(Model {
        claims_used_up: false,
        budget: Budget {
            kills: 2,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "out of order");
}

#[test]
fn a_key_that_is_not_held_back_is_delivered_out_of_order() {
    let way = broken(Model {
        blocks: false,
        budget: Budget {
            refusals: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "out of order");
}

#[test]
fn a_batch_that_goes_on_after_a_failure_delivers_out_of_order() {
    let way = broken(Model {
        cuts: false,
        budget: Budget {
            refusals: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "out of order");
}

#[test]
fn a_mark_that_does_not_wait_for_writers_strands_what_they_commit() {
    let way = broken(Model {
        mark_waits: false,
        ..Model::default()
    });
    assert_eq!(way.broken, "stranded");
    // three draw, two commit; take, look, the third commits, record, two deliveries, settle
    assert_eq!(way.steps.len(), 12, "{way:?}");
}

/// The writer commits after the look and before the record: it has ended, and what it wrote was not seen.
#[test]
fn a_mark_that_does_not_look_again_strands_what_was_committed_meanwhile() {
    let way = broken(Model {
        mark_looks_again: false,
        ..Model::default()
    });
    assert_eq!(way.broken, "stranded");
}

#[test]
fn a_redrive_that_does_not_send_the_marks_back_strands_what_it_puts_there() {
    let way = broken(Model {
        rewinds: false,
        budget: Budget {
            refusals: 2,
            redrives: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "stranded");
}

#[test]
fn a_lane_given_back_while_something_is_in_flight_is_charged_for_what_was_not_tried() {
    let way = broken(Model {
        releases_idle: false,
        budget: Budget {
            releases: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "charged for an attempt that was not made");
}

/// The answer to a record is lost, so nothing is published, and the relay gives the lane back.
#[test]
fn a_lane_given_back_with_a_record_of_nothing_is_charged_for_it() {
    let way = broken(Model {
        releases_forget: false,
        budget: Budget {
            lost: 1,
            releases: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "charged for an attempt that was not made");
}

/// The answer to a settlement is lost, and before it is repeated an operator puts back what it has buried.
#[test]
fn a_settlement_that_is_written_twice_undoes_a_redrive() {
    let way = broken(Model {
        settles_once: false,
        budget: Budget {
            lost: 1,
            refusals: 2,
            redrives: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "a redrive was undone");
}

#[test]
fn what_is_set_aside_without_asking_whether_the_key_is_still_parked_is_overtaken() {
    let way = broken(Model {
        parks: true,
        parks_by_row: false,
        budget: Budget {
            refusals: 2,
            redrives: 1,
            ..Budget::default()
        },
        ..Model::default()
    });
    assert_eq!(way.broken, "set aside for ever");
}
