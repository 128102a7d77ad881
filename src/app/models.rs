//! `firstbyte models`: the built-in catalogue as a table or as JSON. It reads no config and asks nobody.

use serde_json::{Value, json};

use crate::app::cli::Stop;
use crate::app::say;
use crate::config::Needs;
use crate::config::catalog::{self, Entry};

/// Lists the entries of `vendor` that may do all of `needs`.
///
/// # Errors
/// A vendor or an ability of no known name.
pub fn run(vendor: Option<&str>, needs: &[String], json: bool) -> Result<(), Stop> {
    let list = select(vendor, needs).map_err(Stop::failed)?;
    if json {
        let rows: Vec<_> = list.iter().map(|entry| to_json(entry)).collect();
        say::line(&format!("{:#}", json!({ "models": rows })));
    } else {
        say::text(&table(&list, wanted(needs).unwrap_or_default()));
    }
    Ok(())
}

fn wanted(needs: &[String]) -> Result<Needs, String> {
    needs.iter().try_fold(Needs::NONE, |all, name| match Needs::named(name.trim()) {
        Some(need) => Ok(all.and(need)),
        None => {
            let known: Vec<_> = Needs::NAMES.iter().map(|(name, _)| *name).collect();
            Err(format!("unknown ability {name:?}; known are {}", known.join(", ")))
        }
    })
}

fn select(vendor: Option<&str>, needs: &[String]) -> Result<Vec<&'static Entry>, String> {
    if let Some(name) = vendor
        && !catalog::vendors().any(|known| known == name)
    {
        let known: Vec<_> = catalog::vendors().collect();
        return Err(format!("unknown vendor {name:?}; known are {}", known.join(", ")));
    }
    let wanted = wanted(needs)?;
    let fits = |entry: &&Entry| {
        vendor.is_none_or(|name| entry.vendor == name)
            && wanted.common(entry.facts.cannot).is_empty()
    };
    Ok(catalog::entries().iter().filter(fits).collect())
}

fn table(list: &[&Entry], wanted: Needs) -> String {
    let head =
        ["vendor", "model", "in", "out", "cached", "write", "context", "output", "can", "read"];
    let mut rows = vec![head.map(str::to_owned)];
    for entry in list {
        let facts = &entry.facts;
        let price = facts.price.unwrap_or_default();
        let tokens = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |c| c.to_string());
        let dollars = |price: Option<f64>| price.map_or_else(|| "-".to_owned(), |p| p.to_string());
        let assumed = wanted.without(facts.can);
        let sure = facts.can.to_string();
        let can = match (sure.is_empty(), assumed.is_empty()) {
            (_, true) => sure,
            (true, false) => format!("?{assumed}"),
            (false, false) => format!("{sure}, ?{assumed}"),
        };
        rows.push([
            entry.vendor.clone(),
            entry.model.clone(),
            dollars(facts.price.map(|p| p.input)),
            dollars(facts.price.map(|p| p.output)),
            dollars(price.cached),
            dollars(price.write),
            tokens(facts.context),
            tokens(facts.output),
            can,
            if entry.via.is_empty() { entry.source.clone() } else { entry.date.clone() },
        ]);
    }
    say::columns(&rows)
}

fn to_json(entry: &Entry) -> Value {
    let facts = &entry.facts;
    let names = |needs: Needs| needs.names().collect::<Vec<_>>();
    let price = facts.price.map(|price| {
        json!({ "in": price.input, "out": price.output, "cached": price.cached, "write": price.write })
    });
    json!({
        "vendor": entry.vendor, "model": entry.model, "use": entry.r#use.name(), "price": price,
        "context": facts.context, "output": facts.output,
        "can": names(facts.can), "cannot": names(facts.cannot),
        "source": entry.source, "via": entry.via, "date": entry.date,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn filters_leave_what_may_serve() {
        let all = select(None, &[]).unwrap();
        assert_eq!(all.len(), catalog::entries().len());
        let seeing = select(Some("openai"), &names(&["tools", "image"])).unwrap();
        assert!(seeing.iter().any(|entry| entry.model == "gpt-4o"));
        assert!(seeing.iter().all(|entry| entry.vendor == "openai" && entry.model != "o3-mini"));
        assert!(select(Some("acme"), &[]).unwrap_err().contains("groq"));
        assert!(select(None, &names(&["vision"])).unwrap_err().contains("image"));
    }

    #[test]
    fn the_table_marks_what_is_assumed() {
        let list = select(Some("groq"), &[]).unwrap();
        let text = table(&list, Needs::IMAGE);
        assert_eq!(text.lines().count(), list.len() + 1);
        assert!(text.contains("?image"), "{text}");
        let row = to_json(list[0]);
        assert!(row["price"]["in"].is_number() && row["source"].is_string());
    }
}
