//! Primary side: peers, commit rule, link, DR schedule.
