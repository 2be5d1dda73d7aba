"""What somebody would try who wants a token, a tool or a silence that is not theirs, and what shows that
it does not work. `docs/threats.md` is the reader's side of it."""

from dataclasses import dataclass

AUTHENTICATE = "tests/test_authenticate.py::"
BACKENDS = "tests/backends/test_http.py::"
BAD_INPUT = "tests/server/test_bad_input.py::"
BOUNDS = "tests/server/test_bounds.py::"
CALL = "tests/test_call.py::"
CALLS = "tests/server/test_calls_over_http.py::"
CATALOG = "tests/test_tools_toml.py::"
CHAIN = "tests/test_chain.py::"
CLI_LOG = "tests/test_cli_log.py::"
CLOCK = "tests/test_clock.py::"
DELEGATION = "tests/test_delegation.py::"
DELEGATION_LAWS = "tests/test_delegation_laws.py::"
DELEGATION_VECTORS = "tests/test_delegation_vectors.py::"
DOORS = "tests/server/test_doors.py::"
ENDPOINT = "tests/server/oauth/test_token_endpoint.py::"
ENDPOINT_CHILDREN = "tests/server/oauth/test_token_children.py::"
ENDPOINT_CLIENTS = "tests/server/oauth/test_token_clients.py::"
GATE = "tests/server/test_gate.py::"
HIDDEN = "tests/server/test_hidden_tools.py::"
ISSUE = "tests/test_issue.py::"
JWS = "tests/test_jws.py::"
KEYS = "tests/test_keys.py::"
KIT = "tests/kit/test_asgi.py::"
KIT_HTTP = "tests/kit/test_kit_over_http.py::"
LIVE = "tests/server/test_live_catalog.py::"
POLICY = "tests/test_policy.py::"
PEER_JSON = "tests/peers/test_json.py::"
REQUEST = "tests/test_request.py::"
SCHEMA = "tests/test_schema.py::"
SECRETS = "tests/test_secrets.py::"
SPENDS = "tests/kit/test_spends.py::"
STORE = "tests/store/test_store.py::"
SURVIVES = "tests/store/test_store_survives.py::"
SWAPS = "tests/server/test_two_sessions.py::"
TAMPERING = "tests/test_log_tampering.py::"
TOKEN = "tests/test_token.py::"
TREES = "tests/store/test_store_trees.py::"
VERIFIER = "tests/kit/test_verifier.py::"
VERIFY = "tests/test_verify.py::"
CHECK = "tests/server/test_check.py::"
INTROSPECT = "tests/server/test_introspect.py::"
REVOKE = "tests/server/test_revoke.py::"


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
        ),
    ),
    Attack(
        "T2",
        "an algorithm of the attacker's choosing: none, a MAC with a public key, another key's, a JWE",
        (
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
            f"{VERIFY}test_a_key_signs_for_its_own_algorithm_and_for_no_other",
            f"{VERIFY}test_an_algorithm_that_is_not_allowed_here_is_refused_even_from_its_own_key",
        ),
    ),
    Attack(
        "T3",
        "a header that brings keys along, is critical, compressed, doubled, or of another kind of token",
        (
            f"{JWS}test_a_header_that_brings_keys_or_changes_the_rules_is_refused_from_anybody",
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
            f"{TOKEN}test_a_session_credential_is_no_call_token_and_a_call_token_is_no_credential",
        ),
    ),
    Attack(
        "T4",
        "claims that two parsers read differently, or that are almost the right ones",
        (
            f"{JWS}test_json_that_two_parsers_could_read_differently_is_refused",
            f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",
            f"{TOKEN}test_claims_of_any_other_shape_are_refused",
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
            f"{CHECK}test_behind_the_real_nginx_one_call_gets_through_and_a_thief_does_not",
        ),
    ),
    Attack(
        "T6",
        "a token of one broker or backend at another",
        (
            f"{CHECK}test_a_gateway_that_is_not_the_backends_lets_nothing_pass",
            f"{VERIFIER}test_two_brokers_do_not_take_each_others_tokens",
            "tests/kit/test_sample_backends.py::test_a_token_for_orders_is_worthless_at_the_warehouse",
        ),
    ),
    Attack(
        "T7",
        "many spends of one token at once",
        (
            f"{SPENDS}test_eight_processes_that_race_for_each_token_have_one_winner_and_a_naive_check_has_more",
            f"{KIT}test_a_hundred_at_once_with_one_token_reach_the_app_once",
            f"{INTROSPECT}test_two_hundred_racing_spends_over_http_have_exactly_one_winner",
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
        ),
    ),
    Attack(
        "T11",
        "clocks that differ, jump, or are set back",
        (
            f"{VERIFIER}test_the_clocks_may_differ_by_the_leeway_and_no_more",
            f"{CLOCK}test_an_hour_forward_and_an_hour_back_costs_calls_and_brings_none",
            f"{ISSUE}test_a_clock_that_is_set_back_gives_no_call_more",
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
        ),
    ),
    Attack(
        "T15",
        "headers and line ends in values, and requests inside of requests",
        (
            f"{CALLS}test_a_name_with_line_breaks_is_a_tool_that_is_not_there",
            f"{KIT_HTTP}test_a_body_with_two_lengths_is_no_request",
            f"{BACKENDS}test_a_declared_header_cannot_stand_beside_the_token",
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
        ),
    ),
    Attack(
        "T17",
        "lines forged in the log or on a reviewer's terminal; secrets in what is left behind",
        (
            f"{CLI_LOG}test_a_hostile_name_is_harmless_on_a_terminal_and_whole_in_json",
            f"{SECRETS}test_no_secret_is_in_anything_that_a_life_leaves_behind",
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
        ),
    ),
    Attack(
        "T25",
        "well-formed arguments that somebody talked the agent into",
        (
            f"{POLICY}test_nothing_is_allowed_without_a_living_grant_that_names_the_tool_and_covers_the_arguments",
            f"{ISSUE}test_a_rate_is_exact_however_many_calls_race",
        ),
    ),
    Attack(
        "T26",
        "an answer that brings the token back, is endless, or is not what was declared",
        (
            f"{BACKENDS}test_an_echoed_token_is_cut_and_all_else_is_kept",
            f"{BACKENDS}test_a_flood_is_refused_at_the_bound_and_not_read_to_its_end",
            f"{BACKENDS}test_an_answer_is_what_the_tool_declares_or_none",
        ),
    ),
    Attack(
        "T27",
        "answers that tell apart what nobody should be able to",
        (
            f"{HIDDEN}test_nothing_that_an_agent_is_sent_tells_a_hidden_tool_from_one_that_there_is_not",
            f"{KIT}test_a_bad_token_is_answered_like_a_spent_one",
            f"{ENDPOINT}test_whatever_is_wrong_with_the_subject_token_is_one_answer",
            f"{ENDPOINT}test_a_tool_of_others_and_one_that_is_not_there_are_one_answer",
            f"{ENDPOINT_CLIENTS}test_a_wrong_secret_is_told_with_the_scheme_and_without_the_reason",
            f"{INTROSPECT}test_whatever_is_wrong_with_a_token_its_backend_hears_the_same_and_the_log_says_what",
            f"{REVOKE}test_nobody_else_revokes_a_call_token_and_nobody_hears_whether_it_was_one",
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
        ),
    ),
)
