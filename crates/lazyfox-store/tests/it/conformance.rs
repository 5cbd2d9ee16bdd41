//! One suite that every store must pass. A new store is one more line in `on_every_store`.

mod charges;
mod chunks;
mod deliveries;
mod delivery_lists;
mod endpoints;
mod events;
mod keeping;
mod keys;
mod lease;
mod lists;
mod outbox;
mod places;
mod poison;
mod redelivery;
mod secrets;
mod submit;
mod time;
mod waiting;

use crate::world;

/// Makes each case a test of one store.
macro_rules! suite {
    ($store:ident, $($group:ident: $($case:ident)+;)+) => {
        mod $store {
            $(mod $group {
                $(#[tokio::test]
                async fn $case() {
                    super::super::$group::$case(&*super::super::world::$store().await).await;
                })+
            })+
        }
    };
}

macro_rules! on_every_store {
    ($($cases:tt)+) => {
        suite!(memory, $($cases)+);
        suite!(sqlite, $($cases)+);
        suite!(postgres, $($cases)+);
    };
}

on_every_store! {
    submit:
        a_job_is_kept_byte_for_byte
        the_same_request_again_is_the_same_job
        an_idempotency_key_is_an_endpoints_own
        an_idempotency_key_is_free_again_when_its_job_is_forgotten;
    lease:
        jobs_go_out_in_the_order_they_came
        the_low_lane_waits_for_the_normal_one
        a_poll_gets_no_more_than_it_asked_for
        an_endpoint_hands_out_only_its_own_jobs
        a_handout_carries_the_running_job_with_its_input
        an_expired_job_is_never_handed_out
        a_job_never_goes_back_to_a_worker_that_lost_it
        a_lost_job_goes_out_before_all_that_wait
        a_handed_back_job_may_go_to_the_same_worker
        large_jobs_that_a_worker_may_not_have_are_not_in_its_way
        a_poll_without_a_job_it_held_has_lost_it
        secrets_go_out_with_the_job_until_it_can_never_run_again;
    events:
        a_result_is_kept_with_its_output
        a_result_without_output_clears_the_progress
        progress_replaces_progress
        late_duplicate_and_foreign_reports_change_nothing
        waiting_and_running_jobs_can_be_cancelled
        a_retry_starts_from_nothing
        only_failed_and_timed_out_jobs_can_be_retried
        a_job_is_unknown_on_another_endpoint
        a_lost_worker_gives_back_all_its_jobs
        an_evicted_job_is_not_blamed
        a_dead_worker_changes_nothing_of_others;
    waiting:
        what_goes_out_beyond_what_was_asked_for_waits
        what_may_end_soon_waits_in_the_queue
        what_waits_is_of_the_lane_of_the_one_before
        a_worker_begins_with_what_waits_in_it
        an_end_says_since_when_it_ran
        a_sign_of_life_renews_what_waits_behind_what_it_names
        a_sign_of_life_tells_what_has_begun
        a_loss_costs_only_what_had_begun
        what_is_known_to_have_begun_is_to_blame
        where_nothing_is_known_the_first_is_to_blame
        an_eviction_costs_nothing_wherever_a_job_is
        a_poll_without_what_waited_has_lost_it;
    poison:
        a_job_that_kills_its_workers_fails_with_the_evidence
        a_quiet_loss_ends_the_row
        a_retry_begins_a_new_row_of_deaths;
    places:
        a_place_is_how_many_go_out_before
        only_what_waits_has_a_place
        far_behind_a_place_is_not_counted_to_the_end;
    time:
        a_lease_that_runs_out_is_a_lost_worker
        a_run_ends_at_its_execution_timeout
        a_default_ttl_ends_only_waiting_jobs
        a_given_ttl_ends_a_running_job_too
        a_ttl_can_be_set_later
        expiry_takes_the_earliest_deadlines_first
        a_heartbeat_renews_what_it_names
        a_heartbeat_of_an_old_version_renews_everything
        ended_jobs_are_forgotten_after_their_retention
        a_sync_result_that_was_not_awaited_is_kept_longer
        purge_ends_the_oldest_waiting_jobs_and_leaves_running_ones
        a_purge_leaves_what_came_after_its_beginning
        unservable_jobs_fail_with_the_reason;
    chunks:
        chunks_come_out_once_and_in_order
        a_drain_stops_at_its_bytes
        only_the_holder_may_stream
        a_stream_without_a_reader_gets_full
        chunks_outlive_the_end_of_their_job
        chunks_of_a_lost_attempt_are_gone;
    lists:
        a_list_is_paged_newest_first
        a_search_for_a_rare_status_goes_step_by_step
        a_list_has_one_endpoint_and_one_status
        only_the_parts_asked_for_are_read
        a_survey_counts_what_waits_runs_and_ended
        a_survey_tells_the_endpoints_of_one_worker_apart;
    deliveries:
        an_end_and_its_delivery_come_together
        who_ends_a_job_is_told_only_where_that_is_wanted
        a_delivery_weighs_what_it_carries
        a_delivery_sends_the_parts_that_are_asked_for
        a_failed_try_comes_again_later
        every_try_is_listed_with_all_that_is_known_of_it
        a_settled_delivery_stays_settled
        a_retry_withdraws_the_delivery_of_the_earlier_end
        each_end_of_a_job_has_a_delivery_of_its_own;
    keeping:
        a_job_with_an_open_delivery_is_not_forgotten
        an_open_delivery_is_asked_for_again_within_ten_minutes
        a_job_is_kept_as_long_as_its_deliveries
        a_delivery_that_is_sent_again_is_kept_anew
        what_is_kept_is_in_nobodys_way;
    redelivery:
        whatever_became_of_a_delivery_it_is_sent_again
        twice_in_one_breath_is_once
        a_late_try_of_an_earlier_round_changes_nothing_else
        nobody_sends_anothers_deliveries_again
        an_end_that_is_none_any_more_is_not_reported_again
        ends_of_the_same_moment_are_told_apart
        the_report_of_a_cancelled_job_is_sent_again;
    outbox:
        deliveries_are_due_in_order
        endpoints_take_turns_and_so_do_their_hosts
        a_host_gets_no_more_than_its_share
        sizes_count_as_they_are
        a_host_that_does_not_answer_is_left_alone
        what_waits_for_such_a_host_for_an_hour_is_held
        a_host_that_is_gone_for_good_is_cleared_step_by_step
        what_is_due_later_hides_nothing;
    delivery_lists:
        deliveries_are_paged_newest_first
        deliveries_are_found_by_their_state_and_job
        deliveries_are_found_by_when_their_job_ended
        a_search_for_rare_deliveries_goes_step_by_step;
    secrets:
        the_newest_secret_is_first_and_the_one_before_ends
        secrets_made_in_one_moment_are_told_apart
        endpoints_have_secrets_of_their_own;
    endpoints:
        a_release_is_the_same_until_another_comes
        changed_settings_are_kept_until_they_are_taken_back;
    charges:
        a_server_by_itself_is_in_charge_of_everything
        who_is_in_charge_may_start_workers;
    keys:
        keys_are_kept_and_listed_by_age
        a_key_is_revoked_once
        an_unknown_key_cannot_be_revoked;
}
