#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipepost_fuzz::contacts(bytes));
