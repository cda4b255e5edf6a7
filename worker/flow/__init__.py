"""
How uploads move: read, judged side by side, and released in the order of each partition.

    lines         a slot per upload, taken when it is read, released from the head of its partition's line
    ledger        which offsets may be committed: never past an unacknowledged outcome
    byte_budget   how many image bytes may be held at once
    single_flight the same bytes twice in flight are embedded once
    micro_batch   closes on size or deadline, whichever is first
    crew          threads that take the process down when they die
    containment   what a fault that nobody foresaw becomes
    travellers    what an upload is between two stages
    inbox         what waits in front of a stage's threads
    judging       embedding to outcome: match, decide, report
    pipeline      the stages, each with its inbox and its threads
    delivery      outcomes to Kafka, offsets behind them: at least once, or exactly once
    loop          the one thread that owns the consumer
"""
