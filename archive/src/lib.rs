//! Bytes at rest for DR: batches, catalogue, restore plan.
