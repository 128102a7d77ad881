//! The config files of `config/`: the good ones load, the bad ones give exactly the problems that stand
//! beside them, and every key is shown in `full.toml`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use firstbyte::base::tick::Ms;
use firstbyte::config::{
    self, Commit, Config, Hedge, Kind, LedgerTo, Patience, Problem, Ref, Settings,
};

const SECRET: &str = "sk-inline-0123456789";

fn lookup(reference: &Ref) -> Result<Vec<u8>, String> {
    let value = match reference {
        Ref::Env(name) => match name.as_str() {
            "KEY" | "OPENAI_API_KEY" | "FIRSTBYTE_KEY" => "sk-test-1\n",
            "OTHER" | "LOCAL_KEY_A" => "sk-test-2",
            "EMPTY" => "\r\n",
            "BINARY" => "a\r\nb",
            _ => return Err("is not set".into()),
        },
        Ref::File(path) => match path.as_str() {
            "ca.pem" => "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "local-key-b" => "sk-test-3\n",
            "not-a-ca.pem" => "hello",
            _ => return Err("no such file".into()),
        },
    };
    Ok(value.into())
}

fn load(text: &str) -> Result<Config, Vec<Problem>> {
    config::load(text, &lookup)
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn read(name: &str) -> String {
    fs::read_to_string(folder().join(name)).expect(name)
}

#[test]
fn bad_files_give_exactly_their_problems() {
    let mut count = 0;
    for entry in fs::read_dir(folder().join("bad")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "toml") {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).unwrap();
        let problems = load(&text).expect_err(&path.display().to_string());
        let found = lines(&problems);
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap_or_default();
        assert_eq!(found, expected, "{}:\n{found}", path.display());
        assert!(!found.contains(SECRET), "{}", path.display());
        let known: Vec<_> = problems.iter().filter_map(|problem| problem.line).collect();
        assert!(known.is_sorted(), "{}", path.display());
    }
    assert!(count >= 8);
}

#[test]
fn the_minimal_file_loads() {
    let config = load(&read("minimal.toml")).map_err(|p| lines(&p)).unwrap();
    let (_, provider) = config.providers.iter().next().unwrap();
    assert_eq!((provider.name.as_str(), provider.kind), ("openai", Kind::Openai));
    assert_eq!(provider.base.authority(), "api.openai.com");
    assert_eq!((provider.base.tls, provider.base.path.as_str()), (true, "/v1"));
    assert_eq!(provider.keys[0].expose(), b"sk-test-1");
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.server.admin.unwrap().to_string(), "127.0.0.1:9090");
    assert!(config.models.is_empty() && config.auth.is_empty());
}

#[test]
fn the_full_file_says_the_defaults() {
    let config = load(&read("full.toml")).map_err(|p| lines(&p)).unwrap();
    let usual = load(&read("minimal.toml")).map_err(|p| lines(&p)).unwrap();
    let mut server = config.server.clone();
    server.connections_max = None;
    assert_eq!(server, usual.server);
    let mut settings = config.settings.clone();
    assert_eq!(settings.hold_max.take(), Some(64 << 10));
    assert_eq!(settings, Settings::default());
    assert_eq!(config.log.ledger, LedgerTo::Stdout);
    assert_eq!(
        config.passthrough.map(|id| config.providers[id].name.clone()),
        Some("openai".into())
    );
    let names: Vec<_> = config.models.iter().map(|(_, model)| model.name.as_str()).collect();
    assert_eq!(names, ["gpt-4o", "small"]);
    let (_, model) = config.models.iter().next().unwrap();
    assert_eq!(model.targets[1].model, "openai/gpt-oss-120b");
    assert_eq!(model.targets[1].settings.first_content_timeout, Some(Patience::For(Ms(5_000))));
    let local = &config.providers[model.targets[1].provider];
    assert_eq!((local.name.as_str(), local.keys.len(), local.ca.is_some()), ("local", 2, true));
    // The hash of "test", which the file gives in hex.
    assert_eq!(config.auth[1].sha256[..4], [0x9f, 0x86, 0xd0, 0x81]);
}

/// The keys of `text` by section, as `keys()` names sections: live keys and those of inline tables.
fn shown(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let table: toml::Table = text.parse().unwrap();
    fn walk(value: &toml::Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let named = matches!(path, "providers" | "models" | "routes" | "catalog");
                    let key = if named { "NAME" } else { key };
                    let path = if path.is_empty() { key.into() } else { format!("{path}.{key}") };
                    walk(value, &path, found);
                    found.insert(path);
                }
            }
            toml::Value::Array(items) => {
                for item in items {
                    walk(item, &format!("{path}[]"), found);
                }
            }
            _ => {}
        }
    }
    walk(&toml::Value::Table(table), "", &mut found);
    found
}

#[test]
fn the_full_file_shows_every_key() {
    let text = read("full.toml");
    // `commit` stands there twice, once as a comment, since a key can't have two forms at once; `key`
    // and `keys` are of two providers.
    let table_form =
        text.replace("commit = \"first", "# \"first").replace("# commit =", "commit =");
    let shown: BTreeSet<_> = shown(&text).union(&shown(&table_form)).cloned().collect();
    for (section, key) in config::keys() {
        let path = format!("{section}.{key}");
        assert!(shown.contains(&path), "config/full.toml does not show {path}");
    }
    let config = load(&table_form).map_err(|p| lines(&p)).unwrap();
    assert_eq!(config.settings.commit, Commit::Tokens { count: 8, within: Ms(500) });
}

#[test]
fn every_key_that_is_documented_is_read() {
    // A key that is known but never read would be accepted in silence: each gets a value of a type that
    // no key has, and must complain.
    let head = "[providers.p]\nkind = \"openai\"\n";
    for (section, key) in config::keys() {
        let odd = "1979-05-27";
        let text = match section {
            "server" | "auth" | "defaults" | "passthrough" | "log" => {
                format!("{head}[{section}]\n{key} = {odd}\n")
            }
            "auth.keys[]" => format!("{head}[[auth.keys]]\n{key} = {odd}\n"),
            "defaults.commit" | "defaults.breaker" | "defaults.retry_budget" => {
                format!("{head}[{section}]\n{key} = {odd}\n")
            }
            "providers.NAME" => format!("[providers.p]\n{key} = {odd}\n"),
            "models.NAME" => format!("{head}[models.m]\n{key} = {odd}\n"),
            "models.NAME.targets[]" => format!("{head}[[models.m.targets]]\n{key} = {odd}\n"),
            "routes.NAME" => format!("{head}[routes.r]\n{key} = {odd}\n"),
            "catalog.NAME" => format!("{head}[catalog.\"p/m\"]\n{key} = {odd}\n"),
            other => panic!("a section that this test does not know: {other}"),
        };
        let problems = load(&text).expect_err(&text);
        let ending = format!(".{key}");
        assert!(
            problems.iter().any(|p| p.path.ends_with(&ending) && p.what.contains("found a date")),
            "{section}.{key}: {}",
            lines(&problems)
        );
    }
}

#[test]
fn settings_are_patched_field_by_field() {
    for (_, key) in config::keys().filter(|(section, _)| *section == "defaults") {
        let value = match key {
            "commit" => "\"complete\"",
            "hold_max" | "answer_max" => "\"3KiB\"",
            "throughput_floor" => "7",
            "on_content_policy" => "\"next\"",
            "breaker" => "\"off\"",
            "retry_budget" => "{ floor = 3 }",
            "replay" => "false",
            _ => "\"77ms\"",
        };
        let text = format!("[providers.p]\nkind = \"openai\"\n{key} = {value}\n");
        let config = load(&text).map_err(|p| lines(&p)).unwrap();
        let (_, provider) = config.providers.iter().next().unwrap();
        let patched = Settings::default().with(&provider.settings);
        assert_ne!(patched, Settings::default(), "{key} is not patched");
        assert_eq!(patched.with(&provider.settings), patched);
        let by_defaults =
            load(&format!("[defaults]\n{key} = {value}\n[providers.p]\nkind = \"openai\"\n"));
        assert_eq!(by_defaults.map_err(|p| lines(&p)).unwrap().settings, patched, "{key}");
    }
}

#[test]
fn off_undoes_what_a_level_below_switched_on() {
    let config = load(
        "[defaults]\nhedge_after = \"2s\"\n[providers.p]\nkind = \"openai\"\nhedge_after = \"off\"\n\
         breaker = \"off\"\n",
    )
    .map_err(|p| lines(&p))
    .unwrap();
    assert_eq!(config.settings.hedge_after, Some(Hedge::After(Ms(2_000))));
    let (_, provider) = config.providers.iter().next().unwrap();
    let settings = config.settings.with(&provider.settings);
    assert_eq!((settings.hedge_after, settings.breaker), (None, None));
}

#[test]
fn times_may_be_left_to_measures() {
    let text = "[defaults]\nhedge_after = \"p95\"\nfirst_content_timeout = \"auto\"\n\
                [providers.p]\nkind = \"openai\"\n";
    let settings = load(text).map_err(|p| lines(&p)).unwrap().settings;
    assert_eq!(settings.hedge_after, Some(Hedge::Percentile(95)));
    assert_eq!(settings.first_content_timeout, Patience::Auto);
    for (measured, time) in
        [(None, 20_000), (Some(100), 2_000), (Some(1_500), 4_500), (Some(9_000), 20_000)]
    {
        assert_eq!(Patience::Auto.time(measured.map(Ms)), Ms(time));
    }
}

#[test]
fn an_open_listener_needs_keys() {
    let provider = "[providers.p]\nkind = \"openai\"\n";
    let open = "[server]\nlisten = [\"0.0.0.0:8080\", \"[::]:8080\"]\n";
    assert_eq!(load(&format!("{open}{provider}")).unwrap_err().len(), 2);
    let keys = "[auth]\nkeys = [{ name = \"a\", key = \"env:KEY\" }]\n";
    assert!(load(&format!("{open}{keys}{provider}")).is_ok());
    let loopback = "[server]\nlisten = [\"127.0.0.2:1\", \"[::1]:1\", \"127.0.0.1:0\"]\n";
    assert!(load(&format!("{loopback}{provider}")).is_ok());
}

#[test]
fn fallbacks_may_form_a_circle_and_repeat() {
    let config = load(
        "[providers.p]\nkind = \"openai\"\n\
         [models.b]\ntargets = [\"p/b\"]\nfallbacks = [\"a\"]\n\
         [models.a]\ntargets = [\"p/a\"]\nfallbacks = [\"b\", \"a\", \"b\"]\n",
    )
    .map_err(|p| lines(&p))
    .unwrap();
    let names: Vec<_> = config.models.iter().map(|(_, model)| model.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "the order of the file");
    let fallbacks: Vec<_> = config.models.iter().map(|(_, m)| m.fallbacks.clone()).collect();
    assert_eq!(fallbacks.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn the_config_speaks_over_the_catalogue() {
    let text = "[providers.p]\nkind = \"openai\"\n[providers.q]\nkind = \"openai\"\n\
                base_url = \"http://127.0.0.1:1\"\n\
                [catalog.\"p/gpt-4o\"]\nprice_in = 1\ncannot = [\"image\"]\n\
                [catalog.\"q/own\"]\ncontext = 4096\nprice_out = 0.5\n";
    let config = load(text).map_err(|p| lines(&p)).unwrap();
    let facts = |at: usize, model| {
        let (id, provider) = config.providers.iter().nth(at).unwrap();
        provider.facts(id, model, &config.catalog)
    };
    let known = facts(0, "gpt-4o");
    let price = known.price.unwrap();
    assert_eq!((price.input, price.output, price.cached), (1.0, 10.0, Some(1.25)));
    assert_eq!(known.cannot.to_string(), "image, audio");
    assert!(known.can.common(known.cannot).is_empty());
    let own = facts(1, "own");
    assert_eq!((own.context, own.output), (Some(4096), None));
    assert_eq!(own.price.map(|p| (p.input, p.output)), Some((0.0, 0.5)));
    assert_eq!(facts(1, "gpt-4o"), config::Facts::default(), "another host serves what it likes");
}

#[test]
fn from_env_serves_the_catalogue_or_nothing() {
    let none = |_: &Ref| Err("is not set".to_owned());
    assert!(config::from_env(&none).unwrap().is_none());
    assert!(config::from_env(&|_: &Ref| Ok(Vec::new())).unwrap().is_none());
    let config = config::from_env(&lookup).map_err(|p| lines(&p)).unwrap().unwrap();
    assert_eq!(config.providers.len(), 1);
    assert_eq!(config.models.len(), config::catalog::of(Kind::Openai).count());
    assert_eq!(config.passthrough.map(|id| config.providers[id].name.as_str()), Some("openai"));
    let problems = config::from_env(&|_: &Ref| Ok(b"two words".to_vec())).unwrap_err();
    assert!(lines(&problems).contains("OPENAI_API_KEY") && !lines(&problems).contains("two words"));
}
