#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| firstbyte_fuzz::pair::check(data));
