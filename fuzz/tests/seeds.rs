//! Every seed of every target, once, without a fuzzer: `cargo test --release` in this folder.

use std::path::Path;

use firstbyte_fuzz as targets;

#[test]
fn every_seed_passes() {
    let checks: &[(&str, fn(&[u8]))] = &[
        ("aws_event", targets::aws_event::check),
        ("body", targets::body::check),
        ("config", targets::config::check),
        ("exchange", targets::exchange::check),
        ("head", targets::head::check),
        ("json", targets::json::check),
        ("pair", targets::pair::check),
        ("provider", targets::provider::check),
        ("request", targets::request::check),
        ("response", targets::response::check),
        ("sse", targets::sse::check),
    ];
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut folders: Vec<_> = seeds.read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    folders.sort();
    assert!(folders.iter().eq(checks.iter().map(|(name, _)| *name)), "{folders:?}");
    for (name, check) in checks {
        let mut count = 0;
        for seed in seeds.join(name).read_dir().unwrap() {
            let path = seed.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seed");
    }
}

#[test]
fn pairs_meet() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/pair");
    let met = |path: &Path| targets::pair::met(&std::fs::read(path).unwrap());
    let all: usize = folder.read_dir().unwrap().map(|seed| met(&seed.unwrap().path())).sum();
    assert!(all > 100, "{all} requests came upstream");
    assert_eq!(met(&folder.join("many")), 4);
    assert_eq!(met(&folder.join("many-at-once")), 4);
}
