//! See `journal::testing::readers::control_block`; README.md says how to run this.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    journal::testing::readers::control_block(bytes);
});
