//! See the entry function, which says what is asked of each input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tinkerbell_executor::fuzz::run(data));
