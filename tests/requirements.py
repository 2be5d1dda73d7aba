"""The clauses of standards that this project claims to keep, and the tests that show each of them.

Nothing else is claimed.
"""

from dataclasses import dataclass

ANCHORS = "tests/test_anchors.py::"
ASSURANCE = "tests/test_assurance.py::"
AUTHENTICATE = "tests/test_authenticate.py::"
BAD_INPUT = "tests/server/test_bad_input.py::"
CALLS = "tests/server/test_calls_over_http.py::"
CANONICAL = "tests/test_canonical.py::"
CHAIN = "tests/test_chain.py::"
CHECK = "tests/server/test_check.py::"
CHECKPOINT = "tests/test_checkpoint.py::"
COSIGNATURE = "tests/test_cosignature.py::"
DELEGATION = "tests/test_delegation.py::"
DELEGATION_LAWS = "tests/test_delegation_laws.py::"
DELEGATION_VECTORS = "tests/test_delegation_vectors.py::"
DELEGATE_TOOL = "tests/server/test_delegate_tool.py::"
DOORS = "tests/server/test_doors.py::"
ENDPOINT = "tests/server/oauth/test_token_endpoint.py::"
ENDPOINT_CHILDREN = "tests/server/oauth/test_token_children.py::"
ENDPOINT_CLIENTS = "tests/server/oauth/test_token_clients.py::"
EXAMPLES_8693 = "tests/server/oauth/test_rfc8693_examples.py::"
EXCHANGE = "tests/test_exchange.py::"
DPOP = "tests/test_dpop.py::"
DPOP_BACKEND = "tests/server/test_dpop_backend.py::"
DPOP_DOORS = "tests/server/test_dpop_doors.py::"
DPOP_KIT = "tests/kit/test_dpop_kit.py::"
GATE = "tests/server/test_gate.py::"
HTTP = "tests/backends/test_http.py::"
INTROSPECT = "tests/server/test_introspect.py::"
INTROSPECTION = "tests/test_introspection.py::"
IDENTITIES = "tests/test_identities.py::"
IDENTITY_ASSERTION = "tests/server/test_identity_assertion.py::"
ISSUE = "tests/test_issue.py::"
JWKS = "tests/test_jwks.py::"
JWS = "tests/test_jws.py::"
KEYS = "tests/test_keys.py::"
KIT = "tests/kit/test_asgi.py::"
LISTS = "tests/server/test_list_changes.py::"
MERKLE = "tests/test_merkle.py::"
PEER_ASSERTION = "tests/peers/test_oauth_assertion.py::"
PEER_DELEGATION = "tests/peers/test_oauth_delegation.py::"
PEER_DPOP = "tests/peers/test_oauth_dpop.py::"
PEER_EXCHANGE = "tests/peers/test_oauth_exchange.py::"
PEER_INTROSPECTION = "tests/peers/test_oauth_introspection.py::"
PEER_JSON = "tests/peers/test_json.py::"
PEER_KIT = "tests/peers/test_oauth_kit.py::"
PEER_METADATA = "tests/peers/test_oauth_metadata.py::"
PEER_RSYSLOG = "tests/peers/test_rsyslog.py::"
PEER_STEP_UP = "tests/peers/test_oauth_step_up.py::"
PEER_TXN = "tests/peers/test_oauth_txn_token.py::"
POLICY = "tests/test_policy.py::"
RECORD = "tests/test_record.py::"
REQUEST = "tests/test_request.py::"
REVOKE = "tests/server/test_revoke.py::"
REQUIREMENTS_TEST = "tests/test_requirements.py::"
SECRETS = "tests/test_secrets.py::"
STEP_UP = "tests/server/test_step_up.py::"
STDIO = "tests/server/test_stdio_process.py::"
SYSLOG_LINE = "tests/test_syslog_line.py::"
SYSLOG_OUT = "tests/exports/test_syslog_receivers.py::"
WEBHOOK_OUT = "tests/exports/test_webhook.py::"
SWAPS = "tests/server/test_two_sessions.py::"
TOKEN = "tests/test_token.py::"
TXN = "tests/test_txn_token.py::"
TXN_DOOR = "tests/server/oauth/test_token_txn.py::"
TXN_KIT = "tests/kit/test_txn_tokens.py::"
VERIFIER = "tests/kit/test_verifier.py::"
VERIFY = "tests/test_verify.py::"
WITNESS = "tests/test_witness.py::"
WITNESS_DOOR = "tests/server/test_witness_door.py::"


@dataclass(frozen=True, slots=True)
class Clause:
    """What a standard asks for, in our words, and where it is shown.

    Attributes:
        standard: as it is named in documents and comments: `RFC 9068`.
        section: of that standard; empty where the whole of it is meant.
        tests: `FILE::NAME`, from the folder of the repository.
    """

    standard: str
    section: str
    says: str
    tests: tuple[str, ...]


_BAD_PROOFS = (
    f"{DPOP}test_a_proof_with_one_thing_wrong_is_refused_for_just_that",
    f"{DPOP_DOORS}test_a_proof_with_one_thing_wrong_opens_no_door_and_is_recorded",
    f"{DPOP_KIT}test_a_proof_with_one_thing_wrong_spends_nothing",
)

REQUIREMENTS: tuple[Clause, ...] = (
    *(
        Clause("RFC 9449", f"4.3, {number}", says, _BAD_PROOFS)
        for number, says in enumerate(
            (
                "There is one DPoP header.",
                "It is one well-formed JWT.",
                "The claims jti, htm, htu and iat are there, and of their types.",
                "`typ` is dpop+jwt.",
                "`alg` is an asymmetric algorithm that is taken, and never none.",
                "The signature holds under the key in the header.",
                "That key has no private part.",
                "`htm` is the method of the request.",
                "`htu` is the URL of the request, without query and fragment.",
                "The nonce is one that was given out.",
                "It was made within the window.",
                "`ath` is the hash of the token, which is bound to this very key.",
            ),
            start=1,
        )
    ),
    Clause(
        "RFC 9449",
        "4.3",
        "URLs are compared as RFC 3986 normalises them.",
        (
            f"{DPOP}test_a_url_has_one_form_however_it_is_spelled",
            f"{DPOP}test_urls_that_differ_in_anything_else_stay_apart",
        ),
    ),
    Clause(
        "RFC 9449",
        "9",
        "A backend that asks for a nonce of its own gets the request once more, with that nonce.",
        (f"{DPOP_BACKEND}test_a_backend_that_asks_for_its_own_nonce_gets_one_more_request_and_one_spend",),
    ),
    Clause(
        "RFC 9449",
        "7",
        "A call token that was stolen on its way to such a backend is worth nothing without the key.",
        (f"{DPOP_BACKEND}test_a_captured_token_is_refused_to_whoever_has_not_the_key_and_spent_by_nobody",),
    ),
    Clause(
        "RFC 9449",
        "6.1",
        "A key has one thumbprint, that of RFC 7638, however its JWK is written.",
        (f"{DPOP}test_one_key_has_one_thumbprint_however_its_jwk_is_written",),
    ),
    Clause(
        "RFC 9449",
        "7.1",
        "A bound credential is taken with the proof of its key for this request, and in no other way.",
        (f"{DPOP_DOORS}test_a_stolen_bound_credential_is_worth_nothing_at_any_door",),
    ),
    Clause(
        "RFC 9449",
        "9",
        "A proof without a nonce of ours is answered with `use_dpop_nonce` and one.",
        (f"{DPOP_DOORS}test_the_first_answer_asks_for_a_nonce_and_gives_it",),
    ),
    Clause(
        "RFC 9449",
        "11.1",
        "A proof is good once.",
        (f"{DPOP_DOORS}test_a_proof_that_is_shown_many_times_at_once_is_good_once",),
    ),
    # ── The call token ──────────────────────────────────────────────────────
    Clause(
        "RFC 9068",
        "2.1",
        "The header has `typ: at+jwt`, and the signature is asymmetric.",
        (f"{TOKEN}test_a_token_says_exactly_what_the_design_says",),
    ),
    Clause(
        "RFC 9068",
        "2.2",
        "There are iss, exp, aud, sub, client_id, iat and jti.",
        (
            f"{TOKEN}test_a_token_says_exactly_what_the_design_says",
            f"{TOKEN}test_claims_of_any_other_shape_are_refused",
        ),
    ),
    Clause(
        "RFC 9068",
        "2.2.1",
        "acr, amr and auth_time are those of the authentication, never better ones.",
        (
            f"{TOKEN}test_claims_survive_the_trip_through_a_token",
            "tests/test_assurance_of_children.py::test_no_child_is_more_assured_than_the_first_session",
        ),
    ),
    Clause(
        "RFC 9068",
        "4",
        "A resource server takes no other `typ`, issuer or audience, and no token after exp.",
        (
            f"{PEER_METADATA}test_a_call_token_is_an_access_token_to_a_resource_server_of_others",
            f"{VERIFIER}test_a_token_with_a_bad_claim_is_refused_and_not_spent",
            f"{VERIFIER}test_a_forged_token_is_refused",
            f"{TOKEN}test_a_session_credential_is_no_call_token_and_a_call_token_is_no_credential",
            f"{VERIFIER}test_two_brokers_do_not_take_each_others_tokens",
        ),
    ),
    Clause(
        "RFC 9068",
        "5",
        "One resource a token, so that a scope has one meaning.",
        (f"{TOKEN}test_a_token_is_for_nothing_but_its_own",),
    ),
    Clause(
        "RFC 8693",
        "4.1",
        "`act` names the actor; the outermost is the current one, the nested are history.",
        (
            f"{PEER_DELEGATION}test_a_child_session_calls_in_the_name_of_everybody_behind_it_and_ends_with_its_parent",
            f"{CHAIN}test_a_chain_survives_the_trip_through_the_act_claim",
            f"{CHAIN}test_the_outermost_actor_is_the_agent_and_inner_ones_are_history",
        ),
    ),
    Clause(
        "RFC 8693",
        "4.1",
        "Only top-level claims and the current actor count in a decision.",
        (
            f"{TOKEN}test_no_inner_actor_changes_what_a_token_is_good_for",
            f"{POLICY}test_only_the_outermost_actor_counts",
        ),
    ),
    Clause(
        "RFC 8693",
        "4.1",
        "Claims that name nobody (exp, nbf, aud) mean nothing inside `act`: refused there.",
        (f"{CHAIN}test_an_act_claim_that_does_not_name_actors_is_refused_and_never_shortened",),
    ),
    Clause(
        "RFC 8693",
        "4.2",
        "`scope` of a credential is a list of words with spaces between them.",
        (f"{AUTHENTICATE}test_a_role_is_given_exactly_where_a_rule_and_a_claim_meet",),
    ),
    Clause(
        "RFC 8693",
        "4.3",
        "`client_id` is the client that the token was asked for by: the current actor.",
        (
            f"{AUTHENTICATE}test_the_agent_is_the_outermost_actor_or_else_the_client",
            f"{TOKEN}test_a_workload_that_acts_for_itself_has_no_act_and_is_its_own_client",
        ),
    ),
    Clause(
        "RFC 8693",
        "1.1",
        "Delegation names the actor; impersonation does not, and only a rule by name allows it.",
        (
            f"{DELEGATION_VECTORS}test_the_delegation_of_the_appendix_is_what_the_appendix_says",
            f"{DELEGATION}test_a_client_speaks_for_nobody_unless_a_rule_names_both",
        ),
    ),
    Clause(
        "RFC 8693",
        "4.1",
        "A chain only grows in front, has a bound, and is refused beyond it, never cut.",
        (
            f"{DELEGATION_LAWS}test_a_child_never_has_what_an_ancestor_lacks_in_sqlite",
            f"{DELEGATION}test_a_chain_that_would_be_too_long_is_refused_and_never_cut",
        ),
    ),
    Clause(
        "RFC 8693",
        "4.4",
        "`may_act` lets the one that it names act, by `iss` and `sub`; it is not copied.",
        (
            f"{DELEGATION_VECTORS}test_a_may_act_that_is_absent_or_says_something_else_lets_nobody_act",
            f"{DELEGATION}test_the_childs_credential_carries_the_whole_chain_and_no_may_act",
            "tests/test_delegation_attacks.py::test_a_may_act_is_for_nobody_else_whatever_a_rule_says",
        ),
    ),
    Clause(
        "draft-asor-wimse-agent-delegation-chain",
        "",
        "Monotonic attenuation, bounded depth, monotonic expiry, an unchanging principal.",
        (
            f"{DELEGATION_LAWS}test_a_child_never_has_what_an_ancestor_lacks_in_memory",
            f"{DELEGATION_LAWS}test_a_child_never_has_what_an_ancestor_lacks_in_sqlite",
            f"{DELEGATION_LAWS}test_the_laws_are_asked_of_trees_as_deep_as_they_may_be",
        ),
    ),
    Clause(
        "RFC 8707",
        "2",
        "A token is for the one resource that it names, compared to the letter.",
        (
            f"{TOKEN}test_a_token_is_for_nothing_but_its_own",
            f"{BAD_INPUT}test_a_bad_credential_gets_401_with_a_challenge_and_leaves_one_record",
        ),
    ),
    Clause(
        "RFC 9396",
        "2",
        "authorization_details is an array of objects with a type; ours has one, of one type.",
        (
            f"{TOKEN}test_a_token_says_exactly_what_the_design_says",
            f"{TOKEN}test_claims_of_any_other_shape_are_refused",
        ),
    ),
    Clause(
        "RFC 9396",
        "9.1",
        "The details are in the token, and the resource server holds the request to them.",
        (
            f"{VERIFIER}test_a_token_is_for_one_request_to_the_byte",
            f"{VERIFIER}test_a_token_never_passes_for_another_request_than_its_own",
        ),
    ),
    # ── The token endpoint ──────────────────────────────────────────────────
    Clause(
        "RFC 8693",
        "2.1",
        "Each parameter is checked; the kind of an actor token is said if and only if there is one.",
        (
            f"{EXCHANGE}test_a_request_needs_a_subject_token_and_its_kind_and_nothing_else",
            f"{EXCHANGE}test_the_kind_of_an_actor_token_is_said_if_and_only_if_there_is_one",
            f"{ENDPOINT}test_each_parameter_may_be_said_as_the_standard_lets_it",
            f"{ENDPOINT}test_each_mistake_has_its_own_error_and_its_exact_record",
        ),
    ),
    Clause(
        "RFC 8693",
        "2.1.1",
        "A token is for one target; the product of several is never granted.",
        (
            f"{EXCHANGE}test_no_target_an_unknown_one_and_more_than_one_are_refused",
            f"{EXCHANGE}test_a_target_is_named_by_its_identifier_or_its_name_and_the_same_one_twice_is_one",
        ),
    ),
    Clause(
        "RFC 8693",
        "2.2.1",
        "The answer has the token, its kind, how it is used, its life and its scope; no refresh token.",
        (
            f"{PEER_EXCHANGE}test_a_client_of_others_gets_a_call_token_that_others_verify_and_the_backend_answers",
            f"{ENDPOINT}test_a_session_is_exchanged_for_a_token_for_one_call",
            f"{EXCHANGE}test_a_refresh_token_is_never_issued_and_a_kind_that_is_not_known_neither",
            f"{EXAMPLES_8693}test_an_answer_has_the_members_of_figure_2_and_its_token_lives_as_long_as_it_says",
        ),
    ),
    Clause(
        "RFC 8693",
        "2.2.2",
        "A subject or actor token that is bad for any reason is invalid_request; a target, invalid_target.",
        (
            f"{PEER_EXCHANGE}test_what_cannot_be_exchanged_is_refused_in_the_words_of_the_standard",
            f"{ENDPOINT}test_whatever_is_wrong_with_the_subject_token_is_one_answer",
            f"{ENDPOINT}test_each_mistake_has_its_own_error_and_its_exact_record",
            f"{ENDPOINT_CHILDREN}test_an_agent_that_no_rule_names_gets_nothing",
        ),
    ),
    Clause(
        "RFC 8693",
        "1.1",
        "Impersonation is refused unless a rule names client and subject, and is in the record.",
        (
            f"{EXAMPLES_8693}test_an_impersonation_is_refused_on_purpose_where_no_rule_names_it",
            f"{ENDPOINT_CHILDREN}test_an_impersonation_is_for_whom_a_rule_names_and_for_nobody_else",
        ),
    ),
    Clause(
        "RFC 8693",
        "2.3",
        "The example is read as it is meant: its form, its client, its target.",
        (
            f"{EXAMPLES_8693}test_the_form_of_figure_1_is_read_as_any_other_reader_reads_it",
            f"{EXAMPLES_8693}test_the_client_of_figure_1_proves_itself_and_its_opaque_token_opens_no_session_here",
        ),
    ),
    Clause(
        "RFC 6749",
        "2.3",
        "A client uses one way to authenticate in a request.",
        (f"{ENDPOINT_CLIENTS}test_two_ways_at_once_are_refused",),
    ),
    Clause(
        "RFC 6749",
        "2.3.1",
        "Name and secret are form-encoded, and never stand in the URL.",
        (
            f"{PEER_EXCHANGE}test_a_client_of_others_gets_a_call_token_that_others_verify_and_the_backend_answers",
            f"{ENDPOINT_CLIENTS}test_the_secret_is_form_encoded_first",
            f"{ENDPOINT}test_only_post_is_taken_and_nothing_in_the_url",
        ),
    ),
    Clause(
        "RFC 6749",
        "3.2",
        "POST alone; no parameter stands there twice; one without a value is as if left out.",
        (
            f"{ENDPOINT}test_only_post_is_taken_and_nothing_in_the_url",
            f"{ENDPOINT}test_a_hostile_form_is_refused_and_recorded",
            f"{ENDPOINT}test_each_parameter_may_be_said_as_the_standard_lets_it",
        ),
    ),
    Clause(
        "RFC 6749",
        "5.2",
        "Errors have their names; invalid_client is 401, and names the scheme that was tried.",
        (
            f"{PEER_EXCHANGE}test_a_client_that_does_not_prove_who_it_is_gets_no_token",
            f"{ENDPOINT}test_each_mistake_has_its_own_error_and_its_exact_record",
            f"{ENDPOINT_CLIENTS}test_a_wrong_secret_is_told_with_the_scheme_and_without_the_reason",
            f"{ENDPOINT_CLIENTS}test_a_session_is_no_good_in_the_hands_of_another_client",
        ),
    ),
    Clause(
        "RFC 7523",
        "3",
        "iss, sub, aud, exp and the signature of an assertion are checked, and its jti is taken once.",
        (
            f"{PEER_EXCHANGE}test_a_client_of_others_gets_a_call_token_that_others_verify_and_the_backend_answers",
            f"{ENDPOINT_CLIENTS}test_a_client_that_signs_proves_itself_once",
            f"{ENDPOINT_CLIENTS}test_of_racing_uses_of_one_assertion_exactly_one_wins",
            f"{ENDPOINT_CLIENTS}test_an_assertion_that_does_not_hold_is_refused_and_its_jti_is_not_used_up",
        ),
    ),
    Clause(
        "RFC 8707",
        "2",
        "A resource is an absolute URI without a fragment; else, or if it is not known, invalid_target.",
        (
            f"{EXCHANGE}test_a_resource_is_an_absolute_uri_without_a_fragment",
            f"{ENDPOINT}test_each_mistake_has_its_own_error_and_its_exact_record",
        ),
    ),
    Clause(
        "RFC 9396",
        "5",
        "An unknown type, an unknown member or a wrong value is invalid_authorization_details.",
        (
            f"{EXCHANGE}test_details_with_anything_unknown_or_missing_in_them_are_refused",
            f"{ENDPOINT}test_details_that_are_not_so_are_refused",
        ),
    ),
    Clause(
        "RFC 9396",
        "7",
        "The answer says what was granted.",
        (
            f"{ENDPOINT}test_a_session_is_exchanged_for_a_token_for_one_call",
            f"{ENDPOINT_CHILDREN}test_a_session_gets_a_narrower_one_that_is_good_for_that_part_alone",
        ),
    ),
    Clause(
        "RFC 9396",
        "10",
        "The metadata have authorization_details_types_supported.",
        (f"{ENDPOINT}test_the_metadata_says_what_there_is",),
    ),
    Clause(
        "RFC 8414",
        "2",
        "The token endpoint, its grants and ways to authenticate are in the metadata; none is an algorithm.",
        (
            f"{ENDPOINT}test_the_metadata_says_what_there_is",
            f"{PEER_EXCHANGE}test_what_the_metadata_says_of_the_token_endpoint_is_what_the_library_used",
        ),
    ),
    Clause(
        "RFC 5424",
        "6",
        "A message keeps the grammar, whatever the names in it are.",
        (
            f"{SYSLOG_LINE}test_every_kind_of_record_is_a_message_of_the_grammar_and_whole",
            f"{SYSLOG_LINE}test_no_name_can_end_its_value_or_begin_a_line",
            f"{PEER_RSYSLOG}test_every_record_is_understood_with_its_structured_data",
        ),
    ),
    Clause(
        "RFC 5424",
        "6.1",
        "A message that is longer than a receiver takes is cut where it may be, and says so.",
        (f"{SYSLOG_LINE}test_what_is_too_long_says_that_it_was_cut_and_where_the_whole_stands",),
    ),
    Clause(
        "RFC 5425",
        "4.3",
        "Over TLS each message is a frame of its own, and the receiver's certificate is verified.",
        (f"{SYSLOG_OUT}test_over_tls_the_receiver_must_show_a_certificate_that_is_trusted",),
    ),
    Clause(
        "RFC 5426",
        "3.1",
        "Over UDP each message is one datagram.",
        (
            f"{SYSLOG_OUT}test_each_record_is_a_datagram",
            f"{PEER_RSYSLOG}test_datagrams_are_understood_as_well",
        ),
    ),
    Clause(
        "RFC 5612",
        "2",
        "Whoever has no private enterprise number uses the one for documentation.",
        (f"{SYSLOG_LINE}test_an_enterprise_number_of_ones_own_names_the_data",),
    ),
    Clause(
        "RFC 6587",
        "3.4.1",
        "Over TCP the length of each message stands in front of it.",
        (
            f"{SYSLOG_OUT}test_each_record_is_a_frame_of_its_own_on_one_connection",
            f"{PEER_RSYSLOG}test_every_record_is_understood_with_its_structured_data",
        ),
    ),
    Clause(
        "RFC 9110",
        "10.2.3",
        "A receiver that says when to come again is left alone until then, an hour at most.",
        (f"{WEBHOOK_OUT}test_a_receiver_that_asks_for_time_gets_it_within_bounds",),
    ),
    Clause(
        "RFC 6585",
        "4",
        "A rate that is used up is answered with 429, and with the seconds to wait.",
        (f"{ENDPOINT}test_a_rate_that_is_used_up_is_told_with_a_time_to_come_again",),
    ),
    Clause(
        "RFC 6749",
        "3.3",
        "A scope is one word of visible characters without quotes and backslashes.",
        (f"{TOKEN}test_claims_of_any_other_shape_are_refused",),
    ),
    Clause(
        "RFC 9700",
        "2.3",
        "A token has the least privilege that will do: one action, one request, seconds.",
        (
            f"{TOKEN}test_a_token_is_for_nothing_but_its_own",
            f"{ISSUE}test_a_token_lives_as_long_as_its_tool_says_and_never_longer_than_its_session",
        ),
    ),
    # ── JWT, JWS, JWK ───────────────────────────────────────────────────────
    Clause(
        "RFC 7519",
        "2",
        "A NumericDate is a number; ours are whole, and no double reads them differently.",
        (
            f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",
            f"{TOKEN}test_claims_of_any_other_shape_are_refused",
        ),
    ),
    Clause(
        "RFC 7519",
        "4",
        "A claim name stands once; twice is refused, not the last one taken.",
        (
            f"{JWS}test_json_that_two_parsers_could_read_differently_is_refused",
            f"{BAD_INPUT}test_a_bad_credential_gets_401_with_a_challenge_and_leaves_one_record",
        ),
    ),
    Clause(
        "RFC 7519",
        "4.1.2",
        "A subject is unique in the context of the issuer: another issuer's is named with that issuer.",
        (
            f"{TOKEN}test_a_subject_of_another_issuer_is_named_with_it_and_is_not_the_brokers_own_of_that_name",
            f"{IDENTITIES}test_the_same_names_in_two_tenants_never_mix",
        ),
    ),
    Clause(
        "RFC 9493",
        "3.2.3",
        "An `iss_sub` identifier has `iss` and `sub`, both of them, and no other member.",
        (f"{TOKEN}test_claims_of_any_other_shape_are_refused",),
    ),
    Clause(
        "RFC 9493",
        "4.1",
        "`sub_id` beside `sub` names the same subject.",
        (
            f"{TOKEN}test_claims_of_any_other_shape_are_refused",
            f"{TOKEN}test_a_subject_of_another_issuer_is_named_with_it_and_is_not_the_brokers_own_of_that_name",
        ),
    ),
    Clause(
        "RFC 7519",
        "4.1.3",
        "Who is not in `aud` must refuse; one string or a list of them.",
        (f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",),
    ),
    Clause(
        "RFC 7519",
        "4.1.4",
        "On or after `exp` a credential is over; a call token after a leeway of seconds.",
        (
            f"{AUTHENTICATE}test_a_recognised_credential_is_refused_from_the_second_in_which_it_expires",
            f"{TOKEN}test_clocks_may_differ_by_the_leeway_and_no_more",
        ),
    ),
    Clause(
        "RFC 7519",
        "4.1.5",
        "Before `nbf` it is refused.",
        (
            f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",
            f"{VERIFIER}test_the_clocks_may_differ_by_the_leeway_and_no_more",
        ),
    ),
    Clause(
        "RFC 7519",
        "4.1.7",
        "`jti` tells a token from every other: it is spent once.",
        (f"{VERIFIER}test_a_token_is_good_once",),
    ),
    Clause(
        "RFC 7519",
        "7.2",
        "The payload is UTF-8, JSON, and an object.",
        (
            f"{JWS}test_json_that_two_parsers_could_read_differently_is_refused",
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
        ),
    ),
    Clause(
        "RFC 7515",
        "2",
        "base64url without padding, line breaks or anything else; one text for one value.",
        (f"{JWS}test_every_string_of_bytes_has_exactly_one_base64url",),
    ),
    Clause(
        "RFC 7515",
        "4",
        "A header member stands once; unknown ones are passed over, but not from ourselves.",
        (
            f"{JWS}test_another_issuer_may_say_less_and_more_in_its_header_but_the_broker_does_not",
            f"{JWS}test_json_that_two_parsers_could_read_differently_is_refused",
        ),
    ),
    Clause(
        "RFC 7515",
        "4.1.11",
        "What `crit` names is not understood here, so it is refused.",
        (f"{JWS}test_a_header_that_brings_keys_or_changes_the_rules_is_refused_from_anybody",),
    ),
    Clause(
        "RFC 7515",
        "7.1",
        "The compact form: three parts, and no other form.",
        (f"{VERIFY}test_any_text_is_either_refused_or_taken_apart_and_put_together_to_the_same_text",),
    ),
    Clause(
        "RFC 7515",
        "A.3",
        "The standard's own ES256 example verifies.",
        (f"{VERIFY}test_rfc_7515_appendix_a_3_verifies",),
    ),
    Clause(
        "RFC 7516",
        "9",
        "What has `enc` is a JWE, and not taken for a JWS.",
        (f"{JWS}test_a_header_that_brings_keys_or_changes_the_rules_is_refused_from_anybody",),
    ),
    Clause(
        "RFC 7517",
        "4.2",
        "A key that is for something else than verifying is not used.",
        (f"{VERIFY}test_a_key_that_is_for_something_else_is_passed_over",),
    ),
    Clause(
        "RFC 7517",
        "5",
        "A set of keys; those of kinds that nobody here knows are passed over.",
        (
            f"{VERIFY}test_a_key_that_is_for_something_else_is_passed_over",
            f"{VERIFY}test_a_key_set_that_cannot_be_trusted_is_refused_whole",
        ),
    ),
    Clause(
        "RFC 7517",
        "9.2",
        "No private member is published.",
        (
            f"{KEYS}test_the_jwk_set_holds_public_members_only",
            f"{DOORS}test_the_keys_are_public_ones_alone_and_may_be_kept_for_a_while",
        ),
    ),
    Clause(
        "RFC 7518",
        "3.4",
        "An ES256 signature is r and s, 32 bytes each; zero and the order are none.",
        (
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
            f"{TOKEN}test_another_library_verifies_what_is_minted_here",
        ),
    ),
    Clause(
        "RFC 7638",
        "3",
        "`kid` is the thumbprint of the public key; the standard's example comes out.",
        (f"{KEYS}test_the_thumbprint_of_rfc_7638_section_3_1",),
    ),
    Clause(
        "RFC 8017",
        "8",
        "An RSA signature is as long as the modulus, or it is none of that key.",
        (f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",),
    ),
    Clause(
        "RFC 8032",
        "5.1.3",
        "An Ed25519 key has one encoding.",
        (f"{VERIFY}test_a_weak_key_is_refused_for_its_weakness",),
    ),
    Clause(
        "RFC 9864",
        "2.2",
        "`Ed25519` names the algorithm; `EdDSA` is still taken, each from a key that is declared with it.",
        (f"{VERIFY}test_an_ed25519_key_goes_by_the_one_name_that_it_was_declared_with",),
    ),
    Clause(
        "RFC 7800",
        "3",
        "A credential that is bound to a key is no bearer's: `cnf` is refused, not passed over.",
        (f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",),
    ),
    Clause(
        "RFC 9449",
        "7.1",
        "A call token that asks for a proof of possession is not taken without one.",
        (
            f"{VERIFIER}test_a_token_with_a_bad_claim_is_refused_and_not_spent",
            f"{PEER_KIT}test_a_bound_call_token_is_good_once_with_the_proof_of_its_key",
        ),
    ),
    Clause(
        "RFC 9449",
        "4.2",
        "A proof of ours has what others check: method, URL, the token's digest, the key it is bound to.",
        (
            f"{PEER_DPOP}test_the_broker_proves_its_key_to_a_backend_that_asks_for_it_as_others_check_it",
            f"{PEER_KIT}test_the_broker_calls_the_same_service_with_a_proof_of_its_own",
        ),
    ),
    Clause(
        "RFC 9449",
        "9",
        "The first proof of a client is answered with a nonce, and the next one, with that, is taken.",
        (
            f"{PEER_DPOP}test_a_bound_session_is_good_with_the_proof_of_its_key_and_the_nonce_that_it_is_told",
            f"{PEER_DPOP}test_a_token_that_its_issuer_bound_to_a_key_opens_a_session_with_that_key_alone",
        ),
    ),
    Clause(
        "RFC 9449",
        "5",
        "What a client gets with a proof is bound to its key, and is of the type DPoP.",
        (f"{PEER_DELEGATION}test_a_child_that_is_bound_as_it_is_made_is_worth_nothing_without_its_key",),
    ),
    # ── JWT best current practice, and its successor ────────────────────────
    Clause(
        "RFC 8417",
        "2.2",
        "A JWT with `events` reports something: it opens no session, whatever its `typ`.",
        (f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",),
    ),
    Clause(
        "RFC 8725",
        "3.1",
        "One algorithm for one key; the key decides, and `alg` is compared by its letters.",
        (
            f"{VERIFY}test_a_key_signs_for_its_own_algorithm_and_for_no_other",
            f"{VERIFY}test_a_key_is_for_one_algorithm_only",
        ),
    ),
    Clause(
        "RFC 8725",
        "3.2",
        "`none` is never taken, nor is HS256 with somebody's public key.",
        (
            f"{BAD_INPUT}test_a_bad_credential_gets_401_with_a_challenge_and_leaves_one_record",
            f"{BAD_INPUT}test_no_other_door_is_easier",
        ),
    ),
    Clause(
        "RFC 8725",
        "3.5",
        "Keys that are weak are refused.",
        (f"{VERIFY}test_a_weak_key_is_refused_for_its_weakness",),
    ),
    Clause(
        "RFC 8725",
        "3.8",
        "The issuer is compared to the letter, and its own keys verify.",
        (
            f"{AUTHENTICATE}test_an_unknown_issuer_is_refused_before_any_key_is_fetched",
            f"{AUTHENTICATE}test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session",
        ),
    ),
    Clause(
        "RFC 8725",
        "3.9",
        "A token of another audience is refused.",
        (f"{VERIFIER}test_a_token_with_a_bad_claim_is_refused_and_not_spent",),
    ),
    Clause(
        "RFC 8725",
        "3.10",
        "`kid` finds a key in a table and nothing else; jku, jwk, x5u and x5c are refused.",
        (
            f"{JWS}test_a_header_that_brings_keys_or_changes_the_rules_is_refused_from_anybody",
            f"{VERIFY}test_an_attack_is_refused_offline_and_not_repeated",
        ),
    ),
    Clause(
        "RFC 8725",
        "3.11",
        "Each kind of token has its own `typ`, and is taken for no other kind.",
        (f"{TOKEN}test_a_session_credential_is_no_call_token_and_a_call_token_is_no_credential",),
    ),
    Clause(
        "RFC 8725bis",
        "",
        "Any character outside of the compact form's alphabet refuses the token.",
        (
            f"{VERIFY}test_a_token_with_any_one_character_changed_is_refused",
            f"{JWS}test_any_bytes_are_read_as_the_standard_library_reads_them_or_refused",
        ),
    ),
    Clause(
        "RFC 8725bis",
        "",
        "A `typ` without a slash means application/ in front of it.",
        (f"{VERIFY}test_a_media_type_has_no_case_and_may_leave_its_first_half_out",),
    ),
    Clause(
        "RFC 8725bis",
        "",
        "Keys are fetched from declared places only, over TLS off loopback; no redirect is followed.",
        (
            f"{JWKS}test_keys_are_fetched_from_no_such_url",
            f"{JWKS}test_an_answer_that_is_no_key_set_gives_no_keys",
        ),
    ),
    # ── Bearer tokens over HTTP ─────────────────────────────────────────────
    Clause(
        "RFC 6750",
        "2.1",
        "The token stands in one Authorization header of the scheme Bearer.",
        (
            f"{GATE}test_what_is_no_credential_is_refused_and_recorded",
            f"{GATE}test_two_authorization_headers_are_refused_even_if_both_are_good",
            f"{KIT}test_the_token_stands_in_exactly_one_authorization_header",
        ),
    ),
    Clause(
        "RFC 6750",
        "2.3",
        "A token in the URL is refused, also beside a good header.",
        (
            f"{GATE}test_a_credential_in_the_url_is_refused_even_beside_a_good_header",
            f"{KIT}test_a_token_in_the_query_is_none",
        ),
    ),
    Clause(
        "RFC 6750",
        "3",
        "401 carries WWW-Authenticate; without any token it names no error.",
        (
            f"{GATE}test_without_a_credential_the_challenge_names_the_metadata_and_no_error",
            f"{KIT}test_who_shows_nothing_is_told_what_to_show_and_no_more",
        ),
    ),
    Clause(
        "RFC 6750",
        "3.1",
        "invalid_token is 401, invalid_request 400, insufficient_scope 403 with the scope.",
        (
            f"{BAD_INPUT}test_a_bad_credential_gets_401_with_a_challenge_and_leaves_one_record",
            f"{GATE}test_a_bad_credential_is_called_invalid_in_the_challenge",
            f"{GATE}test_two_authorization_headers_are_refused_even_if_both_are_good",
            f"{KIT}test_a_token_for_another_action_lacks_the_scope",
        ),
    ),
    Clause(
        "RFC 6750",
        "5.3",
        "No token is kept in a log, a page or a file.",
        (f"{SECRETS}test_no_secret_is_in_anything_that_a_life_leaves_behind",),
    ),
    Clause(
        "RFC 9728",
        "2",
        "The metadata name the resource, its issuers, and the header as the only way.",
        (f"{DOORS}test_the_resource_says_who_it_is_and_whose_credentials_it_takes",),
    ),
    Clause(
        "RFC 9728",
        "3.1",
        "They lie at the well-known path, with the resource's own path behind it.",
        (
            f"{DOORS}test_the_resource_says_who_it_is_and_whose_credentials_it_takes",
            f"{PEER_METADATA}test_its_metadata_is_found_from_the_resource_and_from_the_issuer",
        ),
    ),
    Clause(
        "RFC 9728",
        "5.1",
        "A 401 says where they are.",
        (f"{DOORS}test_every_door_wants_a_credential",),
    ),
    Clause(
        "RFC 8414",
        "2",
        "The issuer's metadata name the issuer and its keys, and no endpoint that is not there.",
        (f"{DOORS}test_the_authorization_server_promises_nothing_that_it_has_not",),
    ),
    Clause(
        "RFC 9110",
        "9.2",
        "HEAD is answered where GET is; what is only read cannot be written (405).",
        (f"{DOORS}test_what_can_be_read_can_be_asked_for_by_head_and_not_be_written",),
    ),
    Clause(
        "RFC 9110",
        "9.2.2",
        "A request with a token is never sent again by itself.",
        (f"{HTTP}test_a_token_is_sent_once_even_if_a_kept_connection_breaks",),
    ),
    Clause(
        "RFC 9110",
        "10.2.3",
        "503 says when to try again.",
        (
            f"{GATE}test_where_no_refusal_can_be_recorded_the_answer_is_try_again",
            f"{GATE}test_an_issuer_that_is_away_makes_no_credential_invalid",
        ),
    ),
    Clause(
        "RFC 9110",
        "11.1",
        "The name of a scheme has no case.",
        (f"{KIT}test_the_scheme_is_taken_in_any_case",),
    ),
    Clause(
        "RFC 9110",
        "15.4",
        "A redirect of a backend is not followed, wherever it leads.",
        (
            f"{HTTP}test_no_redirect_is_followed_or_repeated",
            f"{BAD_INPUT}test_what_a_backend_does_is_a_tool_error_a_record_and_nobody_elses_trouble",
        ),
    ),
    Clause(
        "RFC 9110",
        "15.5",
        "A 4xx or 5xx of a backend is an error with its status.",
        (f"{HTTP}test_an_error_is_a_status_and_one_clean_sentence",),
    ),
    # ── The log ─────────────────────────────────────────────────────────────
    Clause(
        "RFC 8785",
        "3.2.2.2",
        "Strings are written as they are, but for the escapes that JSON demands.",
        (
            f"{CANONICAL}test_it_writes_what_another_implementation_of_the_standard_writes",
            f"{CANONICAL}test_the_standards_example_has_the_standards_text",
        ),
    ),
    Clause(
        "RFC 8785",
        "3.2.2.3",
        "Numbers are written as ECMAScript writes them.",
        (
            f"{CANONICAL}test_the_standards_numbers_have_the_standards_texts",
            f"{PEER_JSON}test_the_canonical_form_is_the_one_that_ecmascript_writes",
        ),
    ),
    Clause(
        "RFC 8785",
        "3.2.3",
        "Members are sorted by UTF-16 code units.",
        (f"{CANONICAL}test_members_are_sorted_by_utf_16_code_units",),
    ),
    Clause(
        "RFC 8785",
        "3.1",
        "What I-JSON cannot say alike everywhere (lone surrogates, large numbers) is refused.",
        (f"{CANONICAL}test_what_two_parsers_could_read_differently_is_refused",),
    ),
    Clause(
        "ECMA-262",
        "",
        "Number::toString is what RFC 8785 asks for.",
        (
            f"{CANONICAL}test_the_standards_numbers_have_the_standards_texts",
            f"{PEER_JSON}test_the_canonical_form_is_the_one_that_ecmascript_writes",
        ),
    ),
    Clause(
        "RFC 6962",
        "2.1",
        "Leaves and nodes are hashed apart; the published roots come out.",
        (
            f"{MERKLE}test_the_roots_are_the_published_ones",
            f"{MERKLE}test_a_leaf_is_no_node",
        ),
    ),
    Clause(
        "RFC 6962",
        "2.1.1",
        "A leaf is proved to be in a tree.",
        (f"{MERKLE}test_proofs_of_inclusion_are_the_published_ones",),
    ),
    Clause(
        "RFC 6962",
        "2.1.2",
        "A tree is proved to have grown out of an earlier one.",
        (f"{MERKLE}test_proofs_of_consistency_are_the_published_ones",),
    ),
    Clause(
        "RFC 9162",
        "2.1.3.2",
        "Verifying a proof of inclusion.",
        (f"{MERKLE}test_every_leaf_is_proved_and_nowhere_but_in_its_place",),
    ),
    Clause(
        "RFC 9162",
        "2.1.4.2",
        "Verifying a proof of consistency.",
        (f"{MERKLE}test_a_tree_is_proved_to_have_grown_out_of_each_of_its_beginnings",),
    ),
    Clause(
        "C2SP signed-note",
        "",
        "A checkpoint is a signed note; the published ones open, to the letter.",
        (
            f"{CHECKPOINT}test_the_published_notes_open_with_their_keys_and_with_no_other",
            f"{CHECKPOINT}test_we_sign_the_published_note_to_the_letter",
            f"{CHECKPOINT}test_a_note_with_a_character_changed_or_missing_does_not_open",
        ),
    ),
    Clause(
        "C2SP tlog-witness",
        "",
        "The broker as a witness answers each request with the status and body that the standard has for it.",
        (
            f"{WITNESS}test_the_published_requests_are_answered_as_published",
            f"{WITNESS}test_the_smallest_trees_are_answered_as_published",
            f"{WITNESS}test_what_is_not_written_as_the_standard_says_is_no_request",
            f"{WITNESS}test_more_than_63_lines_of_proof_are_no_request",
            f"{WITNESS}test_what_others_signed_is_neither_judged_nor_kept",
            f"{WITNESS_DOOR}test_each_answer_has_the_status_the_type_and_the_body_of_the_standard",
        ),
    ),
    Clause(
        "C2SP tlog-witness",
        "",
        "Of two requests that race, one is kept and the other is told so; no log is rolled back.",
        (f"{WITNESS}test_of_two_that_race_the_later_is_told_the_size_and_the_log_is_not_rolled_back",),
    ),
    Clause(
        "C2SP tlog-witness",
        "",
        "The log's side shows each checkpoint with a proof from the size that the witness has.",
        (
            f"{ANCHORS}test_a_witness_is_shown_how_the_log_grew_and_its_cosignature_is_kept_with_the_checkpoint",
            f"{ANCHORS}test_a_witness_that_another_broker_told_of_more_is_told_again_once_the_log_has_grown",
            f"{ANCHORS}test_a_cosignature_of_another_key_is_not_kept",
        ),
    ),
    *(
        Clause(
            standard, section, says, (f"{ANCHORS}test_a_collector_gets_each_note_as_one_message_of_one_line",)
        )
        for standard, section, says in (
            ("RFC 5424", "§6", "A checkpoint is one syslog message."),
            ("RFC 5425", "§4", "Over TLS its length in octets stands in front, and the end is said."),
            ("RFC 5426", "§3.1", "Over UDP it is one datagram."),
            ("RFC 6587", "§3.4.1", "Over TCP its length in octets stands in front."),
        )
    ),
    Clause(
        "C2SP tlog-cosignature",
        "",
        "A cosignature of a witness is over the whole text and its time; a public one is read.",
        (
            f"{COSIGNATURE}test_a_public_witness_s_key_and_cosignature_are_taken_to_the_letter",
            f"{COSIGNATURE}test_what_was_cosigned_is_read_with_its_time_and_stays_open_with_the_logs_key",
            f"{COSIGNATURE}test_a_cosignature_with_a_character_changed_counts_for_nothing",
        ),
    ),
    Clause(
        "RFC 4180",
        "2",
        "CSV is read back line for line by another reader, whatever stands in a name.",
        (
            "tests/review/test_asking.py::test_csv_has_as_many_lines_as_json_and_nothing_that_a_spreadsheet_runs",
            "tests/review/test_asking.py::test_a_name_that_would_be_a_formula_stands_behind_an_apostrophe",
        ),
    ),
    Clause(
        "RFC 7636",
        "4",
        "A code is redeemed with the verifier of the very login that asked for it, by the method S256.",
        (
            "tests/review/test_served_pages.py::test_a_reviewer_comes_in_by_the_code_flow_with_pkce_and_is_in_the_log",
            "tests/review/test_served_pages.py::test_a_code_from_elsewhere_is_of_no_use_in_this_browser",
        ),
    ),
    Clause(
        "RFC 9207",
        "2.4",
        "An answer that names another issuer, or none where the provider says one, lets nobody in.",
        (
            "tests/review/test_served_pages.py::test_an_answer_that_is_not_this_providers_to_this_login_gets_nowhere",
        ),
    ),
    Clause(
        "RFC 6265bis",
        "4.1",
        "The pages' cookie is for no script and for no other site.",
        (
            "tests/review/test_local_page.py::test_the_address_logs_in_once_and_never_twice",
            "tests/review/test_served_pages.py::test_another_host_and_another_sites_form_get_nowhere",
        ),
    ),
    Clause(
        "C2SP tlog-tiles",
        "",
        "The tree is in tiles of 256 hashes, the records in bundles, under the names of the specification.",
        (
            "tests/test_tiles.py::test_a_tile_is_called_as_the_specification_calls_it",
            "tests/test_tiles.py::test_the_tiles_of_seventy_thousand_records_are_the_specifications",
            "tests/peers/test_tlog.py::test_an_auditor_of_another_make_reads_the_export",
            "tests/peers/test_tlog.py::test_an_auditor_of_another_make_reads_a_running_broker",
        ),
    ),
    Clause(
        "C2SP tlog-proof",
        "",
        "A proof of a record is its index, its path and a checkpoint, and holds for no other record.",
        (
            "tests/test_tlog_proof.py::test_the_text_is_that_of_the_specification",
            "tests/test_tlog_proof.py::test_a_proof_of_which_one_sign_was_changed_proves_nothing",
            "tests/peers/test_tlog.py::test_an_auditor_of_another_make_verifies_a_proof",
        ),
    ),
    Clause(
        "C2SP tlog-checkpoint",
        "",
        "Its text is origin, size and root.",
        (
            f"{CHECKPOINT}test_what_was_signed_is_read_and_nobody_elses_is",
            f"{CHECKPOINT}test_a_text_that_two_tools_could_read_differently_is_no_checkpoint_even_if_signed",
        ),
    ),
    Clause(
        "RFC 3339",
        "5.6",
        "Times are UTC, with milliseconds, and sort as texts.",
        (f"{RECORD}test_times_sort_as_texts_and_are_utc_to_the_millisecond",),
    ),
    Clause(
        "RFC 9562",
        "5.7",
        "The id of a call is a UUID of version 7: it grows with time.",
        (f"{REQUIREMENTS_TEST}test_the_id_of_a_call_is_a_uuid_that_grows_with_time",),
    ),
    # ── Policy ──────────────────────────────────────────────────────────────
    Clause(
        "NIST SP 800-63",
        "",
        "Assurance has an order; what is unknown is weaker than the weakest.",
        (f"{POLICY}test_assurance_is_at_least_what_the_tool_asks_for_and_an_unknown_one_meets_nothing",),
    ),
    Clause(
        "OpenID Connect Core",
        "2",
        "`azp` is the client, where nothing else says who acts.",
        (f"{AUTHENTICATE}test_the_agent_is_the_outermost_actor_or_else_the_client",),
    ),
    # ── MCP ─────────────────────────────────────────────────────────────────
    Clause(
        "JSON-RPC 2.0",
        "4.1",
        "Without an id nothing is answered; a call without one is not made, and recorded.",
        (f"{BAD_INPUT}test_a_call_without_an_id_is_not_made_and_does_not_vanish",),
    ),
    Clause(
        "JSON-RPC 2.0",
        "5",
        "An error for a message that could not be read has the id null.",
        (f"{STDIO}test_a_line_that_is_no_message_is_answered_recorded_and_the_next_one_is_served",),
    ),
    Clause(
        "MCP authorization",
        "Access Token Usage",
        "Every HTTP request is authorized; a session id is no proof.",
        (
            f"{DOORS}test_every_door_wants_a_credential",
            f"{SWAPS}test_an_mcp_session_id_is_unknown_to_everybody_else",
        ),
    ),
    Clause(
        "MCP authorization",
        "Token Handling",
        "A token that was not issued for this server is refused with 401.",
        (f"{BAD_INPUT}test_a_bad_credential_gets_401_with_a_challenge_and_leaves_one_record",),
    ),
    Clause(
        "MCP authorization",
        "Access Token Privilege Restriction",
        "The client's token goes to no backend.",
        (
            f"{CALLS}test_a_call_reaches_the_backend_once_with_a_token_that_its_keys_verify",
            f"{HTTP}test_the_wire_carries_the_planned_request_one_token_and_nothing_else",
        ),
    ),
    Clause(
        "MCP authorization",
        "Authorization Server Location",
        "RFC 9728 metadata, named in the challenge.",
        (
            f"{DOORS}test_the_resource_says_who_it_is_and_whose_credentials_it_takes",
            f"{DOORS}test_every_door_wants_a_credential",
        ),
    ),
    Clause(
        "MCP authorization",
        "stdio",
        "Over stdio the credential comes from the environment, and is not left there.",
        (
            f"{STDIO}test_without_a_credential_it_says_where_to_put_one",
            f"{SECRETS}test_no_secret_is_in_anything_that_a_life_leaves_behind",
        ),
    ),
    Clause(
        "MCP 2026-07-28",
        "Security Warning",
        "Origin and Host are looked at: 403 and 421.",
        (f"{DOORS}test_a_page_in_a_browser_gets_nowhere_even_with_a_credential",),
    ),
    Clause(
        "MCP 2026-07-28",
        "Standard Request Headers",
        "A header that contradicts the body: 400, -32020.",
        (
            f"{BAD_INPUT}test_headers_that_contradict_the_body_are_refused_and_recorded",
            f"{DOORS}test_a_body_that_speaks_of_another_tool_than_its_header_is_refused",
        ),
    ),
    Clause(
        "MCP 2026-07-28",
        "Cancellation",
        "A client that closes its stream has cancelled.",
        (
            f"{CALLS}test_a_cancelled_call_stops_its_request_and_is_recorded_as_cancelled",
            "tests/server/test_short_way.py::test_a_client_that_goes_away_cancels_its_call",
        ),
    ),
    Clause(
        "MCP 2026-07-28",
        "Progress",
        "Progress grows, and goes to whoever asked for it.",
        (
            f"{CALLS}test_whoever_asks_for_progress_hears_of_it",
            f"{SWAPS}test_a_progress_token_of_two_sessions_brings_each_its_own_news",
        ),
    ),
    Clause(
        "MCP tools",
        "Listing Tools",
        "The list differs by authorization, is private, and is not to be kept.",
        (
            f"{CALLS}test_a_session_is_shown_what_it_may_call_and_nothing_else",
            f"{CALLS}test_a_list_is_for_one_session_and_is_not_to_be_kept",
        ),
    ),
    Clause(
        "MCP tools",
        "List Changed Notification",
        "Whoever asked is told of changes to what they see.",
        (
            f"{LISTS}test_a_listening_client_is_told_and_then_sees_the_new_list",
            f"{LISTS}test_nobody_hears_of_a_change_that_does_not_concern_them",
        ),
    ),
    Clause(
        "MCP tools",
        "Output Schema",
        "Structured results conform to the schema that was shown.",
        (f"{HTTP}test_an_answer_is_what_the_tool_declares_or_none",),
    ),
    Clause(
        "MCP tools",
        "Error Handling",
        "What a model can act on is a result with isError.",
        (f"{CALLS}test_a_refusal_is_a_result_with_a_code_and_stands_in_the_log",),
    ),
    Clause(
        "MCP tools",
        "Security Considerations",
        "All inputs are validated.",
        (
            f"{BAD_INPUT}test_an_argument_that_could_leave_its_place_is_a_tool_error_and_a_record",
            f"{POLICY}test_a_call_that_breaks_one_step_and_all_that_follow_is_refused_at_that_step",
        ),
    ),
    Clause(
        "MCP tools",
        "Security Considerations",
        "Access is controlled: nothing is allowed that no grant allows.",
        (
            f"{POLICY}test_nothing_is_allowed_without_a_living_grant_that_names_the_tool_and_covers_the_arguments",
            f"{POLICY}test_what_is_not_visible_is_never_allowed_and_what_is_allowed_is_visible",
        ),
    ),
    Clause(
        "MCP tools",
        "Security Considerations",
        "Calls are limited in rate, and in how many run at once.",
        (
            f"{ISSUE}test_a_rate_is_exact_however_many_calls_race",
            f"{CALLS}test_a_session_may_have_so_many_calls_at_once_and_another_session_is_not_held_up",
        ),
    ),
    Clause(
        "MCP tools",
        "Security Considerations",
        "Results are cleaned: bounded, and without the token.",
        (
            f"{HTTP}test_an_echoed_token_is_cut_and_all_else_is_kept",
            f"{BAD_INPUT}test_a_token_that_a_backend_echoes_reaches_neither_agent_nor_log",
        ),
    ),
    Clause(
        "RFC 3986",
        "3.3",
        "No value leaves the segment of the path that is its place.",
        (
            f"{REQUEST}test_a_value_that_could_leave_its_segment_is_refused",
            f"{REQUEST}test_the_url_differs_from_its_template_inside_one_segment_only",
        ),
    ),
    # ── Introspection, revocation, gateways ─────────────────────────────────
    Clause(
        "RFC 7662",
        "2.1",
        "`token` is required; `token_type_hint` and parameters that are not known change nothing.",
        (
            f"{INTROSPECTION}test_a_question_is_a_token_and_what_is_told_of_its_request",
            f"{INTROSPECTION}test_a_question_of_another_form_is_told_so_and_asks_nothing",
        ),
    ),
    Clause(
        "RFC 7662",
        "2.2",
        "An active answer has the token's own claims; an inactive one has `active` alone.",
        (
            f"{INTROSPECT}test_a_token_is_active_once_says_what_it_said_and_its_spend_is_in_the_log",
            f"{INTROSPECTION}test_an_active_answer_has_the_claims_of_the_token_and_nothing_that_it_lacks",
            f"{INTROSPECTION}test_an_inactive_answer_says_nothing_else",
        ),
    ),
    Clause(
        "RFC 7662",
        "2.3",
        "Who does not prove to be a protected resource is answered with 401 and told nothing.",
        (f"{INTROSPECT}test_only_a_backend_that_proves_who_it_is_is_told_anything",),
    ),
    Clause(
        "RFC 7662",
        "4",
        "Expiry, signature, revocation and audience are checked; of none of them is it told that it failed.",
        (
            f"{INTROSPECT}test_whatever_is_wrong_with_a_token_its_backend_hears_the_same_and_the_log_says_what",
        ),
    ),
    Clause(
        "RFC 9701",
        "4",
        "The answer is a JWT where the request accepts application/token-introspection+jwt.",
        (f"{INTROSPECT}test_an_answer_may_be_signed_and_is_no_token_of_any_kind",),
    ),
    Clause(
        "RFC 9701",
        "8.1",
        "An answer that is signed is never taken for an access token: it has a type of its own.",
        (f"{INTROSPECT}test_an_answer_may_be_signed_and_is_no_token_of_any_kind",),
    ),
    Clause(
        "RFC 7009",
        "2.1",
        "A client that authenticates is checked first; only whose token it is revokes it, and a revoked "
        "session takes the tokens below it along.",
        (
            f"{REVOKE}test_a_client_that_does_not_prove_who_it_is_revokes_nothing",
            f"{REVOKE}test_a_call_token_is_revoked_by_its_backend_and_by_the_holder_of_its_session",
            f"{REVOKE}test_nobody_else_revokes_a_call_token_and_nobody_hears_whether_it_was_one",
            f"{REVOKE}test_a_session_is_ended_by_whoever_holds_its_credential_with_all_that_hangs_on_it",
        ),
    ),
    Clause(
        "RFC 7009",
        "2.2",
        "A token that is not good is answered like one that was revoked: 200.",
        (f"{REVOKE}test_nobody_else_revokes_a_call_token_and_nobody_hears_whether_it_was_one",),
    ),
    Clause(
        "RFC 7009",
        "2.2.1",
        "A kind that cannot be revoked is answered with unsupported_token_type.",
        (f"{REVOKE}test_a_kind_that_ends_by_itself_is_not_revoked_and_no_token_is_no_request",),
    ),
    Clause(
        "RFC 9449",
        "7.1",
        "At the check endpoint a bound token passes with the proof of its key for that request, and a proof "
        "beside a token that asks for none is refused.",
        (f"{CHECK}test_a_bound_token_passes_with_the_proof_of_its_key_for_this_request_and_not_without",),
    ),
    Clause(
        "RFC 9449",
        "6.2",
        "Introspection tells `cnf` and the type DPoP of a bound token.",
        (f"{INTROSPECT}test_a_bound_token_is_told_to_be_bound",),
    ),
    Clause(
        "RFC 6750",
        "3.1",
        "A gateway passes on 401 invalid_token for whatever is wrong with a token.",
        (f"{CHECK}test_a_request_with_a_good_token_may_pass_once_and_the_service_learns_for_whom",),
    ),
    Clause(
        "RFC 9701",
        "5",
        "A signed answer has iss, aud, iat and token_introspection; no sub and no exp of its own.",
        (
            f"{INTROSPECTION}test_a_signed_answer_is_for_who_asked_and_no_use_as_a_token",
            f"{PEER_INTROSPECTION}test_a_signed_answer_is_one_that_the_library_takes_and_whose_signature_holds",
        ),
    ),
    Clause(
        "RFC 9112",
        "3.2.1",
        "A request target is in origin-form, to the letter, or it is not taken.",
        (f"{INTROSPECTION}test_a_target_that_is_taken_is_one_that_a_request_line_can_hold",),
    ),
    # ── Transaction tokens ──────────────────────────────────────────────────
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token Header, Txn-Token Claims",
        "`typ` is txntoken+jwt; there are iat, aud, exp, txn, sub, scope and req_wl, and tctx and rctx.",
        (f"{TXN}test_a_transaction_token_says_what_the_draft_says_and_nothing_of_the_subject_token",),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token Claims",
        "`sub` is unique in the trust domain.",
        (f"{TXN}test_no_two_subjects_of_a_trust_domain_have_one_name",),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token Request Processing",
        "The workload proves itself and may have one; the subject token is examined; aud is the domain.",
        (
            f"{TXN}test_what_is_not_granted_is_refused_and_recorded",
            f"{TXN}test_a_session_that_was_revoked_makes_none_and_replaces_none",
        ),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token Request, Txn-Token Response",
        "The form of a token exchange; the answer has N_A, the type of the token, and no refresh token.",
        (
            f"{TXN_DOOR}test_a_workload_gets_one_for_the_session_of_its_caller",
            f"{TXN_DOOR}test_what_is_refused_is_told_in_oauths_words_and_stands_in_the_log",
            f"{PEER_TXN}test_a_transaction_token_is_got_and_read_by_others_who_take_it_for_nothing_else",
        ),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Transaction Tokens Are Not OAuth 2.0 Access Tokens",
        "It opens no session, and is exchanged for no token that lets somebody in.",
        (f"{TXN_DOOR}test_a_transaction_token_opens_no_session_anywhere",),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Scope Processing",
        "The scope is within what the subject token may do.",
        (
            f"{TXN}test_what_is_not_granted_is_refused_and_recorded",
            f"{TXN}test_what_is_missing_is_asked_for_as_it_is_for_a_call",
        ),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token as a subject_token",
        "A replacement keeps txn, sub and aud, widens nothing, names each workload, and is of a living one.",
        (
            f"{TXN}test_a_replacement_keeps_the_transaction_and_every_workload_and_widens_nothing",
            f"{TXN}test_however_often_it_is_replaced_it_only_shrinks",
            f"{TXN}test_what_has_ended_is_not_replaced",
        ),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token HTTP Header",
        "It is in the header Txn-Token, exactly one, never in Authorization.",
        (
            f"{HTTP}test_a_transaction_token_has_a_header_of_its_own_and_is_cut_from_the_answer_as_well",
            f"{TXN_KIT}test_there_is_exactly_one_header_with_exactly_one_token",
        ),
    ),
    Clause(
        "draft-ietf-oauth-transaction-tokens",
        "Txn-Token Validation",
        "A workload checks the signature, the trust domain and the time.",
        (
            f"{TXN_KIT}test_a_token_that_the_broker_would_not_make_is_refused",
            f"{TXN_KIT}test_the_middleware_demands_the_transaction_token_of_the_same_call",
        ),
    ),
    Clause(
        "RFC 8725",
        "3.11, 3.12",
        "A transaction token is no call token and no session's credential, and neither of those is one.",
        (f"{TXN}test_no_kind_of_token_is_taken_for_another",),
    ),
    # ── Assurance ───────────────────────────────────────────────────────────
    Clause(
        "RFC 9470",
        "3",
        "A call that needs more is answered with 401 and insufficient_user_authentication; acr_values and "
        "max_age say what is missing, alone or together.",
        (
            f"{STEP_UP}test_a_call_that_lacks_something_is_answered_with_a_challenge_that_says_what",
            f"{STEP_UP}test_the_short_way_challenges_as_the_long_one_does",
            f"{PEER_STEP_UP}test_a_client_reads_what_a_tool_asks_for_and_passes_once_it_has_it",
            f"{ASSURANCE}test_what_is_asked_for_is_what_is_missing_and_nothing_else",
        ),
    ),
    Clause(
        "RFC 9470",
        "4",
        "What is asked for are values that the authorization server knows, as a client passes them on.",
        (
            f"{ASSURANCE}test_an_issuer_is_asked_in_its_own_words",
            f"{STEP_UP}test_a_client_that_signs_in_as_it_is_told_makes_the_same_call",
        ),
    ),
    Clause(
        "RFC 9470",
        "5",
        "What a token says of the authentication (acr, auth_time) is judged for each call.",
        (
            f"{ASSURANCE}test_each_level_of_an_issuer_opens_the_tools_up_to_it_and_no_other",
            f"{ASSURANCE}test_who_signed_in_max_age_ago_may_and_a_second_later_may_not",
            f"{ASSURANCE}test_a_session_that_does_not_say_when_is_never_fresh",
        ),
    ),
    Clause(
        "RFC 9470",
        "7",
        "The metadata has acr_values_supported.",
        (f"{STEP_UP}test_the_metadata_says_which_values_a_challenge_may_ask_for",),
    ),
    Clause(
        "NIST SP 800-63C",
        "",
        "aal1 < aal2 < aal3; a value that no declared table has is weaker than all of them.",
        (
            f"{ASSURANCE}test_with_a_table_what_is_not_in_it_means_nothing_and_is_carried_nowhere",
            f"{ASSURANCE}test_no_claim_is_worth_more_than_the_table_says",
        ),
    ),
    # ── Identities from elsewhere ───────────────────────────────────────────
    Clause(
        "OpenID Connect Discovery 1.0",
        "4.3",
        "The issuer of the document is the declared one, to the letter; else it gives no keys.",
        (f"{IDENTITIES}test_a_discovery_document_that_is_not_the_issuers_own_gives_no_keys",),
    ),
    Clause(
        "OpenID Connect Back-Channel Logout 1.0",
        "2.4",
        "A logout token logs nobody in.",
        (f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",),
    ),
    Clause(
        "SPIFFE JWT-SVID",
        "3",
        "sub is the SPIFFE ID of a workload of the trust domain; aud has this broker; exp is there.",
        (
            f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",
            f"{IDENTITIES}test_a_spiffe_id_is_taken_exactly_where_no_segment_has_to_be_normalized",
        ),
    ),
    Clause(
        "SPIFFE JWT-SVID",
        "4",
        "Only keys of the bundle whose use is jwt-svid verify it.",
        (f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",),
    ),
    Clause(
        "RFC 8693",
        "4.4",
        "may_act names by iss and sub who may become the actor; what is no identity claim is not used.",
        (
            f"{IDENTITIES}test_who_may_act_is_read_with_the_issuers_names_where_it_names_no_other",
            f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",
        ),
    ),
    Clause(
        "RFC 7523",
        "2.1",
        "An assertion of a declared issuer is an authorization grant.",
        (
            f"{IDENTITY_ASSERTION}test_an_assertion_is_no_bearer_credential_and_works_once",
            f"{PEER_ASSERTION}test_an_identity_assertion_opens_one_session_for_the_client_that_it_names",
        ),
    ),
    Clause(
        "RFC 7523",
        "3",
        "iss, sub, aud and exp are there and hold; a jti is taken once.",
        (
            f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",
            f"{IDENTITIES}test_an_assertion_opens_one_session_and_racing_ones_have_one_winner",
        ),
    ),
    Clause(
        "RFC 7523",
        "3.1",
        "A bad assertion is invalid_grant.",
        (f"{IDENTITY_ASSERTION}test_the_sdks_client_hears_invalid_grant_and_the_log_has_the_reason",),
    ),
    Clause(
        "draft-ietf-oauth-identity-assertion-authz-grant",
        "4.4.1",
        "typ, aud as this broker alone, and client_id as the client that authenticated.",
        (
            f"{IDENTITIES}test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing",
            f"{IDENTITY_ASSERTION}test_a_form_that_asks_for_more_than_the_grant_has_is_refused_by_name",
        ),
    ),
    Clause(
        "draft-ietf-oauth-identity-assertion-authz-grant",
        "4.4.3",
        "The answer has no refresh token.",
        (f"{IDENTITY_ASSERTION}test_the_sdks_client_finds_the_token_endpoint_asserts_and_calls_a_tool",),
    ),
    Clause(
        "draft-ietf-oauth-identity-assertion-authz-grant",
        "7.2",
        "The metadata names the grant profile.",
        (
            f"{IDENTITY_ASSERTION}test_the_metadata_says_that_identity_assertions_are_taken_and_names_no_issuer_of_them",
        ),
    ),
)
