"""What reviewers ask the log: an index beside it, and the questions over it.

    with open_index(store) as index:          # broker.review.index
        index.catch_up()
        page = calls(index, Wanted(subject="alice", since="2026-12-31"))
        records = shown(index.connection, [each.idx for each in page.calls])

=============  ===================================================================================
`index`        `open_index`, `ReviewIndex`: made from the log, never a proof; `behind` says what it lacks
`answers`      `Wanted`, the filter of every question; and the values that they give
`calls`        `calls`, `unfinished`, `unspent`, `reporting_backends`, `search`
`counted`      `who`, `refusals`, `first_uses`, `widest_chains`, `over_time`
`below`        `below`: a session, and all that was made of it
`changed`      `changed`: two days held against each other
`leaked`       `leaked`: one token
`indexer`      `Indexer`: keeps the index near the end of the log while a broker runs
`shown`        `shown`: the record itself, read from the log and held against its leaf
=============  ===================================================================================
"""
