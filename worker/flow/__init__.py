"""
How uploads move: read, judged side by side, and released in the order of each partition.

    lines         a slot per upload, taken when it is read, released from the head of its partition's line
    ledger        which offsets may be committed: never past an unacknowledged outcome
    byte_budget   how many image bytes may be held at once
    single_flight the same bytes twice in flight are embedded once
    coming        how many uploads may still become pictures to encode
    micro_batch   closes when it is full, when nobody else is coming, or on its deadline
    crew          threads that take the process down when they die
    containment   what a fault that nobody foresaw becomes
    travellers    what an upload is between two stages
    inbox         what waits in front of a stage's threads
    judging       embedding to outcome: match, decide, report
    judged_lately what keeps coming again is judged once
    pipeline      the stages, each with its inbox and its threads
    delivery      outcomes to Kafka, offsets behind them: at least once, or exactly once
    loop          the one thread that owns the consumer
"""
