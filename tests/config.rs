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
            "KEY" | "OPENAI_API_KEY" | "FIRSTBYTE_KEY" | "AZURE_OPENAI_API_KEY" => "sk-test-1\n",
            "COHERE_KEY" | "MISTRAL_KEY" => "sk-test-4",
            "OTHER" | "LOCAL_KEY_A" => "sk-test-2",
            "AWS_ACCESS_KEY_ID" => "AKID",
            "AWS_SECRET_ACCESS_KEY" => "aws/secret+\n",
            "AWS_SESSION_TOKEN" => "aws-token==",
            "GROQ_API_KEY" => "gsk-test",
            "EMPTY" => "\r\n",
            "BINARY" => "a\r\nb",
            _ => return Err("is not set".into()),
        },
        Ref::File(path) => match path.as_str() {
            "ca.pem" | "cert.pem" | "clients.pem" => {
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
            }
            "key.pem" => "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            "local-key-b" => "sk-test-3\n",
            "not-a-ca.pem" => "hello",
            other => return key_file(other),
        },
    };
    Ok(value.into())
}

/// Key files of service accounts.
fn key_file(name: &str) -> Result<Vec<u8>, String> {
    let (pem, uri) = ("-----BEGIN PRIVATE KEY-----\\n", "https://oauth2.googleapis.com/token");
    let (kind, project, pem, uri) = match name {
        "vertex-key.json" => ("service_account", "\"project_id\": \"own\",", pem, uri),
        "bare-key.json" => ("service_account", "", pem, uri),
        "user-key.json" => ("authorized_user", "", pem, uri),
        "no-pem-key.json" => ("service_account", "", SECRET, uri),
        "clear-text-key.json" => ("service_account", "", pem, "http://token.example/"),
        _ => return Err("no such file".into()),
    };
    let text = format!(
        "{{\"type\": \"{kind}\", {project} \"private_key\": \"{pem}\", \"client_email\": \"a@b\", \"token_uri\": \"{uri}\"}}"
    );
    Ok(text.into_bytes())
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
        if std::env::var_os("WRITE_EXPECTED").is_some() {
            // For a change of words in all of them; what changed is for people to read.
            fs::write(path.with_extension("expect"), &found).unwrap();
        }
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
    server.connections_per_client = None;
    server.in_flight_max = None;
    server.memory_max = None;
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
    let bedrock = config.providers.iter().find(|(_, p)| p.kind == Kind::Bedrock).unwrap().1;
    assert_eq!(bedrock.base.authority(), "bedrock-runtime.us-east-1.amazonaws.com");
    let aws = bedrock.aws.as_ref().unwrap();
    assert_eq!(
        (aws.access_key.expose(), aws.secret_key.expose()),
        (&b"AKID"[..], &b"aws/secret+"[..])
    );
    assert_eq!(aws.session_token.as_ref().unwrap().expose(), b"aws-token==");
    assert_eq!((aws.region.as_str(), bedrock.keys.len()), ("us-east-1", 0));
    // The hash of "test", which the file gives in hex.
    assert_eq!(config.auth[1].sha256[..4], [0x9f, 0x86, 0xd0, 0x81]);
    assert_eq!(config.auth[1].in_flight_max, Some(50));
}

#[test]
fn clouds_are_addressed_by_what_the_section_says() {
    let at = |section: &str| {
        let config = load(&format!("[providers.p]\n{section}")).map_err(|p| lines(&p)).unwrap();
        let (_, provider) = config.providers.iter().next().unwrap();
        (provider.base.text(), provider.api_version.clone(), provider.account.clone())
    };
    let azure = "kind = \"azure\"\nkey = \"env:KEY\"\nbase_url = \"https://r.openai.azure.com";
    for end in ["", "/", "/openai", "/openai/v1"] {
        let dated = format!("{azure}{end}\"\napi_version = \"2025-04-01-preview\"");
        let (base, version, _) = at(&dated);
        assert_eq!(base, "https://r.openai.azure.com/openai", "{end}");
        assert_eq!(version.as_deref(), Some("2025-04-01-preview"));
        let (base, version, _) = at(&format!("{azure}{end}\""));
        assert_eq!(
            (base.as_str(), version),
            ("https://r.openai.azure.com/openai/v1", None),
            "{end}"
        );
    }
    let account = "kind = \"vertex\"\nservice_account = \"file:vertex-key.json\"";
    let google = "googleapis.com/v1/projects";
    for (section, want) in [
        (account.to_owned(), format!("https://aiplatform.{google}/own/locations/global")),
        (
            format!("{account}\nproject = \"example.com:p\"\nlocation = \"europe-west1\""),
            format!(
                "https://europe-west1-aiplatform.{google}/example.com:p/locations/europe-west1"
            ),
        ),
        (
            format!("{account}\nlocation = \"eu\""),
            format!("https://aiplatform.eu.rep.{google}/own/locations/eu"),
        ),
        (
            format!("{account}\nbase_url = \"http://127.0.0.1:1/v1\""),
            String::from("http://127.0.0.1:1/v1/projects/own/locations/global"),
        ),
        (
            String::from("kind = \"vertex\"\nkey = \"env:KEY\""),
            String::from("https://aiplatform.googleapis.com/v1"),
        ),
    ] {
        let (base, _, account) = at(&section);
        assert_eq!(base, want, "{section}");
        let Some(account) = account else { continue };
        assert_eq!(account.token_url.text(), "https://oauth2.googleapis.com/token");
        assert_eq!((account.email.as_str(), account.key_id), ("a@b", None));
    }
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
    // and `keys` are of two providers. TLS is shown in comments, since it needs files of its own.
    let table_form =
        text.replace("commit = \"first", "# \"first").replace("# commit =", "commit =");
    let table_form = table_form.replace("# tls =", "tls =").replace("# client_ca", "client_ca");
    let shown: BTreeSet<_> = shown(&text).union(&shown(&table_form)).cloned().collect();
    for (section, key) in config::keys() {
        let path = format!("{section}.{key}");
        assert!(shown.contains(&path), "config/full.toml does not show {path}");
    }
    let config = load(&table_form).map_err(|p| lines(&p)).unwrap();
    assert_eq!(config.settings.commit, Commit::Tokens { count: 8, within: Ms(500) });
    assert_eq!((config.server.tls.len(), config.server.client_ca.is_some()), (1, true));
    let line = text.lines().position(|line| line.starts_with("# tls =")).unwrap() + 1;
    assert_eq!(config.server.tls[0].line, line);
    assert!(!format!("{:?}", config.server).contains("PRIVATE KEY"));
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
            "defaults.commit" | "defaults.breaker" | "defaults.retry_budget" | "server.tls" => {
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
fn a_provider_at_aws_has_a_key_or_a_pair() {
    let load = |lines: &str| {
        let text = format!("[providers.p]\nkind = \"bedrock\"\n{lines}");
        let config = load(&text).map_err(|p| self::lines(&p)).unwrap();
        config.providers.iter().next().unwrap().1.clone()
    };
    let key = load("region = \"eu-west-1\"\nkey = \"env:KEY\"\n");
    assert_eq!(key.base.authority(), "bedrock-runtime.eu-west-1.amazonaws.com");
    assert!(key.aws.is_none() && key.keys.len() == 1);
    // Where an address is written, a key needs no region, and a pair is signed for its own.
    let url = "base_url = \"http://127.0.0.1:4566\"\n";
    assert!(load(&format!("{url}key = \"env:KEY\"\n")).aws.is_none());
    let pair = "access_key = \"env:KEY\"\nsecret_key = \"env:OTHER\"\nregion = \"eu-west-1\"\n";
    let pair = load(&format!("{url}{pair}"));
    assert_eq!(pair.base.authority(), "127.0.0.1:4566");
    let aws = pair.aws.as_ref().unwrap();
    assert!(aws.session_token.is_none() && aws.region == "eu-west-1");
    let shown = format!("{pair:?}");
    assert!(!shown.contains("sk-test"), "{shown}");
}

/// The provider that an environment stands for, and whether it signs.
fn of_env(set: &[(&str, &str)]) -> Option<(String, String, bool)> {
    let lookup = |reference: &Ref| match reference {
        Ref::Env(name) => set
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_bytes().to_vec())
            .ok_or_else(|| "is not set".to_owned()),
        Ref::File(_) => Err("no such file".to_owned()),
    };
    let config = config::from_env(&lookup).map_err(|p| lines(&p)).unwrap()?;
    assert_eq!(config.providers.len(), 1);
    let (_, provider) = config.providers.iter().next().unwrap();
    Some((provider.name.clone(), provider.base.authority(), provider.aws.is_some()))
}

#[test]
fn from_env_merges_vendors_of_one_model() {
    let lookup = |reference: &Ref| match reference {
        Ref::Env(name) if name == "GROQ_API_KEY" || name == "OPENROUTER_API_KEY" => Ok(b"k".into()),
        _ => Err("is not set".to_owned()),
    };
    let config = config::from_env(&lookup).map_err(|p| lines(&p)).unwrap().unwrap();
    let model = config.models.iter().find(|(_, model)| model.name == "openai/gpt-oss-20b");
    let targets = &model.unwrap().1.targets;
    let names: Vec<_> = targets.iter().map(|t| &*config.providers[t.provider].name).collect();
    assert_eq!(names, ["groq", "openrouter"]);
}

#[test]
fn from_env_enables_bedrock_in_a_region_alone() {
    let bearer = ("AWS_BEARER_TOKEN_BEDROCK", "token");
    let region = ("AWS_REGION", "eu-west-1");
    let (id, secret) = (("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s"));
    let here =
        |signs| Some(("bedrock".into(), "bedrock-runtime.eu-west-1.amazonaws.com".into(), signs));
    assert_eq!(of_env(&[bearer]), None);
    assert_eq!(of_env(&[id, secret]), None);
    assert_eq!(of_env(&[region, id]), None);
    assert_eq!(of_env(&[region, id, ("AWS_SECRET_ACCESS_KEY", "")]), None);
    assert_eq!(of_env(&[region]), None);
    assert_eq!(of_env(&[region, bearer]), here(false));
    assert_eq!(of_env(&[region, id, secret]), here(true));
    assert_eq!(of_env(&[region, id, secret, ("AWS_SESSION_TOKEN", "t")]), here(true));
    // The key is meant for Bedrock alone, the pair for all of AWS.
    assert_eq!(of_env(&[region, bearer, id, secret]), here(false));
    let other = ("AWS_DEFAULT_REGION", "eu-west-1");
    assert_eq!(of_env(&[other, bearer]), here(false));
    assert_eq!(of_env(&[("AWS_DEFAULT_REGION", "us-east-1"), region, bearer]), here(false));
}

#[test]
fn from_env_serves_the_catalogue_or_nothing() {
    let none = |_: &Ref| Err("is not set".to_owned());
    assert!(config::from_env(&none).unwrap().is_none());
    assert!(config::from_env(&|_: &Ref| Ok(Vec::new())).unwrap().is_none());
    let config = config::from_env(&lookup).map_err(|p| lines(&p)).unwrap().unwrap();
    let names: Vec<_> = config.providers.iter().map(|(_, provider)| &*provider.name).collect();
    assert_eq!(names, ["openai", "groq"]);
    assert_eq!(config.models.len(), {
        let kinds = config.providers.iter().map(|(_, provider)| provider.kind);
        kinds.map(|kind| config::catalog::of(kind).count()).sum::<usize>()
    });
    assert_eq!(config.passthrough.map(|id| config.providers[id].name.as_str()), Some("openai"));
    let problems = config::from_env(&|_: &Ref| Ok(b"two words".to_vec())).unwrap_err();
    assert!(lines(&problems).contains("OPENAI_API_KEY") && !lines(&problems).contains("two words"));
}

#[test]
fn a_vendor_needs_only_its_key() {
    // Azure and Vertex are at another address for each customer.
    let at_home = |kind: &Kind| kind.sends() && !kind.base_url().is_empty();
    for (name, kind) in Kind::NAMES.iter().filter(|(_, kind)| at_home(kind)) {
        let mut text = format!("[providers.p]\nkind = \"{name}\"\nkey = \"env:KEY\"\n");
        // Where a vendor has several places, one must be named.
        let region = if kind.signs() { "us-east-1" } else { "" };
        if !region.is_empty() {
            text += &format!("region = \"{region}\"\n");
        }
        let config = load(&text).map_err(|p| lines(&p)).unwrap();
        let (_, provider) = config.providers.iter().next().unwrap();
        assert_eq!((provider.kind, provider.kind.name()), (*kind, *name));
        let base = &provider.base;
        let scheme = if base.tls { "https" } else { "http" };
        assert_eq!(
            format!("{scheme}://{}{}", base.authority(), base.path),
            kind.base_url().replace("{region}", region),
            "{name}"
        );
        let variable = kind.key_variable();
        let first = Kind::NAMES.iter().find(|(_, kind)| kind.key_variable() == variable);
        if variable.is_empty() || first.is_none_or(|(first, _)| first != name) {
            continue;
        }
        let only = |reference: &Ref| match reference {
            Ref::Env(asked) if asked == variable => Ok(b"k".to_vec()),
            Ref::Env(asked) if kind.signs() && asked == "AWS_REGION" => Ok(region.into()),
            Ref::Env(_) | Ref::File(_) => Err(String::from("is not set")),
        };
        let config = config::from_env(&only).map_err(|p| lines(&p)).unwrap().unwrap();
        let (_, provider) = config.providers.iter().next().unwrap();
        assert_eq!(
            (provider.name.as_str(), provider.kind, config.providers.len()),
            (*name, *kind, 1)
        );
    }
}
