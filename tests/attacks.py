"""What somebody would try who wants a token, a tool or a silence that is not theirs, and what shows that
it does not work. `docs/threats.md` is the reader's side of it."""

from dataclasses import dataclass

ASSURANCE = "tests/test_assurance.py::"
ASSURANCE_CHILDREN = "tests/test_assurance_of_children.py::"
AUTHENTICATE = "tests/test_authenticate.py::"
BACKENDS = "tests/backends/test_http.py::"
BAD_INPUT = "tests/server/test_bad_input.py::"
BOUNDS = "tests/server/test_bounds.py::"
CALL = "tests/test_call.py::"
CALLS = "tests/server/test_calls_over_http.py::"
CATALOG = "tests/test_tools_toml.py::"
CHAIN = "tests/test_chain.py::"
CHECK = "tests/server/test_check.py::"
CLI_LOG = "tests/test_cli_log.py::"
CLOCK = "tests/test_clock.py::"
DELEGATE = "tests/server/test_delegate_tool.py::"
DELEGATION = "tests/test_delegation.py::"
DELEGATION_ATTACKS = "tests/test_delegation_attacks.py::"
DELEGATION_LAWS = "tests/test_delegation_laws.py::"
DELEGATION_RATES = "tests/test_delegation_rates.py::"
DELEGATION_VECTORS = "tests/test_delegation_vectors.py::"
DOORS = "tests/server/test_doors.py::"
DPOP = "tests/server/test_dpop_doors.py::"
DPOP_KIT = "tests/kit/test_dpop_kit.py::"
ENDPOINT = "tests/server/oauth/test_token_endpoint.py::"
ENDPOINT_CHILDREN = "tests/server/oauth/test_token_children.py::"
ENDPOINT_CLIENTS = "tests/server/oauth/test_token_clients.py::"
ENDPOINT_TXN = "tests/server/oauth/test_token_txn.py::"
FORM = "tests/server/oauth/test_token_form.py::"
ENDPOINT_TURNS = "tests/server/oauth/test_token_turns.py::"
GATE = "tests/server/test_gate.py::"
HIDDEN = "tests/server/test_hidden_tools.py::"
IDENTITIES = "tests/test_identities.py::"
IDENTITY_ASSERTION = "tests/server/test_identity_assertion.py::"
INTROSPECT = "tests/server/test_introspect.py::"
INTROSPECTION = "tests/test_introspection.py::"
ISSUE = "tests/test_issue.py::"
JWS = "tests/test_jws.py::"
KEYS = "tests/test_keys.py::"
KIT = "tests/kit/test_asgi.py::"
KIT_HTTP = "tests/kit/test_kit_over_http.py::"
LIVE = "tests/server/test_live_catalog.py::"
OPENAPI = "tests/server/test_openapi.py::"
PEER_ASSERTION = "tests/peers/test_oauth_assertion.py::"
PEER_DPOP = "tests/peers/test_oauth_dpop.py::"
PEER_JSON = "tests/peers/test_json.py::"
POLICY = "tests/test_policy.py::"
REQUEST = "tests/test_request.py::"
REVOCATION_BELOW = "tests/server/oauth/test_revocation_below.py::"
REVOKE = "tests/server/test_revoke.py::"
KINDS = "tests/server/test_kinds_of_tokens.py::"
SCHEMA = "tests/test_schema.py::"
SECRETS = "tests/test_secrets.py::"
SPENDS = "tests/kit/test_spends.py::"
STORE = "tests/store/test_store.py::"
SURVIVES = "tests/store/test_store_survives.py::"
SWAPS = "tests/server/test_two_sessions.py::"
TAMPERING = "tests/test_log_tampering.py::"
TOKEN = "tests/test_token.py::"
TREES = "tests/store/test_store_trees.py::"
TXN = "tests/test_txn_token.py::"
TXN_KIT = "tests/kit/test_txn_tokens.py::"
VERIFIER = "tests/kit/test_verifier.py::"
VERIFY = "tests/test_verify.py::"


@dataclass(frozen=True, slots=True)
class Attack:
    """One way in, and the tests that try it.

    Attributes:
        number: `T1` to `T28`; stable, for reviewers to refer to.
        name: in a few words.
        tests: `FILE::NAME`, from the folder of the repository.
    """

    number: str
    name: str
    tests: tuple[str, ...]


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "T1",
        "a credential or a token on the leg where it does not belong",
        (
            f"{CALLS}test_the_credential_and_the_tokens_are_in_no_output_no_log_and_no_result",
            f"{BACKENDS}test_the_wire_carries_the_planned_request_one_token_and_nothing_else",
            f"{BAD_INPUT}test_a_token_that_a_backend_echoes_reaches_neither_agent_nor_log",
            f"{BACKENDS}test_a_transaction_token_has_a_header_of_its_own_and_is_cut_from_the_answer_as_well",
            f"{ENDPOINT_TXN}test_a_transaction_token_opens_no_session_anywhere",
            f"{IDENTITY_ASSERTION}test_an_assertion_is_no_bearer_credential_and_works_once",
            f"{DELEGATE}test_a_claim_code_stands_in_no_file_and_on_no_stream_of_the_broker",
        ),
    ),
    Attack(
        "T2",
        "an algorithm of the attacker's choosing: none, a MAC with a public key, another key's, a JWE",
        (
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
            f"{VERIFY}test_a_key_signs_for_its_own_algorithm_and_for_no_other",
            f"{VERIFY}test_an_algorithm_that_is_not_allowed_here_is_refused_even_from_its_own_key",
            f"{ENDPOINT_CLIENTS}test_an_assertion_that_does_not_hold_is_refused_and_its_jti_is_not_used_up",
            f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",
        ),
    ),
    Attack(
        "T3",
        "a header that brings keys along, is critical, compressed, doubled, or of another kind of token",
        (
            f"{JWS}test_a_header_that_brings_keys_or_changes_the_rules_is_refused_from_anybody",
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
            f"{TOKEN}test_a_session_credential_is_no_call_token_and_a_call_token_is_no_credential",
            f"{KINDS}test_a_kind_of_token_opens_the_doors_that_it_is_for_and_no_other",
            f"{INTROSPECTION}test_a_signed_answer_is_for_who_asked_and_no_use_as_a_token",
            f"{IDENTITIES}test_an_assertion_is_no_credential_and_a_credential_is_no_assertion",
            f"{TXN}test_no_kind_of_token_is_taken_for_another",
            f"{CHECK}test_no_token_two_tokens_and_a_token_of_another_kind_are_refused",
        ),
    ),
    Attack(
        "T4",
        "claims that two parsers read differently, or that are almost the right ones",
        (
            f"{JWS}test_json_that_two_parsers_could_read_differently_is_refused",
            f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",
            f"{TOKEN}test_claims_of_any_other_shape_are_refused",
            f"{FORM}test_whatever_is_accepted_is_read_as_python_reads_it",
            f"{ENDPOINT}test_a_hostile_form_is_refused_and_recorded",
            f"{IDENTITIES}test_a_claim_meets_a_rule_to_the_letter_or_not_at_all",
            f"{TXN_KIT}test_a_token_that_the_broker_would_not_make_is_refused",
        ),
    ),
    Attack(
        "T5",
        "a spent token again: at its endpoint, another one, later, after a restart",
        (
            f"{KIT_HTTP}test_a_spend_outlives_a_restart_of_the_service",
            f"{KIT_HTTP}test_a_spend_outlives_a_kill",
            f"{VERIFIER}test_a_token_never_passes_for_another_request_than_its_own",
            f"{INTROSPECT}test_a_spend_outlives_a_kill_of_the_broker",
            f"{CHECK}test_another_request_with_the_token_is_refused_and_does_not_use_it_up",
            f"{CHECK}test_no_other_way_to_write_a_request_passes_with_the_token_of_this_one",
            f"{CHECK}test_behind_the_real_nginx_one_call_gets_through_and_a_thief_does_not",
            f"{DPOP}test_a_stolen_bound_credential_is_worth_nothing_at_any_door",
            f"{DPOP}test_after_a_restart_old_proofs_are_worth_nothing",
            f"{DPOP_KIT}test_a_bound_token_is_refused_without_its_proof_and_not_spent_by_that",
        ),
    ),
    Attack(
        "T6",
        "a token of one broker or backend at another",
        (
            f"{CHECK}test_a_gateway_that_is_not_the_backends_lets_nothing_pass",
            f"{VERIFIER}test_two_brokers_do_not_take_each_others_tokens",
            "tests/kit/test_sample_backends.py::test_a_token_for_orders_is_worthless_at_the_warehouse",
            f"{INTROSPECT}test_only_a_backend_that_proves_who_it_is_is_told_anything",
            f"{PEER_ASSERTION}test_an_assertion_for_another_server_or_client_or_of_another_time_opens_nothing",
        ),
    ),
    Attack(
        "T7",
        "many spends of one token at once",
        (
            f"{SPENDS}test_eight_processes_that_race_for_each_token_have_one_winner_and_a_naive_check_has_more",
            f"{KIT}test_a_hundred_at_once_with_one_token_reach_the_app_once",
            f"{INTROSPECT}test_two_hundred_racing_spends_over_http_have_exactly_one_winner",
            f"{INTROSPECT}test_racing_spends_with_ids_of_their_own_have_one_winner_and_an_id_is_of_one_token",
            f"{DPOP}test_a_proof_that_is_shown_many_times_at_once_is_good_once",
            f"{ENDPOINT_CLIENTS}test_of_racing_uses_of_one_assertion_exactly_one_wins",
            f"{IDENTITIES}test_an_assertion_opens_one_session_and_racing_ones_have_one_winner",
            f"{DELEGATION}test_one_claim_code_shown_by_many_at_once_opens_one_session",
        ),
    ),
    Attack(
        "T8",
        "a crash between the spend and the work; a clock set back to revive what was forgotten",
        (
            f"{KIT}test_the_token_is_marked_before_the_work_is_begun",
            f"{INTROSPECT}test_a_token_whose_delegation_this_log_does_not_have_is_not_good",
            f"{INTROSPECT}test_a_lost_answer_is_given_again_to_the_same_backend_for_the_same_request",
            f"{STORE}test_a_clock_that_jumps_forward_and_back_brings_no_spent_token_to_life",
            f"{CLOCK}test_no_jumps_of_the_clock_make_a_token_good_twice_or_a_session_outlive_its_end",
            f"{INTROSPECT}test_a_spend_outlives_a_kill_of_the_broker",
            f"{DPOP}test_a_proof_is_not_forgotten_while_its_nonce_is_taken",
        ),
    ),
    Attack(
        "T9",
        "a forged, edited, circular or endless chain of actors",
        (
            f"{CHAIN}test_an_act_claim_that_does_not_name_actors_is_refused_and_never_shortened",
            f"{CHAIN}test_nobody_stands_twice_in_a_chain",
            f"{POLICY}test_only_the_outermost_actor_counts",
            f"{TOKEN}test_no_inner_actor_changes_what_a_token_is_good_for",
            f"{DELEGATION}test_a_chain_that_would_be_too_long_is_refused_and_never_cut",
            f"{DELEGATION}test_an_actor_that_acts_for_somebody_else_is_refused",
            f"{DELEGATION_VECTORS}test_a_may_act_that_is_absent_or_says_something_else_lets_nobody_act",
            f"{IDENTITIES}test_who_may_act_is_read_with_the_issuers_names_where_it_names_no_other",
            f"{ENDPOINT_CHILDREN}test_an_impersonation_is_for_whom_a_rule_names_and_for_nobody_else",
            f"{TXN}test_a_replacement_keeps_the_transaction_and_every_workload_and_widens_nothing",
            f"{DELEGATION_ATTACKS}test_a_may_act_is_for_nobody_else_whatever_a_rule_says",
        ),
    ),
    Attack(
        "T10",
        "more rights, time or assurance from an exchange than there were before it",
        (
            f"{POLICY}test_with_a_role_or_a_grant_less_or_a_condition_more_no_more_is_allowed",
            f"{DELEGATION_LAWS}test_a_child_never_has_what_an_ancestor_lacks_in_memory",
            f"{DELEGATION_LAWS}test_a_child_never_has_what_an_ancestor_lacks_in_sqlite",
            f"{ENDPOINT_CHILDREN}test_the_child_never_has_what_its_parent_lacks",
            f"{DELEGATION}test_nothing_is_handed_on_that_no_rule_allows",
            f"{DELEGATION}test_a_condition_that_limits_nothing_or_could_be_slow_is_refused",
            f"{DELEGATION}test_a_session_that_narrows_itself_without_end_is_stopped",
            f"{DELEGATION_RATES}test_all_children_and_their_parent_together_have_the_parents_allowance",
            f"{DELEGATION}test_no_child_outlives_what_it_is_a_part_of",
            f"{ASSURANCE}test_no_claim_is_worth_more_than_the_table_says",
            f"{ASSURANCE_CHILDREN}test_no_child_is_more_assured_than_the_first_session",
            f"{TXN}test_however_often_it_is_replaced_it_only_shrinks",
            f"{IDENTITIES}test_scopes_that_were_not_asked_for_give_no_role_and_others_are_refused",
            f"{DELEGATION_ATTACKS}test_what_an_issuer_said_of_the_assurance_means_for_a_child_what_it_means_now",
            f"{DELEGATION_ATTACKS}test_an_issuers_name_that_is_given_to_another_one_gives_its_people_nothing",
            f"{DELEGATION_ATTACKS}test_a_condition_on_an_argument_that_has_another_name_now_lets_nothing_through",
            f"{ENDPOINT_TURNS}test_a_child_has_no_turn_that_its_parent_lacks",
        ),
    ),
    Attack(
        "T11",
        "clocks that differ, jump, or are set back",
        (
            f"{VERIFIER}test_the_clocks_may_differ_by_the_leeway_and_no_more",
            f"{CLOCK}test_an_hour_forward_and_an_hour_back_costs_calls_and_brings_none",
            f"{ISSUE}test_a_clock_that_is_set_back_gives_no_call_more",
            f"{DPOP}test_a_clock_that_is_off_by_little_does_no_harm",
            f"{DPOP_KIT}test_a_proof_of_another_time_is_refused",
            f"{ASSURANCE}test_who_signed_in_max_age_ago_may_and_a_second_later_may_not",
        ),
    ),
    Attack(
        "T12",
        "one session's handles in the hands of another",
        (
            f"{SWAPS}test_an_mcp_session_id_is_unknown_to_everybody_else",
            f"{SWAPS}test_an_sse_session_takes_messages_from_nobody_else",
            f"{SWAPS}test_nobody_cancels_somebody_elses_call",
            f"{DELEGATION}test_a_claim_code_is_nobody_elses_and_a_stranger_does_not_use_it_up",
            f"{DELEGATION}test_one_claim_code_shown_by_many_at_once_opens_one_session",
            f"{DELEGATION}test_another_tenants_agent_gets_nothing",
            f"{IDENTITIES}test_the_same_names_in_two_tenants_never_mix",
            f"{ENDPOINT_CLIENTS}test_a_session_is_no_good_in_the_hands_of_another_client",
            f"{DELEGATION}test_an_actor_that_acts_for_somebody_else_is_refused",
            f"{DPOP}test_a_proof_is_for_one_request_with_one_credential",
            f"{TXN_KIT}test_the_middleware_demands_the_transaction_token_of_the_same_call",
        ),
    ),
    Attack(
        "T13",
        "a tools.toml that means something else than it seems to, or is half written",
        (
            f"{CATALOG}test_a_hostile_file_is_told_every_mistake_with_its_line_its_key_and_the_nearest_name",
            f"{LIVE}test_a_catalog_that_cannot_be_used_leaves_the_old_one_and_tells_why_once",
        ),
    ),
    Attack(
        "T14",
        "an argument that leads the request elsewhere",
        (
            f"{REQUEST}test_a_value_that_could_leave_its_segment_is_refused",
            f"{REQUEST}test_the_url_differs_from_its_template_inside_one_segment_only",
            f"{BACKENDS}test_no_redirect_is_followed_or_repeated",
            f"{DPOP}test_the_host_that_a_request_names_has_no_say_in_its_url",
            f"{IDENTITIES}test_a_discovery_document_that_is_not_the_issuers_own_gives_no_keys",
            f"{IDENTITIES}test_no_issuer_elsewhere_sends_the_broker_to_what_listens_in_clear_or_here",
            f"{INTROSPECTION}test_a_target_that_is_taken_is_one_that_a_request_line_can_hold",
        ),
    ),
    Attack(
        "T15",
        "headers and line ends in values, and requests inside of requests",
        (
            f"{CALLS}test_a_name_with_line_breaks_is_a_tool_that_is_not_there",
            f"{KIT_HTTP}test_a_body_with_two_lengths_is_no_request",
            f"{BACKENDS}test_a_declared_header_cannot_stand_beside_the_token",
            f"{CHECK}test_a_name_is_no_place_for_a_line_end",
            f"{CHECK}test_a_request_that_is_told_twice_is_refused",
        ),
    ),
    Attack(
        "T16",
        "arguments that the broker and the backend read differently",
        (
            f"{BAD_INPUT}test_of_members_that_stand_twice_the_backend_gets_the_one_that_was_decided_on",
            f"{DOORS}test_a_body_that_speaks_of_another_tool_than_its_header_is_refused",
            f"{REQUEST}test_what_json_cannot_say_alike_everywhere_is_refused",
            f"{PEER_JSON}test_whatever_our_parser_takes_v8_takes_too_and_reads_as_the_same_value",
            f"{ENDPOINT}test_details_that_are_not_so_are_refused",
            f"{INTROSPECT}test_what_a_backend_tells_of_the_request_is_held_against_the_token",
            f"{CHECK}test_a_body_that_is_not_shown_whole_is_not_let_pass",
        ),
    ),
    Attack(
        "T17",
        "lines forged in the log or on a reviewer's terminal; secrets in what is left behind",
        (
            f"{CLI_LOG}test_a_hostile_name_is_harmless_on_a_terminal_and_whole_in_json",
            f"{SECRETS}test_no_secret_is_in_anything_that_a_life_leaves_behind",
            f"{SECRETS}test_what_is_handed_out_by_design_is_in_the_one_place_that_is_for_it",
            f"{DELEGATION}test_neither_a_claim_code_nor_a_credential_is_in_the_log_or_in_a_repr",
            f"{FORM}test_no_repr_shows_a_value",
        ),
    ),
    Attack(
        "T18",
        "a log edited, cut, rolled back, swapped or hashed anew",
        (
            f"{TAMPERING}test_the_matrix",
            f"{TAMPERING}test_any_one_change_of_a_record_is_found_and_the_record_is_named",
        ),
    ),
    Attack(
        "T19",
        "a log that cannot be written",
        (
            f"{CALL}test_while_the_log_cannot_be_written_no_backend_is_called",
            f"{SURVIVES}test_a_full_disk_refuses_and_comes_back_by_itself",
            f"{DELEGATION}test_nothing_is_handed_on_that_cannot_be_recorded",
            f"{INTROSPECT}test_while_the_log_cannot_be_written_nothing_is_told_and_nothing_is_spent",
        ),
    ),
    Attack(
        "T20",
        "a kill or a power cut in the middle of a commit",
        (
            f"{SURVIVES}test_no_acknowledged_record_is_lost_when_the_process_is_killed",
            f"{SURVIVES}test_no_acknowledged_record_is_lost_when_the_power_goes",
        ),
    ),
    Attack(
        "T21",
        "floods: bodies, answers, patterns, schemas, sessions, keys",
        (
            f"{BOUNDS}test_a_body_that_does_not_come_is_not_waited_for",
            f"{BAD_INPUT}test_a_dozen_endless_answers_at_once_take_little_memory_and_hold_nobody_up",
            f"{SCHEMA}test_no_text_keeps_a_pattern_busy",
            f"{SCHEMA}test_what_could_go_on_for_ever_is_a_mistake",
            f"{AUTHENTICATE}test_recognised_credentials_are_bounded",
            f"{ENDPOINT}test_a_body_that_is_too_large_is_not_read_to_its_end",
            f"{OPENAPI}test_schemathesis_finds_no_answer_that_the_description_does_not_have",
            f"{DELEGATION}test_a_session_that_narrows_itself_without_end_is_stopped",
        ),
    ),
    Attack(
        "T22",
        "a web page that speaks to a broker on this machine",
        (
            f"{DOORS}test_a_page_in_a_browser_gets_nowhere_even_with_a_credential",
            f"{DOORS}test_a_form_that_a_page_can_send_without_asking_is_refused",
        ),
    ),
    Attack(
        "T23",
        "a tool that changes after it was looked at, or looks like another",
        (
            f"{CATALOG}test_a_hostile_file_is_told_every_mistake_with_its_line_its_key_and_the_nearest_name",
            f"{LIVE}test_a_changed_file_is_in_force_after_the_beat_and_named_in_the_log",
            f"{DELEGATE}test_the_tool_comes_and_goes_with_the_rule",
            f"{INTROSPECT}test_a_tool_that_is_not_declared_any_more_takes_its_tokens_along",
        ),
    ),
    Attack(
        "T24",
        "calls after a revocation, or at the same moment",
        (
            f"{ISSUE}test_a_revocation_among_many_calls_at_once_divides_them_cleanly",
            f"{AUTHENTICATE}test_a_revoked_session_is_refused_a_moment_later_and_after_a_restart",
            f"{DELEGATION}test_a_child_ends_at_once_with_what_it_is_a_part_of",
            f"{AUTHENTICATE}test_whoever_is_revoked_by_name_opens_no_session_with_another_credential",
            f"{TREES}test_revoking_any_session_refuses_it_and_all_below_and_no_other",
            f"{TREES}test_a_name_reaches_all_that_bear_it_and_all_below_also_what_opens_later",
            f"{SURVIVES}test_no_process_calls_once_more_after_another_has_revoked",
            f"{SPENDS}test_a_token_of_a_revoked_session_is_dead_where_the_file_is_the_brokers_own",
            f"{REVOCATION_BELOW}test_what_is_revoked_above_a_child_ends_its_unspent_tokens_and_its_next_call_everywhere",
            f"{CHECK}test_a_token_of_a_revoked_session_lets_nothing_pass",
            f"{DPOP}test_a_revoked_bound_session_is_refused_whatever_it_proves",
            f"{TXN}test_a_session_that_was_revoked_makes_none_and_replaces_none",
            f"{IDENTITIES}test_a_session_ends_where_its_issuer_is_declared_no_more_or_for_another_tenant",
        ),
    ),
    Attack(
        "T25",
        "well-formed arguments that somebody talked the agent into",
        (
            f"{POLICY}test_nothing_is_allowed_without_a_living_grant_that_names_the_tool_and_covers_the_arguments",
            f"{ISSUE}test_a_rate_is_exact_however_many_calls_race",
            f"{ENDPOINT}test_policy_says_no_as_it_does_to_a_call",
            f"{DELEGATION}test_a_condition_can_only_take_away",
            f"{ASSURANCE}test_a_session_that_does_not_say_when_is_never_fresh",
            f"{IDENTITIES}test_a_ci_job_becomes_one_narrow_session_and_a_fork_gets_nothing",
        ),
    ),
    Attack(
        "T26",
        "an answer that brings the token back, is endless, or is not what was declared",
        (
            f"{BACKENDS}test_an_echoed_token_is_cut_and_all_else_is_kept",
            f"{BACKENDS}test_a_flood_is_refused_at_the_bound_and_not_read_to_its_end",
            f"{BACKENDS}test_an_answer_is_what_the_tool_declares_or_none",
            f"{BACKENDS}test_a_transaction_token_has_a_header_of_its_own_and_is_cut_from_the_answer_as_well",
        ),
    ),
    Attack(
        "T27",
        "answers that tell apart what nobody should be able to",
        (
            f"{HIDDEN}test_nothing_that_an_agent_is_sent_tells_a_hidden_tool_from_one_that_there_is_not",
            f"{HIDDEN}test_the_form_of_an_answer_does_not_tell_them_apart_either",
            f"{KIT}test_a_bad_token_is_answered_like_a_spent_one",
            f"{ENDPOINT}test_whatever_is_wrong_with_the_subject_token_is_one_answer",
            f"{ENDPOINT}test_a_tool_of_others_and_one_that_is_not_there_are_one_answer",
            f"{ENDPOINT_CHILDREN}test_whoever_has_a_code_or_none_hears_nothing_of_which_backends_there_are",
            f"{ENDPOINT_CLIENTS}test_a_wrong_secret_is_told_with_the_scheme_and_without_the_reason",
            f"{INTROSPECT}test_whatever_is_wrong_with_a_token_its_backend_hears_the_same_and_the_log_says_what",
            f"{REVOKE}test_nobody_else_revokes_a_call_token_and_nobody_hears_whether_it_was_one",
            f"{DELEGATE}test_a_claim_code_is_redeemed_at_the_token_endpoint_by_its_agent_alone",
            f"{IDENTITY_ASSERTION}test_the_sdks_client_hears_invalid_grant_and_the_log_has_the_reason",
        ),
    ),
    Attack(
        "T28",
        "keys that others can read, that lie about, or that should be gone",
        (
            f"{KEYS}test_a_file_that_others_may_read_is_refused",
            f"{KEYS}test_the_jwk_set_holds_public_members_only",
            f"{KEYS}test_a_retired_key_stays_until_no_call_token_of_it_can_be_alive",
            f"{VERIFY}test_a_key_set_that_cannot_be_trusted_is_refused_whole",
            f"{DELEGATION}test_the_key_of_a_childs_credential_is_published_as_long_as_the_child_lives",
            f"{ENDPOINT_CLIENTS}test_keys_that_cannot_be_had_are_no_reason_to_throw_a_client_out",
            f"{PEER_DPOP}test_a_bound_session_is_worth_nothing_as_bearer_or_with_another_key",
        ),
    ),
)
