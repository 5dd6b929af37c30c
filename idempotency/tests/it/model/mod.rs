//! Both protocols as models, searched exhaustively: three attempts on one key, every interleaving of their statements with
//! crashes, lost answers, clients that leave, leases that run out, time that passes and a reaper.
//!
//! A model that finds nothing proves little, so each protocol is also searched with one of its rules taken away. Then the
//! search must find the double effect, and by the shortest way there is.

mod leased;
mod local;
mod search;

use search::explore;

#[test]
fn local_has_no_double_effect_no_lost_one_and_no_stuck_key() {
    let explored = explore(&local::Model::default()).unwrap();
    assert!(explored > 1000, "{explored} states are not everything");
}

#[test]
fn local_without_the_unique_index_acts_twice_in_four_steps() {
    let model = local::Model {
        unique_index: false,
        ..local::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
    assert_eq!(way.steps.len(), 4, "{way:?}");
}

#[test]
fn local_that_claims_last_keeps_the_same_promises() {
    let model = local::Model {
        claims_last: true,
        // The age is looked at last as well, so a handler may take as long as it likes.
        retention_outlives_handlers: false,
        ..local::Model::default()
    };
    let explored = explore(&model).unwrap();
    assert!(explored > 1000, "{explored} states are not everything");
}

#[test]
fn local_that_claims_last_without_the_unique_index_acts_twice() {
    let model = local::Model {
        claims_last: true,
        unique_index: false,
        ..local::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
}

#[test]
fn local_that_claims_last_and_does_not_look_after_a_failure_denies_what_was_done() {
    let model = local::Model {
        claims_last: true,
        looks_after_failure: false,
        ..local::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "told that nothing was done", "{way:?}");
}

#[test]
fn local_that_runs_again_after_an_unheard_commit_acts_twice() {
    let model = local::Model {
        reads_back: false,
        unique_index: true,
        ..local::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "told that nothing was done", "{way:?}");
}

#[test]
fn local_that_runs_keys_older_than_what_it_keeps_acts_twice() {
    let model = local::Model {
        refuses_stale: false,
        ..local::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
    // begin, commit, time, reap, begin, commit
    assert_eq!(way.steps.len(), 6, "{way:?}");
}

/// Without its lock, that is: with it, the second attempt would not have begun. This search is what found that a retention
/// has to be longer than a handler may take.
#[test]
fn local_whose_handlers_outlive_what_it_keeps_acts_twice() {
    let model = local::Model {
        retention_outlives_handlers: false,
        ..local::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
    // two begin, one commits, time, reap, the other commits
    assert_eq!(way.steps.len(), 6, "{way:?}");
}

#[test]
fn leased_has_no_double_effect_no_lost_one_and_no_stuck_key() {
    let explored = explore(&leased::Model::default()).unwrap();
    assert!(explored > 1000, "{explored} states are not everything");
}

#[test]
fn leased_without_the_token_in_the_steps_transaction_acts_twice_in_five_steps() {
    for on_completion in [false, true] {
        // Checking the token on completion, which is where most peers check it, changes nothing.
        let model = leased::Model {
            fenced_in_step: false,
            fenced_on_completion: on_completion,
            ..leased::Model::default()
        };
        let way = explore(&model).unwrap_err();
        assert_eq!(way.broken, "two effects", "{way:?}");
        // claim, lease over, takeover, effect, effect
        assert_eq!(way.steps.len(), 5, "{way:?}");
    }
}

#[test]
fn leased_that_trusts_an_attempts_memory_of_its_steps_acts_twice() {
    let model = leased::Model {
        reads_in_step: false,
        ..leased::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
    // claim, effect unheard, effect
    assert_eq!(way.steps.len(), 3, "{way:?}");
}

#[test]
fn leased_without_the_unique_index_acts_twice() {
    let model = leased::Model {
        unique_index: false,
        ..leased::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
    // two look, two insert, two act
    assert_eq!(way.steps.len(), 6, "{way:?}");
}

#[test]
fn leased_whose_reaper_takes_claims_with_steps_acts_twice() {
    let model = leased::Model {
        reaps_steps: true,
        ..leased::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
}

#[test]
fn leased_whose_reaped_keys_come_again_under_a_spent_token_acts_twice() {
    // Where the step also reads the recovery point, that stands between the two: here it does not.
    let model = leased::Model {
        tokens_grow: false,
        reads_in_step: false,
        unheard: false,
        ..leased::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
}

#[test]
fn leased_that_runs_keys_older_than_what_it_keeps_acts_twice() {
    let model = leased::Model {
        refuses_stale: false,
        ..leased::Model::default()
    };
    let way = explore(&model).unwrap_err();
    assert_eq!(way.broken, "two effects", "{way:?}");
    // claim, effect, completion, time, reap, claim, effect
    assert_eq!(way.steps.len(), 7, "{way:?}");
}
