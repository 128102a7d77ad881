//! Config files: any text is checked, all problems have a place and none tells a secret; what is
//! accepted compiles, is explained, and plans.

use firstbyte::base::tick::Tick;
use firstbyte::config::{self, Ref};
use firstbyte::route::{self, Wish};

const SECRET: &str = "sk-canary-9f27";

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lookup = |reference: &Ref| match reference {
        Ref::Env(name) if name.contains("MISSING") => Err(String::from("it is not set")),
        Ref::Env(name) if name.contains("ODD") => Ok(format!("{SECRET}\u{7f} {SECRET}").into()),
        Ref::Env(_) => Ok(SECRET.into()),
        Ref::File(name) if name.ends_with(".json") => Ok(format!(
            "{{\"type\":\"service_account\",\"private_key\":\"{SECRET}\",\"client_email\":\"a@b\"}}"
        )
        .into()),
        Ref::File(_) => Ok(SECRET.into()),
    };
    let loaded = config::load(text, &lookup);
    match (&loaded, config::load(text, &lookup)) {
        (Ok(_), Ok(_)) => {}
        (Err(first), Err(second)) => assert_eq!(*first, second),
        _ => panic!("the same text is good and bad"),
    }
    let config = match loaded {
        Ok(config) => config,
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = text.split('\n').count();
            for problem in &problems {
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem:?}");
                assert!(!problem.what.is_empty());
                quiet(text, &problem.to_string());
            }
            return;
        }
    };
    quiet(text, &format!("{config:?}"));
    let table = match route::compile(&config, None) {
        Ok(table) => table,
        Err(problems) => return assert!(!problems.is_empty()),
    };
    // A reload of the same changes nothing that can be asked for.
    let again = route::compile(&config, Some(&table)).unwrap();
    assert!(table.model_names().eq(again.model_names()));
    let names: Vec<String> = table.model_names().map(|name| name.to_string()).collect();
    for name in names.into_iter().take(8) {
        for stream in [true, false] {
            let wish = Wish { model: name.as_str().into(), stream, ..Wish::default() };
            let plan =
                route::pick(&table, &wish, 0, Tick(1)).expect("a model that is listed is known");
            assert!((1..=8).contains(&plan.attempts.len()));
            quiet(text, &route::explain(&table, &wish, 0, Tick(1)).to_json().to_string());
        }
    }
}

/// The secret is told by nothing, unless the text itself has it.
fn quiet(text: &str, told: &str) {
    assert!(text.contains(SECRET) || !told.contains(SECRET), "{told}");
}
